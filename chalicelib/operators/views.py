"""What operators are shown of the model: HOST, RUN, POINT, VAULT and WINDOW of docs/operate.md, and no secret.

Pure: what is stored comes in, and `now`.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from chalicelib import budget
from chalicelib.model import (
    Change,
    Copy,
    Drill,
    DrillState,
    Host,
    Kind,
    LastBackup,
    Outcome,
    Phase,
    PointState,
    Progress,
    Resting,
    RestorePoint,
    Run,
    Stats,
    Vault,
    Window,
    max_size,
)

DAY = timedelta(days=1).total_seconds()


class RunView(Struct, frozen=True, kw_only=True):
    """RUN. `window_id` null: it waits for the vault to wake again."""

    run_id: str
    host: str
    kind: Kind
    window_id: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    reason: str | None
    exit_code: int | None
    committed: bool
    progress: Progress | None
    stats: Stats | None
    change: Change | None = None


class PointView(Struct, frozen=True, kw_only=True):
    """POINT. `snapshot_id` null: not made yet. `volume_gib` null: made by a version that did not record it.

    `fit`: passed its last drill, or not; null: never drilled. `dropped_at`: retention needs it no more.
    `unusual`: why what was pushed is unusual for its host, until that is accepted.
    """

    snapshot_id: str | None
    host: str
    window_id: str
    run_id: str
    started_at: datetime
    made_at: datetime | None
    complete: bool
    outcome: Outcome
    state: PointState
    volume_gib: int | None
    fit: bool | None = None
    drilled_at: datetime | None = None
    held_at: datetime | None = None
    locked_until: datetime | None = None
    dropped_at: datetime | None = None
    dropped_for: str = ""
    deleted_at: datetime | None = None
    unusual: str = ""
    change: Change | None = None


class CopyView(Struct, frozen=True, kw_only=True):
    """COPY. `copy_id` null: not made yet. `refused`: what AWS said last when it would not make or delete it."""

    snapshot_id: str
    region: str
    copy_id: str | None
    taken_at: datetime
    asked_at: datetime
    state: PointState
    completed_at: datetime | None
    fit: bool | None
    refused: str


class WindowView(Struct, frozen=True, kw_only=True):
    """WINDOW. `awake_seconds`: so far, while it is under way."""

    window_id: str
    vault_id: str
    opened_at: datetime
    ready_at: datetime | None
    closes_at: datetime
    closing_at: datetime | None
    stopped_at: datetime | None
    sealed_at: datetime | None
    awake_seconds: int
    close_reason: str | None
    runs: list[RunView]
    points: list[PointView]


class VaultView(Struct, frozen=True, kw_only=True):
    """VAULT. `pending_points`: snapshots that have neither completed nor failed for good."""

    vault_id: str
    phase: Phase
    instance_id: str | None
    address: str | None
    hosts: list[str]
    window: WindowView | None
    held_until: datetime | None
    queued: list[str]
    pending_points: int
    spent_seconds: dict[Kind, int]
    reported_at: datetime | None


class DrillView(Struct, frozen=True, kw_only=True):
    """DRILL: what came of a host's last one; of which points had a manifest, all of them."""

    run_id: str
    point_id: str
    taken_at: datetime
    state: DrillState
    begun_at: datetime
    at: datetime
    seconds: int
    detail: str
    files: int
    checked_bytes: int
    total_bytes: int
    judged_at: datetime | None
    unprovable: bool = False
    manifest_lost: bool = False


class HostView(Struct, frozen=True, kw_only=True):
    """HOST."""

    name: str
    vault_id: str
    retired_at: datetime | None
    size_gib: int
    max_size_gib: int
    every_seconds: int
    enrolled_at: datetime
    last: LastBackup | None
    age_seconds: int | None
    next_expected_at: datetime | None
    overdue: bool
    volume_id: str | None
    used_bytes: int | None
    volume_bytes: int | None
    volume_trouble: str  # why the vault does not mount it
    growth_bytes_per_day: int | None
    live_run_id: str | None
    ping_url: str
    resting: Resting
    rests_as: str | None  # the snapshot, while it has no volume
    kept_since: datetime | None = None
    drill: DrillView | None = None
    drill_overdue: bool = False


def run_view(run: Run, window_id: str | None) -> RunView:
    return RunView(
        run_id=run.run_id,
        host=run.host,
        kind=run.kind,
        window_id=window_id,
        started_at=run.started_at,
        ended_at=run.ended_at,
        outcome=run.outcome,
        reason=run.reason,
        exit_code=run.exit_code,
        committed=run.committed_at is not None,
        progress=run.progress,
        stats=run.stats,
        change=run.change,
    )


def point_view(point: RestorePoint) -> PointView:
    return PointView(
        snapshot_id=point.snapshot_id,
        host=point.host,
        window_id=point.window_id,
        run_id=point.run_id,
        started_at=point.run_started_at,
        made_at=point.made_at,
        complete=point.complete,
        outcome=point.outcome,
        state=point.state,
        volume_gib=point.volume_gib,
        fit=point.marks.fit,
        drilled_at=point.marks.drilled_at,
        held_at=point.marks.held_at,
        locked_until=point.marks.locked_until,
        dropped_at=point.marks.dropped_at,
        dropped_for=point.marks.dropped_for,
        deleted_at=point.marks.deleted_at,
        unusual=point.marks.unusual,
        change=point.change,
    )


def copy_view(copy: Copy) -> CopyView:
    return CopyView(
        snapshot_id=copy.point_id,
        region=copy.region,
        copy_id=copy.copy_id or None,
        taken_at=copy.taken_at,
        asked_at=copy.asked_at,
        state=copy.state,
        completed_at=copy.completed_at,
        fit=copy.fit,
        refused=copy.refused,
    )


def window_view(window: Window, now: datetime) -> WindowView:
    """Runs in the order in which they began, restore points by host."""
    return WindowView(
        window_id=window.window_id,
        vault_id=window.vault_id,
        opened_at=window.opened_at,
        ready_at=window.ready_at,
        closes_at=window.closes_at,
        closing_at=window.closing_at,
        stopped_at=window.stopped_at,
        sealed_at=window.sealed_at,
        awake_seconds=int(((window.stopped_at or now) - window.opened_at).total_seconds()),
        close_reason=window.close_reason,
        runs=[run_view(run, window.window_id) for run in sorted(window.runs.values(), key=lambda r: r.started_at)],
        points=[point_view(point) for _, point in sorted(window.points.items())],
    )


def vault_view(vault: Vault, now: datetime) -> VaultView:
    agent = vault.agent
    return VaultView(
        vault_id=vault.vault_id,
        phase=vault.phase,
        instance_id=vault.instance_id,
        address=agent.address if agent and vault.phase is Phase.OPEN else None,
        hosts=sorted(vault.hosts),
        window=window_view(vault.window, now) if vault.window else None,
        held_until=vault.held_until if vault.held_until and vault.held_until > now else None,
        queued=sorted({run.host for run in vault.queued.values() if run.live}),
        pending_points=len(vault.pending_points) + len(vault.owed_points),
        spent_seconds={kind: budget.used(vault, kind, now) for kind in Kind},
        reported_at=agent.reported_at if agent else None,
    )


def host_view(host: Host, vault: Vault | None, history: Iterable[Window], now: datetime) -> HostView:
    """`vault`: the one that holds it. `history`: that vault's archived windows, in any order."""
    slot = vault.slot(host.name) if vault else None
    if slot and slot.doomed:
        slot = None  # on its way out
    mount = vault.agent.mounts.get(host.name) if vault and vault.agent else None
    known = sorted(_fills(host.name, history))
    used = mount.used_bytes if mount else None
    size_gib = slot.size_gib if slot else host.size_gib
    last = host.last_backup
    return HostView(
        name=host.name,
        vault_id=host.vault_id,
        retired_at=host.retired_at,
        size_gib=size_gib,
        max_size_gib=slot.limit_gib if slot else max_size(size_gib),
        every_seconds=host.every_seconds,
        enrolled_at=host.enrolled_at,
        last=last,
        # Of the data, not of the snapshot: what changed after the run began is not in it.
        age_seconds=int((now - last.started_at).total_seconds()) if last else None,
        next_expected_at=slot.expected_at if slot and not host.retired_at else None,
        overdue=host.overdue(now),
        volume_id=slot.volume_id if slot else None,
        used_bytes=used if used is not None else known[-1][1] if known else None,
        volume_bytes=mount.size_bytes if mount and used is not None else None,
        volume_trouble=mount.detail if mount and mount.refused else "",
        growth_bytes_per_day=_slope(known),
        live_run_id=_live_run(vault, host.name) if vault else None,
        ping_url=slot.ping_url if slot else "",
        resting=slot.resting if slot else Resting.VOLUME,
        rests_as=(slot and slot.volume_id is None and slot.rests_as) or None,
        kept_since=host.kept_since,
        drill=drill_view(host.drill) if host.drill else None,
        drill_overdue=host.drill_overdue(now),
    )


def drill_view(drill: Drill) -> DrillView:
    return DrillView(
        run_id=drill.run_id,
        point_id=drill.point_id,
        taken_at=drill.taken_at,
        state=drill.state,
        begun_at=drill.begun_at,
        at=drill.at,
        seconds=drill.seconds,
        detail=drill.detail,
        files=drill.files,
        checked_bytes=drill.checked_bytes,
        total_bytes=drill.total_bytes,
        judged_at=drill.judged_at,
        unprovable=drill.unprovable,
        manifest_lost=drill.manifest_lost,
    )


def _live_run(vault: Vault, host: str) -> str | None:
    mine = (run.run_id for run in vault.live_runs if run.host == host and run.kind is not Kind.DRILL)
    return next(mine, None)


def _fills(host: str, history: Iterable[Window]) -> list[tuple[float, int]]:
    """(seconds, bytes used) of each window in which this host's volume was sealed and its fill was known."""
    return [
        (window.opened_at.timestamp(), used)
        for window in history
        if host in window.points and (used := window.points[host].used_bytes) is not None
    ]


def _slope(known: list[tuple[float, int]]) -> int | None:
    """Bytes a day of the line through them (least squares). None of fewer than two, or of one instant."""
    if len(known) < 2:
        return None
    mean_x = sum(x for x, _ in known) / len(known)
    mean_y = sum(y for _, y in known) / len(known)
    spread = sum((x - mean_x) ** 2 for x, _ in known)
    if not spread:
        return None
    return round(sum((x - mean_x) * (y - mean_y) for x, y in known) / spread * DAY)
