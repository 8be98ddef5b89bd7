"""What should be so of a stack, each a check with its remedy. Pure; doctor.py gathers the facts and mends."""

from collections.abc import Callable, Iterator

from chalicelib.operators.checks import account, history, machines, stored
from chalicelib.operators.checks.findings import (
    Check,
    Facts,
    Finding,
    Mend,
    Quota,
    StrayIngress,
    StrayMachine,
    Subscription,
)
from chalicelib.operators.checks.machines import live_addresses

__all__ = [
    "CHECKS",
    "Check",
    "Facts",
    "Mend",
    "Quota",
    "StrayIngress",
    "StrayMachine",
    "Subscription",
    "diagnose",
    "live_addresses",
]

CHECKS: dict[str, tuple[Callable[[Facts], Iterator[Finding]], str]] = {
    "alerts": (account.alerts, "alerts reach those who have asked for them"),
    "sweep": (account.sweep, "the sweep runs"),
    "clock": (account.clock, "our clock is AWS's"),
    "recovery": (account.recovery, "the table can be brought back to any second of the last 35 days"),
    "quotas": (account.quotas, "the account's quotas leave room"),
    "machines": (machines.machines, "every instance is a vault's, and none runs that should sleep"),
    "templates": (machines.templates, "vaults are of the newest launch template"),
    "volumes": (stored.volumes, "every host has its volume, and every volume its host"),
    "points": (stored.points, "every restore point has its snapshot, and every snapshot its restore point"),
    "retention": (history.retention, "what retention needs no more is deleted, and no host's history is held"),
    "copies": (history.copies, "no copy in another region is behind, refused or left over"),
    "unusual": (history.unusual, "no host has pushed anything unusual that nobody has accepted"),
    "drills": (history.drills, "every host has a restore point that was proven within 30 days"),
    "encryption": (stored.encryption, "volumes and snapshots are encrypted"),
    "public": (stored.public, "no snapshot is shared with the world"),
    "ingress": (machines.ingress, "only hosts with a live run are let in"),
    "groups": (machines.groups, "every security group is a vault's"),
}


def diagnose(facts: Facts) -> list[tuple[Check, Mend | None]]:
    """Every check, in its order: what was found, or one that says that all is well."""
    made: list[tuple[Check, Mend | None]] = []
    for name, (look, well) in CHECKS.items():
        if name in facts.gaps:
            found = [
                Finding(
                    level="warning",
                    what=f"could not be looked at: {facts.gaps[name]}",
                    remedy="`make deploy` gives the operate function every right it needs; then ask again",
                )
            ]
        else:
            found = list(look(facts))
        made += [(_check(name, finding), finding.mend) for finding in found]
        if not found:
            made.append((Check(name=name, ok=True, level="ok", what=well, remedy="nothing to do"), None))
    return made


def _check(name: str, finding: Finding) -> Check:
    return Check(
        name=name,
        ok=False,
        level=finding.level,
        what=finding.what,
        remedy=finding.remedy,
        resource=finding.resource,
        fixable=finding.mend is not None,
    )
