"""Looking after a stack: `about`, `doctor`, `cost`."""

from typing import Annotated

import typer

from vaultctl.commands import costing
from vaultctl.documents import About, Check, read
from vaultctl.failures import Exit
from vaultctl.screen import BAD, FAINT, GOOD, WARN
from vaultctl.session import session

_LEVELS = {"ok": GOOD, "warning": WARN, "wrong": BAD}


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)
    costing.add_to(app)
    app.command()(about)


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend; nothing that holds data.")] = False,
) -> None:
    """Check the stack against what it should be. Exit code 5 if something is wrong."""
    here = session(context)
    answer = here.operate.ask("doctor", fix=fix)
    checks = read(answer["checks"], list[Check])
    wrong = [each for each in checks if each.level == "wrong" and not each.fixed]
    if here.screen.as_json:
        here.screen.document(answer)
    else:
        for each in checks:
            word, style = ("mended", GOOD) if each.fixed else (each.level, _LEVELS.get(each.level, WARN))
            here.screen.parts([(f"{word:<8}", style), (f"{each.name}: ", FAINT), (each.what, "")])
            if not each.ok and not each.fixed and each.remedy:
                here.screen.say(f"         -> {each.remedy}")
        mendable = sum(each.fixable and not each.fixed for each in checks)
        if mendable and not fix:
            here.screen.note(f"{mendable} of these can be mended: vaultctl doctor --fix")
    if wrong:
        raise typer.Exit(Exit.FOUND_WRONG)


def about(context: typer.Context) -> None:
    """The stack: where it is, its version, its policy."""
    here = session(context)
    answer = here.operate.ask("about")
    if here.screen.as_json:
        here.screen.document(answer)
        return
    found = read(answer, About)
    facts = [
        ("stack", found.stack),
        ("region", found.region),
        ("version", found.version),
        ("url for hosts", found.url),
        ("dashboard", found.dashboard_url or "-"),
        ("alerts go to", found.topic_arn or "-"),
        *((name.replace("_", " "), str(value)) for name, value in sorted(found.policy.items())),
    ]
    for label, value in facts:
        here.screen.parts([(f"{label:<24}", FAINT), (value, "")])
