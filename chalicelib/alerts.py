"""Which facts an operator is told of at once, and in what words. Everything slower is a CloudWatch alarm."""

from chalicelib.facts import (
    BudgetSpent,
    CopyDeleted,
    CopyLost,
    CopyRefused,
    DrillEnded,
    Fact,
    HostKeyUnexpected,
    PointCopied,
    PointCounted,
    PointDeleted,
    PointDropped,
    PointFailed,
    PointNotDeleted,
    PointSpared,
    PointVolumeStays,
    PushUnusual,
    RestoreFailed,
    RestoreReady,
    Retired,
    RunEnded,
    RunStarted,
    VaultReady,
    VolumeGone,
    VolumeGrown,
    VolumeLost,
    VolumeNearlyFull,
    VolumeRefused,
    VolumeRemade,
    VolumeRested,
    WakeFaulted,
    WindowClosing,
    WindowSealed,
)
from chalicelib.model import DrillState, Kind
from chalicelib.points import taken_at

# A deletion that AWS refuses is asked again in a quarter of an hour, then in half of one: who is still refused then
# waits for somebody.
REFUSALS_TOLD = 3


def alert_of(fact: Fact) -> tuple[str, str] | None:
    """Subject (at most 100 characters, SNS's limit) and message, or None for what is ordinary."""
    match fact:
        case WakeFaulted(window=window, reason=reason, final=True):
            hosts = ", ".join(sorted({run.host for run in window.runs.values() if run.kind is not Kind.DRILL}))
            return (
                f"nightvault: {window.vault_id} would not wake",
                f"{window.vault_id} did not wake after {window.wake_attempts} attempts: {reason}.\n"
                f"Not backed up in window {window.window_id}: {hosts or 'nobody'}. Nothing is lost: the next start "
                "tries again.",
            )
        case PointFailed(point=point, final=True):
            return (
                f"nightvault: no restore point of {point.host}",
                f"The snapshot of {point.host}'s volume {point.volume_id} for window {point.window_id} failed for "
                "good. The data is on the volume; the next complete push makes the next restore point.",
            )
        case PointNotDeleted(point=point) if point.marks.refusals == REFUSALS_TOLD:
            return (
                f"nightvault: an old restore point of {point.host} cannot be deleted",
                f"AWS refuses to delete {point.snapshot_id} of {point.host}, which retention needs no more, and which "
                f"costs: {point.marks.refused}.\nIt is asked again, at least daily. `vaultctl doctor` lists all such "
                f"points; `vaultctl lock {point.snapshot_id}` keeps this one for good.",
            )
        case CopyRefused(host=host, copy=copy, deleting=deleting) if copy.refusals == REFUSALS_TOLD:
            what = f"delete {copy.copy_id}, an older copy" if deleting else f"copy the restore point {copy.point_id}"
            return (
                f"nightvault: AWS refuses to {'delete' if deleting else 'make'} a copy of {host}",
                f"AWS refuses to {what} of {host} in {copy.region}: {copy.refused}.\n"
                "It is asked again, at least daily; copies that are complete stay. What it may be: docs/copies.md.",
            )
        case CopyLost(host=host, copy=copy):
            return (
                f"nightvault: a copy of {host} is gone",
                f"{copy.copy_id or '(id unknown)'}, the copy of {host}'s restore point {copy.point_id} in "
                f"{copy.region}, is there no more, and nightvault did not delete it. The newest state is copied again. "
                f"Find out in CloudTrail of {copy.region} who did (DeleteSnapshot).",
            )
        case PushUnusual(point=point, before=before):
            last = f"{before.snapshot_id} of {taken_at(before):%Y-%m-%d %H:%M} UTC" if before else "none"
            return (
                f"nightvault: {point.host} pushed something unusual",
                f"What {point.host} pushed in run {point.run_id} changed or deleted far more than it usually does: "
                f"{point.marks.unusual}.\nIts restore points from before are kept now, whatever retention says; the "
                f"newest is {last}. Nobody needs to get up for that.\n"
                f"Somebody knows why (an upgrade, a folder that was renamed): `vaultctl accept {point.host}`.\n"
                f"Nobody does: look at {point.host} itself before its next night; `vaultctl rotate {point.host} "
                "--revoke-now` keeps it from pushing again. More: docs/runbooks/unusual-push.md.",
            )
        case HostKeyUnexpected(expected=expected, seen=seen):
            return (
                "nightvault: unexpected ssh host key",
                f"A vault showed the ssh host key\n{seen}\nbut had enrolled with\n{expected}\n"
                "Hosts go on insisting on the enrolled key. If you did not rebuild the machine, find out who did.",
            )
        case VolumeGrown(host=host, volume_id=volume_id, from_gib=before, to_gib=after):
            return (
                f"nightvault: the volume of {host} has grown",
                f"The volume {volume_id} of {host} was over 80 % full and has been enlarged from {before} to {after} "
                "GiB, which costs more each month; its filesystem grows at the next waking.",
            )
        case VolumeNearlyFull(host=host, volume_id=volume_id, fill=fill, size_gib=size, max_size_gib=limit):
            return (
                f"nightvault: the volume of {host} is nearly full",
                f"The volume {volume_id} of {host} is {fill:.0%} full. It has {size} GiB and may not grow: its limit "
                f"is {limit} GiB. Raise it (`vaultctl change {host} --max-size-gib N`), or back up less.",
            )
        case VolumeRefused(host=host, volume_id=volume_id, detail=detail):
            return (
                f"nightvault: the volume of {host} is not {host}'s",
                f"The vault does not mount {volume_id}, the volume of {host}, and leaves it as it is: it {detail}.\n"
                f"{host} is not backed up until that is mended; its restore points stay. Somebody has changed the disk "
                "by hand: put it right, or make one from the newest restore point (docs/restore-by-hand.md).",
            )
        case VolumeGone(host=host, volume_id=volume_id, snapshot_id=snapshot_id):
            return (
                f"nightvault: the volume of {host} is deleted",
                f"{host} is retired, and its volume {volume_id} was deleted as asked. All that it held is in "
                f"{snapshot_id}; its restore points stay.",
            )
        case VolumeLost(host=host, lost=lost, point=point):
            gone = "the snapshot that it rested as" if lost.startswith("snap-") else "its volume"
            made = (
                f"of {point.snapshot_id}, its newest restore point that can be relied on, and the host pushes what has"
                " changed since"
                if point
                else "blank, since it has no restore point that can be relied on, and the host pushes everything"
            )
            return (
                f"nightvault: a loss of {host} in EC2",
                f"EC2 no longer knows {lost}: {gone} was deleted, and not by nightvault. Find out who did it (in"
                f" CloudTrail: DeleteVolume, DeleteSnapshot).\nYou need do nothing for {host}: at its next backup a"
                f" volume is made {made}. Restores come from its restore points, as ever.",
            )
        case RestoreFailed(run=run):
            return (
                f"nightvault: a restore of {run.host} failed",
                f"Restore run {run.run_id} of {run.host} could not be given its data: {run.reason}.\n"
                f"Nothing is lost. See what there is (`vaultctl restore-points {run.host}`), and start the restore "
                "again; by hand it goes as in docs/restore-by-hand.md.",
            )
        case PointVolumeStays(volume=volume):
            return (
                f"nightvault: a restore's volume of {volume.host} stays",
                f"The volume {volume.volume_id or '(id unknown)'}, made from {volume.point_id} for a restore of "
                f"{volume.host} that is over, could not be removed for half an hour, and costs. It is tried again "
                "each minute, and goes at the latest when the vault is asleep.",
            )
        case DrillEnded(host=host, drill=drill) if drill.state is DrillState.FAILED:
            return (
                f"nightvault: a restore point of {host} failed its drill",
                f"{drill.point_id} of {host}, made {drill.taken_at:%Y-%m-%dT%H:%M:%SZ}, is not what {host} pushed:\n"
                f"{drill.detail}\n"
                f"Nothing is lost yet: {host} has its data, restores take an older point that is sound, and the next "
                f"backup of {host} compares every byte, which mends its volume. That backup's restore point is drilled "
                f"at once.\nSee what there is: `vaultctl restore-points {host}`. If {host} itself may be in the wrong "
                "hands, read docs/runbooks/drill-failed.md before its next backup.",
            )
        case DrillEnded(host=host, drill=drill) if drill.first_bare and drill.manifest_lost:
            return (
                f"nightvault: {host} pushes no manifest any more",
                f"The drill of {drill.point_id} of {host}, made {drill.taken_at:%Y-%m-%dT%H:%M:%SZ}, found no manifest "
                f"in it; the last that had one is of {drill.manifest_taken_at:%Y-%m-%dT%H:%M:%SZ}. Either {host} "
                "cannot sign any more, or somebody has left the manifest out, so that nobody sees what "
                f"else has changed.\n`nightvault doctor` on {host} says whether it can sign. If it can, or cannot be "
                "asked: docs/runbooks/drill-failed.md. This is told once.",
            )
        case DrillEnded(host=host, drill=drill) if drill.first_bare:
            return (
                f"nightvault: the restore points of {host} cannot be proven",
                f"The drill of {drill.point_id} of {host} found no manifest in it: {host} pushes without "
                "one, since its nightvault is too old, or its ssh-keygen is (OpenSSH 8.1 is needed).\n"
                f"`nightvault doctor` on {host} says what it lacks; until then no restore point of {host} can be "
                "proven, and it always keeps its volume. This is told once.",
            )
        case (
            RunStarted()
            | RunEnded()
            | VaultReady()
            | WakeFaulted()
            | WindowClosing()
            | WindowSealed()
            | PointCounted()
            | PointFailed()
            | PointDropped()
            | PointSpared()
            | PointDeleted()
            | PointNotDeleted()
            | PointCopied()
            | CopyRefused()
            | CopyDeleted()
            | BudgetSpent()
            | Retired()
            | VolumeRested()
            | VolumeRemade()
            | RestoreReady()
            | DrillEnded()
        ):
            return None
