"""Tables and verdicts out of what was measured: medians over runs, ratios against plain rsync of the same run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

LIMIT, LIMIT_NAME = 1.5, "plain rsync"
FIRST = "first push"


@dataclass(frozen=True, kw_only=True)
class Night:
    """One push of one contender, and what came of it. Bytes on the wire include ssh's own, both for all alike."""

    run: int
    change: str
    contender: str
    archive_seconds: float
    push_seconds: float
    flush_seconds: float
    sent_bytes: int
    received_bytes: int
    growth_bytes: int
    snapshot_bytes: int | None
    host_bytes: int
    restore_seconds: float | None
    client_stats: dict[str, int]

    @property
    def awake_seconds(self) -> float:
        """Until what was pushed is on the volume's disk: no vault may stop before."""
        return self.push_seconds + self.flush_seconds


Figure = Callable[[Night], float | None]


class Measured:
    """All nights, and what can be said of them."""

    def __init__(self, nights: Sequence[Night]) -> None:
        self._nights = nights

    def changes(self) -> list[str]:
        """The kinds of change, the first push first."""
        return list(dict.fromkeys(night.change for night in self._nights))

    def names(self) -> list[str]:
        """The contenders, as they first came."""
        return sorted({night.contender for night in self._nights}, key=_rank(self._nights))

    def median(self, change: str, name: str, figure: Figure) -> float | None:
        """The median over runs; None where none of them told it."""
        return _median(figure(night) for night in self._of(change, name))

    def ratio(self, change: str, name: str, figure: Figure) -> float | None:
        """The median over runs of the ratio against plain rsync in the same run."""
        limits = {night.run: figure(night) for night in self._of(change, LIMIT_NAME)}
        ratios = []
        for night in self._of(change, name):
            ours, limit = figure(night), limits.get(night.run)
            ratios.append(ours / limit if ours is not None and limit else None)
        return _median(ratios)

    def _of(self, change: str, name: str) -> Iterable[Night]:
        return (night for night in self._nights if (night.change, night.contender) == (change, name))


def tables(measured: Measured) -> str:
    """One table for each kind of change, in Markdown."""
    columns: list[tuple[str, Figure, Callable[[float], str]]] = [
        ("archive s", lambda n: n.archive_seconds, _seconds),
        ("push s", lambda n: n.push_seconds, _seconds),
        ("awake s", lambda n: n.awake_seconds, _seconds),
        ("sent MB", lambda n: n.sent_bytes, _megabytes),
        ("back MB", lambda n: n.received_bytes, _megabytes),
        ("growth MB", lambda n: n.growth_bytes, _megabytes),
        ("snapshot MB", lambda n: n.snapshot_bytes, _megabytes),
        ("on host MB", lambda n: n.host_bytes, _megabytes),
        ("restore s", lambda n: n.restore_seconds, _seconds),
    ]
    ratios: list[tuple[str, Figure]] = [("awake ÷", lambda n: n.awake_seconds), ("sent ÷", lambda n: n.sent_bytes)]
    text = []
    for change in measured.changes():
        text.append(f"\n### {change[0].upper()}{change[1:]}\n")
        text.append("| contender | " + " | ".join([c[0] for c in columns] + [r[0] for r in ratios]) + " |")
        text.append("|---" + "|---:" * (len(columns) + len(ratios)) + "|")
        for name in measured.names():
            cells = [_cell(measured.median(change, name, figure), show) for _, figure, show in columns]
            cells += [_cell(measured.ratio(change, name, figure), _ratio) for _, figure in ratios]
            text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def verdicts(measured: Measured, ours: Sequence[str]) -> str:
    """For each driver and kind of change: is what is sent within the limit of plain rsync's?"""
    text = [f"\nBytes sent, against {LIMIT_NAME}; the aim is at most {LIMIT} times:"]
    for name in ours:
        for change in measured.changes():
            ratio = measured.ratio(change, name, lambda n: n.sent_bytes)
            if ratio is not None:
                text.append(f"  {'within' if ratio <= LIMIT else 'MISSED'}  {ratio:6.2f}  {name}, {change}")
    return "\n".join(text)


def argument(measured: Measured, candidates: Sequence[str]) -> str:
    """Which way of keeping and encrypting the figures of the nights argue for."""
    nights = [change for change in measured.changes() if change != FIRST]
    known = [name for name in candidates if all(measured.ratio(c, name, lambda n: n.sent_bytes) for c in nights)]
    if not nights or not known:
        return "\nNo night of ours was measured: nothing to argue from."

    def total(name: str, figure: Figure) -> float:
        return sum(measured.median(change, name, figure) or 0 for change in nights)

    def worst(name: str) -> float:
        return max(measured.ratio(change, name, lambda n: n.sent_bytes) or 0 for change in nights)

    def told(name: str) -> str:
        return (
            f"{name}: vault awake {total(name, lambda n: n.awake_seconds):.1f} s in {len(nights)} nights, "
            f"archive {total(name, lambda n: n.archive_seconds):.1f} s, "
            f"sends {worst(name):.2f} times plain rsync at worst, "
            f"{total(name, lambda n: n.host_bytes) / len(nights) / 1e6:.0f} MB on the host"
        )

    within = [name for name in known if worst(name) <= LIMIT]
    pool = within or known
    best = min(pool, key=lambda name: total(name, lambda n: n.awake_seconds))
    text = [
        f"\nWhich default? (the limit is awake {total(LIMIT_NAME, lambda n: n.awake_seconds):.1f} s)",
        *(f"  {told(name)}" for name in known),
        f"  Within {LIMIT} times in every kind of change: {', '.join(within) or 'none; the choice is among all'}.",
        f"  Of those the vault, which is billed, is awake the shortest with {best}.",
    ]
    for keep in ("rdiff", "mirror"):
        same = [name for name in pool if name.startswith(keep)]
        if same:
            text.append(f"  With keep = {keep}: {min(same, key=lambda n: total(n, lambda x: x.awake_seconds))}.")
    return "\n".join(text)


def _rank(nights: Sequence[Night]) -> Callable[[str], int]:
    first = [night.contender for night in nights if (night.change, night.run) == (nights[0].change, nights[0].run)]
    return lambda name: first.index(name) if name in first else len(first)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _cell(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else show(value)


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"
