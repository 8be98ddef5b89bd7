"""What hosts' restore points come to: thinned out, copied, proven, and made of ordinary pushes."""

from collections.abc import Iterator
from datetime import timedelta

from chalicelib.copying import missing
from chalicelib.operators.checks.findings import Facts, Finding

COPIED_WITHIN = timedelta(hours=36)  # a first copy of a large volume takes hours
DELETED_WITHIN = timedelta(days=2)  # after retention has decided so; years of history take a day


def retention(facts: Facts) -> Iterator[Finding]:
    for point in facts.points:
        marks = point.marks
        named = f"restore point {point.snapshot_id} of host {point.host}"
        if marks.refusals:
            times = "once" if marks.refusals == 1 else f"{marks.refusals} times"
            yield Finding(
                level="warning",
                what=f"{named} is needed no more, and AWS refused {times} to delete it: {marks.refused}",
                remedy="an image or a copy that uses it must go first; it is asked again, at least daily."
                f" To keep it for good: `vaultctl lock {point.snapshot_id}`",
                resource=point.snapshot_id,
            )
        elif marks.dropped_at and facts.now - marks.dropped_at > DELETED_WITHIN:
            yield Finding(
                level="wrong",
                what=f"{named} was to be deleted on {marks.dropped_at:%Y-%m-%d}, and is still there",
                remedy="look for `retention_failed` in the log group of the stack's Sweep function",
                resource=point.snapshot_id,
            )
    for host in facts.hosts:
        if host.kept_since and host.name not in _flagged(facts):
            yield Finding(
                level="warning",
                what=f"every restore point of {host.name} made up to {host.kept_since:%Y-%m-%dT%H:%M:%SZ} is kept, and"
                " costs, until somebody says otherwise",
                remedy=f"once all is well: `vaultctl retention {host.name} --release`",
                resource=host.name,
            )


def copies(facts: Facts) -> Iterator[Finding]:
    for host in facts.hosts:
        here = [copy for copy in host.copies if copy.region == facts.copy_region]
        for copy in host.copies:
            if copy.copy_id in facts.left_over:
                yield Finding(
                    level="warning",
                    what=f"{copy.copy_id} in {copy.region} is a copy of {host.name}'s restore point {copy.point_id};"
                    " the stack copies there no more, so nobody deletes it, and it costs",
                    remedy="if you want nothing from it: aws ec2 delete-snapshot"
                    f" --region {copy.region} --snapshot-id {copy.copy_id}",
                    resource=copy.copy_id,
                )
        refused = [copy for copy in here if copy.refusals]
        for copy in refused:
            doing = f"delete {copy.copy_id}, an old copy" if copy.complete else f"copy restore point {copy.point_id}"
            times = "once" if copy.refusals == 1 else f"{copy.refusals} times"
            yield Finding(
                level="warning",
                what=f"AWS refused {times} to {doing} of host {host.name} in {copy.region}: {copy.refused}",
                remedy="it is asked again, at least daily; docs/copies.md says what it may be",
                resource=copy.copy_id or copy.point_id,
            )
        late = missing(here, (point for point in facts.points if point.host == host.name), facts.now)
        complete = [copy.taken_at for copy in here if copy.complete and copy.sound]
        since = late[0 if complete else -1].made_at if late else None
        if facts.copy_region and since and not refused and facts.now - since > COPIED_WITHIN:
            newest = f"the newest is of {max(complete):%Y-%m-%dT%H:%M:%SZ}" if complete else "there is none"
            yield Finding(
                level="wrong",
                what=f"the copies of host {host.name} in {facts.copy_region} are behind its restore points: {newest}",
                remedy="look for `copy_` and `copying_failed` in the log group of the stack's Sweep function",
                resource=host.name,
            )


def drills(facts: Facts) -> Iterator[Finding]:
    for vault in facts.vaults:
        if vault.agent and vault.agent.no_drills:
            yield Finding(
                level="warning",
                what=f"the machine of {vault.vault_id} is of a version without drills: nothing is proven there",
                remedy=f"`vaultctl rebuild-vault {vault.vault_id}` while it is asleep",
                resource=vault.vault_id,
            )
    for host in facts.hosts:
        drill = host.drill
        if drill and drill.failed_taken_at and not host.retired_at:
            yield Finding(
                level="wrong",
                what=f"a restore point of {host.name}, made {drill.failed_taken_at:%Y-%m-%dT%H:%M:%SZ}, failed its"
                " drill, and no newer one has passed",
                remedy=f"docs/runbooks/drill-failed.md; the next backup of {host.name} compares every byte",
                resource=host.name,
            )
        if drill and drill.manifest_lost and not host.retired_at:
            yield Finding(
                level="wrong",
                what=f"{host.name} pushes no manifest any more: its restore points from"
                f" {drill.bare_taken_at:%Y-%m-%dT%H:%M:%SZ} on cannot be proven, those before could",
                remedy=f"`nightvault doctor` on {host.name} says whether it can sign; if it can, somebody has left it"
                " out: docs/runbooks/drill-failed.md",
                resource=host.name,
            )
        if drill and drill.unprovable and not host.retired_at:
            yield Finding(
                level="warning",
                what=f"no restore point of {host.name} can be proven: it pushes no manifest (OpenSSH before 8.1, or an"
                " old nightvault)",
                remedy=f"`nightvault doctor` on {host.name} says what it lacks; when that is there: back up once, then"
                f" `vaultctl drill {host.name}`",
                resource=host.name,
            )
        if host.drill_overdue(facts.now):
            last = f"the last drill said: {drill.state} {drill.detail}".rstrip() if drill else "there was no drill"
            yield Finding(
                level="warning",
                what=f"no restore point of {host.name} was judged for 30 days; {last}",
                remedy=f"docs/runbooks/drill-overdue.md; `vaultctl drill {host.name}` begins one now",
                resource=host.name,
            )


def unusual(facts: Facts) -> Iterator[Finding]:
    held = {host.name for host in facts.hosts if host.kept_since}
    for host, why in _flagged(facts).items():
        kept = "are kept, and cost, until somebody says otherwise" if host in held else "are NOT held (any more)"
        yield Finding(
            level="warning",
            what=f"{host} pushed something unusual: {why}; its restore points from before {kept}",
            remedy=f"`vaultctl restore-points {host}` shows which; once you know why: `vaultctl accept {host}`."
            " If nobody knows: docs/runbooks/unusual-push.md",
            resource=host,
        )


def _flagged(facts: Facts) -> dict[str, str]:
    """Why the newest unusual push of a host is, by host: also of those whose snapshot is under way."""
    coming = (point for vault in facts.vaults for point in vault.pending_points.values())
    return {point.host: point.marks.unusual for point in (*facts.points, *coming) if point.marks.unusual}
