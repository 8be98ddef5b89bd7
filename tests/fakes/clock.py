"""A clock that moves when told to."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    def __init__(self, instant: datetime = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)
