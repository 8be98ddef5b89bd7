"""Drills: which restore point is to be checked when, and what the vault says of it. Part of lifecycle.py's `decide`.

A drill is a run of the control plane's own. It has its data like a restore of an older point: lending.py makes the
volume, attaches and removes it. The vault's agent compares every file with the manifest that the host has signed.
What came of it is kept with the vault until it is recorded with the restore point and the host (drilling.py).
"""

from datetime import datetime, timedelta
from enum import Enum

from msgspec.structs import replace

from chalicelib import budget, phases, points, turns
from chalicelib.commands import BeginDrill, DrillRecorded, Report
from chalicelib.draft import Draft
from chalicelib.errors import DrillHindered, UnknownHost
from chalicelib.facts import RunStarted
from chalicelib.model import (
    Drill,
    DrillState,
    Kind,
    Outcome,
    Phase,
    Policy,
    Progress,
    Restoring,
    Run,
    Slot,
    Source,
    Vault,
)
from chalicelib.tending import is_under_way, see_to_volumes

DUE = timedelta(days=26)  # after the last that was answered: when the vault is open anyway
DUE_AT_LAST = timedelta(days=28)  # the vault is woken for it; two days before it is overdue
AGAIN = timedelta(days=1)  # after an attempt, whatever came of it
# An agent tells of a drill from when the volume is mounted. One that does not is of a version without drills.
SILENT = timedelta(minutes=2)
MOST_AT_ONCE = 2  # of a vault: a volume fresh from S3 is slow, and two share the machine
# A volume that holds more has a waking of its own: the snapshots of a window wait for its last run, and a night's
# restore points matter more than a drill. At 20 MiB/s, which is slow, ten minutes.
SMALL_BYTES = 12 * 1024**3


class Due(Enum):
    """Whether a host's newest restore point is to be drilled."""

    NOT = "not"
    IF_OPEN = "if the vault is open anyway"
    NOW = "now"


def due(slot: Slot, now: datetime, drillable_since: datetime | None = None) -> Due:
    """`drillable_since`: of a host that never had a drill; without it, nothing is NOW for that host."""
    if slot.drill_tried_at and now < slot.drill_tried_at + AGAIN:
        return Due.NOT
    since = slot.drilled_at or drillable_since
    if slot.drill_wanted or (since and now >= since + DUE_AT_LAST):
        return Due.NOW
    return Due.IF_OPEN if slot.drilled_at is None or now >= slot.drilled_at + DUE else Due.NOT


def hindrance(vault: Vault, host: str) -> str | None:
    """Why no drill of this host can begin now, or None. Its budget is another matter."""
    mine = [run for run in vault.live_runs if run.host == host and run.kind is not Kind.BACKUP]
    if vault.phase in (Phase.CLOSING, Phase.SEALING):
        return f"{vault.phase}; try again in some minutes"
    if vault.phase is Phase.ASLEEP and vault.owed_points:
        return "about to make a snapshot again that failed; try again in some minutes"
    if mine:
        return f"busy with another {mine[0].kind} of {host}, run {mine[0].run_id}"
    if host in vault.drilled:
        return f"still recording the last drill of {host}; try again in a minute"
    if not vault.hosts[host].public_key:
        return f"without a key of {host}, since that was revoked; enrol it again first"
    if sum(run.kind is Kind.DRILL for run in vault.live_runs) >= MOST_AT_ONCE:
        return f"busy with {MOST_AT_ONCE} drills; try again when one is over"
    if points.free_place(vault) is None:
        return "holding as many volumes as its machine takes; try again later"
    return None


def candidates(vault: Vault, now: datetime, policy: Policy, since: dict[str, datetime | None]) -> list[str]:
    """Hosts whose newest restore point should be drilled now, the longest waiting first.

    `since`: when there was first something to drill of each host, where the vault may be woken too; else it is empty.
    """
    if vault.phase not in (Phase.OPEN, Phase.ASLEEP) or (vault.phase is Phase.ASLEEP and not since):
        return []
    if vault.agent and vault.agent.no_drills:
        return []
    if budget.remaining(vault, Kind.DRILL, now, policy) < policy.minimum_window_seconds:
        return []
    found = []
    for host, slot in vault.hosts.items():
        when = due(slot, now, since.get(host))
        if when is Due.NOT or (when is Due.IF_OPEN and vault.phase is Phase.ASLEEP) or hindrance(vault, host):
            continue
        if vault.phase is Phase.OPEN and _used_bytes(vault, host) > SMALL_BYTES:
            continue
        # What is wanted is a drill of the point that is just being made.
        if not (slot.drill_wanted and is_under_way(vault, host)):
            found.append(host)
    return sorted(found, key=lambda host: (not vault.hosts[host].drill_wanted, str(vault.hosts[host].drilled_at or "")))


def _used_bytes(vault: Vault, host: str) -> int:
    mount = vault.agent.mounts.get(host) if vault.agent else None
    return (mount.used_bytes if mount else None) or 0


# --- its life -------------------------------------------------------------------------------------------


def begin(draft: Draft, command: BeginDrill) -> None:
    """Raises UnknownHost, DrillHindered, WindowSpent; the vault is then unchanged."""
    vault, host, point = draft.vault, command.host, command.point
    if vault.find_run(command.run_id):
        draft.reasons.append(f"run {command.run_id} is known")
        return
    if host not in vault.hosts:
        raise UnknownHost(host)
    if why := hindrance(vault, host):
        raise DrillHindered(host, vault.vault_id, why)
    run = Run(
        run_id=command.run_id,
        host=host,
        kind=Kind.DRILL,
        started_at=draft.now,
        source_address="",
        lease_until=draft.after(draft.policy.lease_seconds),
        restore=Restoring(
            point_id=point.snapshot_id or "",
            taken_at=points.taken_at(point),
            point_run_id=point.run_id,
            point_complete=point.complete,
            source=Source.POINT,
        ),
    )
    turns.forget_old_runs(draft, host)
    if vault.phase is Phase.ASLEEP:
        phases.open_window(draft, [run], Kind.DRILL)
    else:
        turns.join(draft, run)
    draft.change_slot(host, drill_tried_at=draft.now)
    see_to_volumes(draft)
    draft.facts.append(RunStarted(run=run, queued=False))
    draft.reasons.append(f"drill {run.run_id} of {host}'s {point.snapshot_id}")


def take(draft: Draft, command: Report) -> None:
    """How far the checks are, which renews their leases, and what has come of them."""
    for run in draft.window.live_runs:
        seen = command.drills.get(run.host)
        volume = draft.vault.point_volumes.get(run.host)
        if run.kind is not Kind.DRILL or draft.vault.phase is not Phase.OPEN or volume is None:
            continue
        if seen is None:
            _silent(draft, run)
            continue
        if (seen.run_id, seen.volume_id) != (run.run_id, volume.volume_id):
            continue
        if draft.vault.agent and draft.vault.agent.no_drills:
            draft.change(agent=replace(draft.vault.agent, no_drills=False))
        checked = seen.checked
        if checked.state is not DrillState.CHECKING:
            _answered(draft, replace(run, checked=checked))
        elif run.progress is None or checked.checked_bytes != run.progress.transfer_bytes:  # fewer: it began anew
            progress = Progress(transfer_bytes=checked.checked_bytes, seen_at=draft.now)
            lease = draft.after(draft.policy.lease_seconds)
            draft.put_run(replace(run, checked=checked, progress=progress, lease_until=lease))


def _silent(draft: Draft, run: Run) -> None:
    ready_at = run.restore and run.restore.ready_at
    if run.checked or not (draft.vault.agent and points.ready(draft.vault, run) and ready_at):
        return
    if draft.now - ready_at >= SILENT:
        draft.change(agent=replace(draft.vault.agent, no_drills=True))
        why = f"the machine is of a version without drills: `vaultctl rebuild-vault {draft.vault.vault_id}`"
        turns.end(draft, run, Outcome.FAILED, why)


def _answered(draft: Draft, run: Run) -> None:
    checked = run.checked
    if checked is None:
        return
    proven = checked.state in (DrillState.PASSED, DrillState.UNPROVEN)
    reason = f"{checked.state}: {checked.detail}".rstrip(": ")
    turns.end(draft, run, Outcome.COMPLETE if proven else Outcome.FAILED, reason)


def recorded(draft: Draft, command: DrillRecorded) -> None:
    run = draft.vault.drilled.get(command.host)
    if run and run.run_id == command.run_id:
        rest = {host: other for host, other in draft.vault.drilled.items() if host != command.host}
        draft.change(drilled=rest)


def outcome(run: Run, before: Drill | None) -> Drill:
    """What is recorded of a drill that is over, after the one `before`. Its own record gives itself again."""
    if before and before.run_id == run.run_id:
        return before
    restore, checked = run.restore, run.checked
    if restore is None or run.ended_at is None:
        raise AssertionError("a drill that is over has a restore point and an end")
    said = checked is not None and checked.state is not DrillState.CHECKING
    state = checked.state if checked and said else DrillState.ERROR
    signed, bare = (before.manifest_taken_at, before.bare_taken_at) if before else (None, None)
    known_bare = bare
    if state is DrillState.PASSED or (checked and checked.total_bytes):
        signed = max(signed or restore.taken_at, restore.taken_at)
        bare = bare if bare and bare > signed else None
    elif state is DrillState.UNPROVEN and (signed is None or restore.taken_at > signed):
        bare = bare or restore.taken_at
    judged = state in (DrillState.PASSED, DrillState.FAILED) or (state is DrillState.UNPROVEN and signed is None)
    failed = before.failed_taken_at if before else None
    if state is DrillState.FAILED:
        failed = max(failed or restore.taken_at, restore.taken_at)
    elif state is DrillState.PASSED and failed and restore.taken_at > failed:
        failed = None
    return Drill(
        run_id=run.run_id,
        point_id=restore.point_id,
        taken_at=restore.taken_at,
        state=state,
        begun_at=run.started_at,
        at=run.ended_at,
        detail=(checked.detail if checked and said else run.reason or "")[:300],
        files=checked.files if checked else 0,
        checked_bytes=checked.checked_bytes if checked else 0,
        total_bytes=checked.total_bytes if checked else 0,
        judged_at=run.ended_at if judged else before.judged_at if before else None,
        failed_taken_at=failed,
        manifest_taken_at=signed,
        bare_taken_at=bare,
        first_bare=bare is not None and known_bare is None,
    )
