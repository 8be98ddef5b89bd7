"""What the pictures need of WINDOW, RUN, POINT and HOST (docs/operate.md), typed. Other fields are passed over."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct


class Stats(Struct, frozen=True, kw_only=True):
    files_sent: int | None = None
    bytes_total: int | None = None
    bytes_sent: int | None = None


class Run(Struct, frozen=True, kw_only=True):
    run_id: str
    host: str
    started_at: datetime
    kind: str = "backup"
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    stats: Stats | None = None

    def end(self, now: datetime) -> datetime:
        """When it ended; a live run lasts until now."""
        return max(self.started_at, self.ended_at or now)


class Point(Struct, frozen=True, kw_only=True):
    run_id: str
    complete: bool
    state: str = "pending"
    unusual: str = ""


class Window(Struct, frozen=True, kw_only=True):
    window_id: str
    vault_id: str
    opened_at: datetime
    closes_at: datetime
    ready_at: datetime | None = None
    closing_at: datetime | None = None
    stopped_at: datetime | None = None
    close_reason: str | None = None
    runs: list[Run] = msgspec.field(default_factory=list)
    points: list[Point] = msgspec.field(default_factory=list)

    def end(self, now: datetime) -> datetime:
        """When the machine stopped; while it has not, now."""
        return max(self.opened_at, self.stopped_at or now)


class Last(Struct, frozen=True, kw_only=True):
    started_at: datetime


class Host(Struct, frozen=True, kw_only=True):
    name: str
    vault_id: str = ""
    retired_at: datetime | None = None
    every_seconds: int = 86400
    enrolled_at: datetime | None = None
    last: Last | None = None
    overdue: bool = False


def read_windows(windows: Iterable[object], now: datetime, days: int) -> list[Window]:
    """Those that ended within the last `days`, oldest first. Raises msgspec.ValidationError."""
    seen = [msgspec.convert(_plain(window), Window) for window in windows]
    since = now - timedelta(days=days + 1)
    return sorted((w for w in seen if w.end(now) > since and w.opened_at <= now), key=lambda w: w.opened_at)


def read_hosts(hosts: Iterable[object]) -> list[Host]:
    """Raises msgspec.ValidationError. A bare name is a host of which nothing else is known."""
    return [Host(name=h) if isinstance(h, str) else msgspec.convert(_plain(h), Host) for h in hosts]


def _plain(value: object) -> Any:
    return value if isinstance(value, dict) else msgspec.to_builtins(value)
