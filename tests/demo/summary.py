"""The table at the end, the bill, and the verdict."""

from rich.console import Console
from rich.table import Table

from tests.demo import bill
from tests.demo.checks import Check
from tests.demo.night import Night
from tests.demo.player import Player

GIB = 2**30
MARKS = {"complete": "[green]complete[/]", "cut": "[yellow]cut[/]", "abandoned": "[red]abandoned[/]"}


def show(
    console: Console, nights: tuple[Night, ...], players: list[Player], checks: list[Check], window_seconds: int
) -> int:
    """Print everything; 0 if every check held, else 1."""
    for night in nights:
        console.print(_table(night))
        console.print(
            f"the vault was awake for {night.awake_seconds} s of its {window_seconds} s window\n", highlight=False
        )
    _bill(console, nights, players)
    for check in checks:
        console.print(
            f"{'[green]ok   [/]' if check.held else '[red]WRONG[/]'} {check.what}", highlight=False, soft_wrap=True
        )
    wrong = [check for check in checks if not check.held]
    verdict = (
        f"[red]{len(wrong)} of {len(checks)} came out wrong[/]" if wrong else "[green]all came out as it should[/]"
    )
    console.print(f"\n{verdict}", highlight=False)
    return 1 if wrong else 0


def _table(night: Night) -> Table:
    table = Table(title=f"night {night.number}", title_justify="left")
    for column in ("host", "outcome", "pushed", "seconds", "restore point", "what the host said"):
        table.add_column(column, justify="right" if column in ("pushed", "seconds") else "left", overflow="fold")
    for host, row in night.rows.items():
        point = night.points.get(host)
        where = f"{point.snapshot_id} {point.label}" if point else "none"
        table.add_row(
            host,
            MARKS.get(row.outcome, row.outcome),
            f"{row.bytes_pushed / 1e6:.1f} MB",
            str(row.seconds),
            where,
            row.said or "nothing more: it had lost power",
        )
    return table


def _bill(console: Console, nights: tuple[Night, ...], players: list[Player]) -> None:
    first, second = (sum(row.bytes_pushed for row in night.rows.values()) for night in nights)
    items = bill.month(
        hosts=len(players),
        awake_seconds=nights[-1].awake_seconds,
        volume_gib=len(players),
        first_gib=first / GIB,
        nightly_gib=second / GIB,
    )
    table = Table(title=f"a month of nights like the second ({bill.PRICES_OF})", title_justify="left")
    for column in ("item", "how much", "$"):
        table.add_column(column, justify="right" if column == "$" else "left")
    for item in items:
        table.add_row(item.what, item.how, f"{item.dollars:.2f}")
    table.add_row("[bold]in all", "", f"[bold]{sum(item.dollars for item in items):.2f}")
    console.print(table)
    console.print()
