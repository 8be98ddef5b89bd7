"""What a watcher sees: a live view on a terminal, a plain log elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tests.demo.player import Player

COLOURS = {
    "asleep": "grey50",
    "waking": "yellow",
    "open": "green",
    "closing": "cyan",
    "sealing": "cyan",
    "faulted": "red",
}


@dataclass(frozen=True)
class Lane:
    """One host at this moment."""

    player: Player
    state: str
    received: int


@dataclass(frozen=True)
class Moment:
    """The whole night at this moment."""

    night: int
    phase: str
    seconds_left: int | None
    lanes: tuple[Lane, ...]


class View:
    """Shows moments. `say` prints a line that stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._seen: dict[str, str] = {}

    def say(self, text: str) -> None:
        stamp = f"[dim]{time.monotonic() - self._began:6.1f} s[/]  " if not self._console.is_terminal else ""
        self._console.print(f"{stamp}{text}", highlight=False, soft_wrap=True)

    @contextmanager
    def watching(self, look: Callable[[], Moment]) -> Iterator[Callable[[], Moment]]:
        """Inside, call what is yielded as often as you like; each call shows the moment it returns."""
        if not self._console.is_terminal:
            yield lambda: self._log(look())
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as live:

            def show() -> Moment:
                moment = look()
                live.update(_draw(moment))
                return moment

            yield show

    def _log(self, moment: Moment) -> Moment:
        news = {"vault": moment.phase, **{lane.player.name: lane.state for lane in moment.lanes}}
        for who, state in news.items():
            if self._seen.get(who) != state:
                self.say(f"night {moment.night}: {who}: {state}")
        self._seen = news
        return moment


def _draw(moment: Moment) -> Panel:
    table = Table.grid(padding=(0, 2))
    for lane in moment.lanes:
        total = max(lane.player.expected_bytes, lane.received, 1)
        table.add_row(
            Text(lane.player.name, style="bold"),
            Text(lane.player.tree.title, style="dim"),
            ProgressBar(total=total, completed=lane.received, width=32),
            f"{lane.received / 1e6:7.1f} MB",
            Text(lane.state),
        )
    clock = "" if moment.seconds_left is None else f"   window ends in {moment.seconds_left} s"
    head = Text.assemble(("● ", COLOURS.get(moment.phase, "white")), (f"vault {moment.phase}", "bold"), (clock, "dim"))
    return Panel(
        Group(head, Text(""), table), title=f"night {moment.night}", border_style=COLOURS.get(moment.phase, "")
    )
