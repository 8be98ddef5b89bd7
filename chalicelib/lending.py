"""Volumes made from restore points, for restore runs: made, attached, removed. Part of lifecycle.py's `decide`.

What is wanted is derived from the live runs and saved before EC2 is touched; a volume that no run wants leaves for
good, and its record stays until EC2 has it no more. It is detached only when the agent has let go of it, or the
machine is at rest: of a mounted one detaching would stick
(https://docs.aws.amazon.com/ebs/latest/userguide/ebs-detaching-volume.html). Nothing here keeps a vault awake.
"""

from datetime import timedelta
from typing import assert_never

from msgspec.structs import replace

from chalicelib import points, turns
from chalicelib.commands import (
    Command,
    Observe,
    PointVolumeAttached,
    PointVolumeGone,
    PointVolumeMade,
    PointVolumeRefused,
    Report,
    Start,
)
from chalicelib.draft import Draft
from chalicelib.effects import AttachPointVolume, MakePointVolume, RemovePointVolume
from chalicelib.facts import PointVolumeStays, RestoreReady
from chalicelib.model import (
    InstanceState,
    Kind,
    Outcome,
    Phase,
    PointVolume,
    RestorePoint,
    Restoring,
    Run,
    Source,
    Vault,
)
from chalicelib.tending import holds_more

ABSENT_FOR = timedelta(minutes=1)  # far longer than attaching takes
STAYS_AFTER = timedelta(minutes=30)
# The agent's words for a volume that it still has its hands on.
_HELD = ("mounted", "error")


def restoring(vault: Vault, host: str, point: RestorePoint) -> Restoring:
    """What a restore run of that point brings back. Its own volume serves only if it is sure to hold just that."""
    slot = vault.hosts[host]
    live = slot.volume_id is not None and holds_more(vault, slot, host, point) is None
    return Restoring(
        point_id=point.snapshot_id or "",
        taken_at=points.taken_at(point),
        point_run_id=point.run_id,
        point_complete=point.complete,
        source=Source.LIVE if live else Source.POINT,
    )


# --- what is wanted, and the next step to it ------------------------------------------------------------


def see_to_point_volumes(draft: Draft, command: Command) -> None:
    """Record which volumes are wanted and which no more; then the next step of each, or of the command's host alone.

    Only what may make and remove volumes takes steps; else it is recorded, and the next sweep takes them.
    """
    wanted = points.wanted(draft.vault)
    for host, volume in draft.vault.point_volumes.items():
        run = wanted.get(host)
        if volume.leaving_at is None and not (run and run.restore and points.serves(draft.vault, run.restore, host)):
            _change(draft, volume, leaving_at=draft.now)
            draft.reasons.append(f"nobody needs the volume of {volume.point_id} any more")
    for host, run in wanted.items():
        place = points.free_place(draft.vault)
        if place is None and run.kind is Kind.RESTORE and host not in draft.vault.point_volumes:
            _make_room(draft, run, wanted)
        if run.restore and host not in draft.vault.point_volumes and place is not None:
            volume = PointVolume(host=host, run_id=run.run_id, point_id=run.restore.point_id, place=place)
            draft.change(point_volumes={**draft.vault.point_volumes, host: volume})
            # It may have waited for room: its time begins now.
            draft.put_run(replace(run, lease_until=draft.after(draft.policy.lease_seconds)))
            draft.reasons.append(f"run {run.run_id} needs a volume of {volume.point_id}")
    if isinstance(command, Start | Report | Observe | PointVolumeMade | PointVolumeGone):
        state = command.state if isinstance(command, Observe) else None
        host_only = getattr(command, "host", None)
        for host, volume in draft.vault.point_volumes.items():
            if host_only in (None, host):
                _step(draft, volume, state)


def _make_room(draft: Draft, restore: Run, wanted: dict[str, Run]) -> None:
    """A drill may wait a day, and who wants data back may not. Its volume's place is free when that is gone."""
    drill = next((run for run in wanted.values() if run.kind is Kind.DRILL), None)
    leaving = any(volume.leaving_at for volume in draft.vault.point_volumes.values())
    if drill and drill.host in draft.vault.point_volumes and not leaving:
        turns.end(draft, drill, Outcome.ABANDONED, f"restore {restore.run_id} of {restore.host} needs its place")
        _change(draft, draft.vault.point_volumes[drill.host], leaving_at=draft.now)


def _step(draft: Draft, volume: PointVolume, state: InstanceState | None) -> None:
    vault = draft.vault
    if volume.leaving_at is None:
        up = vault.phase is Phase.OPEN or state is InstanceState.RUNNING
        if volume.volume_id is None:
            draft.effects.append(MakePointVolume(volume=volume))
        elif up and (volume.attached_to != vault.instance_id or _absent(vault, volume)):
            draft.effects.append(AttachPointVolume(volume=volume))
        return
    at_rest = state in (InstanceState.STOPPED, InstanceState.TERMINATED, InstanceState.GONE)
    if volume.volume_id is None or volume.unmounted or at_rest or vault.instance_id is None:
        draft.effects.append(RemovePointVolume(host=volume.host, run_id=volume.run_id))
    if not volume.told and draft.now - volume.leaving_at >= STAYS_AFTER:
        _change(draft, volume, told=True)
        draft.facts.append(PointVolumeStays(volume=volume))


def _absent(vault: Vault, volume: PointVolume) -> bool:
    """The agent looks for it and sees none: detached behind our back, or not there yet."""
    seen = vault.agent.restores.get(volume.host) if vault.agent else None
    return seen is not None and seen.volume_id == volume.volume_id and seen.state == "absent"


def _change(draft: Draft, volume: PointVolume, **changes: object) -> None:
    draft.change(point_volumes={**draft.vault.point_volumes, volume.host: replace(volume, **changes)})


# --- what the agent says --------------------------------------------------------------------------------


def take_restores(draft: Draft, command: Report) -> None:
    """Which restores are ready, which cannot be, and which volumes the agent has let go of."""
    for volume in draft.vault.point_volumes.values():
        seen = command.restores.get(volume.host)
        held = seen and seen.volume_id == volume.volume_id and seen.state in _HELD
        # An agent that has just begun does not know yet what is mounted.
        if volume.leaving_at and not volume.unmounted and not held and command.state != "starting":
            _change(draft, volume, unmounted=True)
    for run in draft.window.live_runs:
        if run.restore is None or draft.vault.phase is not Phase.OPEN:
            continue
        if run.restore.source is Source.LIVE and _live_will_not_do(draft, run, command):
            draft.put_run(replace(run, restore=replace(run.restore, source=Source.POINT)))
            draft.reasons.append(f"run {run.run_id}: its own volume does not hold {run.restore.point_id}")
        elif points.ready(draft.vault, run):
            _ready(draft, run, run.restore)
        else:
            _refused_by_agent(draft, run, run.restore)


def _live_will_not_do(draft: Draft, run: Run, command: Report) -> bool:
    """It holds another run's commit after all, or none, or it cannot be mounted, or EC2 has it no more."""
    mount = command.mounts.get(run.host)
    if mount is None:
        return False
    if mount.mounted:
        return run.restore is not None and command.commits.get(run.host) != run.restore.point_run_id
    lease = timedelta(seconds=draft.policy.lease_seconds)
    waited = draft.now - (run.lease_until - lease)  # a lease begins with the run, or when the vault opens
    return mount.detail != "absent" or waited > min(ABSENT_FOR, lease / 4)


def _ready(draft: Draft, run: Run, restore: Restoring) -> None:
    if restore.ready_at is None:
        lease = draft.after(draft.policy.lease_seconds)
        run = replace(run, restore=replace(restore, ready_at=draft.now), lease_until=lease)
        draft.put_run(run)
        seconds = int((draft.now - run.started_at).total_seconds())
        if run.kind is Kind.RESTORE:
            draft.facts.append(RestoreReady(run=run, ready_seconds=seconds))
        draft.reasons.append(f"run {run.run_id} of {run.host} has its data after {seconds} s")


def _refused_by_agent(draft: Draft, run: Run, restore: Restoring) -> None:
    seen = draft.vault.agent.restores.get(run.host) if draft.vault.agent else None
    volume = draft.vault.point_volumes.get(run.host)
    if not seen or not volume or not points.serves(draft.vault, restore, run.host):
        return
    if seen.volume_id != volume.volume_id or seen.state not in ("refused", "error"):
        return
    why = f"the vault could not mount it: {seen.detail or seen.state}"
    if seen.state == "refused":
        turns.fail_restore(draft, run, why, unfit=True)
    elif volume.trouble != why:
        _change(draft, volume, trouble=why)


# --- what came of it ------------------------------------------------------------------------------------


def take_answer(
    draft: Draft, command: PointVolumeMade | PointVolumeAttached | PointVolumeRefused | PointVolumeGone
) -> None:
    """What EC2 answered to a step, if it is still about the volume on record."""
    volume = draft.vault.point_volumes.get(command.host)
    if isinstance(command, PointVolumeAttached):
        if volume and volume.volume_id == command.volume_id:
            _change(draft, volume, attached_to=command.instance_id, trouble="")
        return
    ours = volume is not None and volume.run_id == command.run_id
    match command:
        case PointVolumeMade(volume_id=volume_id):
            if volume and ours:
                _change(draft, volume, volume_id=volume_id, trouble="")
            else:
                # Its answer came after the run was over and nothing of it had been found.
                draft.effects.append(RemovePointVolume(host=command.host, run_id=command.run_id))
        case PointVolumeRefused(reason=reason, final=final):
            if volume and ours and not volume.leaving_at:
                _change(draft, volume, trouble=reason)
                run = points.wanted(draft.vault).get(command.host)
                if run and final:
                    turns.fail_restore(draft, run, reason)
        case PointVolumeGone():
            if volume and ours and volume.leaving_at:
                rest = {name: other for name, other in draft.vault.point_volumes.items() if name != command.host}
                draft.change(point_volumes=rest)
                draft.reasons.append(f"the volume of {volume.point_id} is gone")
        case _:
            assert_never(command)
