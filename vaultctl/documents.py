"""The answers of docs/operate.md, typed as far as they are shown. Fields that are not shown are not named here,
and a field that this vaultctl does not know is no error."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from vaultctl.failures import Exit, Failure


class Last(Struct, frozen=True, kw_only=True):
    started_at: datetime
    completed_at: datetime
    snapshot_id: str
    run_id: str
    window_id: str


class Drill(Struct, frozen=True, kw_only=True):
    point_id: str
    state: str
    at: datetime
    detail: str = ""
    seconds: int = 0
    files: int = 0
    checked_bytes: int = 0
    unprovable: bool = False
    manifest_lost: bool = False


class Host(Struct, frozen=True, kw_only=True):
    name: str
    vault_id: str
    size_gib: int
    every_seconds: int
    enrolled_at: datetime
    overdue: bool
    max_size_gib: int | None = None
    retired_at: datetime | None = None
    last: Last | None = None
    age_seconds: int | None = None
    next_expected_at: datetime | None = None
    volume_id: str | None = None
    used_bytes: int | None = None
    volume_bytes: int | None = None
    volume_trouble: str | None = None
    growth_bytes_per_day: float | None = None
    live_run_id: str | None = None
    ping_url: str | None = None
    kept_since: datetime | None = None
    resting: str | None = None
    rests_as: str | None = None
    drill: Drill | None = None
    drill_overdue: bool = False


class Stats(Struct, frozen=True, kw_only=True):
    files_sent: int | None = None
    bytes_total: int | None = None
    bytes_sent: int | None = None
    archive_seconds: int | None = None
    push_seconds: int | None = None


class Run(Struct, frozen=True, kw_only=True):
    run_id: str
    host: str
    kind: str
    started_at: datetime
    window_id: str | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    committed: bool = False
    stats: Stats | None = None


class Point(Struct, frozen=True, kw_only=True):
    host: str
    run_id: str
    complete: bool
    outcome: str
    state: str
    window_id: str | None = None
    snapshot_id: str | None = None
    started_at: datetime | None = None
    made_at: datetime | None = None
    volume_gib: int | None = None
    fit: bool | None = None
    held_at: datetime | None = None
    locked_until: datetime | None = None
    dropped_at: datetime | None = None
    dropped_for: str = ""
    deleted_at: datetime | None = None
    unusual: str = ""


class Copy(Struct, frozen=True, kw_only=True):
    snapshot_id: str
    region: str
    taken_at: datetime
    state: str
    copy_id: str | None = None
    fit: bool | None = None
    refused: str = ""


class Numbers(Struct, frozen=True, kw_only=True):
    daily: int
    weekly: int
    monthly: int


class Verdict(Struct, frozen=True, kw_only=True):
    point: Point
    keep: bool
    why: list[str]
    refused: str = ""


class Archive(Struct, frozen=True, kw_only=True):
    points: list[str]
    dollars: float


class Monthly(Struct, frozen=True, kw_only=True):
    snapshot_id: str
    whole_bytes: int
    months: int
    own_bytes: int | None = None
    dollars: float | None = None
    why_not: str = ""


class Retention(Struct, frozen=True, kw_only=True):
    """An answer to `retention`."""

    host: str
    retention: Numbers
    own: bool
    verdicts: list[Verdict]
    kept_since: datetime | None = None
    deleted: list[Point] = msgspec.field(default_factory=list)
    archive: Archive | None = None
    monthlies: list[Monthly] = msgspec.field(default_factory=list)


class Accepted(Struct, frozen=True, kw_only=True):
    """An answer to `accept`."""

    host: str
    accepted: list[Point]
    kept_since: datetime | None = None


class Window(Struct, frozen=True, kw_only=True):
    window_id: str
    vault_id: str
    opened_at: datetime
    closes_at: datetime
    ready_at: datetime | None = None
    closing_at: datetime | None = None
    stopped_at: datetime | None = None
    sealed_at: datetime | None = None
    awake_seconds: int = 0
    close_reason: str | None = None
    runs: list[Run] = msgspec.field(default_factory=list)
    points: list[Point] = msgspec.field(default_factory=list)


class Vault(Struct, frozen=True, kw_only=True):
    vault_id: str
    phase: str
    hosts: list[str]
    instance_id: str | None = None
    address: str | None = None
    window: Window | None = None
    held_until: datetime | None = None
    queued: list[str] = msgspec.field(default_factory=list)
    spent_seconds: dict[str, int] = msgspec.field(default_factory=dict)
    reported_at: datetime | None = None


class Check(Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    level: str
    what: str
    remedy: str = ""
    resource: str | None = None
    fixable: bool = False
    fixed: bool = False


class Kept(Struct, frozen=True, kw_only=True):
    restore_points: int
    volume_id: str | None = None
    volume_gib: int | None = None
    stored_bytes: int | None = None


class Deleted(Struct, frozen=True, kw_only=True):
    volume_id: str | None = None


class Retired(Struct, frozen=True, kw_only=True):
    """An answer to `retire`. A volume goes as soon as no machine has it."""

    kept: Kept
    deleted: Deleted | None = None

    @property
    def gone(self) -> str | None:
        return self.deleted.volume_id if self.deleted else None


class Code(Struct, frozen=True, kw_only=True):
    """An answer to `invite` and `rotate`. `code` is a secret until it is used."""

    host: str
    code: str
    url: str
    expires_at: datetime


class About(Struct, frozen=True, kw_only=True):
    stack: str
    region: str
    url: str
    version: str
    now: datetime
    policy: dict[str, int] = msgspec.field(default_factory=dict)
    dashboard_url: str | None = None
    topic_arn: str | None = None


T = TypeVar("T")


def read(answer: Any, kind: type[T]) -> T:
    """`answer` as `kind`. Raises Failure that names the field, when the stack speaks another version."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise Failure(
            Exit.UNFORESEEN,
            "UnknownAnswer",
            f"the stack answered what this vaultctl does not understand ({error}); are both of the same version?",
        ) from error
