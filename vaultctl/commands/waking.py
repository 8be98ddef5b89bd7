"""Vaults: what they do now, waking one for a while, and giving one a new machine."""

from typing import Annotated, Any

import typer

from vaultctl import durations
from vaultctl.documents import Vault, read
from vaultctl.screen import BAD, FAINT, GOOD, WARN, Cell, Row
from vaultctl.session import Session, session
from vaultctl.words import NONE, span, when

Which = Annotated[str | None, typer.Argument(metavar="VAULT", help="Needed if there are several.")]
_PHASES = {"asleep": FAINT, "open": GOOD, "faulted": BAD}


def add_to(app: typer.Typer) -> None:
    for command in (vaults, wake, sleep):
        app.command()(command)
    app.command("rebuild-vault")(rebuild_vault)


def vaults(context: typer.Context) -> None:
    """All vaults: phase, hosts, how long awake, what is spent of today's budgets."""
    here = session(context)
    answer = here.operate.ask("vaults")
    if here.screen.as_json:
        here.screen.document(answer)
        return
    found = read(answer["vaults"], list[Vault])
    if found:
        _table(here, found)
    else:
        here.screen.note("There is no vault yet; the first host to enrol makes it: vaultctl enroll HOST")


def wake(
    context: typer.Context,
    vault: Which = None,
    length: Annotated[str, typer.Option("--for", metavar="1h", help="How long it is to stay awake.")] = "1h",
) -> None:
    """Wake a vault without a backup, for a while. It counts against the day's budget for restores."""
    here = session(context)
    minutes = durations.minutes(length, "for")
    _one(here, here.operate.ask("wake", vault_id=here.vault_id(vault), minutes=minutes))


def sleep(
    context: typer.Context,
    vault: Which = None,
    cut: Annotated[bool, typer.Option("--cut", help="Cut live runs too; they go on from there next time.")] = False,
) -> None:
    """End a `wake`. Live runs go on, and the vault sleeps after the last of them."""
    here = session(context)
    _one(here, here.operate.ask("sleep", vault_id=here.vault_id(vault), cut=cut))


def rebuild_vault(
    context: typer.Context,
    vault: Which = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give a vault a new machine at its next waking; volumes, hosts and history stay. Asks."""
    here = session(context)
    vault_id = here.vault_id(vault)
    here.confirm(
        f"Give up the machine of {vault_id}? The next waking launches a new one with the same volumes.", yes=yes
    )
    _one(here, here.operate.ask("rebuild_vault", vault_id=vault_id))


def _one(here: Session, answer: dict[str, Any]) -> None:
    if here.screen.as_json:
        here.screen.document(answer)
    else:
        _table(here, [read(answer["vault"], Vault)])


def _table(here: Session, found: list[Vault]) -> None:
    head = ("vault", "phase", "awake", "held until", "window ends", "live", "hosts", "spent today", "instance")
    here.screen.table(head, [_row(here, each) for each in found], right=("awake",))


def _row(here: Session, vault: Vault) -> Row:
    window = vault.window
    live = [run.host for run in window.runs if not run.outcome] if window else []
    awake = span(((window.stopped_at or here.now()) - window.opened_at).total_seconds()) if window else NONE
    spent = ", ".join(f"{kind} {span(seconds)}" for kind, seconds in sorted(vault.spent_seconds.items()) if seconds)
    queued = f" (waiting: {', '.join(vault.queued)})" if vault.queued else ""
    return (
        vault.vault_id,
        Cell(vault.phase, _PHASES.get(vault.phase, WARN)),
        awake,
        when(vault.held_until, here.zone),
        when(window.closes_at if window else None, here.zone),
        (", ".join(live) or NONE) + queued,
        str(len(vault.hosts)),
        spent or "nothing",
        vault.instance_id or NONE,
    )
