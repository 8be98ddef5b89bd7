"""A host's turn in a window, and what is said of it: by its client, by the vault, of a restore, of a drill."""

from datetime import datetime

from msgspec import Struct

from chalicelib.model.words import DrillState, Kind, Outcome, Source


class Stats(Struct, frozen=True, kw_only=True):
    """What a client says of its run. Sizes in bytes, durations in whole seconds; None where it did not say."""

    files_total: int | None = None
    files_sent: int | None = None
    bytes_total: int | None = None
    bytes_sent: int | None = None
    bytes_literal: int | None = None
    archive_seconds: int | None = None
    push_seconds: int | None = None


class Change(Struct, frozen=True, kw_only=True):
    """What a commit did to the tree that was current before, as the vault counted it: files, and their bytes.

    Same path, size and mtime: unchanged. `bytes_changed`: of files added or changed, as they are after.
    """

    files_before: int
    files_after: int
    files_added: int
    files_changed: int
    files_deleted: int
    bytes_before: int
    bytes_after: int
    bytes_changed: int

    def then(self, later: "Change") -> "Change":
        """Both, one after the other; at most that much: what changed twice counts twice."""
        return Change(
            files_before=self.files_before,
            files_after=later.files_after,
            files_added=self.files_added + later.files_added,
            files_changed=self.files_changed + later.files_changed,
            files_deleted=self.files_deleted + later.files_deleted,
            bytes_before=self.bytes_before,
            bytes_after=later.bytes_after,
            bytes_changed=self.bytes_changed + later.bytes_changed,
        )


class Progress(Struct, frozen=True, kw_only=True):
    """What the vault has received in a run: in all its transfers, since each was first seen."""

    transfer_bytes: int
    seen_at: datetime


class Restoring(Struct, frozen=True, kw_only=True):
    """What a restore run brings back: a completed restore point, as it was when the run began."""

    point_id: str
    taken_at: datetime
    point_run_id: str
    point_complete: bool
    source: Source
    ready_at: datetime | None = None  # when its data could be pulled first


class Checked(Struct, frozen=True, kw_only=True):
    """What the vault said last of a drill. Sizes in bytes; `detail` names what is wrong first."""

    state: DrillState
    files: int = 0
    checked_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


class Run(Struct, frozen=True, kw_only=True):
    """One host's turn in a window, or a drill of its restore point. It lives until it has an outcome."""

    run_id: str
    host: str
    kind: Kind
    started_at: datetime
    source_address: str
    lease_until: datetime
    pushed: bool = False
    progress: Progress | None = None
    earlier_bytes: int = 0  # of `progress`: by transfers before the last one, whose connections broke
    committed_at: datetime | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    superseded_by: str | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    stats: Stats | None = None
    restore: Restoring | None = None  # None for a backup
    checked: Checked | None = None  # of a drill
    change: Change | None = None  # of its commit; None also where the vault did not say, as of a host's first

    @property
    def live(self) -> bool:
        return self.outcome is None

    @property
    def whole(self) -> bool:
        """The host calls it complete *and* the vault saw its commit: only then a restore point is complete."""
        return self.outcome is Outcome.COMPLETE and self.committed_at is not None
