"""The picture for a terminal: the same lanes, nights and marks, as styled lines or plain text."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo

from chalicelib.timeline.picture import URGENCY, Lane, Mark, Picture, Section, Seen, picture
from chalicelib.timeline.words import duration, standing, summary, zone_name

Line = list[tuple[str, str]]

GLYPHS = {
    Mark.COUNTED: ("●", "green"),
    Mark.COMPLETE: ("○", "green"),
    Mark.CUT: ("◨", "yellow"),
    Mark.FAILED: ("✕", "bold red"),
    Mark.ABANDONED: ("◇", "magenta"),
    Mark.LIVE: ("▶", "bold blue"),
    Mark.RESTORED: ("▼", "cyan"),
    Mark.MISSED: ("-", "dim"),
}
LETTERS = {
    Mark.COUNTED: "O",
    Mark.COMPLETE: "o",
    Mark.CUT: "]",
    Mark.FAILED: "X",
    Mark.ABANDONED: "?",
    Mark.LIVE: ">",
    Mark.RESTORED: "v",
    Mark.MISSED: "-",
}
SPANNED = 5  # characters a night from which on a run's length is drawn, not its end alone


def lines(
    windows: Iterable[object],
    hosts: Iterable[object],
    now: datetime,
    *,
    days: int = 14,
    width: int = 100,
    zone: tzinfo = UTC,
    ascii_only: bool = False,
) -> list[Line]:
    """As [(text, Rich style)], at most `width` characters each (14 nights need 62). Raises as `picture` does."""
    drawn = picture(windows, hosts, now, days, zone)
    return _Lines(drawn, width, ascii_only=ascii_only).all()


def text(
    windows: Iterable[object],
    hosts: Iterable[object],
    now: datetime,
    *,
    days: int = 14,
    width: int = 100,
    zone: tzinfo = UTC,
    ascii_only: bool = False,
) -> str:
    """The same without styles."""
    found = lines(windows, hosts, now, days=days, width=width, zone=zone, ascii_only=ascii_only)
    return "\n".join("".join(part for part, _ in line).rstrip() for line in found)


class _Lines:
    def __init__(self, drawn: Picture, width: int, *, ascii_only: bool) -> None:
        self.drawn = drawn
        self.ascii = ascii_only
        names = [lane.host.name for lane in drawn.lanes] + [s.vault_id for s in drawn.sections] + ["host"]
        ages = [standing(lane.host, drawn.now) for lane in drawn.lanes] + ["last good"]
        nights = len(drawn.axis.starts)
        self.right = max(map(len, ages)) + 1
        self.left = min(max(map(len, names)) + 1, max(14, width - self.right - 3 * nights))
        self.cell = max(1, min(9, (width - self.left - self.right) // nights))

    def all(self) -> list[Line]:
        late = any(lane.host.overdue for lane in self.drawn.lanes)
        out: list[Line] = [[(summary(self.drawn), "bold red" if late else "bold")]]
        for section in self.drawn.sections:
            out += [[], *self.section(section)]
        return [*out, [], *self.legend()] if self.drawn.sections else out

    def section(self, section: Section) -> list[Line]:
        days = [self.drawn.axis.day(n) for n in range(len(self.drawn.axis.starts))]
        head: Line = [(self.name(section.vault_id), "bold")]
        for n, day in enumerate(days):
            label = f"{day.day} {day:%b}" if self.cell > 6 and (n == 0 or day.day == 1) else f"{day.day}"
            head.append((label.center(self.cell)[: self.cell], "dim"))
        head.append(("last good".rjust(self.right), "dim"))
        awake: Line = [(self.name("awake"), "dim")]
        for windows in section.windows:
            seconds = sum((w.end(self.drawn.now) - w.opened_at).total_seconds() for w in windows)
            label = self.short(seconds) if windows else ""
            awake.append((label.center(self.cell)[: self.cell], "blue"))
        return [head, awake, *(self.lane(lane) for lane in section.lanes)]

    def short(self, seconds: float) -> str:
        """A duration that fits a cell: `17m`, `3.6h`."""
        found = duration(seconds).replace(" ", "").replace("min", "m")
        if len(found) > self.cell:
            found = re.sub(r"\.\d", "", found)
        return (
            found if len(found) <= self.cell else found[: -len(found.lstrip("0123456789."))].split(".")[0][: self.cell]
        )

    def lane(self, lane: Lane) -> Line:
        late = lane.host.overdue and not lane.host.retired_at
        line: Line = [(self.name(lane.host.name), "bold red" if late else "")]
        for night, runs in enumerate(lane.nights):
            cell = self.night(night, runs)
            if not runs and night in lane.missed:
                cell[self.cell // 2] = self.glyph(Mark.MISSED)
            elif not runs and self.cell > 1:
                cell[self.cell // 2] = (" ", "")
            line += cell
        return [*line, (standing(lane.host, self.drawn.now).rjust(self.right), "bold red" if late else "dim")]

    def night(self, night: int, runs: tuple[Seen, ...]) -> Line:
        """One cell of characters: each run's mark where the run ended, and before it a line for how long it took."""
        cell: Line = [(" ", "")] * self.cell
        room = max(1, self.cell - 1)  # a space between nights, if there is any
        order = sorted(runs, key=lambda seen: (URGENCY.index(seen.mark), -seen.run.started_at.timestamp()))
        shown = sorted(order[:room], key=lambda seen: seen.run.started_at)
        free = 0
        for n, seen in enumerate(shown):
            begin, end = (
                int(self.drawn.axis.place(at, night) * (room - 1))
                for at in (seen.run.started_at, seen.run.end(self.drawn.now))
            )
            spot = min(max(end if self.cell >= SPANNED else (room - len(shown)) // 2 + n, free), room - len(shown) + n)
            glyph, style = self.glyph(seen.mark)
            if self.cell >= SPANNED:
                for at in range(max(begin, free), spot):
                    cell[at] = ("-" if self.ascii else "─", style)
            cell[spot] = (glyph, style)
            free = spot + 1
        return cell

    def glyph(self, mark: Mark) -> tuple[str, str]:
        glyph, style = GLYPHS[mark]
        return (LETTERS[mark] if self.ascii else glyph), style

    def name(self, name: str) -> str:
        room = self.left - 1
        dots = "~" if self.ascii else "…"
        return (name if len(name) <= room else name[: room - 1] + dots).ljust(self.left)

    def legend(self) -> list[Line]:
        line: Line = []
        for mark in Mark:
            if mark in self.drawn.marks or mark is Mark.COUNTED:
                glyph, style = self.glyph(mark)
                word = {Mark.COUNTED: "counts", Mark.COMPLETE: "complete, does not count yet"}.get(mark, mark.value)
                line += [(glyph, style), (f" {word}  ", "dim")]
        return [line, [(f"columns show {self.drawn.axis.hours} {zone_name(self.drawn)}", "dim")]]
