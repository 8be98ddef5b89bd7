"""What can be said to a vault (commands), what must then be done (effects) and what is then known (facts).

Structs and not dataclasses, like the model: a dataclass costs a millisecond of each cold start, and there are
sixty of them.
"""

from msgspec import Struct

from chalicelib.model import (
    Change,
    Checked,
    Copy,
    Drill,
    InstanceState,
    Kind,
    Launch,
    Mount,
    Outcome,
    PointMount,
    PointState,
    PointVolume,
    Resting,
    RestorePoint,
    Run,
    Slot,
    Stats,
    Window,
)

# --- commands -------------------------------------------------------------------------------------------


class Start(Struct, frozen=True, kw_only=True):
    """A host begins a run. Idempotent by `run_id`."""

    host: str
    run_id: str
    kind: Kind
    source_address: str
    point: RestorePoint | None = None  # what a restore brings back: completed, and EC2 still has it


class Finish(Struct, frozen=True, kw_only=True):
    """A host ends its run."""

    host: str
    run_id: str
    outcome: Outcome
    exit_code: int
    stats: Stats | None = None


class DrillSeen(Struct, frozen=True, kw_only=True):
    """What the agent says of the drill that it was ordered."""

    run_id: str
    volume_id: str
    checked: Checked


class Report(Struct, frozen=True, kw_only=True):
    """What the agent sees. `transfers`: bytes received of each live one; `commits`: newest run committed, by host.

    `changes`: what that commit did, by host, if it says. `restores`: volumes made from restore points, by host;
    `drills`: checks of what lies on them, by host.
    """

    instance_id: str
    boot_id: str
    state: str
    address: str
    port: int
    host_key: str
    mounts: dict[str, Mount]
    transfers: dict[str, int]
    commits: dict[str, str]
    changes: dict[str, Change] = {}
    restores: dict[str, PointMount] = {}
    drills: dict[str, DrillSeen] = {}


class Observe(Struct, frozen=True, kw_only=True):
    """What EC2 says of the instance now (None: the lookup failed). From the sweep, and after each event."""

    state: InstanceState | None


class WakeFailed(Struct, frozen=True, kw_only=True):
    """A call that should have woken the vault was refused."""

    reason: str


class LaunchIntended(Struct, frozen=True, kw_only=True):
    """About to launch an instance: saved before the call, so that a repeat is the same launch."""

    launch: Launch


class Launched(Struct, frozen=True, kw_only=True):
    """EC2 answered the launch with an id."""

    instance_id: str


class AgentEnrolled(Struct, frozen=True, kw_only=True):
    """The machine's agent has used its code."""

    token_hash: str
    host_key: str


class GroupMade(Struct, frozen=True, kw_only=True):
    """The vault's security group exists."""

    security_group_id: str


class HostPlaced(Struct, frozen=True, kw_only=True):
    """A host was enrolled (or enrolled again, with a new key) on this vault."""

    host: str
    slot: Slot


class VolumeMade(Struct, frozen=True, kw_only=True):
    """A host's volume exists. `remade`: how many it had before, when this one was asked for."""

    host: str
    volume_id: str
    remade: int = 0


class VolumesAttached(Struct, frozen=True, kw_only=True):
    """These hosts' volumes are attached to this instance."""

    instance_id: str
    hosts: tuple[str, ...]


class PushJudged(Struct, frozen=True, kw_only=True):
    """The push that a restore point is about to be made of is unusual. `before`: the newest that counts before it."""

    host: str
    run_id: str
    why: str
    before: RestorePoint | None = None


class PointsMade(Struct, frozen=True, kw_only=True):
    """Snapshots were begun: snapshot id by host."""

    snapshots: dict[str, str]


class PointSettled(Struct, frozen=True, kw_only=True):
    """A snapshot completed or failed."""

    snapshot_id: str
    state: PointState


class HostChanged(Struct, frozen=True, kw_only=True):
    """An operator changed a host's settings. None: as it was. `ping_url` empty: no pings."""

    host: str
    every_seconds: int | None = None
    max_size_gib: int | None = None
    ping_url: str | None = None
    resting: Resting | None = None


class PushesAccepted(Struct, frozen=True, kw_only=True):
    """An operator says that all that this host pushed is as it should be."""

    host: str


class KeyRevoked(Struct, frozen=True, kw_only=True):
    """A host's key is worthless from now on, until it enrols again."""

    host: str


class HostRetired(Struct, frozen=True, kw_only=True):
    """A host is backed up no more. Its volume is kept, unless `delete_volume`.

    `newest`: its newest restore point that is recorded, if EC2 still has the snapshot: what the volume may be
    deleted for.
    """

    host: str
    delete_volume: bool = False
    newest: RestorePoint | None = None


class Hold(Struct, frozen=True, kw_only=True):
    """An operator wants the vault awake for so long, runs or not."""

    seconds: int


class Release(Struct, frozen=True, kw_only=True):
    """An operator ends a hold. `cut`: live runs too."""

    cut: bool = False


class Rebuild(Struct, frozen=True, kw_only=True):
    """An operator gives up the machine; the next wake launches a new one."""


class VolumeEnlarged(Struct, frozen=True, kw_only=True):
    """A host's volume has this size now."""

    host: str
    volume_id: str
    size_gib: int


class GrowthPostponed(Struct, frozen=True, kw_only=True):
    """AWS says that it is too soon to enlarge this host's volume again."""

    host: str


class VolumeDetached(Struct, frozen=True, kw_only=True):
    """A volume that is to go, or that a retired host left, is attached to nothing."""

    host: str
    volume_id: str


class VolumeDeleted(Struct, frozen=True, kw_only=True):
    """A host's volume is no more; all that it held is in this snapshot."""

    host: str
    volume_id: str
    snapshot_id: str


class Rest(Struct, frozen=True, kw_only=True):
    """Whether a host's volume can go now, since its snapshot is enough.

    `newest`: its newest restore point on record, in the state that EC2 says; None if EC2 has it no more. `state`:
    EC2's of the machine, None if the lookup failed.
    """

    host: str
    newest: RestorePoint | None
    state: InstanceState | None


class VolumesMissing(Struct, frozen=True, kw_only=True):
    """EC2 was asked for the hosts' volumes, and does not know these: volume id by host.

    `points`: what each of those hosts' next volume can be made of: its newest sound restore point, if there is one.
    """

    volumes: dict[str, str]
    points: dict[str, RestorePoint]


class SnapshotMissing(Struct, frozen=True, kw_only=True):
    """A host's next volume cannot be made: the snapshot that it rests as is gone. `point`: what is left."""

    host: str
    snapshot_id: str
    point: RestorePoint | None


class PointVolumeMade(Struct, frozen=True, kw_only=True):
    """EC2 answered with the volume that it makes from a restore point."""

    host: str
    run_id: str
    volume_id: str


class PointVolumeAttached(Struct, frozen=True, kw_only=True):
    """That volume is attached to this instance."""

    host: str
    volume_id: str
    instance_id: str


class PointVolumeRefused(Struct, frozen=True, kw_only=True):
    """A call for a restore's volume was refused. `final`: asking again would not help."""

    host: str
    run_id: str
    reason: str
    final: bool


class PointVolumeGone(Struct, frozen=True, kw_only=True):
    """EC2 has no volume of that restore any more."""

    host: str
    run_id: str


class BeginDrill(Struct, frozen=True, kw_only=True):
    """A restore point, completed, which EC2 still has, is to be checked on the vault. Idempotent by `run_id`."""

    host: str
    run_id: str
    point: RestorePoint


class DrillRecorded(Struct, frozen=True, kw_only=True):
    """What came of a drill stands with its restore point and its host."""

    host: str
    run_id: str


Command = (
    Start
    | Finish
    | Report
    | Observe
    | WakeFailed
    | LaunchIntended
    | Launched
    | AgentEnrolled
    | GroupMade
    | HostPlaced
    | VolumeMade
    | VolumesAttached
    | PushJudged
    | PointsMade
    | PointSettled
    | HostChanged
    | PushesAccepted
    | KeyRevoked
    | HostRetired
    | Hold
    | Release
    | Rebuild
    | VolumeEnlarged
    | GrowthPostponed
    | VolumeDetached
    | VolumeDeleted
    | Rest
    | VolumesMissing
    | SnapshotMissing
    | PointVolumeMade
    | PointVolumeAttached
    | PointVolumeRefused
    | PointVolumeGone
    | BeginDrill
    | DrillRecorded
)

# --- effects --------------------------------------------------------------------------------------------


class MakeVolume(Struct, frozen=True, kw_only=True):
    """See that the host has a volume: blank, or made of the snapshot that it rests as."""

    host: str


class Wake(Struct, frozen=True, kw_only=True):
    """See that the instance runs: start it, or launch one from the template."""


class Attach(Struct, frozen=True, kw_only=True):
    """See that every host's volume is attached."""


class Admit(Struct, frozen=True, kw_only=True):
    """Let an address reach port 22."""

    address: str


class Revoke(Struct, frozen=True, kw_only=True):
    """Shut an address out again."""

    address: str


class SetIngress(Struct, frozen=True, kw_only=True):
    """See that exactly these addresses are let in: repairs what a failed Admit or Revoke left."""

    addresses: frozenset[str]


class Stop(Struct, frozen=True, kw_only=True):
    """Stop the instance. `force` when it has been stopping for too long."""

    instance_id: str
    force: bool = False


class Terminate(Struct, frozen=True, kw_only=True):
    """Give up an instance whose successor is launched from the template. Volumes of hosts survive it."""

    instance_id: str


class MakePoints(Struct, frozen=True, kw_only=True):
    """See that each of these restore points has its snapshot: looked up by tag before it is made."""

    points: tuple[RestorePoint, ...]


class CheckPoints(Struct, frozen=True, kw_only=True):
    """Ask AWS how these snapshots are doing: their events may have been lost."""

    snapshot_ids: tuple[str, ...]


class CheckInstance(Struct, frozen=True, kw_only=True):
    """Ask AWS for the instance's state: a launch whose answer was lost is found by its client token."""


class Enlarge(Struct, frozen=True, kw_only=True):
    """See that a host's volume has this size; the agent grows its filesystem at the next waking."""

    host: str
    volume_id: str
    size_gib: int


class Detach(Struct, frozen=True, kw_only=True):
    """See that a host's volume is attached to nothing. Only of a machine at rest."""

    host: str
    volume_id: str


class DeleteVolume(Struct, frozen=True, kw_only=True):
    """Delete a host's volume, if that snapshot, which holds all of it, is still there."""

    host: str
    volume_id: str
    snapshot_id: str


class FindVolumes(Struct, frozen=True, kw_only=True):
    """Ask EC2 whether the hosts' volumes are there: somebody may have deleted one."""


class MakePointVolume(Struct, frozen=True, kw_only=True):
    """See that a volume is made from this restore point; asked again, it is the same one."""

    volume: PointVolume


class AttachPointVolume(Struct, frozen=True, kw_only=True):
    """See that it is attached to the vault's machine."""

    volume: PointVolume


class RemovePointVolume(Struct, frozen=True, kw_only=True):
    """A step to its end: whatever carries this host's and run's tag as a restore's volume is detached, or deleted."""

    host: str
    run_id: str


Effect = (
    MakeVolume
    | Wake
    | Attach
    | Admit
    | Revoke
    | SetIngress
    | Stop
    | Terminate
    | MakePoints
    | CheckPoints
    | CheckInstance
    | Enlarge
    | Detach
    | DeleteVolume
    | FindVolumes
    | MakePointVolume
    | AttachPointVolume
    | RemovePointVolume
)

# --- facts ----------------------------------------------------------------------------------------------


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
