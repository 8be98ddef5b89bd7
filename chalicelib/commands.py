"""What can be said to a vault, and `decide` takes.

Structs and not dataclasses, like the model, here and in effects.py and facts.py: a dataclass costs a millisecond of
each cold start, and there are eighty of them.
"""

from msgspec import Struct

from chalicelib.model import (
    Change,
    Checked,
    InstanceState,
    Kind,
    Launch,
    Mount,
    Outcome,
    PointMount,
    PointState,
    Resting,
    RestorePoint,
    Slot,
    Stats,
)


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

    `points`: what each of those hosts' next volume can be made of: Choosing.sound, if there is one.
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
