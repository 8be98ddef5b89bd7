"""The picture as SVG. No script, no reference to anything outside, no `use`: CloudWatch would remove them
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_security.html)."""

from collections.abc import Iterator
from html import escape

from chalicelib.timeline.marks import SIZE, shape
from chalicelib.timeline.picture import URGENCY, Lane, Mark, Picture, Section, Seen
from chalicelib.timeline.reading import Window
from chalicelib.timeline.style import NAMES
from chalicelib.timeline.words import about_host, about_run, about_window, standing, summary, zone_name

NARROWEST = 360
HEAD, FOOT = 24, 22
CHARACTER = 7.3  # of the monospaced names at 12 px, and of bold ones
EDGED = 3  # a window narrower than this, in pixels, would be nothing but its edges
LETTER = 6.6  # of other text at 11 px, on the wide side


def svg(picture: Picture, width: int) -> str:
    """One `svg` element, `width` pixels wide (at least 360) and as high as its lanes need."""
    return _Drawing(picture, max(NARROWEST, width)).all()


class _Drawing:
    def __init__(self, picture: Picture, width: int) -> None:
        self.picture = picture
        self.width = width
        lanes = len(picture.lanes)
        self.row = 26 if lanes <= 8 else 20 if lanes <= 30 else 16
        names = [lane.host.name for lane in picture.lanes] + ["hosts"]
        vaults = [section.vault_id for section in picture.sections]
        ages = [standing(lane.host, picture.now) for lane in picture.lanes] + ["last good"]
        longest = max(map(len, names + vaults)) * CHARACTER + 10
        self.left = min(longest, max(0.26 * width, 60))
        self.right = max(map(len, ages)) * CHARACTER + 10
        self.column = (width - self.left - self.right) / len(picture.axis.starts)
        self.y = 0.0
        self.out: list[str] = []

    def all(self) -> str:
        for number, section in enumerate(self.picture.sections):
            self.section(section, first=number == 0)
        if self.picture.sections:
            self.legend()
        else:
            self.empty()
        height = round(self.y)
        title = f"Backups of the last {len(self.picture.axis.starts)} nights"
        return (
            f'<svg role="img" aria-label="{escape(title)}. {escape(summary(self.picture))}" '
            f'xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{height}" '
            f'viewBox="0 0 {self.width} {height}"><title>{escape(title)}</title>'
            f"<desc>{escape(self.description())}</desc>{''.join(self.out)}</svg>"
        )

    def description(self) -> str:
        lanes = " ".join(about_host(lane, self.picture.now) for lane in self.picture.lanes)
        return (
            f"One lane for each host, one column for each night; each column shows {self.picture.axis.hours} "
            f"{zone_name(self.picture)}. {summary(self.picture)} {lanes}"
        )

    # --- parts ---

    def empty(self) -> None:
        self.dates()
        self.y += 34
        self.text(self.width / 2, self.y, "No host is enrolled yet: vaultctl enroll HOST", anchor="middle")
        self.y += 26

    def section(self, section: Section, *, first: bool) -> None:
        if not first:
            self.y += 10
        top = self.y
        self.dates(f"{section.vault_id}")
        awake = self.y
        self.y += 10
        lanes = self.y
        for number in range(len(section.lanes)):
            if number % 2 == 0:
                self.add(f'<rect class="stripe" x="0" y="{self.y:.0f}" width="{self.width}" height="{self.row}"/>')
            self.y += self.row
        for night, windows in enumerate(section.windows):
            for window in windows:
                self.window(window, night, awake)
        for night in range(len(self.picture.axis.starts) + 1):
            x = self.left + night * self.column
            self.add(f'<path class="rule" d="M{x:.1f} {top + HEAD - 4:.1f}V{self.y:.1f}"/>')
            for place in self.picture.axis.breaks if night < len(self.picture.axis.starts) else ():
                at = self.x(night, place)
                self.add(f'<path class="rule break" d="M{at:.1f} {awake:.1f}V{self.y:.1f}"/>')
        self.now(awake)
        for number, lane in enumerate(section.lanes):
            self.lane(lane, lanes + number * self.row)

    def dates(self, vault: str = "") -> None:
        baseline = self.y + 15
        if vault:
            fits = int((self.left - 6) / CHARACTER)
            self.add(
                f'<text class="vault" x="2" y="{baseline:.0f}">{escape(_short(vault, fits))}'
                f"<title>{escape(vault)}</title></text>"
            )
        room = int(self.column / LETTER)
        before = 0
        for night in range(len(self.picture.axis.starts)):
            day = self.picture.axis.day(night)
            label = f"{day.day} {day:%b}" if day.month != before and room >= 6 else f"{day.day}"
            if room >= 9 and day.month == before:
                label = f"{day:%a} {day.day}"
            before = day.month
            self.text(self.left + (night + 0.5) * self.column, baseline, label, anchor="middle")
        self.text(self.width - 2, baseline, "last good", anchor="end")
        self.y += HEAD

    def window(self, window: Window, night: int, awake: float) -> None:
        axis, now = self.picture.axis, self.picture.now
        opened, end = (
            self.x(night, axis.place(window.opened_at, night)),
            self.x(night, axis.place(window.end(now), night)),
        )
        end = max(end, opened + 1.5)
        self.add('<g class="window">')
        self.title(about_window(window, axis, now))
        self.add(
            f'<rect class="band" x="{opened:.1f}" y="{awake:.1f}" width="{end - opened:.1f}" '
            f'height="{self.y - awake:.1f}"/>'
            f'<rect class="awake" x="{opened:.1f}" y="{awake + 1:.1f}" width="{end - opened:.1f}" height="5"/>'
        )
        if end - opened >= EDGED:
            self.add(
                f'<path class="edge" d="M{opened:.1f} {awake:.1f}V{self.y:.1f}M{end:.1f} {awake:.1f}V{self.y:.1f}"/>'
            )
        ceiling = self.x(night, axis.place(window.closes_at, night))
        if any(run.outcome == "cut" for run in window.runs):
            self.add(f'<path class="ceiling" d="M{ceiling:.1f} {awake:.1f}V{self.y:.1f}"/>')
        self.add(
            f'<rect class="hit" x="{opened - 2:.1f}" y="{awake:.1f}" width="{end - opened + 4:.1f}" height="10"/></g>'
        )

    def now(self, top: float) -> None:
        axis, now = self.picture.axis, self.picture.now
        night = axis.night(now)
        place = axis.place(now, night)
        if 0 < place < 1:
            x = self.x(night, place)
            self.add(f'<path class="now" d="M{x:.1f} {top:.1f}V{self.y:.1f}"><title>now</title></path>')

    def lane(self, lane: Lane, y: float) -> None:
        now = self.picture.now
        middle = y + self.row / 2
        late = " late" if lane.host.overdue and not lane.host.retired_at else ""
        small = " small" if self.row < 20 else ""
        fits = int((self.left - 6) / CHARACTER)
        self.add(f'<g class="lane{late}{small}">')
        self.add('<g class="who">')
        self.title(about_host(lane, now))
        self.add(f'<rect class="hit" x="0" y="{y:.0f}" width="{self.left:.1f}" height="{self.row}"/>')
        self.text(2, middle + 4, _short(lane.host.name, fits), kind="name")
        self.text(self.width - 2, middle + 4, standing(lane.host, now), anchor="end", kind="age")
        self.add("</g>")
        for night, seen in enumerate(lane.nights):
            self.night(night, seen, middle)
        for night in sorted(lane.missed):
            self.add('<g class="none">')
            self.title(f"{lane.host.name}: no run on {self.picture.axis.day(night):%d %b}")
            self.add(shape(Mark.MISSED, self.x(night, 0.5), middle))
            self.add(f'<rect class="hit" x="{self.x(night, 0):.1f}" y="{y:.0f}" ')
            self.add(f'width="{self.column:.1f}" height="{self.row}"/></g>')
        self.add("</g>")

    def night(self, night: int, runs: tuple[Seen, ...], middle: float) -> None:
        axis, now = self.picture.axis, self.picture.now
        places: list[tuple[float, float]] = []
        for seen in runs:
            begin, end = (self.x(night, axis.place(t, night)) for t in (seen.run.started_at, seen.run.end(now)))
            places.append((min(begin, self.x(night, 1) - 2), max(end, begin + 2)))
        marked = self.marked(runs)
        spots = iter(_apart([places[n][1] for n in marked], self.x(night, 0) + 5.5, self.x(night, 1) - 5.5))
        for n, (seen, (begin, end)) in enumerate(zip(runs, places, strict=True)):
            kind = NAMES[seen.mark]
            self.add('<g class="run">')
            self.title(about_run(seen, axis, now))
            hollow = ' fill-opacity="0" stroke-dasharray="2 1.5"' if seen.run.kind != "backup" else ""
            self.add(
                f'<rect class="bar {kind}" x="{begin:.1f}" y="{middle - 2:.1f}" width="{end - begin:.1f}" '
                f'height="4" rx="1" stroke="none"{hollow}/>'
            )
            reach = [begin, end]
            if n in marked:
                spot = next(spots)
                self.add(shape(seen.mark, spot, middle))
                reach += [spot - SIZE / 2, spot + SIZE / 2]
            self.add(
                f'<rect class="hit" x="{min(reach):.1f}" y="{middle - self.row / 2:.1f}" '
                f'width="{max(reach) - min(reach):.1f}" height="{self.row}"/></g>'
            )

    def marked(self, runs: tuple[Seen, ...]) -> list[int]:
        """The runs of a night that get a mark: as many as fit side by side, those first that need eyes most."""
        room = max(1, int((self.column - 1) / SIZE))
        order = sorted(range(len(runs)), key=lambda n: (URGENCY.index(runs[n].mark), -n))
        return sorted(order[:room])

    def legend(self) -> None:
        self.y += 6
        x, top = 2.0, self.y
        shown = [mark for mark in Mark if mark in self.picture.marks or mark is Mark.COUNTED]
        words = {Mark.COMPLETE: "complete, does not count yet", Mark.COUNTED: "counts as a backup"}
        for mark in shown:
            word = words.get(mark, mark.value)
            long = 16 + len(word) * LETTER + 12
            if x > 2 and x + long > self.width:
                x, top = 2.0, top + 18
            self.add(shape(mark, x + 6, top + 9))
            self.text(x + 16, top + 13, word)
            x += long
        note = f"columns show {self.picture.axis.hours} {zone_name(self.picture)}"
        if x + len(note) * LETTER > self.width:
            top += 18
        self.text(self.width - 2, top + 13, note, anchor="end")
        self.y = top + FOOT

    # --- pieces ---

    def x(self, night: int, place: float) -> float:
        return self.left + (night + 0.02 + 0.96 * place) * self.column

    def add(self, element: str) -> None:
        self.out.append(element)

    def title(self, text: str) -> None:
        self.add(f"<title>{escape(text)}</title>")

    def text(self, x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> None:
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        group = f' class="{kind}"' if kind else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}"{where}{group}>{escape(words)}</text>')


def _short(name: str, fits: int) -> str:
    return name if len(name) <= fits else name[: max(1, fits - 1)] + "…"


def _apart(wanted: list[float], low: float, high: float) -> Iterator[float]:
    """Places at least a mark's width apart, as near to those wanted as can be, within low and high."""
    placed: list[float] = []
    for at in wanted:
        placed.append(max(at, low, placed[-1] + SIZE if placed else low))
    limit = max(high, low)
    for n in range(len(placed) - 1, -1, -1):
        placed[n] = min(placed[n], limit)
        limit = placed[n] - SIZE
    return iter(placed)
