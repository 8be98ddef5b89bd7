"""What hosts and vaults are told, as documents. The contract is docs/protocol.md."""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import asdict

from chalicelib import points
from chalicelib.model import (
    Host,
    Kind,
    Outcome,
    Phase,
    PointState,
    Policy,
    RestorePoint,
    Restoring,
    Run,
    Slot,
    Source,
    Vault,
    Window,
)

# How soon to ask again, in seconds: often while a machine boots, seldom while nothing can change.
_RETRY_AFTER = {
    Phase.ASLEEP: 30,
    Phase.WAKING: 3,
    Phase.OPEN: 3,
    Phase.CLOSING: 5,
    Phase.SEALING: 5,
    Phase.FAULTED: 20,
}


class WindowDocument(Struct, frozen=True, kw_only=True):
    window_id: str
    opened_at: datetime
    closes_at: datetime
    seconds_left: int


class VaultDocument(Struct, frozen=True, kw_only=True):
    vault_id: str
    address: str
    port: int
    user: str
    host_keys: list[str]


class ProgressDocument(Struct, frozen=True, kw_only=True):
    transfer_bytes: int
    seen_at: datetime


class LastDocument(Struct, frozen=True, kw_only=True):
    backup_run_id: str
    backup_window_id: str
    snapshot_id: str
    completed_at: datetime
    age_seconds: int


class RestoreDocument(Struct, frozen=True, kw_only=True):
    point_id: str
    taken_at: datetime
    point_run_id: str
    point_complete: bool
    source: Source


class RunDocument(Struct, frozen=True, kw_only=True):
    """No member that a client acts upon has a name twice in here: sh reads it with sed.

    `verify`: a restore point of this host failed its drill, and no newer one has passed: compare every byte.
    """

    run_id: str | None
    host: str
    kind: Kind | None
    outcome: Outcome | None
    reason: str | None
    phase: Phase
    queued: bool
    ready: bool
    window: WindowDocument | None
    vault: VaultDocument | None
    progress: ProgressDocument | None
    committed: bool
    restore: RestoreDocument | None
    verify: bool
    retry_after_seconds: int
    last: LastDocument | None
    now: datetime


class PointDocument(Struct, frozen=True, kw_only=True):
    """Nothing nested: sh splits the list at `},{`."""

    point_id: str
    taken_at: datetime
    point_run_id: str
    point_complete: bool
    point_state: PointState
    fit: bool
    locked: bool
    unusual: bool


class PointsDocument(Struct, frozen=True, kw_only=True):
    """A host's restore points that EC2 still has, newest first."""

    host: str
    points: list[PointDocument]
    now: datetime


class HostOrder(Struct, frozen=True, kw_only=True):
    host: str
    volume_id: str
    uid: int
    user: str
    public_key: str
    live: bool
    blank_ok: bool


class DrillOrder(Struct, frozen=True, kw_only=True):
    """What is mounted is to be checked: that it is what `point_run_id` pushed, signed with one of these keys."""

    run_id: str
    point_run_id: str
    public_keys: list[str]


class RestoreOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A volume made from a restore point of that host, to be mounted read-only."""

    host: str
    volume_id: str
    drill: DrillOrder | None = None


class Orders(Struct, frozen=True, kw_only=True):
    """What the vault's agent is to do."""

    vault_id: str
    report_every_seconds: int
    power_off: bool
    seconds_to_power_off: int
    hosts: list[HostOrder]
    restores: list[RestoreOrder]


def run_document(vault: Vault, host: Host, run: Run | None, now: datetime, policy: Policy) -> RunDocument:
    """A run as its host sees it at `now`. Shows nothing of other hosts."""
    window = vault.window
    in_window = bool(window and run and run.run_id in window.runs)
    ready = bool(run and run.live and in_window and points.ready(vault, run))
    return RunDocument(
        run_id=run.run_id if run else None,
        host=host.name,
        kind=run.kind if run else None,
        outcome=run.outcome if run else None,
        reason=run.reason if run else None,
        phase=vault.phase,
        queued=bool(run and run.live and run.run_id in vault.queued),
        ready=ready,
        window=_window(window, run, now) if window and in_window else None,
        vault=_vault(vault, vault.hosts[host.name]) if ready else None,
        progress=ProgressDocument(**asdict(run.progress)) if run and run.progress else None,
        committed=bool(run and run.committed_at),
        restore=_restore(run.restore) if run and run.restore else None,
        verify=bool(host.drill and host.drill.failed_taken_at),
        retry_after_seconds=min(_RETRY_AFTER[vault.phase], max(1, policy.report_seconds)),
        last=_last(host, now),
        now=now,
    )


def _restore(restore: Restoring) -> RestoreDocument:
    return RestoreDocument(
        point_id=restore.point_id,
        taken_at=restore.taken_at,
        point_run_id=restore.point_run_id,
        point_complete=restore.point_complete,
        source=restore.source,
    )


def _window(window: Window, run: Run | None, now: datetime) -> WindowDocument:
    closes_at = window.ceilings[run.kind].closes_at if run else window.closes_at
    return WindowDocument(
        window_id=window.window_id,
        opened_at=window.opened_at,
        closes_at=closes_at,
        seconds_left=max(0, int((closes_at - now).total_seconds())),
    )


def user(slot: Slot) -> str:
    """The host's account on its vault. Not the host's name: those may differ by case alone."""
    return f"nv{slot.uid}"


def _vault(vault: Vault, slot: Slot) -> VaultDocument | None:
    if vault.agent is None:
        return None
    return VaultDocument(
        vault_id=vault.vault_id,
        address=vault.agent.address,
        port=vault.agent.port,
        user=user(slot),
        # The key that the machine enrolled with, whatever it reports now.
        host_keys=[vault.agent.host_key],
    )


def _last(host: Host, now: datetime) -> LastDocument | None:
    last = host.last_backup
    if last is None:
        return None
    return LastDocument(
        backup_run_id=last.run_id,
        backup_window_id=last.window_id,
        snapshot_id=last.snapshot_id,
        completed_at=last.completed_at,
        # Of the data, not of the snapshot: what changed after the run began is not in it.
        age_seconds=int((now - last.started_at).total_seconds()),
    )


def orders(vault: Vault, now: datetime, policy: Policy) -> Orders:
    """What the agent of a vault is to do at `now`."""
    window = vault.window
    runs = window.live_runs if window else ()
    live = {run.host for run in runs if run.kind is not Kind.DRILL}
    # What they need comes from a restore point: no volume of the host's own, only its account.
    borrowing = {run.host for run in runs if run.restore}
    end = (window.closes_at if window else now) + timedelta(seconds=policy.power_off_grace_seconds)
    return Orders(
        vault_id=vault.vault_id,
        report_every_seconds=max(1, policy.report_seconds),
        # A machine whose stop was ordered goes by itself, should the order have failed.
        power_off=vault.phase in (Phase.CLOSING, Phase.FAULTED),
        seconds_to_power_off=max(0, int((end - now).total_seconds())),
        hosts=[
            HostOrder(
                host=name,
                volume_id=slot.volume_id or "",
                uid=slot.uid,
                user=user(slot),
                public_key=slot.public_key,
                live=name in live,
                # One that was made of a snapshot holds a filesystem; should it not show it, nobody is to make another.
                blank_ok=not slot.made_of,
            )
            for name, slot in vault.hosts.items()
            if slot.public_key and (slot.volume_id or name in borrowing)  # without a key: it was revoked
        ],
        restores=[
            RestoreOrder(host=name, volume_id=volume.volume_id, drill=_drill(vault, name))
            for name, volume in vault.point_volumes.items()
            if volume.volume_id and not volume.leaving_at
        ],
    )


def _drill(vault: Vault, host: str) -> DrillOrder | None:
    run = points.wanted(vault).get(host)
    if run is None or run.kind is not Kind.DRILL or run.restore is None:
        return None
    slot = vault.hosts[host]
    return DrillOrder(
        run_id=run.run_id,
        point_run_id=run.restore.point_run_id,
        public_keys=[slot.public_key, *slot.former_keys],
    )


def points_document(
    host: str, recorded: list[RestorePoint], states: dict[str, PointState], now: datetime
) -> PointsDocument:
    """The restore points on record of which EC2 has a snapshot, in the state that EC2 says."""
    return PointsDocument(
        host=host,
        points=[
            PointDocument(
                point_id=point.snapshot_id,
                taken_at=points.taken_at(point),
                point_run_id=point.run_id,
                point_complete=point.complete,
                point_state=states[point.snapshot_id],
                fit=point.marks.sound,
                locked=point.marks.locked(now),
                unusual=bool(point.marks.unusual),
            )
            for point in points.restorable(recorded, states)
            if point.snapshot_id
        ],
        now=now,
    )
