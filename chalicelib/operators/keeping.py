"""Actions about what is kept: retention, unusual pushes, and locks. docs/retention.md explains it."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chalicelib import errors
from chalicelib.amendment import Amendment
from chalicelib.calling import calling
from chalicelib.commands import HostChanged, PushesAccepted
from chalicelib.model import Host, Marks, PointState, RestorePoint, Retention
from chalicelib.operators.action import Action
from chalicelib.operators.clients import Clients
from chalicelib.operators.cost import known_prices
from chalicelib.operators.hosts import known_host
from chalicelib.operators.views import PointView, point_view
from chalicelib.pricing.history import Monthly, may_be_archived, monthlies
from chalicelib.pricing.table import LISTED
from chalicelib.retaining import spared, verdicts
from chalicelib.retention import Verdict
from chalicelib.wiring import Wiring

Places = Annotated[int, msgspec.Meta(ge=0, le=1000)]
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_LockSnapshot.html
LockDays = Annotated[int, msgspec.Meta(ge=1, le=36500)]
CoolOff = Annotated[int, msgspec.Meta(ge=0, le=72)]
TRIES = 5  # of marking a point that others mark too


class VerdictView(Struct, frozen=True, kw_only=True):
    """VERDICT. `why`: every reason to keep the point, or the one to drop it."""

    point: PointView
    keep: bool
    why: list[str]
    refused: str


class Archive(Struct, frozen=True, kw_only=True):
    """What EBS Snapshots Archive would take off a month, about, if these points were moved there."""

    points: list[str]
    dollars: float


class RetentionAnswer(Struct, frozen=True, kw_only=True):
    """`own`: the numbers are the host's, not the stack's. `deleted`: newest first. `archive` null: saves nothing."""

    host: str
    retention: Retention
    own: bool
    kept_since: datetime | None
    verdicts: list[VerdictView]
    deleted: list[PointView]
    archive: Archive | None = None
    monthlies: list[Monthly] = []


class HostRetention(Action, tag="retention"):
    """What is kept of a host, point by point; with numbers, changed. `dry_run`: as it would be, and nothing changes.

    `default`: the stack's numbers again. `hold`: keep every point made up to now until that is ended (False).
    """

    host: str
    daily: Places | None = None
    weekly: Places | None = None
    monthly: Places | None = None
    default: bool = False
    hold: bool | None = None
    dry_run: bool = False

    def answer(self, wired: Wiring) -> RetentionAnswer:
        """Raises UnknownHost, BadRequest, CloudRefused."""
        host = known_host(wired, self.host)
        changes = self._changes(host, wired)
        if changes and not self.dry_run:
            wired.control.apply(host.vault_id, HostChanged(host=host.name), Amendment(host.name, **changes))
            wired.store.put_retention_look(host.name, None)  # the next look is due
            wired.telemetry.event("retention_changed", host=host.name, **{k: str(v) for k, v in changes.items()})
        host = replace(host, **changes)
        found = verdicts(wired.control, host, wired.clock.now())
        monthly = _monthlies(wired, host, found)
        return RetentionAnswer(
            host=host.name,
            retention=host.retention or wired.control.policy.retention,
            own=host.retention is not None,
            kept_since=host.kept_since,
            verdicts=[_verdict_view(each) for each in found],
            deleted=[point_view(point) for point in wired.store.buried(host.name)[::-1]],
            archive=_archive(monthly),
            monthlies=monthly,
        )

    def _changes(self, host: Host, wired: Wiring) -> dict[str, object]:
        asked = {"daily": self.daily, "weekly": self.weekly, "monthly": self.monthly}
        given = {tier: number for tier, number in asked.items() if number is not None}
        if self.default and given:
            raise errors.BadRequest("default: means the stack's numbers; leave out daily, weekly and monthly")
        changes: dict[str, object] = {}
        if given:
            changes["retention"] = replace(host.retention or wired.control.policy.retention, **given)
        elif self.default:
            changes["retention"] = None
        if self.hold is not None:
            changes["kept_since"] = wired.clock.now() if self.hold else None
        return changes


def _monthlies(wired: Wiring, host: Host, found: list[Verdict]) -> list[Monthly]:
    """Every monthly point. Nothing is asked of AWS unless one of them might be archived."""
    clients, places = Clients(wired), (host.retention or wired.control.policy.retention).monthly
    might: Any = [verdict.point.snapshot_id for verdict in found if may_be_archived(verdict.why)]
    if not might:
        return monthlies(found, places, LISTED, sent=[], since=wired.clock.now(), whole={})
    windows = wired.store.windows(host.vault_id)
    runs = [run for window in windows for run in window.runs.values() if run.host == host.name]
    with calling("DescribeSnapshots"):
        only: Any = [{"Name": "snapshot-id", "Values": might}]
        pages = clients.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=only)
        shots = [shot for page in pages for shot in page["Snapshots"]]
    return monthlies(
        found,
        places,
        known_prices(clients, wired.settings.table),
        sent=[(run.started_at, run.stats.bytes_sent or 0) for run in runs if run.stats],
        since=min((window.opened_at for window in windows), default=wired.clock.now()),
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Snapshot.html: what the archive would bill
        whole={each["SnapshotId"]: full for each in shots if (full := each.get("FullSnapshotSizeInBytes"))},
        archived={each["SnapshotId"] for each in shots if each.get("StorageTier") == "archive"},
    )


def _archive(found: list[Monthly]) -> Archive | None:
    saved = {each.snapshot_id: each.dollars for each in found if each.dollars is not None and each.dollars > 0}
    return Archive(points=list(saved), dollars=math.fsum(saved.values())) if saved else None


def _verdict_view(verdict: Verdict) -> VerdictView:
    marks = verdict.point.marks
    return VerdictView(
        point=point_view(verdict.point), keep=verdict.keep, why=[str(why) for why in verdict.why], refused=marks.refused
    )


# --- unusual pushes ---------------------------------------------------------------------------------------


class AcceptAnswer(Struct, frozen=True, kw_only=True):
    """`accepted`: the restore points that lost, or with `dry_run` would lose, their flag, newest first.

    `kept_since`: of the hold that was ended, or would be.
    """

    host: str
    accepted: list[PointView]
    kept_since: datetime | None


class Accept(Action, tag="accept"):
    """What a host pushed is as it should be: no restore point of it is unusual any more, and its history not held.

    `dry_run`: says what that would do, and changes nothing.
    """

    host: str
    dry_run: bool = False

    def answer(self, wired: Wiring) -> AcceptAnswer:
        """Raises UnknownHost, LostRace."""
        host = known_host(wired, self.host)
        vault = wired.store.vault(host.vault_id)
        # Not on record before its snapshot has completed or failed.
        coming = [*vault.pending_points.values(), *vault.owed_points.values()] if vault else []
        if vault and vault.window:
            coming += [point for point in vault.window.points.values() if point.snapshot_id is None]
        if not self.dry_run:
            # First, so that what is coming comes without its flag.
            amend = Amendment(host.name, kept_since=None)
            wired.control.apply(host.vault_id, PushesAccepted(host=host.name), amend)
            wired.store.put_retention_look(host.name, None)
        recorded = wired.store.points(host.name)
        known = {point.snapshot_id for point in recorded}
        coming = [point for point in coming if point.host == host.name and point.snapshot_id not in known]
        flagged = [point for point in [*coming[::-1], *recorded[::-1]] if point.marks.unusual]
        if not self.dry_run:
            for point in flagged:
                if point.snapshot_id in known:
                    _mark(wired, point, lambda marks: replace(marks, unusual=""))
            accepted = [str(point.snapshot_id) for point in flagged]
            wired.telemetry.event("pushes_accepted", host=host.name, points=accepted, kept_since=host.kept_since)
        return AcceptAnswer(
            host=host.name, accepted=[point_view(point) for point in flagged], kept_since=host.kept_since
        )


# --- single restore points --------------------------------------------------------------------------------


class LockAnswer(Struct, frozen=True, kw_only=True):
    point: PointView


class Lock(Action, tag="lock"):
    """Keep a restore point: until `unlock`, or with `days` for so long and by EBS's own lock too.

    In compliance mode nobody can unlock it once `cool_off_hours` are over; 0: at once.
    """

    point: str
    days: LockDays | None = None
    mode: Literal["governance", "compliance"] = "governance"
    cool_off_hours: CoolOff | None = None

    def answer(self, wired: Wiring) -> LockAnswer:
        """Raises BadRequest that names the field, CloudRefused, LostRace."""
        if self.cool_off_hours is not None and self.mode != "compliance":
            raise errors.BadRequest("cool_off_hours: only a lock in compliance mode has one")
        if self.days is None and self.mode != "governance":
            raise errors.BadRequest("days: a lock in compliance mode needs them")
        point = _known_point(wired, self.point)
        _is_there(wired, point)
        until = self._lock_by_ebs(wired) if self.days is not None else None
        now = wired.clock.now()

        def locked(marks: Marks) -> Marks:
            if until:
                return replace(spared(marks), locked_until=until, lock_mode=self.mode)
            return replace(spared(marks), held_at=marks.held_at or now)

        marked = _mark(wired, point, locked)
        _is_there(wired, marked)  # retention may have been deleting it this very moment
        mode = self.mode if until else "hold"
        wired.telemetry.event("point_locked", host=point.host, snapshot_id=point.snapshot_id, mode=mode, until=until)
        return LockAnswer(point=point_view(marked))

    def _lock_by_ebs(self, wired: Wiring) -> datetime:
        more = {}
        if self.mode == "compliance" and self.cool_off_hours != 0:
            # Without one it is final at once; a day lets a mistake be undone.
            more = {"CoolOffPeriod": self.cool_off_hours or 24}
        with calling("LockSnapshot"):
            answer = Clients(wired).ec2.lock_snapshot(
                SnapshotId=self.point, LockMode=self.mode, LockDuration=self.days, **more
            )
        until: datetime = answer["LockExpiresOn"]
        return until


class Unlock(Action, tag="unlock"):
    """End an operator's hold on a restore point, and EBS's lock where EBS lets us. Retention decides about it again."""

    point: str

    def answer(self, wired: Wiring) -> LockAnswer:
        """Raises BadRequest, CloudRefused (a lock in compliance mode, after its cooling-off), LostRace."""
        point = _known_point(wired, self.point)
        if self.point in wired.control.cloud.locked_snapshots():
            with calling("UnlockSnapshot"):
                Clients(wired).ec2.unlock_snapshot(SnapshotId=self.point)
        marked = _mark(wired, point, lambda marks: replace(marks, held_at=None, locked_until=None, lock_mode=""))
        wired.store.put_retention_look(point.host, None)
        wired.telemetry.event("point_unlocked", host=point.host, snapshot_id=point.snapshot_id)
        return LockAnswer(point=point_view(marked))


def _known_point(wired: Wiring, snapshot_id: str) -> RestorePoint:
    for host in wired.store.hosts():
        for point in wired.store.points(host.name):
            if point.snapshot_id == snapshot_id and point.state is PointState.COMPLETED:
                return point
    raise errors.BadRequest(f"point: there is no completed restore point {snapshot_id[:40]!r}; see `restore_points`")


def _read_again(wired: Wiring, point: RestorePoint) -> RestorePoint:
    for each in wired.store.points(point.host):
        if each.snapshot_id == point.snapshot_id:
            return each
    raise errors.BadRequest(f"point: {point.snapshot_id} has just been deleted")


def _is_there(wired: Wiring, point: RestorePoint) -> None:
    snapshot_id = str(point.snapshot_id)
    if snapshot_id not in wired.control.cloud.snapshot_states([snapshot_id]):
        raise errors.BadRequest(f"point: EC2 has no snapshot {snapshot_id} any more")


def _mark(wired: Wiring, point: RestorePoint, change: Callable[[Marks], Marks]) -> RestorePoint:
    """The point with its new marks. Raises LostRace, BadRequest if it is gone."""
    for _ in range(TRIES):
        marked = wired.store.mark(point, change(point.marks))
        point = _read_again(wired, point)
        if marked:
            return point
    raise errors.LostRace(f"{point.snapshot_id} is being marked by too many at once; try again")
