"""What the person who deploys is shown: lines, in colour on a terminal and plain in a log."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Stopped(Exception):
    """It can't go on; `remedy` says what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass
class Screen:
    """Where lines go. `pause` waits for AWS, which tells of nothing by itself; seconds."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    pause: Callable[[float], None] = time.sleep

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def done(self, text: str) -> None:
        self.console.print(f"[green]✓[/green] {escape(text)}")

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]![/yellow] {escape(text)}")

    def event(self, name: str, kind: str, status: str, reason: str) -> None:
        """One resource's news."""
        colour = "red" if "FAILED" in status or "ROLLBACK" in status else "cyan" if "PROGRESS" in status else "green"
        said = f"  [dim]{escape(reason)}[/dim]" if reason else ""
        self.console.print(f"  [{colour}]{status:<22}[/{colour}] {escape(name)} [dim]{escape(kind)}[/dim]{said}")

    def stopped(self, stopped: Stopped) -> None:
        self.console.print(f"[bold red]✗[/bold red] {escape(str(stopped))}\n  {escape(stopped.remedy)}")

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            made.add_row(*(escape(cell) for cell in row))
        self.console.print(made)

    def ask(self, question: str) -> bool:
        """True when the answer is yes. Raises Stopped where nobody can answer."""
        if not self.console.is_terminal:
            raise Stopped("nobody is there to answer", "say YES=1 if you mean it")
        return self.console.input(f"{escape(question)} [bold]\\[y/N][/bold] ").strip().lower() in ("y", "yes")
