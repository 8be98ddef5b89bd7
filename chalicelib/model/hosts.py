"""The machines that are backed up, each with what its backups and drills came to; and invitations to enrol."""

from datetime import datetime, timedelta

from msgspec import Struct

from chalicelib.model.points import Copy, Retention, RetentionLook
from chalicelib.model.words import DrillState

DRILL_OVERDUE = timedelta(days=30)


class LastBackup(Struct, frozen=True, kw_only=True):
    """The newest backup that counts: a completed snapshot of a complete run."""

    run_id: str
    window_id: str
    snapshot_id: str
    started_at: datetime
    completed_at: datetime


class Drill(Struct, frozen=True, kw_only=True):
    """What came of a host's last drill. Sizes in bytes.

    `judged_at`: when one last passed or failed; of a host whose pushes never had a manifest, when one last said so.
    `failed_taken_at`: when the point was made that failed, until a newer one passes; until then the host's pushes
    compare every byte. `manifest_taken_at`: when the newest point was made that had a manifest. `bare_taken_at`: when
    the first one without was made, until a newer one has one.
    """

    run_id: str
    point_id: str
    taken_at: datetime
    state: DrillState
    begun_at: datetime
    at: datetime
    detail: str = ""
    files: int = 0
    checked_bytes: int = 0
    total_bytes: int = 0
    judged_at: datetime | None = None
    failed_taken_at: datetime | None = None
    manifest_taken_at: datetime | None = None
    bare_taken_at: datetime | None = None
    first_bare: bool = False  # it is the one that found this: told once

    @property
    def seconds(self) -> int:
        return int((self.at - self.begun_at).total_seconds())

    @property
    def unprovable(self) -> bool:
        """No point ever had a manifest: its host's OpenSSH, or its nightvault, is too old to make one."""
        return self.bare_taken_at is not None and self.manifest_taken_at is None

    @property
    def manifest_lost(self) -> bool:
        """The newest point has no manifest, though earlier ones had: somebody may have left it out."""
        return self.bare_taken_at is not None and self.manifest_taken_at is not None


class Host(Struct, frozen=True, kw_only=True):
    """A machine that is backed up. The secret of its token is not here, only its SHA-256."""

    name: str
    vault_id: str
    token_hash: str
    uid: int
    size_gib: int
    every_seconds: int
    enrolled_at: datetime
    last_backup: LastBackup | None = None
    retired_at: datetime | None = None
    retention: Retention | None = None  # its own; None: the stack's
    # Something is off, or an operator wants time: every restore point made until then is kept until that is ended.
    # An unusual push sets it, but never moves it: docs/retention.md says why.
    kept_since: datetime | None = None
    retention_look: RetentionLook | None = None
    drill: Drill | None = None
    points_since: datetime | None = None  # since a version with drills first saw a restore point of it count
    # Copies in another region, and under way there; changed only over the version that was read.
    copies: tuple[Copy, ...] = ()
    copies_version: int = 0

    @property
    def drillable_since(self) -> datetime | None:
        """Since when there is something to drill; None while there is not. Enrolled again, it begins anew."""
        return self.points_since and max(self.points_since, self.enrolled_at)

    def drill_overdue(self, now: datetime) -> bool:
        """For 30 days a restore point could be drilled, and none was judged. Never for a retired host."""
        if self.retired_at or self.drillable_since is None:
            return False
        judged_at = self.drill.judged_at if self.drill else None
        return now - max(self.drillable_since, judged_at or self.drillable_since) > DRILL_OVERDUE

    def overdue(self, now: datetime) -> bool:
        """No backup that counts for twice its interval (the first: since enrolment). Never for a retired host."""
        if self.retired_at:
            return False
        since = self.last_backup.started_at if self.last_backup else self.enrolled_at
        return (now - since).total_seconds() > 2 * self.every_seconds


class Code(Struct, frozen=True, kw_only=True):
    """An invitation to enrol: for a host, or (name `@vault-1`) for a vault's agent. One use; only its hash is kept."""

    code_hash: str
    name: str
    expires_at: datetime
    used_at: datetime | None = None
    size_gib: int = 0
    every_seconds: int = 0
    max_size_gib: int = 0
