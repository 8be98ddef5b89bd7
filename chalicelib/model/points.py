"""Restore points: what one is of, what became of it, its copy elsewhere, and how many are kept."""

from datetime import datetime

from msgspec import Struct

from chalicelib.model.runs import Change
from chalicelib.model.words import Outcome, PointState


class Marks(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a restore point since it was made: drills, locks, and its end.

    Kept beside the point's record, and changed only over the `version` that was read: a drill, an operator and
    retention may all write at once. `fit`: passed its last drill, failed it, or (None) was never drilled.
    """

    version: int = 0
    fit: bool | None = None
    drilled_at: datetime | None = None
    held_at: datetime | None = None  # an operator's hold, until that operator ends it
    locked_until: datetime | None = None  # EBS's own lock, as an operator asked for it here
    lock_mode: str = ""
    dropped_at: datetime | None = None  # it is to be deleted: saved before DeleteSnapshot is called
    dropped_for: str = ""
    refusals: int = 0  # how often AWS would not delete it, what it said last, and when it is asked again
    refused: str = ""
    retry_at: datetime | None = None
    deleted_at: datetime | None = None
    unusual: str = ""  # why its push was unusual for its host, until an operator accepts it

    @property
    def sound(self) -> bool:
        """Passed its last drill, or was never drilled."""
        return self.fit is not False

    def locked(self, now: datetime) -> bool:
        """By an operator's hold, or by EBS as an operator asked for it here."""
        return self.held_at is not None or (self.locked_until is not None and now < self.locked_until)


class RestorePoint(Struct, frozen=True, kw_only=True):
    """A snapshot of one host's volume. `complete` says whether the run that pushed last was whole."""

    host: str
    vault_id: str
    window_id: str
    volume_id: str
    run_id: str
    run_started_at: datetime
    outcome: Outcome
    complete: bool
    snapshot_id: str | None = None
    state: PointState = PointState.PENDING
    made_at: datetime | None = None
    attempt: int = 1
    # As the vault's agent last reported it; None where it did not, or an older version wrote this.
    volume_gib: int | None = None
    used_bytes: int | None = None
    change: Change | None = None  # by all commits since the restore point before
    uncounted: bool = False  # not by all of them: the vault could not count one
    marks: Marks = Marks()

    @property
    def counts(self) -> bool:
        """A completed snapshot of a complete run: what backup, retention and restore look at."""
        return self.complete and self.state is PointState.COMPLETED


class Copy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A restore point's copy in another region, or the intent to make it.

    `asked_at` is saved before CopySnapshot is called. While `copy_id` is empty it may have been called or not, so the
    copy is looked for by its tags before it is asked for again. `fit` is the point's, as it was when last seen.
    """

    point_id: str
    taken_at: datetime  # when the point was made
    region: str
    asked_at: datetime
    copy_id: str = ""
    state: PointState = PointState.PENDING
    completed_at: datetime | None = None
    used_bytes: int | None = None
    fit: bool | None = None
    refusals: int = 0  # how often AWS would not make it, or delete it; what it said last, and when it is asked again
    refused: str = ""
    retry_at: datetime | None = None

    @property
    def complete(self) -> bool:
        return self.state is PointState.COMPLETED

    @property
    def sound(self) -> bool:
        """Its point passed its last drill, or was never drilled."""
        return self.fit is not False


class Retention(Struct, frozen=True, kw_only=True):
    """How many days, ISO weeks and months (UTC) that have a restore point keep one. All 0: every point is kept."""

    daily: int = 14
    weekly: int = 8
    monthly: int = 24

    @property
    def off(self) -> bool:
        return not (self.daily or self.weekly or self.monthly)


class RetentionLook(Struct, frozen=True, kw_only=True):
    """When a host's restore points were last thinned out, and when they are to be looked at again at the latest."""

    at: datetime
    next_at: datetime
