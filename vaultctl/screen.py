"""What people and scripts see: tables for terminals, aligned columns when piped, JSON with `--json`."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

BAD, WARN, GOOD, FAINT = "bold red", "yellow", "green", "dim"


@dataclass(frozen=True)
class Cell:
    """A word of a table, and how it looks where colours are."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


def clean(text: str) -> str:
    """Without control characters: a vault that was broken into must not write to the operator's terminal."""
    return "".join("?" if unicodedata.category(each) in ("Cc", "Cf", "Cs") else each for each in text)


class ReaderGone(Exception):
    """Whoever read our output has seen enough (`vaultctl windows | head`)."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich's own would end the process with 1."""
        raise ReaderGone


class Screen:
    """Results go to stdout, notes and questions to stderr. `width` None: the terminal's own.

    Colours only on a terminal, and not with NO_COLOR (https://no-color.org); Rich sees to both.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        terminal: bool | None = None,
        width: int | None = None,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self._stdout = out or sys.stdout
        self._out, self._err = (
            _Console(file=file, force_terminal=terminal, width=width, highlight=False, emoji=False, markup=False)
            for file in (self._stdout, err or sys.stderr)
        )

    @property
    def terminal(self) -> bool:
        """Whether somebody looks at stdout."""
        return self._out.is_terminal

    @property
    def letters(self) -> bool:
        """Whether stdout takes more than ASCII."""
        return (self._stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf")

    @property
    def width(self) -> int:
        """Characters a line; as many as it takes when piped."""
        return self._out.width if self.terminal else 10_000

    def document(self, answer: Any) -> None:
        """One JSON document."""
        self.raw(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")

    def raw(self, text: str) -> None:
        """As it is: nothing that a host or vault has said, or escaped."""
        try:
            self._stdout.write(text)
            self._stdout.flush()
        except BrokenPipeError:
            raise ReaderGone from None

    def say(self, line: str, style: str = "") -> None:
        """A line of the result. A script reads it whole: it is never wrapped when piped."""
        self._out.print(Text(clean(line), style=style), soft_wrap=True)

    def parts(self, parts: Iterable[tuple[str, str]]) -> None:
        """A line of several styles."""
        self._out.print(Text.assemble(*((clean(text), style) for text, style in parts)), soft_wrap=True)

    def note(self, line: str, style: str = "") -> None:
        """Something for whoever looks, beside the result; nothing that a script needs."""
        self._err.print(Text(clean(line), style=style), soft_wrap=True)

    def ask(self, question: str) -> None:
        """On stderr, with the answer expected on the same line."""
        self._err.print(Text(clean(question)), end=" ", soft_wrap=True)

    def table(self, head: Sequence[str], rows: Iterable[Row], *, right: Iterable[str] = ()) -> None:
        """`right`: the columns whose words end below each other."""
        cells = [[each if isinstance(each, Cell) else Cell(each) for each in row] for row in rows]
        cells = [[Cell(clean(each.text), each.style) for each in row] for row in cells]
        if self.terminal:
            self._drawn(head, cells, set(right))
        else:
            self._aligned(head, cells, set(right))

    def _drawn(self, head: Sequence[str], rows: list[list[Cell]], right: set[str]) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in head:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(each.text, style=each.style) for each in row))
        self._out.print(table)

    def _aligned(self, head: Sequence[str], rows: list[list[Cell]], right: set[str]) -> None:
        lines = [list(head), *([each.text for each in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            words = [
                word.rjust(width) if name in right else word.ljust(width)
                for word, width, name in zip(line, widths, head, strict=True)
            ]
            self.raw("  ".join(words).rstrip() + "\n")
