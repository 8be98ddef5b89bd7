"""The words of nightvault as frozen values: vault, window, run, lease, restore point.

Everything here is data. Nothing knows the clock, AWS, or HTTP. Instants are aware and in UTC.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

# How far a volume may grow when nobody said: so many times the size that it was made with. And AWS's own limit
# of a gp3 volume: https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GROWTH = 10
MAX_SIZE_GIB = 16384
# An instance takes 28 attachments on the smaller Nitro types, of which root volume and network interface
# use two: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html
MAX_HOSTS = 24
MAX_VOLUMES = 26
# A host's keys before its present one, with which its older restore points are signed.
FORMER_KEYS = 5
DRILL_OVERDUE = timedelta(days=30)


class Phase(StrEnum):
    """Where a vault is in its life."""

    ASLEEP = "asleep"
    WAKING = "waking"
    OPEN = "open"
    CLOSING = "closing"
    SEALING = "sealing"
    FAULTED = "faulted"


class Kind(StrEnum):
    """What a run is for. Each kind has its own daily budget of awake time."""

    BACKUP = "backup"
    RESTORE = "restore"
    DRILL = "drill"  # the control plane's own: a restore point is checked byte by byte on its vault


class Source(StrEnum):
    """Where a restore's data come from: the host's own volume as it is, or one made from the restore point."""

    LIVE = "live"
    POINT = "point"


class Outcome(StrEnum):
    """How a run ended. `CUT`: the window ended first. `ABANDONED`: its lease ended, or a newer run took over."""

    COMPLETE = "complete"
    FAILED = "failed"
    CUT = "cut"
    ABANDONED = "abandoned"


class InstanceState(StrEnum):
    """EC2's own words, and `GONE` for an instance that EC2 no longer knows."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    GONE = "gone"


class PointState(StrEnum):
    """How far a restore point's snapshot is; EC2's own words."""

    PENDING = "pending"
    COMPLETED = "completed"
    ERROR = "error"


class DrillState(StrEnum):
    """What a vault says of the restore point that it checks. `UNPROVEN`: it carries no manifest to check against.

    `ERROR`: it could not be checked; also what is recorded of a drill that ended without an answer.
    """

    CHECKING = "checking"
    PASSED = "passed"
    FAILED = "failed"
    UNPROVEN = "unproven"
    ERROR = "error"


class Resting(StrEnum):
    """What a host's data are between its backups: a volume that stays, or the snapshot of it alone."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"


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


class Ceiling(Struct, frozen=True, kw_only=True):
    """The part of a kind's daily budget that a window was given."""

    since: datetime
    closes_at: datetime


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


class Window(Struct, frozen=True, kw_only=True):
    """One waking of a vault, from the start that opened it to the snapshots that seal it."""

    window_id: str
    vault_id: str
    opened_at: datetime
    ceilings: dict[Kind, Ceiling]
    runs: dict[str, Run] = field(default_factory=dict)
    wake_attempts: int = 1
    woken_at: datetime | None = None
    ready_at: datetime | None = None
    idle_since: datetime | None = None
    closing_at: datetime | None = None
    stopped_at: datetime | None = None
    sealed_at: datetime | None = None
    close_reason: str | None = None
    seal_attempts: int = 1
    points: dict[str, RestorePoint] = field(default_factory=dict)
    held_until: datetime | None = None  # an operator keeps it awake until then, runs or not; also when that is over

    @property
    def closes_at(self) -> datetime:
        """Ceiling of every lease in this window."""
        return max(ceiling.closes_at for ceiling in self.ceilings.values())

    @property
    def live_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs.values() if run.live)

    @property
    def awake_seconds(self) -> int:
        """From the start that opened it to the instance's stop; 0 while it is not stopped."""
        return 0 if self.stopped_at is None else int((self.stopped_at - self.opened_at).total_seconds())


class PointVolume(Struct, frozen=True, kw_only=True):
    """A volume made from a restore point, for a host's restore runs; recorded until EC2 has it no more.

    `run_id`: the run that wanted it first. Its client token is made of it and its tag holds it, so that neither a
    lost answer nor a crash leaves a volume that nobody finds. `place` gives its device name.
    """

    host: str
    run_id: str
    point_id: str
    place: int
    volume_id: str | None = None
    attached_to: str | None = None
    trouble: str = ""  # what AWS said last when it refused a step
    leaving_at: datetime | None = None  # no run wants it any more: for good, whatever is started after
    unmounted: bool = False  # the agent has let go of it since
    told: bool = False  # an operator knows that it does not go


class Slot(Struct, frozen=True, kw_only=True):
    """A host's place on its vault. `uid` gives its account and never changes, `number` its device name.

    A host whose key was revoked has an empty `public_key` until it enrols again.
    """

    number: int
    uid: int
    public_key: str
    size_gib: int
    every_seconds: int
    volume_id: str | None = None
    attached_to: str | None = None
    last_started_at: datetime | None = None
    max_size_gib: int = 0  # how far the volume may grow; 0: ten times its size
    ping_url: str = ""
    pushed_at: datetime | None = None  # when it may have been pushed to last
    committed: str = ""  # the run that its volume holds as committed, by the agent's word
    changed: Change | None = None  # by commits that no restore point holds yet
    uncounted: bool = False  # one of those, not its first, came without a word of what it changed
    wanted_gib: int = 0  # a growth that was decided and not yet made; 0: none
    modified_at: datetime | None = None  # when its volume was last enlarged, or AWS said that it is too soon
    doomed: str = ""  # retired with its volume: the snapshot that holds all that the volume does
    former_keys: tuple[str, ...] = ()  # newest first: what older restore points are signed with
    drilled_at: datetime | None = None  # when the last drill that was answered began
    drill_tried_at: datetime | None = None  # when the last one began, answered or not
    drill_wanted: str = ""  # why its newest restore point is to be drilled at once
    resting: Resting = Resting.VOLUME
    # The snapshot that its next volume is made of. While there is a volume: the one that this is being deleted for.
    rests_as: str = ""
    making: bool = False  # a backup has asked for that next volume
    made_of: str = ""  # the snapshot that its volume was made of; empty: it was made blank
    remade: int = 0  # how many volumes it had before this one
    missing_since: datetime | None = None  # EC2 has not known its volume since then

    def with_key(self, public_key: str) -> "Slot":
        """The slot with another key; the one it had stays known, as one of at most FORMER_KEYS. "": none for now."""
        keys = [key for key in (self.public_key, *self.former_keys) if key and key != public_key]
        return replace(self, public_key=public_key, former_keys=tuple(keys[:FORMER_KEYS]))

    @property
    def limit_gib(self) -> int:
        """How far the volume may grow."""
        return self.max_size_gib or max_size(self.size_gib)

    @property
    def expected_at(self) -> datetime | None:
        """When this host should start its next backup, or None before its first."""
        return self.last_started_at and self.last_started_at + timedelta(seconds=self.every_seconds)


def max_size(size_gib: int) -> int:
    """How far a volume of that size may grow, in GiB, when nobody said."""
    return min(MAX_SIZE_GIB, GROWTH * size_gib)


class Launch(Struct, frozen=True, kw_only=True):
    """The intent to launch an instance, kept until EC2 has answered with its id.

    `client_token` makes a repeated RunInstances the same launch; `code` is what the instance enrols with.
    """

    client_token: str
    code: str


class Mount(Struct, frozen=True, kw_only=True):
    """A volume as the agent sees it."""

    volume_id: str
    mounted: bool
    detail: str = ""
    size_bytes: int = 0
    free_bytes: int = 0
    refused: bool = False  # it holds something that is not this host's

    @property
    def used_bytes(self) -> int | None:
        """When it was last seen mounted; None if it never was: then the agent reports zeroes."""
        return self.size_bytes - self.free_bytes if self.size_bytes else None


class PointMount(Struct, frozen=True, kw_only=True):
    """A volume made from a restore point as the agent sees it. `state`: mounted, absent, refused or error."""

    volume_id: str
    state: str
    detail: str = ""


class Agent(Struct, frozen=True, kw_only=True):
    """The vault's agent: who it is (from enrolment) and what it said last."""

    token_hash: str
    host_key: str
    boot_id: str = ""
    address: str = ""
    port: int = 22
    reported_at: datetime | None = None
    mounts: dict[str, Mount] = field(default_factory=dict)
    restores: dict[str, PointMount] = field(default_factory=dict)
    strange_key: str = ""  # what it showed instead of `host_key`, so that this is told once


class Spent(Struct, frozen=True, kw_only=True):
    """Awake seconds charged to one UTC day, for each kind."""

    day: str
    seconds: dict[Kind, int]


class Vault(Struct, frozen=True, kw_only=True):
    """One EC2 instance, its hosts' volumes, and everything that must survive a crash of the control plane."""

    vault_id: str
    version: int = 0
    phase: Phase = Phase.ASLEEP
    hosts: dict[str, Slot] = field(default_factory=dict)
    instance_id: str | None = None
    security_group_id: str | None = None
    launch: Launch | None = None
    agent: Agent | None = None
    window: Window | None = None
    recent: Window | None = None
    queued: dict[str, Run] = field(default_factory=dict)
    spent: Spent | None = None
    claim_until: datetime | None = None
    retry_at: datetime | None = None
    # Restore points whose snapshot has neither completed nor failed, by snapshot id.
    pending_points: dict[str, RestorePoint] = field(default_factory=dict)
    # Restore points to be made again, by host, because their snapshot failed after the vault fell asleep.
    owed_points: dict[str, RestorePoint] = field(default_factory=dict)
    # Slots of retired hosts whose volume is kept, or not yet deleted, by host. No key of theirs is in any orders.
    retired: dict[str, Slot] = field(default_factory=dict)
    # A hold that was asked for while the vault was closing or sealing: it wakes again for it.
    hold_until: datetime | None = None
    # Volumes made from restore points, at most one for each host, until they are gone again.
    point_volumes: dict[str, PointVolume] = field(default_factory=dict)
    # Drills that are over, by host, until what came of them is recorded with the restore point and the host.
    drilled: dict[str, Run] = field(default_factory=dict)

    @property
    def awake(self) -> bool:
        """The instance is meant to run."""
        return self.phase in (Phase.WAKING, Phase.OPEN, Phase.FAULTED)

    @property
    def held_until(self) -> datetime | None:
        """Kept awake by an operator until then, runs or not; None when it never was in this window."""
        return self.window.held_until if self.window and self.window.held_until else self.hold_until

    def slot(self, host: str) -> Slot | None:
        """A host's place, also when it was retired."""
        return self.hosts.get(host) or self.retired.get(host)

    def find_run(self, run_id: str) -> Run | None:
        """In the window under way, among the queued, or in the window before."""
        for runs in (self.window and self.window.runs, self.queued, self.recent and self.recent.runs):
            if runs and run_id in runs:
                return runs[run_id]
        return None


class LastBackup(Struct, frozen=True, kw_only=True):
    """The newest backup that counts: a completed snapshot of a complete run."""

    run_id: str
    window_id: str
    snapshot_id: str
    started_at: datetime
    completed_at: datetime


class Drill(Struct, frozen=True, kw_only=True):
    """What came of a host's last drill. Sizes in bytes.

    `judged_at`: when one last passed or failed. `failed_taken_at`: when the point was made that failed, until a
    newer one passes; until then the host's pushes compare every byte.
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
    repeats: int = 0  # how many drills before it ended in the same state, without another between

    @property
    def seconds(self) -> int:
        return int((self.at - self.begun_at).total_seconds())


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
        """For 30 days a restore point could be drilled, and none was proven good or bad. Never for a retired host."""
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


class Policy(Struct, frozen=True, kw_only=True):
    """What a vault's life obeys: durations in seconds, and how many restore points are kept."""

    window_seconds: int = 12960  # 3.6 h of awake time a UTC day
    restore_seconds: int = 43200  # restores have a budget of their own: 12 h a day
    drill_seconds: int = 21600  # and drills: 6 h a day
    minimum_window_seconds: int = 300  # waking for less than this serves nobody
    linger_seconds: int = 300  # how long to stay up for a host whose usual time is near
    lease_seconds: int = 900  # a run that the vault does not see alive for this long is abandoned
    wake_timeout_seconds: int = 420  # from the wake to the agent's first `ready`
    max_wake_attempts: int = 3
    retry_seconds: int = 60  # pause after a failed wake, doubled each time
    claim_seconds: int = 90  # longer than any Lambda of ours may run, so that no effect has two actors
    report_seconds: int = 5
    power_off_grace_seconds: int = 600  # after the window's end the machine stops itself
    max_point_attempts: int = 3
    # Between two enlargements of a volume. AWS allows four in 24 hours, each after the one before has completed, and
    # where that is not yet so, one in six: https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html
    growth_pause_seconds: int = 21600
    keep_daily: int = 14
    keep_weekly: int = 8
    keep_monthly: int = 24
    copies_kept: int = 2  # complete ones of each host, in the region that copies go to; the newest always

    @property
    def retention(self) -> Retention:
        """Of hosts that have none of their own."""
        return Retention(daily=self.keep_daily, weekly=self.keep_weekly, monthly=self.keep_monthly)
