"""What can be said to a vault (commands), what must then be done (effects) and what is then known (facts)."""

from dataclasses import dataclass

from chalicelib.model import (
    InstanceState,
    Kind,
    Launch,
    Mount,
    Outcome,
    PointState,
    RestorePoint,
    Run,
    Slot,
    Stats,
    Window,
)

# --- commands -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Start:
    """A host begins a run. Idempotent by `run_id`."""

    host: str
    run_id: str
    kind: Kind
    source_address: str


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A host ends its run."""

    host: str
    run_id: str
    outcome: Outcome
    exit_code: int
    stats: Stats | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the agent sees. `transfers`: bytes received of each live one; `commits`: newest run committed, by host."""

    instance_id: str
    boot_id: str
    state: str
    address: str
    port: int
    host_key: str
    mounts: dict[str, Mount]
    transfers: dict[str, int]
    commits: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Observe:
    """What EC2 says of the instance now (None: the lookup failed). From the sweep, and after each event."""

    state: InstanceState | None


@dataclass(frozen=True, kw_only=True)
class WakeFailed:
    """A call that should have woken the vault was refused."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class LaunchIntended:
    """About to launch an instance: saved before the call, so that a repeat is the same launch."""

    launch: Launch


@dataclass(frozen=True, kw_only=True)
class Launched:
    """EC2 answered the launch with an id."""

    instance_id: str


@dataclass(frozen=True, kw_only=True)
class AgentEnrolled:
    """The machine's agent has used its code."""

    token_hash: str
    host_key: str


@dataclass(frozen=True, kw_only=True)
class GroupMade:
    """The vault's security group exists."""

    security_group_id: str


@dataclass(frozen=True, kw_only=True)
class HostPlaced:
    """A host was enrolled (or enrolled again, with a new key) on this vault."""

    host: str
    slot: Slot


@dataclass(frozen=True, kw_only=True)
class VolumeMade:
    """A host's volume exists."""

    host: str
    volume_id: str


@dataclass(frozen=True, kw_only=True)
class VolumesAttached:
    """These hosts' volumes are attached to this instance."""

    instance_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PointsMade:
    """Snapshots were begun: snapshot id by host."""

    snapshots: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PointSettled:
    """A snapshot completed or failed."""

    snapshot_id: str
    state: PointState


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
    | PointsMade
    | PointSettled
)

# --- effects --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MakeVolume:
    """See that the host has a volume."""

    host: str


@dataclass(frozen=True, kw_only=True)
class Wake:
    """See that the instance runs: start it, or launch one from the template."""


@dataclass(frozen=True, kw_only=True)
class Attach:
    """See that every host's volume is attached."""


@dataclass(frozen=True, kw_only=True)
class Admit:
    """Let an address reach port 22."""

    address: str


@dataclass(frozen=True, kw_only=True)
class Revoke:
    """Shut an address out again."""

    address: str


@dataclass(frozen=True, kw_only=True)
class SetIngress:
    """See that exactly these addresses are let in: repairs what a failed Admit or Revoke left."""

    addresses: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Stop the instance. `force` when it has been stopping for too long."""

    instance_id: str
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Terminate:
    """Give up an instance whose successor is launched from the template. Volumes of hosts survive it."""

    instance_id: str


@dataclass(frozen=True, kw_only=True)
class MakePoints:
    """See that each of these restore points has its snapshot: looked up by tag before it is made."""

    points: tuple[RestorePoint, ...]


@dataclass(frozen=True, kw_only=True)
class CheckPoints:
    """Ask AWS how these snapshots are doing: their events may have been lost."""

    snapshot_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckInstance:
    """Ask AWS for the instance's state: a launch whose answer was lost is found by its client token."""


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
)

# --- facts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    run: Run
    queued: bool


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    run: Run


@dataclass(frozen=True, kw_only=True)
class VaultReady:
    window: Window
    waking_seconds: int


@dataclass(frozen=True, kw_only=True)
class WakeFaulted:
    """The vault did not wake. `final`: no more attempts in this window."""

    window: Window
    reason: str
    final: bool


@dataclass(frozen=True, kw_only=True)
class WindowClosing:
    window: Window


@dataclass(frozen=True, kw_only=True)
class WindowSealed:
    window: Window


@dataclass(frozen=True, kw_only=True)
class PointCounted:
    """A restore point's snapshot completed; if it is complete, the host's last backup moves."""

    point: RestorePoint


@dataclass(frozen=True, kw_only=True)
class PointFailed:
    """A snapshot ended in error, or was given up. `final`: it will not be tried again."""

    point: RestorePoint
    final: bool


@dataclass(frozen=True, kw_only=True)
class HostKeyUnexpected:
    """The machine showed another ssh host key than the one it enrolled with."""

    expected: str
    seen: str


Fact = (
    RunStarted
    | RunEnded
    | VaultReady
    | WakeFaulted
    | WindowClosing
    | WindowSealed
    | PointCounted
    | PointFailed
    | HostKeyUnexpected
)
