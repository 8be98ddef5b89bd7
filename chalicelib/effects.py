"""What must be done after a decision: calls to AWS, each of which may be repeated."""

from msgspec import Struct

from chalicelib.model import PointVolume, RestorePoint


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
