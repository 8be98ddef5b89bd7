"""Time across the picture: one column a night, and in each the hours in which anything ever happened.

Two weeks drawn to scale would make a backup of ten minutes half a pixel wide. All columns show the same hours,
so that a night that began late is seen beside the others; idle hours between are left out.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo

from msgspec import Struct

DAY = 86400
PAD = 240
STEP = 300  # hours shown begin and end at whole five minutes
LEFT_OUT = 3600  # an idle stretch at least this long is not drawn
SEGMENTS = 3
SHORTEST = 1800
GAP = 0.05  # of a column, where hours are left out

Span = tuple[int, int]


class Axis(Struct, frozen=True, kw_only=True):
    """`starts`: local wall-clock time at which each night's column begins, oldest first. Spans are seconds after it."""

    zone: tzinfo
    starts: tuple[datetime, ...]
    shown: tuple[Span, ...]

    def local(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=None)

    def night(self, instant: datetime) -> int:
        """Column of an instant; may be off the picture (below 0 or above the last)."""
        return (self.local(instant) - self.starts[0]) // timedelta(seconds=DAY)

    def place(self, instant: datetime, night: int) -> float:
        """Where in the column of `night`: 0 at its left edge, 1 at its right; held within it."""
        return self._fraction((self.local(instant) - self.starts[0]).total_seconds() - night * DAY)

    def _fraction(self, seconds: float) -> float:
        scale = (1 - GAP * (len(self.shown) - 1)) / sum(end - begin for begin, end in self.shown)
        at = 0.0
        for begin, end in self.shown:
            if seconds <= end:
                return at + max(0.0, seconds - begin) * scale
            at += (end - begin) * scale + GAP
        return 1.0

    @property
    def breaks(self) -> list[float]:
        """Middle of each left-out stretch, within a column."""
        return [self._fraction(end) + GAP / 2 for _, end in self.shown[:-1]]

    def day(self, night: int) -> date:
        """The date by which a night is known: that of the middle of the longest stretch shown."""
        begin, end = max(self.shown, key=lambda span: span[1] - span[0])
        return (self.starts[night] + timedelta(seconds=(begin + end) // 2)).date()

    @property
    def hours(self) -> str:
        """The hours that each column shows: `01:00-04:40`."""
        ends = [[f"{self.starts[0] + timedelta(seconds=s):%H:%M}" for s in span] for span in self.shown]
        whole = self.shown == ((0, DAY),)
        return "the whole day" if whole else ", ".join(f"{begin}-{end}" for begin, end in ends)


def axis(spans: Iterable[tuple[datetime, datetime]], now: datetime, days: int, zone: tzinfo) -> Axis:
    """An axis of `days` nights that ends with the one of `now`, and shows all of `spans` (instants, aware)."""
    local = [
        (begin.astimezone(zone).replace(tzinfo=None), end.astimezone(zone).replace(tzinfo=None)) for begin, end in spans
    ]
    hour = _boundary(local)
    here = now.astimezone(zone).replace(tzinfo=None)
    tonight = (here - timedelta(hours=hour)).date()
    first = datetime.combine(tonight, datetime.min.time()) + timedelta(hours=hour) - timedelta(days=days - 1)
    starts = tuple(first + timedelta(days=n) for n in range(days))
    return Axis(zone=zone, starts=starts, shown=_shown([s for pair in local for s in _within(pair, first)]))


def _boundary(spans: list[tuple[datetime, datetime]]) -> int:
    """The hour at which a column begins: midnight, or where that would cut a window in two, nearest to noon."""
    cut = [0] * 24
    for begin, end in spans:
        hours = int((end - begin).total_seconds()) // 3600 + 1
        for n in range(min(hours, 24)):
            at = (begin + timedelta(hours=n + 1)).replace(minute=0, second=0, microsecond=0)
            if begin < at < end:
                cut[at.hour] += 1
    return min(range(24), key=lambda hour: (cut[hour], hour != 0, abs(hour - 12)))


def _within(span: tuple[datetime, datetime], first: datetime) -> list[Span]:
    """A span as seconds after its night's start; one that reaches into the next night is two."""
    begin = int((span[0] - first).total_seconds())
    length = min(int((span[1] - span[0]).total_seconds()), DAY - 1)
    start = begin % DAY
    if start + length <= DAY:
        return [(start, start + length)]
    return [(start, DAY), (0, start + length - DAY)]


def _shown(busy: list[Span]) -> tuple[Span, ...]:
    if not busy:
        return ((0, DAY),)
    shown: list[Span] = []
    for begin, end in sorted(((b - PAD) // STEP * STEP, -((-e - PAD) // STEP) * STEP) for b, e in busy):
        low, high = max(0, begin), min(DAY, end)
        if shown and low - shown[-1][1] < LEFT_OUT:
            shown[-1] = (shown[-1][0], max(shown[-1][1], high))
        else:
            shown.append((low, high))
    while len(shown) > SEGMENTS:
        n = min(range(len(shown) - 1), key=lambda i: shown[i + 1][0] - shown[i][1])
        shown[n : n + 2] = [(shown[n][0], shown[n + 1][1])]
    if sum(end - begin for begin, end in shown) < SHORTEST:
        begin, end = shown[-1]
        shown[-1] = (max(0, min(begin, DAY - SHORTEST)), min(DAY, max(end, begin + SHORTEST)))
    return tuple(shown)
