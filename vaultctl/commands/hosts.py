"""Hosts: who they are, how fresh their backups are, and what an operator changes about them."""

from enum import StrEnum
from typing import Annotated

import typer

from vaultctl import durations
from vaultctl.commands import enrolling
from vaultctl.documents import Copy, Host, Point, Retired, Run, read
from vaultctl.failures import Exit, usage
from vaultctl.screen import BAD, FAINT, GOOD, WARN, Cell, Row
from vaultctl.session import Session, session
from vaultctl.words import NONE, gib, growth, sent, span, when

Name = Annotated[str, typer.Argument(metavar="HOST", help="Its name, as `vaultctl hosts` shows it.")]


class Resting(StrEnum):
    """What a host's data are between its backups."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"


def add_to(app: typer.Typer) -> None:
    enrolling.add_to(app)
    for command in (hosts, host, change, retire, drill):
        app.command()(command)
    app.command("restore-points")(restore_points)


def hosts(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 5 if a host is overdue, and one line: for monitoring.")
    ] = False,
) -> None:
    """All hosts: last good backup and its age, size, growth, next expected, overdue."""
    here = session(context)
    answer = here.operate.ask("hosts")
    found = read(answer["hosts"], list[Host])
    late = [each for each in found if each.overdue and not each.retired_at]
    if here.screen.as_json:
        here.screen.document(answer)
    elif check:
        _verdict(here, found, late)
    elif found:
        head = ("host", "vault", "last good backup", "age", "used", "of", "a day", "next expected", "state")
        here.screen.table(head, [_row(here, each) for each in found], right=("age", "used", "of", "a day"))
    else:
        here.screen.note("No host is enrolled. Enrol one: vaultctl enroll HOST")
    if check and late:
        raise typer.Exit(Exit.FOUND_WRONG)


def host(
    context: typer.Context,
    name: Name,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs and restore points.")] = 14,
) -> None:
    """One host: its settings, its last runs and its restore points, newest first."""
    here = session(context)
    answer = here.operate.ask("host", host=name, limit=limit)
    if here.screen.as_json:
        here.screen.document(answer)
        return
    found = read(answer["host"], Host)
    for label, value in _facts(here, found):
        here.screen.parts([(f"{label:<18}", FAINT), (value.text, value.style)])
    here.screen.say("")
    _runs(here, read(answer["runs"], list[Run]))
    here.screen.say("")
    _points(here, read(answer["restore_points"], list[Point]))


def restore_points(context: typer.Context, name: Name) -> None:
    """A host's restore points, newest first."""
    here = session(context)
    answer = here.operate.ask("restore_points", host=name)
    if here.screen.as_json:
        here.screen.document(answer)
    else:
        _points(here, read(answer["restore_points"], list[Point]))
        if copies := read(answer.get("copies", []), list[Copy]):
            here.screen.say("")
            _copies(here, copies)


def change(  # noqa: PLR0917
    context: typer.Context,
    name: Name,
    every: Annotated[str | None, typer.Option(metavar="24h", help="How often it is to back up.")] = None,
    max_size_gib: Annotated[int | None, typer.Option(min=1, metavar="N", help="The most its volume grows to.")] = None,
    ping_url: Annotated[
        str | None, typer.Option(metavar="URL", help='Called at start, success and failure; "" takes it away.')
    ] = None,
    resting: Annotated[
        Resting | None, typer.Option(help="What it is between backups: a volume, or the snapshot of it alone.")
    ] = None,
) -> None:
    """Change a host's settings."""
    here = session(context)
    if every is None and max_size_gib is None and ping_url is None and resting is None:
        raise usage("nothing to change: give --every, --max-size-gib, --ping-url or --resting")
    answer = here.operate.ask(
        "change_host",
        host=name,
        every_seconds=None if every is None else durations.seconds(every, "every"),
        max_size_gib=max_size_gib,
        ping_url=ping_url,
        resting=resting,
    )
    if here.screen.as_json:
        here.screen.document(answer)
        return
    found = read(answer["host"], Host)
    here.screen.say(
        f"{found.name}: every {durations.text(found.every_seconds)}, volume up to {found.max_size_gib} GiB, "
        f"ping {found.ping_url or 'nobody'}, rests as its {found.resting or 'volume'}"
    )


def drill(
    context: typer.Context,
    name: Name,
    point: Annotated[
        str | None, typer.Option(metavar="POINT", help="Another restore point than the newest that counts.")
    ] = None,
) -> None:
    """Check a restore point of a host byte by byte, now. It wakes the vault; the host has nothing to do."""
    here = session(context)
    answer = here.operate.ask("drill", host=name, point=point)
    if here.screen.as_json:
        here.screen.document(answer)
    else:
        here.screen.say(f"{answer['point']} is being checked, as run {answer['run']['run_id']}.")
        here.screen.note(f"Watch it: vaultctl host {name}. What comes of it is mailed only if it fails.")


def retire(
    context: typer.Context,
    name: Name,
    delete_volume: Annotated[
        bool, typer.Option("--delete-volume", help="Delete its volume too, if a restore point holds all of it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End a host: its token and key are worthless at once. Asks, and says what is kept."""
    here = session(context)
    if not yes:
        before = here.operate.ask("host", host=name, limit=400)
        known = read(before["host"], Host)
        points = read(before["restore_points"], list[Point])
        volume = f"volume {known.volume_id}" if known.volume_id else "no volume"
        fate = "deleted if a restore point holds all of it" if delete_volume and known.volume_id else "kept"
        here.confirm(
            f"Retire {name}? Its token and key stop working at once. {len(points)} restore points are kept; "
            f"its {volume} is {fate}.",
            yes=False,
        )
    answer = here.operate.ask("retire", host=name, delete_volume=delete_volume)
    if here.screen.as_json:
        here.screen.document(answer)
        return
    retired = read(answer, Retired)
    kept = retired.kept
    volume = f"volume {kept.volume_id} ({kept.volume_gib} GiB)" if kept.volume_id else "no volume"
    stored = "" if kept.stored_bytes is None else f" ({gib(kept.stored_bytes)} stored)"
    here.screen.say(f"{name} is retired. Kept: {kept.restore_points} restore points{stored}, {volume}.")
    if retired.gone:
        here.screen.say(f"Deleted, once its vault is at rest: volume {retired.gone}.")


def _verdict(here: Session, found: list[Host], late: list[Host]) -> None:
    active = [each for each in found if not each.retired_at]
    if late:
        named = ", ".join(f"{each.name} ({span(each.age_seconds) if each.last else 'never'})" for each in late)
        here.screen.say(f"OVERDUE {len(late)} of {len(active)}: {named}", BAD)
    else:
        here.screen.say(f"OK {len(active)} hosts, none overdue", GOOD)


def _state(each: Host) -> Cell:
    if each.retired_at:
        return Cell("retired", FAINT)
    if each.volume_trouble:
        return Cell("WRONG DISK", BAD)
    if each.overdue:
        return Cell("OVERDUE", BAD)
    if each.drill and each.drill.state == "failed":
        return Cell("DRILL FAILED", BAD)
    if each.drill and each.drill.manifest_lost:
        return Cell("NO MANIFEST", BAD)
    if each.live_run_id:
        return Cell("under way", GOOD)
    if each.kept_since:
        return Cell("HELD", WARN)
    if each.drill_overdue:
        return Cell("drill overdue", WARN)
    if each.drill and each.drill.unprovable:
        return Cell("not provable", WARN)
    return Cell("ok", GOOD) if each.last else Cell("no backup yet", WARN)


def _row(here: Session, each: Host) -> Row:
    style = BAD if each.overdue and not each.retired_at else ""
    return (
        Cell(each.name, style),
        each.vault_id,
        Cell(when(each.last.completed_at, here.zone) if each.last else "never", style),
        Cell(span(each.age_seconds), style),
        _used(each),
        gib(each.volume_bytes) if each.volume_bytes else f"{each.size_gib} GiB",
        growth(each.growth_bytes_per_day),
        NONE if each.retired_at else when(each.next_expected_at, here.zone),
        _state(each),
    )


_DRILLS = {"passed": GOOD, "failed": BAD}


def _drill_facts(here: Session, each: Host) -> list[tuple[str, Cell]]:
    """How its last drill ended, and how long ago."""
    drilled = each.drill
    if drilled is None:
        return [("last drill", Cell("never", BAD if each.drill_overdue else ""))]
    style = _DRILLS.get(drilled.state, WARN)
    ago = span((here.now() - drilled.at).total_seconds())
    how = f"{drilled.files} files, {gib(drilled.checked_bytes)} in {span(drilled.seconds)}"
    facts = [("last drill", Cell(f"{drilled.state} {ago} ago ({drilled.point_id}): {how}", style))]
    said = drilled.detail
    if drilled.unprovable or drilled.manifest_lost:
        since = "any more" if drilled.manifest_lost else "(OpenSSH before 8.1, or an old nightvault)"
        said = f"{each.name} pushes no manifest {since}; `nightvault doctor` on {each.name} says what it lacks"
    return [*facts, ("it said", Cell(said, style))] if said else facts


def _used(each: Host) -> Cell:
    if each.used_bytes is None or not each.volume_bytes:
        return Cell(gib(each.used_bytes))
    # Over 80 % the next closing enlarges it; over 90 % it did not keep up, or may not.
    share = each.used_bytes / each.volume_bytes
    return Cell(f"{gib(each.used_bytes)} {share:.0%}", BAD if share > 0.9 else WARN if share > 0.8 else "")


def _where(each: Host) -> str:
    if each.rests_as:
        return f"none; it rests as {each.rests_as}"
    return f"{each.volume_id or NONE}{' (until its snapshot is proven)' if each.resting == Resting.SNAPSHOT else ''}"


def _facts(here: Session, each: Host) -> list[tuple[str, Cell]]:
    last = f"{when(each.last.completed_at, here.zone)}, {span(each.age_seconds)} ago" if each.last else "never"
    of = gib(each.volume_bytes) if each.volume_bytes else f"{each.size_gib} GiB"
    facts = [
        ("host", Cell(each.name)),
        ("state", _state(each)),
        ("last good backup", Cell(f"{last} ({each.last.snapshot_id})" if each.last else last)),
        ("next expected", Cell(when(each.next_expected_at, here.zone))),
        ("every", Cell(durations.text(each.every_seconds))),
        ("vault", Cell(each.vault_id)),
        ("volume", Cell(f"{_where(each)}: {_used(each).text} used of {of}, up to {each.max_size_gib} GiB")),
        ("growth a day", Cell(growth(each.growth_bytes_per_day))),
        ("enrolled", Cell(when(each.enrolled_at, here.zone))),
        ("ping", Cell(each.ping_url or NONE)),
    ]
    facts += _drill_facts(here, each)
    if each.volume_trouble:
        facts.append(("not mounted", Cell(f"the volume {each.volume_trouble}", BAD)))
    if each.retired_at:
        facts.append(("retired", Cell(when(each.retired_at, here.zone))))
    return facts


_OUTCOMES = {"complete": GOOD, "failed": BAD, "cut": WARN, "abandoned": BAD}


def outcome(run: Run) -> Cell:
    """A run's outcome, coloured; a live one is under way."""
    return Cell(run.outcome, _OUTCOMES.get(run.outcome, "")) if run.outcome else Cell("under way")


def _runs(here: Session, runs: list[Run]) -> None:
    head = ("started", "kind", "outcome", "took", "sent", "of", "exit", "reason")
    rows: list[Row] = []
    for each in runs:
        took = (each.ended_at or here.now()) - each.started_at
        stats = each.stats
        rows.append(
            (
                when(each.started_at, here.zone),
                each.kind,
                outcome(each),
                span(took.total_seconds()),
                sent(stats.bytes_sent if stats else None),
                sent(stats.bytes_total if stats else None),
                NONE if each.exit_code is None else str(each.exit_code),
                each.reason or "",
            )
        )
    if rows:
        here.screen.table(head, rows, right=("took", "sent", "of", "exit"))
    else:
        here.screen.say("no runs yet")


def _copies(here: Session, copies: list[Copy]) -> None:
    rows: list[Row] = []
    for each in copies:
        state = Cell(each.state if each.copy_id else "to be made", GOOD if each.state == "completed" else WARN)
        if each.fit is False:
            state = Cell("UNFIT", BAD)
        rows.append((when(each.taken_at, here.zone), each.region, each.copy_id or NONE, each.snapshot_id, state))
    here.screen.table(("copy of", "region", "copy", "snapshot", "state"), rows)
    for each in copies:
        if each.refused:
            here.screen.say(f"{each.copy_id or each.snapshot_id}: AWS refused: {each.refused}", BAD)


def label(point: Point) -> Cell:
    """What a point is worth."""
    if not point.complete:
        return Cell(f"incomplete ({point.outcome}){', UNUSUAL' if point.unusual else ''}", WARN)
    said = {None: "complete", True: "complete, proven", False: "complete, UNFIT"}[point.fit]
    if point.unusual:
        return Cell(f"{said}, UNUSUAL", BAD)
    return Cell(said, BAD if point.fit is False else GOOD)


def _points(here: Session, points: list[Point]) -> None:
    rows: list[Row] = []
    for each in points:
        state = Cell(each.state, BAD if each.state == "error" else "" if each.state == "completed" else WARN)
        size = NONE if each.volume_gib is None else f"{each.volume_gib} GiB"
        rows.append(
            (when(each.made_at, here.zone), each.snapshot_id or NONE, label(each), state, size, each.run_id[:8])
        )
    if rows:
        here.screen.table(("made", "snapshot", "label", "state", "volume", "run"), rows, right=("volume",))
    else:
        here.screen.say("no restore points yet")
