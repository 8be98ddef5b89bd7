"""What is kept: a host's retention, unusual pushes, and locks on single restore points."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from vaultctl.commands.hosts import Name, label
from vaultctl.documents import Accepted, Monthly, Point, Retention, Verdict, read
from vaultctl.failures import usage
from vaultctl.screen import BAD, FAINT, GOOD, WARN, Cell, Row
from vaultctl.session import Session, session
from vaultctl.words import NONE, dollars, gib, when

Snapshot = Annotated[str, typer.Argument(metavar="POINT", help="Its snapshot, as `vaultctl restore-points` shows it.")]


LEAST_SAVING = 0.005  # dollars a month


class Mode(StrEnum):
    """EBS's own: https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-lock-concepts.html"""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


def add_to(app: typer.Typer) -> None:
    for command in (retention, accept, lock, unlock):
        app.command()(command)


def _places(what: str) -> Any:
    return typer.Option(min=0, max=1000, metavar="N", help=f"So many {what} that have a point keep their newest.")


def retention(
    context: typer.Context,
    name: Name,
    *,
    daily: Annotated[int | None, _places("days")] = None,
    weekly: Annotated[int | None, _places("weeks")] = None,
    monthly: Annotated[int | None, _places("months")] = None,
    default: Annotated[bool, typer.Option("--default", help="The stack's numbers again.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Keep all that is there now, until --release.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End a hold: all is well.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Which restore points of a host stay and why; with numbers, change that. Asks if points would go."""
    here = session(context)
    if hold and release:
        raise usage("hold: and release are opposites; give one of them")
    numbers = {"daily": daily, "weekly": weekly, "monthly": monthly}
    held = True if hold else False if release else None
    wanted = {"host": name, **numbers, "default": default, "hold": held}
    changes = default or held is not None or any(each is not None for each in numbers.values())
    if changes and not dry_run and not yes:
        _ask(here, name, wanted)
    answer = here.operate.ask("retention", **wanted, dry_run=dry_run)
    if here.screen.as_json:
        here.screen.document(answer)
    else:
        _show(here, read(answer, Retention), dry_run=dry_run and changes)


def accept(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Say that an unusual push is as it should be: ends the hold of the host's history. Shows what, and asks."""
    here = session(context)
    if not yes:
        found = read(here.operate.ask("accept", host=name, dry_run=True), Accepted)
        if found.accepted:
            for each in found.accepted:
                here.screen.note(f"{when(each.made_at, here.zone)}  {each.snapshot_id or NONE}  {each.unusual}", WARN)
            here.confirm(f"Is that as it should be? Retention may then delete what {name} had before.", yes=False)
    answer = here.operate.ask("accept", host=name)
    if here.screen.as_json:
        here.screen.document(answer)
        return
    done = read(answer, Accepted)
    number = len(done.accepted)
    what = f"{number} restore point{'' if number == 1 else 's'} of {name} accepted" if number else "nothing to accept"
    hold = f"all up to {when(done.kept_since, here.zone)} is held no more" if done.kept_since else "nothing was held"
    here.screen.say(f"{what}; {hold}.")


def lock(
    context: typer.Context,
    point: Snapshot,
    *,
    days: Annotated[int | None, typer.Option(min=1, max=36500, metavar="N", help="By EBS too, for so long.")] = None,
    mode: Annotated[Mode, typer.Option(help="Governance can be unlocked; compliance by nobody.")] = Mode.GOVERNANCE,
    cool_off: Annotated[
        int | None, typer.Option(min=0, max=72, metavar="HOURS", help="Of compliance: so long it can be undone. 24.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Keep a restore point: until `unlock`, or for days, by EBS's own lock. Asks before compliance mode."""
    here = session(context)
    if mode is Mode.COMPLIANCE:
        hours = 24 if cool_off is None else cool_off
        here.confirm(
            f"Lock {point} for {days or '?'} days in compliance mode? After {hours} hours nobody can undo that, "
            "and it costs as long.",
            yes=yes,
        )
    answer = here.operate.ask("lock", point=point, days=days, mode=str(mode), cool_off_hours=cool_off)
    _one(here, answer)


def unlock(context: typer.Context, point: Snapshot) -> None:
    """End a lock on a restore point. Whether it then stays is for retention to say."""
    here = session(context)
    _one(here, here.operate.ask("unlock", point=point))


def _ask(here: Session, name: str, wanted: dict[str, Any]) -> None:
    """Whether what would go may go; nothing is asked if nothing goes that is not going already."""
    after = read(here.operate.ask("retention", **wanted, dry_run=True), Retention)
    before = read(here.operate.ask("retention", host=name, dry_run=True), Retention)
    going = {each.point.snapshot_id for each in before.verdicts if not each.keep}
    more = [each for each in after.verdicts if not each.keep and each.point.snapshot_id not in going]
    if more:
        here.confirm(
            f"{len(more)} more restore points of {name} would be deleted, made from "
            f"{when(more[-1].point.made_at, here.zone)} to {when(more[0].point.made_at, here.zone)}. Go on?",
            yes=False,
        )


def _show(here: Session, found: Retention, *, dry_run: bool) -> None:
    rows = [_row(here, each) for each in found.verdicts]
    if rows:
        here.screen.table(("made", "snapshot", "label", "fate", "because"), rows)
    stay = sum(each.keep for each in found.verdicts)
    numbers = found.retention
    whose = "its own" if found.own else "the stack's"
    rule = f"{numbers.daily} daily, {numbers.weekly} weekly, {numbers.monthly} monthly ({whose})"
    if not (numbers.daily or numbers.weekly or numbers.monthly):
        rule = f"every point ({whose})"
    here.screen.note(
        f"{found.host} keeps {rule}: {stay} stay, {len(rows) - stay} go, {len(found.deleted)} are deleted."
    )
    if found.kept_since:
        until = when(found.kept_since, here.zone)
        unusual = any(each.point.unusual for each in found.verdicts)
        end = f"accept {found.host}" if unusual else f"retention {found.host} --release"
        here.screen.note(f"All up to {until} is held. Once all is well: vaultctl {end}", WARN)
    _archive(here, found.monthlies)
    if dry_run:
        here.screen.note("Nothing has changed.")


def _archive(here: Session, monthlies: list[Monthly]) -> None:
    """What EBS's archive would save, once a month's point is kept by nothing else."""
    if all(each.dollars is None for each in monthlies):
        return
    rows: list[Row] = []
    for each in monthlies:
        own = NONE if each.own_bytes is None else f"about {gib(each.own_bytes)}"
        if each.dollars is None:
            worth = Cell(each.why_not, FAINT)
        elif each.dollars >= LEAST_SAVING:
            worth = Cell(f"saves ${dollars(each.dollars)} a month", GOOD)
        else:
            worth = Cell("saves nothing" if each.dollars > -LEAST_SAVING else f"costs ${dollars(-each.dollars)} more")
        rows.append((each.snapshot_id, gib(each.whole_bytes), own, str(each.months), worth))
    here.screen.say("")
    here.screen.table(("monthly", "whole", "its own", "months", "in EBS's archive"), rows, right=("whole", "months"))
    worth_it = [each for each in monthlies if each.dollars is not None and each.dollars >= LEAST_SAVING]
    for each in worth_it:
        here.screen.say(f"aws ec2 modify-snapshot-tier --storage-tier archive --snapshot-id {each.snapshot_id}")
    if worth_it:
        here.screen.note(
            "An estimate: docs/retention.md (the archive tier) says how to count. From there it takes up to three days"
            " and $0.03 a GiB to restore, and 90 days are paid at least.",
        )


def _row(here: Session, each: Verdict) -> Row:
    point = each.point
    fate = Cell("stays", GOOD) if each.keep else Cell("going" if point.dropped_at else "goes", WARN)
    because = ", ".join(each.why) + (f"; refused: {each.refused}" if each.refused else "")
    return (
        when(point.made_at, here.zone),
        point.snapshot_id or NONE,
        label(point),
        fate,
        Cell(because, BAD if each.refused else ""),
    )


def _one(here: Session, answer: dict[str, Any]) -> None:
    if here.screen.as_json:
        here.screen.document(answer)
        return
    point = read(answer["point"], Point)
    ways = []
    if point.held_at:
        ways.append("until `vaultctl unlock`")
    if point.locked_until and here.now() < point.locked_until:
        ways.append(f"by EBS until {when(point.locked_until, here.zone)}")
    said = "locked " + ", ".join(ways) if ways else "not locked"
    here.screen.parts([(f"{point.snapshot_id} of {point.host}: ", FAINT), (said, "")])
