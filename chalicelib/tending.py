"""What hosts' own volumes need next: made, attached, enlarged, let go; and whether one may go.

The steps that several commands share; volumes.py says what each command about a volume does. Part of lifecycle.py's
`decide`.
"""

from datetime import timedelta

from chalicelib import growth
from chalicelib.draft import Draft
from chalicelib.effects import Attach, DeleteVolume, Detach, Enlarge, MakeVolume
from chalicelib.facts import VolumeNearlyFull
from chalicelib.model import InstanceState, Kind, Mount, Phase, PointState, RestorePoint, Slot, Vault


def see_to_volumes(draft: Draft, *, running: bool = False) -> None:
    """Every host has a volume, and it is attached once the machine runs (before, EC2 refuses).

    One that rests as a snapshot gets it when it begins to back up; then it is made, whatever becomes of the run.
    """
    running = running or draft.vault.phase is Phase.OPEN
    live = draft.window.live_runs if draft.vault.awake else ()
    for run in live:
        if run.kind is Kind.BACKUP and run.host in draft.vault.hosts:
            draft.change_slot(run.host, making=draft.vault.hosts[run.host].volume_id is None)
    for host, slot in draft.vault.hosts.items():
        if slot.volume_id is None:
            if slot.making or not slot.rests_as:
                draft.effects.append(MakeVolume(host=host))
        elif running and draft.vault.awake and slot.attached_to != draft.vault.instance_id:
            draft.effects.append(Attach())


def absent(vault: Vault, mounts: dict[str, Mount]) -> bool:
    """A volume that should be there and is not: never attached, or detached behind our back."""
    return any(
        slot.volume_id and host in mounts and not mounts[host].mounted and mounts[host].detail == "absent"
        for host, slot in vault.hosts.items()
    )


def see_to_growth(draft: Draft) -> None:
    """Which volumes are to be larger, by what the agent said last, and which are full and may not be."""
    for host, slot in draft.vault.hosts.items():
        mount = draft.vault.agent.mounts.get(host) if draft.vault.agent else None
        fill = growth.fill(slot, mount)
        if fill is None or fill <= growth.FULL:
            continue
        wanted = growth.target(slot, fill)
        if wanted == slot.size_gib:
            full = VolumeNearlyFull(
                host=host,
                volume_id=slot.volume_id or "",
                fill=fill,
                size_gib=slot.size_gib,
                max_size_gib=slot.limit_gib,
            )
            draft.facts.append(full)
            draft.reasons.append(f"the volume of {host} is nearly full, and may not grow")
        elif wanted > slot.wanted_gib:
            # The default limit is ten times the size that it has now, not of what it will have.
            draft.change_slot(host, wanted_gib=wanted, max_size_gib=slot.limit_gib)


def enlarge(draft: Draft) -> None:
    """What growth was decided and is not yet made; not sooner after the last than AWS takes it."""
    pause = timedelta(seconds=draft.policy.growth_pause_seconds)
    for host, slot in draft.vault.hosts.items():
        soon = slot.modified_at is not None and draft.now < slot.modified_at + pause
        if slot.volume_id and slot.wanted_gib > slot.size_gib and not soon:
            draft.effects.append(Enlarge(host=host, volume_id=slot.volume_id, size_gib=slot.wanted_gib))


def let_go(draft: Draft, host: str, slot: Slot, holds_all: str, state: InstanceState | None) -> None:
    """A step to a volume's end: off a machine at rest; then it is deleted, if that snapshot holds all of it.

    Of a machine that is up the filesystem may be mounted, and detaching would stick:
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachVolume.html
    """
    if slot.volume_id is None:
        return
    if slot.attached_to is None:
        if holds_all:
            draft.effects.append(DeleteVolume(host=host, volume_id=slot.volume_id, snapshot_id=holds_all))
    elif state is InstanceState.STOPPED or slot.attached_to != draft.vault.instance_id:
        draft.effects.append(Detach(host=host, volume_id=slot.volume_id))


def holds_more(vault: Vault, slot: Slot, host: str, newest: RestorePoint | None) -> str | None:
    """Why the volume may hold what its newest restore point does not; None when that is sure to hold it all."""
    if is_under_way(vault, host):
        return "a snapshot of it is under way, or is about to be made"
    # An older version did not record pushes: then it is no earlier than its last start.
    pushed_at = slot.pushed_at or slot.last_started_at
    if newest is None:
        return "it has no restore point that can be relied on" if pushed_at or slot.committed else None
    if not newest.complete or newest.state is not PointState.COMPLETED:
        return f"the newest, {newest.snapshot_id}, is not a completed one of a complete run"
    if newest.volume_id != slot.volume_id and newest.snapshot_id != slot.made_of:
        return f"the newest, {newest.snapshot_id}, is of another volume"
    if pushed_at and (newest.made_at is None or newest.made_at <= pushed_at):
        return f"the newest, {newest.snapshot_id}, is older than the last push ({pushed_at:%Y-%m-%dT%H:%M:%SZ})"
    if slot.committed and slot.committed != newest.run_id:
        return f"the newest, {newest.snapshot_id}, is not of the run that the volume holds"
    return None


def is_under_way(vault: Vault, host: str) -> bool:
    """A restore point of this host is being made, or will be when the window ends."""
    if any(point.host == host for point in (*vault.pending_points.values(), *vault.owed_points.values())):
        return True
    runs = vault.window.runs.values() if vault.window else ()
    return any(run.host == host and (run.pushed or run.committed_at) for run in runs)
