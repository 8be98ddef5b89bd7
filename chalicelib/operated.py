"""What operators ask of a vault. Part of lifecycle.py's `decide`."""

from typing import assert_never

from msgspec.structs import replace

from chalicelib import budget, phases, turns
from chalicelib.commands import (
    Hold,
    HostChanged,
    HostRetired,
    KeyRevoked,
    PushesAccepted,
    Rebuild,
    Release,
)
from chalicelib.draft import Draft
from chalicelib.effects import Terminate
from chalicelib.errors import UnknownHost, VaultBusy, VolumeHoldsMore
from chalicelib.facts import Retired
from chalicelib.model import Kind, Outcome, Phase, Resting, RestorePoint, Slot, Vault
from chalicelib.tending import holds_more, see_to_volumes
from chalicelib.volumes import see_to_retired

# What a volume is deleted for that was never pushed to: there is no snapshot of it, and nothing to lose.
NOTHING_THERE = "nothing"

Operated = HostChanged | PushesAccepted | KeyRevoked | HostRetired | Hold | Release | Rebuild


def operated(draft: Draft, command: Operated) -> None:
    """Raises UnknownHost, VolumeHoldsMore, VaultBusy, WindowSpent; the vault is then unchanged."""
    match command:
        case HostChanged():
            _change_host(draft, command)
        case PushesAccepted(host=host):
            _accept(draft, host)
        case KeyRevoked(host=host):
            _known(draft.vault, host)
            turns.end_runs_of(draft, host, "its key was revoked")
            draft.change(hosts={**draft.vault.hosts, host: draft.vault.hosts[host].with_key("")})
            draft.reasons.append(f"the key of {host} is worthless")
        case HostRetired():
            _retire(draft, command)
        case Hold(seconds=seconds):
            _hold(draft, seconds)
        case Release(cut=cut):
            _release(draft, cut=cut)
        case Rebuild():
            _rebuild(draft)
        case _:
            assert_never(command)


def _known(vault: Vault, host: str) -> Slot:
    if host not in vault.hosts:
        raise UnknownHost(host)
    return vault.hosts[host]


# --- hosts ----------------------------------------------------------------------------------------------


def _change_host(draft: Draft, command: HostChanged) -> None:
    settings = {
        "every_seconds": command.every_seconds,
        "max_size_gib": command.max_size_gib,
        "ping_url": command.ping_url,
        "resting": command.resting,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        draft.reasons.append(f"only the record of {command.host} changes")
        return  # a retired host's may, too
    _known(draft.vault, command.host)
    draft.change_slot(command.host, **given)
    slot = draft.vault.hosts[command.host]
    if command.resting is Resting.SNAPSHOT and slot.volume_id:
        draft.want_drill(command.host, "it is to rest as its snapshot")
    draft.change_slot(command.host, wanted_gib=min(slot.wanted_gib, slot.limit_gib))


def _accept(draft: Draft, host: str) -> None:
    """Restore points that are not on record yet, since their snapshot is not made or not completed, lose their flag."""

    def accepted(points: dict[str, RestorePoint]) -> dict[str, RestorePoint]:
        return {
            key: replace(point, marks=replace(point.marks, unusual="")) if point.host == host else point
            for key, point in points.items()
        }

    vault = draft.vault
    draft.change(pending_points=accepted(vault.pending_points), owed_points=accepted(vault.owed_points))
    if vault.window:
        draft.change_window(points=accepted(vault.window.points))
    draft.reasons.append(f"what {host} pushed is accepted")


def _retire(draft: Draft, command: HostRetired) -> None:
    """Its runs end, and its key leaves the orders. Asked again: its volume may still be deleted."""
    host = command.host
    slot = draft.vault.slot(host)
    if slot is None:
        return  # retired before, and its volume is deleted
    if slot.volume_id and command.delete_volume and not slot.doomed:
        why = holds_more(draft.vault, slot, host, command.newest)
        if why:
            raise VolumeHoldsMore(host, why)
        holds_all = command.newest and command.newest.snapshot_id
        slot = replace(slot, doomed=holds_all or NOTHING_THERE)
    turns.end_runs_of(draft, host, "the host was retired")
    if host in draft.vault.hosts:
        if host in draft.vault.retired:
            # The volume of its life before is still there, on its way out; there is one place for it.
            raise VaultBusy(draft.vault.vault_id, f"still deleting an earlier volume of {host}")
        draft.facts.append(Retired(host=host, volume_id=slot.volume_id, deleting=bool(slot.doomed)))
        draft.reasons.append(f"{host} is retired")
    draft.change(hosts={name: other for name, other in draft.vault.hosts.items() if name != host})
    # Kept without a volume too: one may be on its way.
    slot = replace(slot.with_key(""), wanted_gib=0, rests_as="" if slot.volume_id else slot.rests_as)
    draft.change(retired={**draft.vault.retired, host: slot})
    see_to_retired(draft, None)


# --- the machine ----------------------------------------------------------------------------------------


def _hold(draft: Draft, seconds: int) -> None:
    match draft.vault.phase:
        case Phase.ASLEEP:
            phases.open_window(draft, [], Kind.RESTORE)
            phases.hold(draft, seconds)
        case Phase.WAKING | Phase.OPEN | Phase.FAULTED:
            phases.hold(draft, seconds)
        case Phase.CLOSING | Phase.SEALING:
            budget.ceiling(draft.vault, Kind.RESTORE, draft.now, draft.policy)
            draft.change(hold_until=draft.after(seconds))
            draft.reasons.append("it wakes again for the hold")
        case phase:
            assert_never(phase)
    see_to_volumes(draft)


def _release(draft: Draft, *, cut: bool) -> None:
    draft.change(hold_until=None)
    if draft.vault.window:
        phases.end_hold(draft)
    if cut:
        for run in draft.vault.live_runs:
            turns.end(draft, run, Outcome.CUT, "an operator put the vault to sleep")
    if draft.vault.awake and not draft.needed:
        phases.close(draft, "an operator put the vault to sleep")  # at once: it does not linger for anyone


def _rebuild(draft: Draft) -> None:
    vault = draft.vault
    if vault.phase is not Phase.ASLEEP:
        raise VaultBusy(vault.vault_id, vault.phase)
    if vault.instance_id:
        draft.effects.append(Terminate(instance_id=vault.instance_id))
        draft.reasons.append(f"{vault.instance_id} is given up; the next wake launches a new machine")
    draft.forget_instance()
