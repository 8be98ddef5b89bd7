"""`cost`: this month's bill, and the bills of made-up stacks beside what others charge."""

from typing import Annotated, Any

import msgspec
import typer
from msgspec import Struct

from chalicelib.pricing import markdown
from chalicelib.pricing.bill import Bill
from chalicelib.pricing.scenarios import SCENARIOS, Report, report
from chalicelib.pricing.table import LISTED
from vaultctl.documents import read
from vaultctl.failures import usage
from vaultctl.screen import FAINT, Cell, Row
from vaultctl.session import Session, session
from vaultctl.words import NONE, dollars

LEAST_SAVING = 0.005  # dollars a month; less is not worth a line


class Prices(Struct, frozen=True, kw_only=True):
    """The head of a price table; the prices themselves are in `--json`."""

    region: str
    as_of: str
    source: str
    prices: dict[str, Any]
    missing: tuple[str, ...] = ()


def add_to(app: typer.Typer) -> None:
    app.command()(cost)


def cost(
    context: typer.Context,
    month: Annotated[str | None, typer.Option(metavar="2026-11", help="Another month than this one.")] = None,
    scenario: Annotated[
        str | None, typer.Option(metavar="|".join(SCENARIOS), help="A made-up stack's month, beside others' prices.")
    ] = None,
    refresh_prices: Annotated[
        bool, typer.Option("--refresh-prices", "--refresh", help="Ask the AWS Price List first, and keep its answers.")
    ] = False,
) -> None:
    """What this month costs: so far and forecast, by item and host, and what would save."""
    here = session(context)
    if scenario is not None:
        if month or refresh_prices:
            raise usage("scenario: goes with neither --month nor --refresh-prices")
        _scenario(here, scenario)
        return
    if refresh_prices:
        refreshed = read(here.operate.ask("refresh_prices")["prices"], Prices)
        here.screen.note(f"prices of {refreshed.region} as of {refreshed.as_of}")
        for each in refreshed.missing:
            here.screen.note(f"not found, so it stays as it was: {each}")
    answer = here.operate.ask("cost", month=month)
    if here.screen.as_json:
        here.screen.document(answer)
        return
    _bill(here, read(answer["bill"], Bill), read(answer["prices"], Prices))


def _bill(here: Session, bill: Bill, prices: Prices) -> None:
    rows: list[Row] = [
        (each.name, each.host or NONE, dollars(each.dollars), dollars(each.forecast), Cell(each.how, FAINT))
        for each in bill.items
    ]
    rows.append(
        (Cell("in all", "bold"), "", Cell(dollars(bill.so_far), "bold"), Cell(dollars(bill.forecast), "bold"), "")
    )
    here.screen.table(
        (bill.month, "host", "$ so far", "$ forecast", "what for"), rows, right=("$ so far", "$ forecast")
    )
    by_host = {host: sums for host, sums in bill.by_host().items() if host}
    if by_host:
        here.screen.say("")
        rows = [(host, dollars(so_far), dollars(forecast)) for host, (so_far, forecast) in sorted(by_host.items())]
        here.screen.table(("host", "$ so far", "$ forecast"), rows, right=("$ so far", "$ forecast"))
    here.screen.say("")
    for saving in (each for each in bill.savings if each.dollars >= LEAST_SAVING):
        here.screen.say(f"would save ${dollars(saving.dollars)} a month: {saving.what}")
    for saving in bill.free:
        here.screen.say(f"free, if nothing else uses it: ${dollars(saving.dollars)} a month: {saving.what}")
    here.screen.say(f"Prices of {prices.region} as of {prices.as_of} ({prices.source}); before tax.", FAINT)
    if bill.note:
        here.screen.note(f"{bill.note}: vaultctl cost --refresh-prices")


def _scenario(here: Session, name: str) -> None:
    if name not in SCENARIOS:
        raise usage(f"scenario: {name!r} is none of {', '.join(SCENARIOS)}")
    made = report(name)
    if here.screen.as_json:
        here.screen.document(msgspec.to_builtins(made))
        return
    shape = made.scenario
    here.screen.say(
        f"{shape.hosts:,} hosts of {shape.gib} GiB, {shape.nightly_gib:g} GiB changed a night, {shape.points} restore "
        f"points kept of each; {shape.vaults} vault{'s' if shape.vaults > 1 else ''}; {made.region}, before tax."
    )
    here.screen.say("")
    if made.article:
        _markdown(here, markdown.article(made))
    else:
        _items(here, made)
    here.screen.say("")
    here.screen.table(
        ("others, for the same bytes", "$ a month"),
        [(each.name, dollars(each.dollars)) for each in made.peers],
        right=("$ a month",),
    )
    here.screen.say("")
    for peer in made.peers:
        but = f"; {peer.but}" if peer.but else ""
        here.screen.say(f"{peer.name}: {peer.how} ({peer.source}, seen {peer.seen}){but}", FAINT)
    here.screen.say(f"AWS: prices of {LISTED.region} as of {LISTED.as_of}; each one's source: docs/costs.md", FAINT)


def _items(here: Session, made: Report) -> None:
    rows: list[Row] = [(name, dollars(so_far)) for name, (so_far, _) in made.bill.by_item().items()]
    rows.append((Cell("in all", "bold"), Cell(dollars(made.bill.so_far), "bold")))
    least = made.bill.so_far - made.free_dollars
    rows.append(("if nothing else in the account uses its always-free allowances", dollars(least)))
    here.screen.table(("nightvault", "$ a month"), rows, right=("$ a month",))


def _markdown(here: Session, table: str) -> None:
    """A table of the cost pages, so that page and command cannot differ."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    head, _, *rows = lines
    width = len(head)
    # Columns of numbers alone; the page has others on the right too, which a terminal would tear apart.
    right = [head[n] for n in range(1, width) if all(row[n : n + 1] and _number(row[n]) for row in rows)]
    cells: list[Row] = [
        [Cell(word.replace("**", ""), "bold" if "**" in word else "") for word in (row + [""] * width)[:width]]
        for row in rows
    ]
    here.screen.table(head, cells, right=right)


def _number(word: str) -> bool:
    return word.strip("*").replace(",", "").replace(".", "").isdecimal()
