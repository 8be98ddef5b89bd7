"""Which restore points of a host stay, and why: `judge(points, retention, now)`. Pure; docs/retention.md explains it.

Grandfather, father, son over the points that count: the newest of each of so many days, ISO weeks and months (UTC)
that have one. Periods without a point are not counted, so neither a gap nor the passing of time drops anything.

The newest of a period stands for it, and that is what makes nightly application safe. The point that will stand for
a month when it is over is, from the night it is made, the newest of all or of its month, so it is never dropped
before; and the rank of a period among the newest ones only grows. What a hundred nightly applications leave is what
one would leave of the whole history: tests/unit/test_retention.py holds it to that.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from chalicelib.model import PointState, RestorePoint, Retention

NEWEST_KEPT = 3


class Why(StrEnum):
    """Why a point stays (the first group) or goes."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    NEWEST = "newest"  # among the last three
    PROVEN = "proven"  # the newest that passed a drill
    UNFIT = "unfit"  # failed its drill, and none that is newer passed one; going: one did
    LOCKED = "locked"  # by an operator, or by EBS
    RESTORING = "restoring"
    COPYING = "copying"  # to another region
    RESTING = "resting"  # the host has no volume: its next one is made of this
    HELD = "held"  # everything up to then is kept, until an operator says otherwise
    PENDING = "pending"  # its snapshot is not completed
    UNFINISHED = "unfinished"  # the newest push was not complete; nothing complete came after it
    FUTURE = "future"  # made at a time that has not come: some clock is wrong, and nothing is thrown away on its word
    ALL = "all"  # retention is off

    SUPERSEDED = "superseded"  # not complete, and a complete one came after it
    FAILED = "failed"  # there is no snapshot behind it, and a complete one came after it
    THINNED = "thinned"  # no day, week or month needs it


class Verdict(Struct, frozen=True, kw_only=True):
    """What becomes of a point. `why`: every reason to keep it, or the one to drop it."""

    point: RestorePoint
    keep: bool
    why: tuple[Why, ...]


def judge(
    points: Iterable[RestorePoint],
    retention: Retention,
    now: datetime,
    *,
    needed: Mapping[str, Why] | None = None,
    kept_since: datetime | None = None,
) -> list[Verdict]:
    """A verdict for each of a host's points, newest first; in whatever order they come.

    `needed`: snapshots that must stay for a reason that their records do not tell (a restore, EBS's lock), by id.
    `kept_since`: the host's hold.
    """
    points = sorted(points, key=lambda point: (point.made_at or now, str(point.snapshot_id)), reverse=True)
    past = [point for point in points if point.counts and point.made_at and point.made_at <= now]
    sound = [point for point in past if point.marks.sound]
    proven = [point for point in past if point.marks.fit]
    kept = _slots(past, retention)
    for point in (*past[:NEWEST_KEPT], *sound[:NEWEST_KEPT]):
        kept[point.snapshot_id].append(Why.NEWEST)
    for point in proven[:1]:
        kept[point.snapshot_id].append(Why.PROVEN)

    def newer(others: list[RestorePoint], point: RestorePoint) -> bool:
        return bool(others and others[0].made_at and point.made_at and others[0].made_at > point.made_at)

    def reasons(point: RestorePoint) -> Iterator[Why]:
        yield from kept.get(point.snapshot_id, ())
        if retention.off:
            yield Why.ALL
        if point.state is PointState.PENDING or point.made_at is None:
            yield Why.PENDING
        elif point.made_at > now:
            yield Why.FUTURE
        elif kept_since and point.made_at <= kept_since:
            yield Why.HELD
        if point.marks.locked(now):
            yield Why.LOCKED
        if needed and point.snapshot_id and point.snapshot_id in needed:
            yield needed[point.snapshot_id]
        if not point.counts and not newer(sound, point):
            yield Why.UNFINISHED
        if point.counts and not point.marks.sound and not newer(proven, point):
            yield Why.UNFIT

    verdicts = []
    for point in points:
        why = tuple(dict.fromkeys(reasons(point)))
        verdicts.append(Verdict(point=point, keep=bool(why), why=why or (_why_not(point),)))
    return verdicts


def _why_not(point: RestorePoint) -> Why:
    if point.state is PointState.ERROR:
        return Why.FAILED
    if not point.complete:
        return Why.SUPERSEDED
    return Why.THINNED if point.marks.sound else Why.UNFIT


def _slots(newest_first: list[RestorePoint], retention: Retention) -> dict[str | None, list[Why]]:
    """Why days, weeks and months keep which points, by snapshot id.

    A period's newest sound point stands for it. A period that has only unfit ones keeps the newest of them, and takes
    no other period's place: fourteen bad nights must not end fourteen good ones.
    """
    kept: dict[str | None, list[Why]] = defaultdict(list)
    tiers: tuple[tuple[Why, int, Callable[[datetime], object]], ...] = (
        (Why.DAILY, retention.daily, lambda at: at.date()),
        (Why.WEEKLY, retention.weekly, lambda at: at.isocalendar()[:2]),
        (Why.MONTHLY, retention.monthly, lambda at: (at.year, at.month)),
    )
    for why, number, period in tiers:
        places = number
        periods: dict[object, list[RestorePoint]] = defaultdict(list)
        for point in newest_first:
            if point.made_at:
                periods[period(point.made_at.astimezone(UTC))].append(point)
        for those in periods.values():
            if places <= 0:
                break
            sound = [point for point in those if point.marks.sound]
            kept[(sound or those)[0].snapshot_id].append(why)
            places -= bool(sound)
    return kept
