"""A waking of a vault, and the daily budget of awake time that it is charged to."""

from datetime import datetime

from msgspec import Struct, field

from chalicelib.model.points import RestorePoint
from chalicelib.model.runs import Run
from chalicelib.model.words import Kind


class Ceiling(Struct, frozen=True, kw_only=True):
    """The part of a kind's daily budget that a window was given."""

    since: datetime
    closes_at: datetime


class Window(Struct, frozen=True, kw_only=True):
    """One waking of a vault, from the start that opened it to the snapshots that seal it."""

    window_id: str
    vault_id: str
    opened_at: datetime
    ceilings: dict[Kind, Ceiling]
    runs: dict[str, Run] = field(default_factory=dict)
    wake_attempts: int = 1
    woken_at: datetime | None = None
    ready_at: datetime | None = None
    idle_since: datetime | None = None
    closing_at: datetime | None = None
    stopped_at: datetime | None = None
    sealed_at: datetime | None = None
    close_reason: str | None = None
    seal_attempts: int = 1
    points: dict[str, RestorePoint] = field(default_factory=dict)
    held_until: datetime | None = None  # an operator keeps it awake until then, runs or not; also when that is over

    @property
    def closes_at(self) -> datetime:
        """Ceiling of every lease in this window."""
        return max(ceiling.closes_at for ceiling in self.ceilings.values())

    @property
    def live_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs.values() if run.live)

    @property
    def awake_seconds(self) -> int:
        """From the start that opened it to the instance's stop; 0 while it is not stopped."""
        return 0 if self.stopped_at is None else int((self.stopped_at - self.opened_at).total_seconds())


class Spent(Struct, frozen=True, kw_only=True):
    """Awake seconds charged to one UTC day, for each kind."""

    day: str
    seconds: dict[Kind, int]
