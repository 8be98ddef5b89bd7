"""Restore points: which are made of a window, and which are in use: needed by restore runs, and there or not.

Pure; shared by the decisions (lending.py, turns.py, phases.py), the documents, and whoever wants to delete one.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from chalicelib.model import (
    MAX_VOLUMES,
    Kind,
    Phase,
    PointState,
    RestorePoint,
    Restoring,
    Run,
    Source,
    Vault,
    Window,
)


def in_use(vaults: Iterable[Vault]) -> frozenset[str]:
    """Snapshots that must not be deleted now: a live or waiting run restores them, or a volume is made from them."""
    used: set[str] = set()
    for vault in vaults:
        used |= {run.restore.point_id for run in vault.live_runs if run.restore}
        used |= {volume.point_id for volume in vault.point_volumes.values()}
    return frozenset(used)


def restorable(recorded: Iterable[RestorePoint], states: Mapping[str, PointState]) -> list[RestorePoint]:
    """Those that EC2 has, and that are not about to be deleted; newest first. `states`: EC2's, by snapshot."""
    there = (point for point in recorded if point.snapshot_id in states and not point.marks.dropped_at)
    return sorted(there, key=taken_at, reverse=True)


def newest(points: Iterable[RestorePoint]) -> RestorePoint | None:
    """The newest that counts; one that failed its drill only if there is no other."""
    counted = [point for point in points if point.counts]
    return max(counted, key=lambda point: (point.marks.sound, taken_at(point)), default=None)


def taken_at(point: RestorePoint) -> datetime:
    """When its snapshot was made; of an old record that does not say, when its run began."""
    return point.made_at or point.run_started_at


def wanted(vault: Vault) -> dict[str, Run]:
    """The live runs of the window under way, by host, whose data must come from a volume made for them."""
    runs = vault.window.live_runs if vault.window and vault.awake else ()
    return {run.host: run for run in runs if run.restore and run.restore.source is Source.POINT}


def serves(vault: Vault, restore: Restoring, host: str) -> bool:
    """The vault has, or is making, the volume that this restore needs."""
    volume = vault.point_volumes.get(host)
    return volume is not None and volume.leaving_at is None and volume.point_id == restore.point_id


def ready(vault: Vault, run: Run) -> bool:
    """The run's host can push or pull now: what it needs is mounted, as far as the agent has said."""
    if vault.phase is not Phase.OPEN or vault.agent is None:
        return False
    if run.restore is None or run.restore.source is Source.LIVE:
        mount = vault.agent.mounts.get(run.host)
        # An older restore's point may be mounted still: then that is what the vault would give.
        is_served = run.restore is None or run.host not in vault.agent.restores
        return mount is not None and mount.mounted and is_served
    seen = vault.agent.restores.get(run.host)
    return (
        serves(vault, run.restore, run.host)
        and seen is not None
        and seen.state == "mounted"
        and seen.volume_id == vault.point_volumes[run.host].volume_id
    )


def free_place(vault: Vault) -> int | None:
    """A device name for one more volume, if the machine takes one more beside its hosts'."""
    retired = sum(slot.attached_to is not None for slot in vault.retired.values())
    if len(vault.hosts) + retired + len(vault.point_volumes) >= MAX_VOLUMES:
        return None
    taken = {volume.place for volume in vault.point_volumes.values()}
    return min(set(range(MAX_VOLUMES)) - taken)


def to_make(vault: Vault, window: Window) -> dict[str, RestorePoint]:
    """One restore point for each host that pushed: of its newest whole run, else of its newest run."""
    points: dict[str, RestorePoint] = {}
    pushed = [r for r in window.runs.values() if r.kind is Kind.BACKUP and (r.pushed or r.committed_at)]
    for run in sorted(pushed, key=lambda r: (r.whole, r.started_at)):
        slot = vault.slot(run.host)
        mount = vault.agent.mounts.get(run.host) if vault.agent else None
        if slot and slot.volume_id and run.outcome:
            points[run.host] = RestorePoint(
                host=run.host,
                vault_id=vault.vault_id,
                window_id=window.window_id,
                volume_id=slot.volume_id,
                run_id=run.run_id,
                run_started_at=run.started_at,
                outcome=run.outcome,
                complete=run.whole,
                volume_gib=slot.size_gib,
                used_bytes=mount.used_bytes if mount and mount.volume_id == slot.volume_id else None,
                change=slot.changed,
                uncounted=slot.uncounted,
            )
    return points
