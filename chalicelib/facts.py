"""What is known after a decision, or of what came of one: for logs, metrics, alerts and records."""

from msgspec import Struct

from chalicelib.model import Copy, Drill, Kind, PointVolume, RestorePoint, Run, Window


class RunStarted(Struct, frozen=True, kw_only=True):
    run: Run
    queued: bool


class RunEnded(Struct, frozen=True, kw_only=True):
    run: Run


class VaultReady(Struct, frozen=True, kw_only=True):
    window: Window
    waking_seconds: int


class WakeFaulted(Struct, frozen=True, kw_only=True):
    """The vault did not wake. `final`: no more attempts in this window."""

    window: Window
    reason: str
    final: bool


class WindowClosing(Struct, frozen=True, kw_only=True):
    window: Window


class WindowSealed(Struct, frozen=True, kw_only=True):
    window: Window


class PushUnusual(Struct, frozen=True, kw_only=True):
    """A push changed or deleted far more than its host's usually do; `point.marks.unusual` says what.

    `before`: the newest restore point that counted then.
    """

    point: RestorePoint
    before: RestorePoint | None


class PointCounted(Struct, frozen=True, kw_only=True):
    """A restore point's snapshot completed; if it is complete, the host's last backup moves."""

    point: RestorePoint


class PointFailed(Struct, frozen=True, kw_only=True):
    """A snapshot ended in error, or was given up. `final`: it will not be tried again."""

    point: RestorePoint
    final: bool


class PointDropped(Struct, frozen=True, kw_only=True):
    """Retention needs a restore point no more: its snapshot is deleted at the next look, unless something needs it."""

    point: RestorePoint


class PointSpared(Struct, frozen=True, kw_only=True):
    """A restore point that was to go stays, because of `why`."""

    point: RestorePoint
    why: tuple[str, ...]


class PointDeleted(Struct, frozen=True, kw_only=True):
    """A restore point that retention dropped is no more."""

    point: RestorePoint


class PointNotDeleted(Struct, frozen=True, kw_only=True):
    """AWS would not delete a restore point's snapshot; its marks say how often, and when it is asked again."""

    point: RestorePoint
    aws_code: str


class PointCopied(Struct, frozen=True, kw_only=True):
    """A restore point's copy in another region is complete."""

    host: str
    copy: Copy


class CopyRefused(Struct, frozen=True, kw_only=True):
    """AWS would not make a copy, or delete one (`deleting`); its record says how often, and when it is asked again."""

    host: str
    copy: Copy
    deleting: bool = False


class CopyLost(Struct, frozen=True, kw_only=True):
    """A copy that was to be kept is there no more, and not by our hand."""

    host: str
    copy: Copy


class CopyDeleted(Struct, frozen=True, kw_only=True):
    """A copy is no more, because newer ones are complete."""

    host: str
    copy: Copy


class BudgetSpent(Struct, frozen=True, kw_only=True):
    """The window that has just ended has left no awake time for this kind until the next UTC day."""

    vault_id: str
    kind: Kind


class HostKeyUnexpected(Struct, frozen=True, kw_only=True):
    """The machine showed another ssh host key than the one it enrolled with."""

    expected: str
    seen: str


class VolumeGrown(Struct, frozen=True, kw_only=True):
    """A host's volume was enlarged."""

    host: str
    volume_id: str
    from_gib: int
    to_gib: int


class VolumeNearlyFull(Struct, frozen=True, kw_only=True):
    """A host's volume is nearly full, and as large as its settings let it grow."""

    host: str
    volume_id: str
    fill: float
    size_gib: int
    max_size_gib: int


class VolumeRefused(Struct, frozen=True, kw_only=True):
    """The vault does not mount a host's volume: it holds something that is not this host's, and is left untouched."""

    host: str
    volume_id: str
    detail: str


class Retired(Struct, frozen=True, kw_only=True):
    """A host is backed up no more."""

    host: str
    volume_id: str | None
    deleting: bool


class VolumeGone(Struct, frozen=True, kw_only=True):
    """A retired host's volume was deleted; all that it held is in this snapshot."""

    host: str
    volume_id: str
    snapshot_id: str


class VolumeRested(Struct, frozen=True, kw_only=True):
    """A host's volume was deleted; the host rests as this snapshot, which passed its drill."""

    host: str
    volume_id: str
    snapshot_id: str


class VolumeRemade(Struct, frozen=True, kw_only=True):
    """A host's volume was made of a snapshot."""

    host: str
    volume_id: str
    snapshot_id: str


class VolumeLost(Struct, frozen=True, kw_only=True):
    """Somebody deleted a host's volume, or the snapshot that it rested as: `lost`.

    `point`: what the next one is made of; None: of nothing, it is blank.
    """

    host: str
    lost: str
    point: RestorePoint | None


class RestoreReady(Struct, frozen=True, kw_only=True):
    """A restore's data can be pulled, so long after its start."""

    run: Run
    ready_seconds: int


class RestoreFailed(Struct, frozen=True, kw_only=True):
    """The vault could not give a restore run its data; `run.reason` says why."""

    run: Run


class PointVolumeStays(Struct, frozen=True, kw_only=True):
    """A volume made for a restore that is over has not gone away for half an hour, and costs."""

    volume: PointVolume


class DrillEnded(Struct, frozen=True, kw_only=True):
    """What came of a drill is recorded. Told again if whoever told it died before that was saved."""

    host: str
    drill: Drill


Fact = (
    RunStarted
    | RunEnded
    | VaultReady
    | WakeFaulted
    | WindowClosing
    | WindowSealed
    | PushUnusual
    | PointCounted
    | PointFailed
    | PointDropped
    | PointSpared
    | PointDeleted
    | PointNotDeleted
    | PointCopied
    | CopyRefused
    | CopyLost
    | CopyDeleted
    | BudgetSpent
    | HostKeyUnexpected
    | VolumeGrown
    | VolumeNearlyFull
    | VolumeRefused
    | Retired
    | VolumeGone
    | VolumeRested
    | VolumeRemade
    | VolumeLost
    | RestoreReady
    | RestoreFailed
    | PointVolumeStays
    | DrillEnded
)
