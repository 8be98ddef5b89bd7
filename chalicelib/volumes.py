"""What becomes of hosts' own volumes: made, enlarged, lost, let go for a snapshot or with a retired host.

Part of lifecycle.py's `decide`: what each command about a volume does.

A host rests as a snapshot while `rests_as` names one and there is no volume. It comes to that in two ways: an operator
wants it (`resting`), and the volume was deleted for a snapshot that is proven to hold all that it did; or somebody
deleted the volume. Either way the next backup's start makes a volume of that snapshot: tending.see_to_volumes.
"""

from datetime import timedelta
from typing import assert_never

from msgspec.structs import replace

from chalicelib.commands import (
    GrowthPostponed,
    Rest,
    SnapshotMissing,
    VolumeDeleted,
    VolumeDetached,
    VolumeEnlarged,
    VolumeMade,
    VolumesMissing,
)
from chalicelib.draft import Draft
from chalicelib.facts import PointFailed, VolumeGone, VolumeGrown, VolumeLost, VolumeRemade, VolumeRested
from chalicelib.model import InstanceState, Phase, PointState, Resting, RestorePoint, Slot, Source
from chalicelib.tending import holds_more, let_go, see_to_volumes

# EC2 says for a while that it does not know what it has just made, "up to about five minutes":
# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
# A volume that was attached once is known; that it is gone, two looks a sweep apart must say.
LOST_AFTER = timedelta(seconds=45)
NEVER_SEEN_FOR = timedelta(minutes=5)

OfVolume = (
    VolumeMade
    | VolumeEnlarged
    | GrowthPostponed
    | VolumesMissing
    | SnapshotMissing
    | Rest
    | VolumeDetached
    | VolumeDeleted
)


def take(draft: Draft, command: OfVolume) -> None:
    match command:
        case VolumeMade():
            _made(draft, command)
        case VolumeEnlarged():
            _enlarged(draft, command)
        case GrowthPostponed(host=host):
            draft.change_slot(host, modified_at=draft.now)
        case VolumesMissing():
            _missing(draft, command)
        case SnapshotMissing():
            _snapshot_missing(draft, command)
        case Rest():
            _rest(draft, command)
        case VolumeDetached():
            _detached(draft, command)
        case VolumeDeleted():
            _rested(draft, command)
            _gone(draft, command)
        case _:
            assert_never(command)


# --- made -----------------------------------------------------------------------------------------------


def _made(draft: Draft, command: VolumeMade) -> None:
    """Also of a host that was retired meanwhile. An answer about a volume before is nobody's."""
    host, kept = command.host, draft.vault.retired.get(command.host)
    slot = draft.vault.hosts.get(host) or kept
    if slot and slot.volume_id is None and slot.remade == command.remade:
        has = replace(slot, volume_id=command.volume_id, made_of=slot.rests_as, rests_as="", making=False)
        if host in draft.vault.hosts:
            draft.change(hosts={**draft.vault.hosts, host: has})
        else:
            draft.change(retired={**draft.vault.retired, host: has})
        if has.made_of:
            draft.facts.append(VolumeRemade(host=host, volume_id=command.volume_id, snapshot_id=has.made_of))
    see_to_volumes(draft)


def _enlarged(draft: Draft, command: VolumeEnlarged) -> None:
    slot = draft.vault.hosts.get(command.host)
    if slot is None or slot.volume_id != command.volume_id or slot.size_gib >= command.size_gib:
        return
    grown = VolumeGrown(host=command.host, volume_id=command.volume_id, from_gib=slot.size_gib, to_gib=command.size_gib)
    draft.change_slot(command.host, size_gib=command.size_gib, wanted_gib=0, modified_at=draft.now)
    draft.facts.append(grown)
    draft.reasons.append(f"the volume of {command.host} has {command.size_gib} GiB now")


# --- let go ---------------------------------------------------------------------------------------------


def _rest(draft: Draft, command: Rest) -> None:
    """Take the next step to a volume's end, if all that it holds is proven to be in a snapshot; or take it back."""
    slot = draft.vault.hosts.get(command.host)
    if slot is None or slot.volume_id is None or draft.vault.phase is not Phase.ASLEEP:
        return
    why, newest = _why_it_stays(draft, slot, command), command.newest
    if why or newest is None or newest.snapshot_id is None:
        draft.change_slot(command.host, rests_as="")
        draft.reasons.append(f"the volume of {command.host} stays: {why}")
        return
    draft.change_slot(command.host, rests_as=newest.snapshot_id)
    draft.reasons.append(f"all that the volume of {command.host} holds is in {newest.snapshot_id}")
    let_go(draft, command.host, slot, newest.snapshot_id, command.state)


def _why_it_stays(draft: Draft, slot: Slot, command: Rest) -> str | None:
    newest = command.newest
    if slot.resting is not Resting.SNAPSHOT:
        return "it is wanted"
    if newest is None:
        return "it has no restore point that can be relied on"
    if why := holds_more(draft.vault, slot, command.host, newest):
        return why
    if slot.committed != newest.run_id:
        return f"it is not known to hold just what {newest.snapshot_id} does"
    if newest.marks.fit is not True or newest.marks.dropped_at:
        return f"{newest.snapshot_id} has not passed a drill, or is to be deleted"
    return None


def _rested(draft: Draft, command: VolumeDeleted) -> None:
    """Deleted for that snapshot; also if a backup began meanwhile, which it was never attached for."""
    slot = draft.vault.hosts.get(command.host)
    if slot and slot.volume_id == command.volume_id:
        _rests(draft, command.host, slot, command.snapshot_id)
        see_to_volumes(draft)


def _rests(draft: Draft, host: str, slot: Slot, snapshot_id: str) -> None:
    _forget_volume(draft, host, slot, snapshot_id)
    draft.facts.append(VolumeRested(host=host, volume_id=slot.volume_id or "", snapshot_id=snapshot_id))
    draft.reasons.append(f"{host} rests as {snapshot_id}")


def _forget_volume(draft: Draft, host: str, slot: Slot, rests_as: str, **changes: object) -> None:
    draft.change_slot(
        host,
        volume_id=None,
        attached_to=None,
        missing_since=None,
        rests_as=rests_as,
        made_of="",
        remade=slot.remade + 1,
        **changes,
    )


# --- lost -----------------------------------------------------------------------------------------------


def _missing(draft: Draft, command: VolumesMissing) -> None:
    """Somebody deleted a volume, if EC2 says so twice. One that was on its way out is no loss: its answer was."""
    if draft.vault.phase not in (Phase.ASLEEP, Phase.OPEN):
        return  # a late answer: it is asked again
    for host, slot in draft.vault.hosts.items():
        if slot.volume_id is None:
            continue
        since = slot.missing_since
        if command.volumes.get(host) != slot.volume_id:
            draft.change_slot(host, missing_since=None)
        elif slot.rests_as and slot.attached_to is None:
            _rests(draft, host, slot, slot.rests_as)
        elif since is None:
            draft.change_slot(host, missing_since=draft.now)
            draft.reasons.append(f"EC2 does not know {slot.volume_id}, the volume of {host}")
        elif draft.now - since >= (LOST_AFTER if slot.attached_to else NEVER_SEEN_FOR):
            _lost(draft, host, slot.volume_id, command.points.get(host))
    see_to_volumes(draft)


def _snapshot_missing(draft: Draft, command: SnapshotMissing) -> None:
    """The snapshot that a host rests as is gone too: the next best, or nothing."""
    slot = draft.vault.hosts.get(command.host)
    ours = slot and slot.volume_id is None and slot.rests_as == command.snapshot_id
    if ours and not (command.point and command.point.snapshot_id == command.snapshot_id):
        _lost(draft, command.host, command.snapshot_id, command.point)
        see_to_volumes(draft)


def _lost(draft: Draft, host: str, what: str, point: RestorePoint | None) -> None:
    """Forget the volume; the next one is made of that point, and then holds what that does."""
    slot = draft.vault.hosts[host]
    size = max(slot.size_gib, (point and point.volume_gib) or 0)
    _forget_volume(
        draft,
        host,
        slot,
        rests_as=(point and point.snapshot_id) or "",
        committed=point.run_id if point else "",
        pushed_at=point.run_started_at if point else None,
        changed=None,
        uncounted=False,
        size_gib=size,
        max_size_gib=max(size, slot.limit_gib),
        modified_at=None,
    )
    for run in draft.vault.window.runs.values() if draft.vault.window else ():
        if run.host == host and run.restore and run.restore.source is Source.LIVE and run.live:
            draft.put_run(replace(run, restore=replace(run.restore, source=Source.POINT)))
        elif run.host == host:
            # What it had pushed is lost with the volume: no restore point may call that complete.
            draft.put_run(replace(run, pushed=False, committed_at=None))
    if owed := draft.vault.owed_points.get(host):
        draft.change(owed_points={name: p for name, p in draft.vault.owed_points.items() if name != host})
        draft.facts.append(PointFailed(point=replace(owed, state=PointState.ERROR), final=True))
    draft.facts.append(VolumeLost(host=host, lost=what, point=point))
    draft.reasons.append(f"{what} of {host} is gone; the next volume is made of {point.snapshot_id if point else None}")


# --- of retired hosts, and of any -----------------------------------------------------------------------


def see_to_retired(draft: Draft, state: InstanceState | None) -> None:
    """Retired hosts' volumes leave a machine at rest, and those that were asked away are deleted then."""
    if draft.vault.phase is Phase.ASLEEP:
        for host, slot in draft.vault.retired.items():
            let_go(draft, host, slot, slot.doomed, state)


def _detached(draft: Draft, command: VolumeDetached) -> None:
    host, volume_id = command.host, command.volume_id
    slot = draft.vault.retired.get(host)
    if slot and slot.volume_id == volume_id:
        draft.change(retired={**draft.vault.retired, host: replace(slot, attached_to=None)})
        see_to_retired(draft, None)
    if host in draft.vault.hosts and draft.vault.hosts[host].volume_id == volume_id:
        draft.change_slot(host, attached_to=None)


def _gone(draft: Draft, command: VolumeDeleted) -> None:
    host, volume_id = command.host, command.volume_id
    slot = draft.vault.retired.get(host)
    if slot and slot.volume_id == volume_id:
        draft.change(retired={name: other for name, other in draft.vault.retired.items() if name != host})
        draft.facts.append(VolumeGone(host=host, volume_id=volume_id, snapshot_id=slot.doomed))
        draft.reasons.append(f"the volume of {host} is deleted")
