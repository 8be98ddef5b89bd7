"""Applying retention: which restore points go is written down first, and their snapshots are deleted a look later.

Between the two lies GRACE, and the second look judges anew: whoever began to restore from the point, locked it or
held its host meanwhile has saved that by then, and the point is spared. Whatever is interrupted, refused or lost is
found again from the records: a point that is to go carries `dropped_at` until its snapshot is gone.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from chalicelib import points
from chalicelib.errors import CloudRefused
from chalicelib.facts import PointDeleted, PointDropped, PointNotDeleted, PointSpared
from chalicelib.model import Host, Marks, Retention, RetentionLook, Vault
from chalicelib.refusals import DAY, NEVER, retry_at, waits
from chalicelib.retention import Verdict, Why, judge

if TYPE_CHECKING:
    from chalicelib.control import Control

# Longer than any Lambda of ours may run, so that who has read the records before they said so has acted by then.
GRACE = timedelta(minutes=10)
# Of one look, which a Lambda has a minute for; the next look goes on, with those that had no turn.
MOST_HOSTS = 50
MOST_DELETED = 40
MOST_DELETED_A_HOST = 20


class Retaining:
    """Retention of all hosts, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control

    def see_to(self, hosts: Iterable[Host], now: datetime) -> list[Exception]:
        """Every host that is due. What went wrong with one keeps no other from its turn."""
        failures: list[Exception] = []
        look = _Look(self._control, now)
        waiting = [host for host in hosts if due(host, now)]
        waiting.sort(key=lambda host: host.retention_look.at if host.retention_look else NEVER)
        for host in waiting[:MOST_HOSTS]:
            if not look.left:
                break
            try:
                look.host(host)
            except Exception as failure:
                self._control.telemetry.fault("retention_failed", host=host.name, error=repr(failure))
                failures.append(failure)
        return failures


def due(host: Host, now: datetime) -> bool:
    """Never looked at, a day ago, something is left to do, or a new complete restore point counts since."""
    last = host.retention_look
    if last is None or now >= last.next_at or last.at > now:  # at > now: the clock had jumped ahead
        return True
    return host.last_backup is not None and host.last_backup.completed_at > last.at


def verdicts(control: "Control", host: Host, now: datetime, retention: Retention | None = None) -> list[Verdict]:
    """What would become of a host's points now, newest first. `retention`: instead of its own or the stack's.

    Raises CloudRefused if EC2 cannot be asked about locks, which it is only if something would go.
    """
    vault = control.store.vault(host.vault_id)
    known = control.store.points(host.name)
    pending = [each for each in vault.pending_points.values() if each.host == host.name] if vault else []
    settled = {each.snapshot_id for each in known}
    known += [each for each in pending if each.snapshot_id not in settled]
    policy = retention or host.retention or control.policy.retention
    needed = needed_by(vault, host)
    found = judge(known, policy, now, needed=needed, kept_since=host.kept_since)
    if all(verdict.keep for verdict in found):
        return found
    locked = dict.fromkeys(control.cloud.locked_snapshots(), Why.LOCKED)
    return judge(known, policy, now, needed={**locked, **needed}, kept_since=host.kept_since)


def needed_by(vault: Vault | None, host: Host) -> dict[str, Why]:
    """Snapshots that something under way relies on, by id."""
    needed: dict[str, Why] = {}
    if host.last_backup:
        needed[host.last_backup.snapshot_id] = Why.NEWEST
    needed |= {copy.point_id: Why.COPYING for copy in host.copies if not copy.complete}
    if vault is None:
        return needed
    needed |= dict.fromkeys(points.in_use([vault]), Why.RESTORING)
    # A retired host's volume is deleted because this snapshot holds all that it does.
    needed |= {slot.doomed: Why.NEWEST for slot in vault.retired.values() if slot.doomed}
    slots = (*vault.hosts.values(), *vault.retired.values())
    needed |= {slot.rests_as: Why.RESTING for slot in slots if slot.rests_as}
    # Not yet forgotten by the vault: it may be settled, and its record be written, once more.
    needed |= dict.fromkeys(vault.pending_points, Why.PENDING)
    return needed


class _Look:
    """One look at the hosts that are due. `left`: how many deletions are left to it."""

    def __init__(self, control: "Control", now: datetime) -> None:
        self._control = control
        self._now = now
        self.left = MOST_DELETED
        self._of_this_host = 0

    def host(self, host: Host) -> None:
        """Raises CloudRefused if EC2 cannot be asked about locks."""
        self._of_this_host = min(self.left, MOST_DELETED_A_HOST)
        times = [self._now + DAY]
        for verdict in verdicts(self._control, host, self._now):
            times.append(self._see_to(verdict) or times[0])
        self._control.store.put_retention_look(host.name, RetentionLook(at=self._now, next_at=min(times)))

    def _see_to(self, verdict: Verdict) -> datetime | None:
        """When it is to be looked at again, if sooner than in a day."""
        marks = verdict.point.marks
        intended = marks.dropped_at is not None and marks.dropped_at <= self._now
        if verdict.keep:
            return self._spare(verdict) if marks.dropped_at else None
        if marks.dropped_at is None or not intended:
            return self._drop(verdict)
        if self._now - marks.dropped_at < GRACE:
            return self._now
        if waits(marks.retry_at, self._now):
            return marks.retry_at
        return self._delete(verdict)

    def _drop(self, verdict: Verdict) -> datetime:
        marks = replace(verdict.point.marks, dropped_at=self._now, dropped_for=str(verdict.why[0]))
        if self._control.store.mark(verdict.point, marks):
            self._control.tell(PointDropped(point=replace(verdict.point, marks=marks)))
        return self._now

    def _spare(self, verdict: Verdict) -> datetime | None:
        if not self._control.store.mark(verdict.point, spared(verdict.point.marks)):
            return self._now
        self._control.tell(PointSpared(point=verdict.point, why=verdict.why))
        return None

    def _delete(self, verdict: Verdict) -> datetime | None:
        if not self._of_this_host:
            return self._now
        self._of_this_host -= 1
        self.left -= 1
        point = verdict.point
        try:
            if point.snapshot_id:
                self._control.cloud.delete_snapshot(point.snapshot_id, point.host)
        except CloudRefused as refused:
            return self._refused(verdict, refused)
        gone = replace(point, marks=replace(point.marks, deleted_at=self._now))
        self._control.store.bury(gone)
        self._control.tell(PointDeleted(point=gone))
        return None

    def _refused(self, verdict: Verdict, refused: CloudRefused) -> datetime:
        marks = verdict.point.marks
        again = retry_at(self._now, marks.refusals)
        marks = replace(marks, refusals=marks.refusals + 1, refused=str(refused), retry_at=again)
        self._control.tell(PointNotDeleted(point=replace(verdict.point, marks=marks), aws_code=refused.aws_code))
        return again if self._control.store.mark(verdict.point, marks) else self._now


def spared(marks: Marks) -> Marks:
    """The marks of a point that stays after all."""
    return replace(marks, dropped_at=None, dropped_for="", refusals=0, refused="", retry_at=None)
