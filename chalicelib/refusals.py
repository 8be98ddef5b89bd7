"""When AWS is asked again for what it refused: after fifteen minutes, then twice as long each time, up to a day."""

from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)
FIRST_PAUSE = timedelta(minutes=15)
NEVER = datetime.min.replace(tzinfo=UTC)  # before all else, where the longest waiting go first


def retry_at(now: datetime, refusals: int) -> datetime:
    """`refusals`: how many there were before this one."""
    pause: timedelta = FIRST_PAUSE * 2 ** min(refusals, 10)
    return now + min(DAY, pause)


def waits(until: datetime | None, now: datetime) -> bool:
    """It is not time yet. Never longer than a day, also when the clock had jumped ahead."""
    return until is not None and now < until <= now + DAY
