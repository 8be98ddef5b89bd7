"""Copies of each host's newest complete restore point in another region: made, looked at until complete, thinned out.

What EC2 has there is the truth, found by its tags with one call for all hosts; a host's record (`Host.copies`) holds
what became of it, and the intent to make one, saved over the version that was read before CopySnapshot is called: so
two looks at once ask once, and after a lost answer the copy is found and not made again. A host has one copy under way
at most; a longer queue would not make EBS any faster.
"""

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from chalicelib.errors import CloudRefused
from chalicelib.facts import CopyDeleted, CopyLost, CopyRefused, Fact, PointCopied
from chalicelib.model import Copy, Host, PointState, RestorePoint
from chalicelib.points import taken_at
from chalicelib.ports import Copier, CopyShot
from chalicelib.refusals import NEVER, retry_at, waits

if TYPE_CHECKING:
    from chalicelib.control import Control

# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-copy-snapshot.html: so many at once for a destination region.
MOST_UNDER_WAY = 20
# Older accounts may have fewer, and other users of the account have theirs: then it is asked at the next look.
NO_ROOM = "ResourceLimitExceeded"
MOST_HOSTS = 50  # of one look, which a Lambda has a minute for


class Copying:
    """Copies of all hosts, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control

    def see_to(self, hosts: Iterable[Host], now: datetime) -> list[Exception]:
        """Every host that is due. What went wrong with one keeps no other from its turn."""
        copier = self._control.copier
        keep = self._control.policy.copies_kept
        waiting = [host for host in hosts if copier and due(host, copier.region, keep, now)]
        if copier is None or not waiting:
            return []
        try:
            shots = copier.copies()
        except CloudRefused as refused:
            self._control.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
            return []
        failures: list[Exception] = []
        look = _Look(self._control, copier, shots, now)
        random.shuffle(waiting)  # of equals everyone has a turn, also where more are due each time than have one
        waiting.sort(key=_turn)
        for host in waiting[:MOST_HOSTS]:
            try:
                look.host(host)
            except Exception as failure:
                self._control.telemetry.fault("copying_failed", host=host.name, error=repr(failure))
                failures.append(failure)
        return failures


def due(host: Host, region: str, keep: int, now: datetime) -> bool:
    """Something is under way, superfluous or to be tried again, or a new complete restore point counts since."""
    here = [copy for copy in host.copies if copy.region == region]
    under_way = [copy for copy in here if not copy.complete]
    if any(not waits(copy.retry_at, now) for copy in (*under_way, *superfluous(here, keep, now, host.kept_since))):
        return True
    if under_way:
        return False
    newest = max(here, key=lambda copy: copy.taken_at, default=None)
    return host.last_backup is not None and (newest is None or newest.point_id != host.last_backup.snapshot_id)


def _turn(host: Host) -> tuple[bool, datetime]:
    """Who has a copy under way comes first, then whose newest complete one is the oldest."""
    under_way = any(copy.copy_id and not copy.complete for copy in host.copies)
    return not under_way, max((copy.taken_at for copy in host.copies if copy.complete), default=NEVER)


def superfluous(copies: Iterable[Copy], keep: int, now: datetime, kept_since: datetime | None) -> list[Copy]:
    """Complete copies that may go, of one host in one region: all but the `keep` newest (one at least).

    One of a point that failed its drill counts for nothing, and stays only while there is no sound one that is newer.
    Of two of the same point one goes. One from the future (some clock was ahead) stays, and counts for nothing. While a
    host's history is held (`kept_since`), so are the copies of it.
    """
    past = (copy for copy in copies if copy.complete and copy.taken_at <= now)
    newest_first = sorted(past, key=lambda copy: (copy.taken_at, copy.copy_id), reverse=True)
    sound = list({copy.point_id: copy for copy in reversed(newest_first) if copy.sound}.values())[::-1]
    kept = {copy.copy_id for copy in sound[: max(1, keep)]}
    return [
        copy
        for copy in newest_first
        if copy.copy_id not in kept
        and (copy.sound or (sound and sound[0].taken_at > copy.taken_at))
        and not (kept_since and copy.taken_at <= kept_since)
    ]


def missing(copies: Iterable[Copy], points: Iterable[RestorePoint], now: datetime) -> list[RestorePoint]:
    """Restore points worth copying that are newer than every complete copy, oldest first; none from the future."""
    sound = {copy.point_id: copy.taken_at for copy in copies if copy.complete and copy.sound}
    newest = max((at for at in sound.values() if at <= now), default=NEVER)
    good = [point for point in points if point.counts and point.marks.sound and not point.marks.dropped_at]
    # By its id too: a tag says when a point was made to the second only.
    newer = (point for point in good if newest < taken_at(point) <= now and point.snapshot_id not in sound)
    return sorted(newer, key=taken_at)


class _Look:
    """One look at the hosts that are due. `shots`: all copies that EC2 has in the region."""

    def __init__(self, control: "Control", copier: Copier, shots: list[CopyShot], now: datetime) -> None:
        self._control = control
        self._copier = copier
        self._shots = shots
        self._now = now
        self._room = MOST_UNDER_WAY - sum(shot.state is PointState.PENDING for shot in shots)

    def host(self, host: Host) -> None:
        points = self._control.store.points(host.name)
        after = self._settle(host, points)
        if after is not None:
            after = self._thin_out(after)
        if after is not None:
            self._copy_newest(after, points)

    # what EC2 says

    def _settle(self, host: Host, points: list[RestorePoint]) -> Host | None:
        """The host with what EC2 says put into its record. None: somebody else wrote it meanwhile."""
        named = {copy.copy_id for copy in host.copies}
        shots = {shot.copy_id: shot for shot in self._shots if shot.host == host.name}
        for shot in list(shots.values()):
            if shot.state is PointState.ERROR and shot.copy_id not in named:
                self._remove(shots.pop(shot.copy_id))
        fits = {point.snapshot_id: point.marks.fit for point in points}
        facts: list[Fact] = []
        settled = []
        for record in host.copies:
            copy = replace(record, fit=fits.get(record.point_id, record.fit))
            if copy.region != self._copier.region:
                settled.append(copy)
                continue
            found = shots.get(copy.copy_id) if copy.copy_id else _of_point(shots, copy.point_id, named)
            if found is None:
                if copy.copy_id and not self._just_now(copy):
                    facts.append(CopyLost(host=host.name, copy=copy))
                else:
                    settled.append(copy)
                continue
            del shots[found.copy_id]
            settled.append(self._seen(host, copy, found, facts))
        for shot in shots.values():  # made by somebody who could not say so, before another point was the newest
            copy = Copy(
                point_id=shot.point_id,
                taken_at=min(shot.taken_at, self._now),  # else a wrong tag would make it the newest for good
                region=self._copier.region,
                asked_at=self._now,
                fit=fits.get(shot.point_id),
            )
            settled.append(self._seen(host, copy, shot, facts))
        going = {copy.copy_id for copy in self._superfluous(host)}
        facts = [fact for fact in facts if not (isinstance(fact, CopyLost) and fact.copy.copy_id in going)]
        return self._put(host, tuple(settled), facts)

    def _seen(self, host: Host, copy: Copy, shot: CopyShot, facts: list[Fact]) -> Copy:
        """A copy as EC2 describes it now. One that failed is deleted, and is an intent again."""
        if shot.state is PointState.ERROR:
            failed = self._refused(replace(copy, copy_id=""), shot.detail or "EC2 says that it failed, and not why")
            facts.append(CopyRefused(host=host.name, copy=failed))
            self._remove(shot)
            return failed
        if not copy.copy_id:
            copy = replace(copy, copy_id=shot.copy_id, refused="", retry_at=None)
        if shot.state is PointState.COMPLETED and not copy.complete:
            copy = replace(copy, state=shot.state, completed_at=self._now, refusals=0)
            facts.append(PointCopied(host=host.name, copy=copy))
        return copy

    def _remove(self, shot: CopyShot) -> None:
        """One that failed holds nothing. If it can't be deleted now, the next look finds it again."""
        try:
            self._copier.delete(shot.copy_id, shot.host)
        except CloudRefused as refused:
            self._control.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)

    # thinning out

    def _thin_out(self, host: Host) -> Host | None:
        """Those that must be kept have just been seen by us, complete."""
        after: Host | None = host
        for copy in self._superfluous(host):
            if after is None or waits(copy.retry_at, self._now):
                continue
            others = tuple(each for each in after.copies if each != copy)
            try:
                self._copier.delete(copy.copy_id, host.name)
            except CloudRefused as refused:
                kept = self._refused(copy, str(refused))
                fact: Fact = CopyRefused(host=host.name, copy=kept, deleting=True)
                after = self._put(after, (*others, kept), [fact])
            else:
                after = self._put(after, others, [CopyDeleted(host=host.name, copy=copy)])
        return after

    # making

    def _copy_newest(self, host: Host, points: list[RestorePoint]) -> None:
        here = self._here(host)
        intents = [copy for copy in here if not copy.copy_id]
        under_way = any(copy.copy_id and not copy.complete for copy in here)
        asked_just_now = any(map(self._just_now, intents))
        wanted = missing(here, points, self._now)
        if not wanted:
            if intents:  # what was to be copied is not worth it any more
                self._put(host, tuple(copy for copy in host.copies if copy not in intents), [])
            return
        if under_way or asked_just_now or self._room <= 0 or any(waits(copy.retry_at, self._now) for copy in intents):
            return
        point = wanted[-1]
        intent = Copy(
            point_id=str(point.snapshot_id),
            taken_at=taken_at(point),
            region=self._copier.region,
            asked_at=self._now,
            used_bytes=point.used_bytes,
            fit=point.marks.fit,
            refusals=max((copy.refusals for copy in intents), default=0),
            refused=next((copy.refused for copy in intents), ""),
        )
        others = tuple(copy for copy in host.copies if copy not in intents)
        saved = self._put(host, (*others, intent), [])
        if saved is None:
            return
        try:
            copy_id = self._copier.copy(point)
        except CloudRefused as refused:
            if refused.aws_code == NO_ROOM:
                self._room = 0
                self._control.telemetry.event("copy_waits", host=host.name, snapshot_id=intent.point_id)
                return
            failed = self._refused(intent, str(refused))
            self._put(saved, (*others, failed), [CopyRefused(host=host.name, copy=failed)])
        else:
            self._room -= 1
            self._put(saved, (*others, replace(intent, copy_id=copy_id)), [])

    # help

    def _just_now(self, copy: Copy) -> bool:
        """EC2 may not list yet what the call made, and whoever made the call may still be at it."""
        soon = timedelta(seconds=self._control.policy.claim_seconds)
        return timedelta() <= self._now - copy.asked_at <= soon  # of a clock that was ahead, not until it comes

    def _superfluous(self, host: Host) -> list[Copy]:
        return superfluous(self._here(host), self._control.policy.copies_kept, self._now, host.kept_since)

    def _here(self, host: Host) -> list[Copy]:
        return [copy for copy in host.copies if copy.region == self._copier.region]

    def _refused(self, copy: Copy, said: str) -> Copy:
        again = retry_at(self._now, copy.refusals)
        return replace(copy, refusals=copy.refusals + 1, refused=said, retry_at=again)

    def _put(self, host: Host, copies: tuple[Copy, ...], facts: list[Fact]) -> Host | None:
        """The host with these copies, once they are saved; then what has become known is told."""
        if copies != host.copies:
            if not self._control.store.put_copies(host, copies):
                return None
            host = replace(host, copies=copies, copies_version=host.copies_version + 1)
        for fact in facts:
            self._control.tell(fact)
        return host


def _of_point(shots: dict[str, CopyShot], point_id: str, named: set[str]) -> CopyShot | None:
    """The copy that an intent may have made: of its point, and named by no record."""
    return next((shot for shot in shots.values() if shot.point_id == point_id and shot.copy_id not in named), None)
