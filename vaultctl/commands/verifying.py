"""`verify-deployment`: what only AWS can show, on the operator's own account."""

import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer

from chalicelib.pricing.table import LISTED, Prices
from vaultctl import hostline
from vaultctl.documents import Vault, read
from vaultctl.failures import Exit, Failure
from vaultctl.screen import BAD, FAINT, GOOD, WARN
from vaultctl.session import Session, session
from vaultctl.verify.estimate import Estimate, estimate
from vaultctl.verify.house import TOOLS
from vaultctl.verify.steps import NotSo, Step, Steps
from vaultctl.verify.verification import Patience, Verification
from vaultctl.words import dollars, span

_LEVELS = {"ok": GOOD, "warning": WARN, "wrong": BAD}
_LOG_LINES = 40


def add_to(app: typer.Typer) -> None:
    app.command("verify-deployment")(verify_deployment)


def verify_deployment(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    client: Annotated[Path | None, typer.Option(metavar="FILE", help="The script host-client/nightvault.")] = None,
    size_mib: Annotated[int, typer.Option(min=1, max=500, metavar="N", help="How much to push.")] = 4,
    restore: Annotated[bool, typer.Option(help="Wake the vault again, and pull it back.")] = True,
    patience: Annotated[
        float, typer.Option(min=0.1, max=10, metavar="N", help="Wait so many times as long as usual before giving up.")
    ] = 1.0,
    poll_seconds: Annotated[float, typer.Option(min=0.1, hidden=True)] = 2.0,
) -> None:
    """A throw-away host lives a whole night on the real stack. Says what it costs, and asks."""
    here = session(context)
    script = hostline.client(client)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise Failure(
            Exit.USAGE, "ToolsMissing", f"not installed here, and needed to play a host: {', '.join(missing)}"
        )
    expected = _estimate(here)
    _price(here, expected)
    here.confirm("Begin?", yes=yes)

    steps = Steps(lambda step: _tell(here, step), lambda name: _begin(here, name), pause_seconds=poll_seconds)
    usual = Patience()
    longer = Patience(**{name: getattr(usual, name) * patience for name in Patience.__struct_fields__})
    with tempfile.TemporaryDirectory(prefix="nightvault-verify-") as folder, _terminated_is_interrupted():
        verification = Verification(
            here.operate,
            steps,
            host=f"nv-verify-{secrets.token_hex(2)}",
            client=script.resolve(),
            folder=Path(folder).resolve(),
            patience=longer,
        )
        interrupted = False
        try:
            with verification.cleaning():
                verification.run(mib=size_mib, restore=restore)
        except NotSo:
            pass  # the step has said so
        except Failure as failure:
            if not steps.wrong:
                raise
            here.screen.note(f"vaultctl: {failure}")
        except KeyboardInterrupt:
            interrupted = True
        if not interrupted and any(step.name != "clean up" for step in steps.wrong):
            for line in verification.log().splitlines()[-_LOG_LINES:]:
                here.screen.note(f"  client: {line}", FAINT)
        _conclude(here, verification, steps, expected)
    if interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if steps.wrong:
        raise typer.Exit(Exit.FOUND_WRONG)


def _estimate(here: Session) -> Estimate:
    vaults = read(here.operate.ask("vaults")["vaults"], list[Vault])
    try:
        # The region's own, if they were ever refreshed.
        prices = msgspec.convert(here.operate.ask("cost")["prices"], Prices)
        return estimate(prices, new_vault=not vaults)
    except (Failure, KeyError, msgspec.ValidationError):
        return estimate(LISTED, new_vault=not vaults)


def _price(here: Session, expected: Estimate) -> None:
    here.screen.note(
        f"A throw-away host will be enrolled, pushed, pulled back and retired: about {dollars(expected.dollars)} "
        f"dollars at most ({expected.how}; prices of {expected.prices_as_of}), ten minutes, and as much of today's "
        "window."
    )
    here.screen.note(f"What stays costs about {dollars(expected.kept_dollars)} dollars a month.")


def _begin(here: Session, name: str) -> None:
    if here.screen.terminal and not here.screen.as_json:
        here.screen.note(f"… {name}", FAINT)


def _tell(here: Session, step: Step) -> None:
    if here.screen.as_json:
        return
    here.screen.parts(
        [
            (f"{step.level:<8}", _LEVELS[step.level]),
            (f"{span(step.seconds):>7}  ", FAINT),
            (f"{step.name}: ", ""),
            (step.what, BAD if step.level == "wrong" else ""),
        ]
    )


def _conclude(here: Session, verification: Verification, steps: Steps, expected: Estimate) -> None:
    wrong = steps.wrong
    if here.screen.as_json:
        document: dict[str, Any] = {
            "host": verification.host,
            "ok": not wrong,
            "steps": msgspec.to_builtins(steps.taken),
            "left": verification.left,
            "estimate": msgspec.to_builtins(expected),
        }
        here.screen.document(document)
        return
    for each in verification.left:
        here.screen.say(f"left: {each}", WARN)
    if wrong:
        here.screen.say(f"wrong: {', '.join(each.name for each in wrong)}", BAD)
    else:
        here.screen.say("A whole night works on this stack.", GOOD)


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM cleans up too. Signals can be set in the main thread only; elsewhere nobody sends us one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
