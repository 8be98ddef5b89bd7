"""What a command has at hand: the control plane, the screen, the clock."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import cast

import typer

from vaultctl.client import Operate
from vaultctl.documents import Vault, read
from vaultctl.failures import Exit, Failure, usage
from vaultctl.screen import Screen


@dataclass(frozen=True)
class Session:
    """`zone` None: the machine's own time zone."""

    operate: Operate
    screen: Screen
    now: Callable[[], datetime]
    stack: str
    zone: tzinfo | None = None

    @property
    def local_zone(self) -> tzinfo:
        """`zone`, or the machine's as it is now."""
        return self.zone or self.now().astimezone().tzinfo or UTC

    def confirm(self, question: str, *, yes: bool) -> None:
        """Returns if the operator agrees. Raises Failure: he does not, or cannot be asked."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise usage(f"{question} Nobody is here to ask: add --yes if you mean it")
        self.screen.ask(f"{question} [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Failure(Exit.DECLINED, "Declined", "nothing has changed")

    def vault_id(self, given: str | None) -> str:
        """The vault meant: the only one, if none is named. Raises Failure that names the vaults."""
        if given:
            return given
        vaults = [each.vault_id for each in read(self.operate.ask("vaults")["vaults"], list[Vault])]
        if not vaults:
            raise Failure(Exit.REFUSED, "NoVault", "there is no vault yet; the first host to enrol makes it")
        if len(vaults) > 1:
            raise usage(f"vault: which one of {', '.join(vaults)}?")
        return vaults[0]


def session(context: typer.Context) -> Session:
    """The session of the command that runs."""
    return cast(Session, context.obj)
