"""Structured logs and metrics through Powertools: metrics travel in log lines (EMF), without a call to AWS."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import assert_never

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from chalicelib import metrics
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
from chalicelib.metrics import NAMESPACE, STACK, Metric
from chalicelib.model import Drill, DrillState, Host, Kind, Run, Vault

# Values of one metric in one line: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
# allows 100, and Powertools prints by itself at the hundredth.
MOST_VALUES = 99
# How old a vault's report may be to say how full its volumes are: one look in a quarter of an hour finds it.
FRESH = timedelta(minutes=15)


class PowertoolsTelemetry:
    """ports.Telemetry. `stack` is a dimension of every metric, so that two stacks in an account stay apart."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._logger = Logger(service="nightvault", location=None)  # it would name `event` below, always

    def event(self, name: str, **fields: object) -> None:
        self._logger.info(name, extra=_present(fields))

    def fault(self, name: str, **fields: object) -> None:
        self._logger.error(name, extra=_present(fields))
        self._measure(metrics.FAULTS, 1, fault=name)

    def fact(self, fact: Fact) -> None:
        match fact:
            case RunStarted(run=run, queued=queued):
                self.event("run_started", **_of(run), queued=queued)
            case RunEnded(run=run):
                self.event("run_ended", **_of(run), outcome=run.outcome, reason=run.reason, exit_code=run.exit_code)
                if run.kind is not Kind.DRILL:  # which has metrics of its own
                    self._measure(metrics.RUNS, 1, str(run.outcome))
                if run.stats and run.stats.bytes_sent is not None:
                    self._measure(metrics.BYTES_PUSHED, run.stats.bytes_sent, host=run.host)
            case VaultReady(window=window, waking_seconds=seconds):
                self.event("vault_ready", window_id=window.window_id, waking_seconds=seconds)
                self._measure(metrics.WAKING_SECONDS, seconds)
            case WakeFaulted(window=window, reason=reason, final=final):
                self.event("wake_faulted", window_id=window.window_id, reason=reason, final=final)
                self._measure(metrics.WAKE_FAULTS, 1)
                if final:
                    self._measure(metrics.WAKES_GIVEN_UP, 1)
            case WindowClosing(window=window):
                self.event("window_closing", window_id=window.window_id, reason=window.close_reason)
            case WindowSealed(window=window):
                self.event("window_sealed", window_id=window.window_id, awake_seconds=window.awake_seconds)
                self._measure(metrics.SECONDS_AWAKE, window.awake_seconds)
            case PointCounted() | PointFailed() | PushUnusual():
                self._point(fact)
            case PointDropped() | PointSpared() | PointDeleted() | PointNotDeleted():
                self._retention(fact)
            case PointCopied() | CopyRefused() | CopyLost() | CopyDeleted():
                self._copy(fact)
            case BudgetSpent(vault_id=vault_id, kind=kind):
                self.event("budget_spent", vault_id=vault_id, kind=kind)
                self._measure(metrics.BUDGETS_SPENT, 1)
            case VolumeGrown() | VolumeNearlyFull() | VolumeRefused():
                self._volume(fact)
            case VolumeGone() | VolumeRested() | VolumeRemade() | VolumeLost():
                self._volume_came_or_went(fact)
            case Retired(host=host, volume_id=volume_id, deleting=deleting):
                self.event("host_retired", host=host, volume_id=volume_id, deleting=deleting)
            case RestoreReady() | RestoreFailed() | PointVolumeStays():
                self._restore(fact)
            case DrillEnded(host=host, drill=drill):
                self._drill(host, drill)
            case HostKeyUnexpected(expected=expected, seen=seen):
                self.event("host_key_unexpected", expected=expected, seen=seen)
                self._measure(metrics.UNEXPECTED_HOST_KEYS, 1)
            case _:
                assert_never(fact)

    def _point(self, fact: PointCounted | PointFailed | PushUnusual) -> None:
        match fact:
            case PointCounted(point=point):
                self.event(
                    "restore_point",
                    host=point.host,
                    window_id=point.window_id,
                    run_id=point.run_id,
                    snapshot_id=point.snapshot_id,
                    complete=point.complete,
                )
                self._measure(metrics.RESTORE_POINTS, 1, "complete" if point.complete else "incomplete")
            case PointFailed(point=point, final=final):
                self.event("restore_point_failed", host=point.host, window_id=point.window_id, final=final)
                self._measure(metrics.SNAPSHOT_FAILURES, 1)
                if final:
                    self._measure(metrics.POINTS_GIVEN_UP, 1, host=point.host)
            case PushUnusual(point=point, before=before):
                known = before and before.snapshot_id
                self.event("push_unusual", host=point.host, run_id=point.run_id, why=point.marks.unusual, before=known)
                self._measure(metrics.UNUSUAL_PUSHES, 1, host=point.host)
            case _:
                assert_never(fact)

    def _volume(self, fact: VolumeGrown | VolumeNearlyFull | VolumeRefused) -> None:
        match fact:
            case VolumeGrown(host=host, volume_id=volume_id, from_gib=before, to_gib=after):
                self.event("volume_grown", host=host, volume_id=volume_id, from_gib=before, to_gib=after)
                self._measure(metrics.VOLUMES_GROWN, 1, host=host)
            case VolumeNearlyFull(host=host, volume_id=volume_id, fill=fill):
                self.event("volume_nearly_full", host=host, volume_id=volume_id, percent=round(100 * fill))
                self._measure(metrics.VOLUMES_AT_LIMIT, 1, host=host)
            case VolumeRefused(host=host, volume_id=volume_id, detail=detail):
                self.event("volume_refused", host=host, volume_id=volume_id, detail=detail)
            case _:
                assert_never(fact)

    def _volume_came_or_went(self, fact: VolumeGone | VolumeRested | VolumeRemade | VolumeLost) -> None:
        match fact:
            case VolumeGone(host=host, volume_id=volume_id, snapshot_id=snapshot_id):
                self.event("volume_deleted", host=host, volume_id=volume_id, snapshot_id=snapshot_id)
            case VolumeRested(host=host, volume_id=volume_id, snapshot_id=snapshot_id):
                self.event("volume_rested", host=host, volume_id=volume_id, snapshot_id=snapshot_id)
            case VolumeRemade(host=host, volume_id=volume_id, snapshot_id=snapshot_id):
                self.event("volume_remade", host=host, volume_id=volume_id, snapshot_id=snapshot_id)
            case VolumeLost(host=host, lost=lost, point=point):
                self.fault("volume_lost", host=host, lost=lost, snapshot_id=point and point.snapshot_id)
            case _:
                assert_never(fact)

    def _restore(self, fact: RestoreReady | RestoreFailed | PointVolumeStays) -> None:
        match fact:
            case RestoreReady(run=run, ready_seconds=seconds):
                source = run.restore and run.restore.source
                self.event("restore_ready", **_of(run), source=source, ready_seconds=seconds)
                self._measure(metrics.RESTORE_READY_SECONDS, seconds, host=run.host)
            case RestoreFailed(run=run):
                self.event("restore_failed", **_of(run), reason=run.reason)
                self._measure(metrics.RESTORES_FAILED, 1, host=run.host)
            case PointVolumeStays(volume=volume):
                self.fault("restore_volume_stays", host=volume.host, volume_id=volume.volume_id, run_id=volume.run_id)
            case _:
                assert_never(fact)

    def _drill(self, host: str, drill: Drill) -> None:
        self.event(
            "drill_ended",
            host=host,
            run_id=drill.run_id,
            point_id=drill.point_id,
            state=drill.state,
            detail=drill.detail,
            files=drill.files,
            checked_bytes=drill.checked_bytes,
            seconds=drill.seconds,
        )
        if drill.state is DrillState.PASSED:
            self._measure(metrics.DRILLS_PASSED, 1, host=host)
        elif drill.state is DrillState.FAILED or (drill.state is DrillState.UNPROVEN and drill.manifest_lost):
            self._measure(metrics.DRILLS_FAILED, 1, host=host)

    def _retention(self, fact: PointDropped | PointSpared | PointDeleted | PointNotDeleted) -> None:
        marks = fact.point.marks
        about = {"host": fact.point.host, "snapshot_id": fact.point.snapshot_id, "made_at": fact.point.made_at}
        match fact:
            case PointDropped():
                self.event("point_dropped", **about, why=marks.dropped_for)
            case PointSpared(why=why):
                self.event("point_spared", **about, why=why)
            case PointDeleted():
                self.event("point_deleted", **about, why=marks.dropped_for)
                self._measure(metrics.POINTS_DELETED, 1)
            case PointNotDeleted(aws_code=aws_code):
                self.event("point_not_deleted", **about, aws_code=aws_code, error=marks.refused)
                self._measure(metrics.DELETIONS_REFUSED, 1, host=fact.point.host)
            case _:
                assert_never(fact)

    def _copy(self, fact: PointCopied | CopyRefused | CopyLost | CopyDeleted) -> None:
        copy = fact.copy
        about = {"host": fact.host, "region": copy.region, "copy_id": copy.copy_id, "snapshot_id": copy.point_id}
        match fact:
            case PointCopied():
                self.event("point_copied", **about, taken_at=copy.taken_at)
            case CopyRefused(deleting=deleting):
                self.fault("copy_refused", **about, deleting=deleting, error=copy.refused)
            case CopyLost():
                self.fault("copy_lost", **about)
            case CopyDeleted():
                self.event("copy_deleted", **about)
            case _:
                assert_never(fact)

    def gauges(self, hosts: list[Host], vaults: list[Vault], now: datetime) -> None:
        overdue = sorted(host.name for host in hosts if host.overdue(now))
        self._measure(metrics.OVERDUE_HOSTS, len(overdue), hosts=overdue)
        if unproven := sorted(host.name for host in hosts if host.drill_overdue(now)):
            self._measure(metrics.DRILL_OVERDUE, len(unproven), hosts=unproven)
        self._measure_all(metrics.HOURS_SINCE_LAST_BACKUP, (_hours_since_backup(host, now) for host in hosts))
        self._measure_all(metrics.VOLUME_FILL, (fill for vault in vaults for fill in _fills(vault, now)))

    def past_window(self, vaults: list[Vault], now: datetime) -> None:
        for vault in vaults:
            window = vault.window
            if window and window.stopped_at is None and now > window.closes_at:
                seconds = (now - window.closes_at).total_seconds()
                self._measure(metrics.SECONDS_PAST_WINDOW, seconds, vault_id=vault.vault_id)

    def _measure(self, metric: Metric, value: float, dimension: str | None = None, **about: object) -> None:
        """`about` stands in the same log line and costs nothing; `dimension` is the value of the metric's own."""
        line = EphemeralMetrics(namespace=NAMESPACE)
        line.add_dimension(STACK, self._stack)
        if metric.dimension:
            line.add_dimension(metric.dimension, dimension or "")
        for name, what in about.items():
            line.add_metadata(name, what)
        line.add_metric(metric.name, metric.unit, value)
        line.flush_metrics()

    def _measure_all(self, metric: Metric, values: Iterable[float]) -> None:
        rest = iter(values)
        while some := list(islice(rest, MOST_VALUES)):
            line = EphemeralMetrics(namespace=NAMESPACE)
            line.add_dimension(STACK, self._stack)
            for value in some:
                line.add_metric(metric.name, metric.unit, value)
            line.flush_metrics()


def _hours_since_backup(host: Host, now: datetime) -> float:
    since = host.last_backup.started_at if host.last_backup else host.enrolled_at
    return (now - since).total_seconds() / 3600


def _fills(vault: Vault, now: datetime) -> Iterable[float]:
    """Percent of each volume that is used, if the vault has said so lately: also when it has been stopped since."""
    agent = vault.agent
    if agent and agent.reported_at and now - agent.reported_at <= FRESH:
        for mount in agent.mounts.values():
            if mount.used_bytes is not None:
                yield 100 * mount.used_bytes / mount.size_bytes


def _present(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _of(run: Run) -> dict[str, object]:
    point_id = run.restore and run.restore.point_id
    return {"host": run.host, "run_id": run.run_id, "kind": run.kind, "point_id": point_id}
