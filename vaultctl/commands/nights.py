"""`windows`: the last nights, as a table, a timeline in the terminal, or a page."""

from pathlib import Path
from typing import Annotated

import typer

from chalicelib import timeline
from vaultctl.commands.hosts import outcome
from vaultctl.documents import Window, read
from vaultctl.failures import usage
from vaultctl.screen import FAINT, Cell, Row
from vaultctl.session import Session, session
from vaultctl.words import sent, span, when

LEAST_WIDTH = 62


def add_to(app: typer.Typer) -> None:
    app.command()(windows)


def windows(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=400, metavar="N", help="How far back.")] = 14,
    vault: Annotated[str | None, typer.Option(metavar="VAULT", help="One vault's only.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="A timeline, a lane for each host.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="The timeline as a page, written there.")] = None,
) -> None:
    """The last nights: what was awake how long, for whom, and what came of it."""
    here = session(context)
    if (plot or html) and here.screen.as_json:
        raise usage("--json gives the windows themselves; leave out --plot and --html")
    answer = here.operate.ask("windows", days=days, vault_id=vault)
    if here.screen.as_json:
        here.screen.document(answer)
        return
    if plot or html:
        known = here.operate.ask("hosts")["hosts"]
        mine = [each for each in known if vault in (None, each["vault_id"])]
        if html:
            _page(here, answer["windows"], mine, days, html)
        if plot:
            _plot(here, answer["windows"], mine, days)
        return
    found = read(answer["windows"], list[Window])
    if found:
        head = ("opened", "vault", "awake", "ready in", "sent", "runs", "ended because")
        here.screen.table(head, [_row(here, each) for each in found], right=("awake", "ready in", "sent"))
    else:
        here.screen.say(f"no window in the last {days} days")


def _row(here: Session, window: Window) -> Row:
    until = window.stopped_at or here.now()
    ready = (window.ready_at - window.opened_at).total_seconds() if window.ready_at else None
    known = [run.stats.bytes_sent for run in window.runs if run.stats and run.stats.bytes_sent is not None]
    counts: dict[str, list[str]] = {}
    for run in window.runs:
        done = {"restore": "restored", "drill": "checked"} if run.outcome == "complete" else {}
        word = done.get(run.kind, outcome(run).text)
        counts.setdefault(word, []).append(run.host)
    worst = next((outcome(run).style for run in window.runs if run.outcome != "complete"), "")
    runs = "; ".join(f"{', '.join(hosts)} {word}" for word, hosts in counts.items())
    return (
        when(window.opened_at, here.zone),
        window.vault_id,
        Cell(span((until - window.opened_at).total_seconds()), "" if window.stopped_at else "bold"),
        span(ready),
        sent(sum(known) if known else None),
        Cell(runs or "none", worst),
        Cell(window.close_reason or ("awake now" if not window.stopped_at else ""), FAINT),
    )


def _plot(here: Session, found: list[object], known: list[object], days: int) -> None:
    width = max(LEAST_WIDTH, here.screen.width) if here.screen.terminal else 100
    lines = timeline.lines(
        found,
        known,
        here.now(),
        days=days,
        width=width,
        zone=here.local_zone,
        ascii_only=not here.screen.letters,
    )
    for line in lines:
        here.screen.parts(line)


def _page(here: Session, found: list[object], known: list[object], days: int, to: Path) -> None:
    page = timeline.html(found, known, here.now(), days=days, zone=here.local_zone, stack=here.stack)
    try:
        to.write_text(page, encoding="utf-8")
    except OSError as error:
        raise usage(f"html: cannot write {to}: {error.strerror}") from error
    here.screen.note(f"written: {to}")
