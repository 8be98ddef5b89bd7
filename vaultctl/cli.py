"""The commands' frame: global options, help, version. Each theme of commands is a module of `vaultctl.commands`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from typing import Annotated

import typer

from vaultctl import __version__
from vaultctl.client import Invoke, Operate
from vaultctl.commands import care, hosts, keeping, nights, verifying, waking
from vaultctl.failures import epilog
from vaultctl.screen import Screen
from vaultctl.session import Session

STACK = "nightvault"


@dataclass(frozen=True)
class Wanted:
    """What `main` was given. `invoke` None: AWS."""

    invoke: Invoke | None
    now: Callable[[], datetime]
    zone: tzinfo | None
    screen: Callable[[bool], Screen]


app = typer.Typer(
    help="Runs nightvault: hosts, nights, vaults and what they cost.",
    # `\b` keeps the table's lines as they are.
    epilog="\b\n" + epilog(),
    rich_markup_mode=None,  # plain help, the same on a terminal and in a pipe
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vaultctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    profile: Annotated[str | None, typer.Option(metavar="NAME", help="AWS profile; else AWS's own order.")] = None,
    region: Annotated[str | None, typer.Option(metavar="REGION", help="AWS region; else the profile's.")] = None,
    stack: Annotated[str, typer.Option(metavar="NAME", envvar="NIGHTVAULT_STACK", help="Name of the stack.")] = STACK,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, as docs/operate.md has it.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Global options; they may also stand after the command."""
    del version  # its callback has seen to it
    wanted: Wanted = context.obj
    function = f"{stack}-operate"  # the template names it so
    invoke = wanted.invoke or _on_aws(function, profile, region)
    context.obj = Session(
        operate=Operate(invoke, function),
        screen=wanted.screen(as_json),
        now=wanted.now,
        stack=stack,
        zone=wanted.zone,
    )


def _on_aws(function: str, profile: str | None, region: str | None) -> Invoke:
    @cache
    def made() -> Invoke:
        # boto3 is most of what we import: not for usage errors, nor for the shell's completion.
        from vaultctl.transport import LambdaTransport  # noqa: PLC0415

        return LambdaTransport(function, profile=profile, region=region)

    def invoke(payload: bytes) -> tuple[bytes, str | None]:
        return made()(payload)

    return invoke


for theme in (hosts, keeping, nights, waking, care, verifying):
    theme.add_to(app)
