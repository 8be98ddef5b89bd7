"""Structured logs and metrics through Powertools: metrics travel in log lines (EMF), without a call to AWS."""

from datetime import datetime
from typing import assert_never

from aws_lambda_powertools import Logger, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from chalicelib.commands import (
    Fact,
    HostKeyUnexpected,
    PointCounted,
    PointFailed,
    RunEnded,
    RunStarted,
    VaultReady,
    WakeFaulted,
    WindowClosing,
    WindowSealed,
)
from chalicelib.model import Host, Run

NAMESPACE = "nightvault"


class PowertoolsTelemetry:
    """ports.Telemetry. `stack` is a dimension of every metric, so that two stacks in an account stay apart."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._logger = Logger(service="nightvault", location=None)  # it would name `event` below, always

    def event(self, name: str, **fields: object) -> None:
        self._logger.info(name, extra=_present(fields))

    def fault(self, name: str, **fields: object) -> None:
        self._logger.error(name, extra=_present(fields))
        self._measure("Faults", 1, MetricUnit.Count, Fault=name)

    def fact(self, fact: Fact) -> None:
        match fact:
            case RunStarted(run=run, queued=queued):
                self.event("run_started", **_of(run), queued=queued)
            case RunEnded(run=run):
                self.event("run_ended", **_of(run), outcome=run.outcome, reason=run.reason, exit_code=run.exit_code)
                self._measure("Runs", 1, MetricUnit.Count, Outcome=str(run.outcome))
                if run.stats and run.stats.bytes_sent is not None:
                    self._measure("BytesPushed", run.stats.bytes_sent, MetricUnit.Bytes)
            case VaultReady(window=window, waking_seconds=seconds):
                self.event("vault_ready", window_id=window.window_id, waking_seconds=seconds)
                self._measure("WakingSeconds", seconds, MetricUnit.Seconds)
            case WakeFaulted(window=window, reason=reason, final=final):
                self.event("wake_faulted", window_id=window.window_id, reason=reason, final=final)
                self._measure("WakeFaults", 1, MetricUnit.Count)
            case WindowClosing(window=window):
                self.event("window_closing", window_id=window.window_id, reason=window.close_reason)
            case WindowSealed(window=window):
                self.event("window_sealed", window_id=window.window_id, awake_seconds=window.awake_seconds)
                self._measure("SecondsAwake", window.awake_seconds, MetricUnit.Seconds)
            case PointCounted(point=point):
                self.event(
                    "restore_point",
                    host=point.host,
                    window_id=point.window_id,
                    run_id=point.run_id,
                    snapshot_id=point.snapshot_id,
                    complete=point.complete,
                )
                self._measure(
                    "RestorePoints", 1, MetricUnit.Count, Label="complete" if point.complete else "incomplete"
                )
            case PointFailed(point=point, final=final):
                self.event("restore_point_failed", host=point.host, window_id=point.window_id, final=final)
                self._measure("SnapshotFailures", 1, MetricUnit.Count)
            case HostKeyUnexpected(expected=expected, seen=seen):
                self.event("host_key_unexpected", expected=expected, seen=seen)
                self._measure("UnexpectedHostKeys", 1, MetricUnit.Count)
            case _:
                assert_never(fact)

    def gauges(self, hosts: list[Host], now: datetime) -> None:
        for host in hosts:
            since = host.last_backup.started_at if host.last_backup else host.enrolled_at
            hours = (now - since).total_seconds() / 3600
            self._measure("HoursSinceLastBackup", hours, MetricUnit.Count, Host=host.name)
        self._measure("OverdueHosts", sum(host.overdue(now) for host in hosts), MetricUnit.Count)

    def _measure(self, name: str, value: float, unit: MetricUnit, **dimensions: str) -> None:
        with single_metric(name=name, unit=unit, value=value, namespace=NAMESPACE) as metric:
            metric.add_dimension("Stack", self._stack)
            for key, text in dimensions.items():
                metric.add_dimension(key, text)


def _present(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _of(run: Run) -> dict[str, object]:
    return {"host": run.host, "run_id": run.run_id, "kind": run.kind}
