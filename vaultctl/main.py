"""From arguments to an exit code. Every failure is one line on stderr, or a document with `--json`."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo

import typer
from typer.exceptions import TyperException

from vaultctl.cli import Wanted, app
from vaultctl.client import Invoke
from vaultctl.failures import Exit, Failure
from vaultctl.screen import ReaderGone, Screen

# Options that may stand before or after the command; True: with a value.
_GLOBAL = {"--json": False, "--profile": True, "--region": True, "--stack": True}


def main(
    arguments: Sequence[str] | None = None,
    *,
    invoke: Invoke | None = None,
    now: Callable[[], datetime] | None = None,
    zone: tzinfo | None = None,
    screen: Callable[[bool], Screen] | None = None,
) -> int:
    """Runs a command and gives its exit code. What is not given is the real one; `screen` is told about `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    ordered = _global_first(given)
    as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
    wanted = Wanted(
        invoke=invoke,
        now=now or (lambda: datetime.now(UTC)),
        zone=zone,
        screen=screen or (lambda as_json: Screen(as_json=as_json)),
    )
    try:
        code = app(ordered, prog_name="vaultctl", standalone_mode=False, obj=wanted)
        sys.stdout.flush()
        return int(code or 0)
    except Failure as failure:
        return _tell(wanted.screen(as_json), failure)
    except TyperException as error:
        said = " ".join(error.format_message().split())
        return _tell(wanted.screen(as_json), Failure(Exit.USAGE, "Usage", f"{said} (see vaultctl --help)"))
    except (KeyboardInterrupt, typer.Abort):
        return _tell(wanted.screen(as_json), Failure(Exit.INTERRUPTED, "Interrupted", "interrupted"))
    except (ReaderGone, BrokenPipeError):
        # Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except Exception as error:  # the last resort: one line, and the rest for whoever asks
        if os.environ.get("VAULTCTL_TRACEBACK"):
            traceback.print_exc()
        said = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{said} (this is a bug; VAULTCTL_TRACEBACK=1 shows where)"
        return _tell(wanted.screen(as_json), Failure(Exit.UNFORESEEN, "Unforeseen", message))


def _tell(screen: Screen, failure: Failure) -> int:
    if screen.as_json:
        screen.document({"error": {"code": failure.code, "message": str(failure)}})
    screen.note(f"vaultctl: {failure}")
    return failure.exit


def _global_first(arguments: list[str]) -> list[str]:
    """The global options moved before the command, so that they may be written anywhere before `--`."""
    moved: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _GLOBAL:
            moved.append(word)
            if _GLOBAL[word]:
                moved += [value for value in [next(words, None)] if value is not None]
        elif word.partition("=")[0] in _GLOBAL:
            moved.append(word)
        else:
            rest.append(word)
    return moved + rest
