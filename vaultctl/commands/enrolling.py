"""Codes with which hosts enrol: `enroll` and `rotate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vaultctl import durations, hostline
from vaultctl.documents import Code, read
from vaultctl.session import Session, session
from vaultctl.words import span, when


def add_to(app: typer.Typer) -> None:
    app.command()(enroll)
    app.command()(rotate)


def enroll(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name: 1 to 32 letters, digits, - or _.")],
    size_gib: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Size of its volume, to begin with; 20.")
    ] = None,
    max_size_gib: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The most it grows to; ten times its size.")
    ] = None,
    every: Annotated[str | None, typer.Option(metavar="24h", help="How often it will back up; 24h.")] = None,
    install: Annotated[
        bool, typer.Option("--install", help="A script that installs the client too, to pipe to ssh.")
    ] = False,
    client: Annotated[Path | None, typer.Option(metavar="FILE", help="The client that --install carries.")] = None,
) -> None:
    """Make a code for a new host, and print the line to paste there."""
    here = session(context)
    script = hostline.client(client) if install else None
    answer = here.operate.ask(
        "invite",
        host=host,
        size_gib=size_gib,
        max_size_gib=max_size_gib,
        every_seconds=None if every is None else durations.seconds(every, "every"),
    )
    code = read(answer, Code)
    if script:
        text = hostline.script(code.url, code.code, script)
        if here.screen.as_json:
            here.screen.document({**answer, "script": text})
        else:
            here.screen.raw(text)
            _good_until(here, code)
        return
    _print(here, answer, code, again=False)
    if not here.screen.as_json:
        here.screen.note(f"No nightvault on {host} yet? vaultctl enroll {host} --install | ssh root@{host} sh")


def rotate(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="An enrolled host.")],
    revoke_now: Annotated[
        bool, typer.Option("--revoke-now", help="Old key and token are worthless at once, not when the code is used.")
    ] = False,
) -> None:
    """Give a host a new token and ssh key: print the line to paste there. Its volume and history stay."""
    here = session(context)
    answer = here.operate.ask("rotate", host=host, revoke_now=revoke_now)
    _print(here, answer, read(answer, Code), again=True)
    if not here.screen.as_json:
        here.screen.note(
            f"{host} cannot back up until it has used the code."
            if revoke_now
            else f"{host} goes on with the old key and token until then."
        )


def _print(here: Session, answer: dict[str, Any], code: Code, *, again: bool) -> None:
    line = hostline.line(code.url, code.code, again=again)
    if here.screen.as_json:
        here.screen.document({**answer, "line": line})
        return
    here.screen.say(line)
    _good_until(here, code)


def _good_until(here: Session, code: Code) -> None:
    left = span((code.expires_at - here.now()).total_seconds())
    here.screen.note(f"The code works once, until {when(code.expires_at, here.zone)} ({left} from now).")
