"""What the use cases need of the world, as Protocols. Adapters implement them; wiring.py chooses which."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chalicelib.facts import Fact
from chalicelib.model import (
    Code,
    Copy,
    Drill,
    Host,
    InstanceState,
    LastBackup,
    Marks,
    PointState,
    PointVolume,
    RestorePoint,
    RetentionLook,
    Slot,
    Vault,
    Window,
)

RESTORE_PURPOSE = "restore"  # the tag nightvault:purpose of volumes that were made from restore points


class Conflict(Exception):
    """The vault was saved by someone else in between. `current` is the winning record."""

    def __init__(self, current: Vault | None) -> None:
        super().__init__("the vault was saved by someone else in between")
        self.current = current


class Clock(Protocol):
    def now(self) -> datetime:
        """The instant, aware and in UTC."""
        ...


class Store(Protocol):
    """Hosts, vaults, windows, restore points and enrolment codes. Reads are consistent."""

    def vault(self, vault_id: str) -> Vault | None: ...
    def vaults(self) -> list[Vault]: ...

    def save(self, vault: Vault, archive: Window | None = None, host: Host | None = None) -> Vault:
        """Save over version `vault.version`, with the archived window and the host if any: all or nothing.

        A host keeps its last backup, since when it has any, its last drill, when retention looked at it and its
        copies, whatever `host` says.

        Returns the vault with its new version. Raises Conflict with the winning record.
        """
        ...

    def host(self, name: str) -> Host | None: ...
    def hosts(self) -> list[Host]: ...

    def put_code(self, code: Code) -> None:
        """Record a code, unless it is there: one that was used stays used."""
        ...

    def code(self, code_hash: str) -> Code | None: ...

    def redeem(self, code: Code, vault: Vault, host: Host | None, now: datetime) -> Vault:
        """Use a code up, and save what it enrols: a host with its vault, or a vault's agent. All or nothing.

        Raises CodeRefused when the code was used or has expired, Conflict when the vault was saved in between.
        """
        ...

    def put_point(self, point: RestorePoint) -> None:
        """Record a restore point, with its marks if none are recorded; those that are stay, whatever `point` says."""
        ...

    def points(self, host: str) -> list[RestorePoint]:
        """A host's restore points with their marks, oldest first; none that was deleted."""
        ...

    def mark(self, point: RestorePoint, marks: Marks) -> bool:
        """Record marks over the version that `point` was read with. False: somebody else did so, or it is gone."""
        ...

    def bury(self, point: RestorePoint) -> None:
        """A deleted point leaves `points`; what is known of it is kept as long as windows are. May be repeated."""
        ...

    def buried(self, host: str) -> list[RestorePoint]:
        """Deleted points, oldest first."""
        ...

    def put_retention_look(self, host: str, look: RetentionLook | None) -> None:
        """Record when retention looked at a host; None: it is due. Nothing for a host that is not there."""
        ...

    def put_drill(self, host: str, drill: Drill) -> None:
        """Record what came of a host's last drill. Nothing for a host that is not there."""
        ...

    def put_copies(self, host: Host, copies: tuple[Copy, ...]) -> bool:
        """Record a host's copies over the version that `host` was read with. False: somebody else did so since."""
        ...

    def move_last_backup(self, host: str, last: LastBackup) -> bool:
        """Record it unless a newer one is there; the first one also as `points_since`. Returns whether it moved."""
        ...

    def windows(self, vault_id: str, limit: int | None = None, *, since: datetime | None = None) -> list[Window]:
        """Archived windows, newest first: at most `limit`, and those that opened at `since` or later."""
        ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An instance of this stack as EC2 describes it."""

    instance_id: str
    vault_id: str
    state: InstanceState
    launched_at: datetime


@dataclass(frozen=True, kw_only=True)
class PointDisk:
    """A volume made from a restore point, as EC2 describes it."""

    volume_id: str
    vault_id: str
    host: str
    run_id: str
    made_at: datetime


class Cloud(Protocol):
    """EC2 and EBS. Every method may raise CloudRefused; every one may be repeated."""

    def machines(self) -> list[Machine]:
        """All instances of the stack that are not terminated."""
        ...

    def find_launched(self, client_token: str) -> str | None:
        """The instance that a launch with this token made, if it did."""
        ...

    def make_group(self, vault_id: str) -> str: ...
    def launch(self, vault: Vault) -> str: ...
    def start(self, instance_id: str) -> None: ...
    def stop(self, instance_id: str, *, force: bool) -> None: ...
    def terminate(self, instance_id: str) -> None: ...

    def make_volume(self, vault_id: str, host: str, slot: Slot) -> str:
        """The id of a volume of the snapshot that the host rests as, or a blank one; for the same slot the same one."""
        ...

    def missing_volumes(self, volume_ids: Iterable[str]) -> frozenset[str]:
        """Those that EC2 does not know: deleted, or made so recently that it does not say so yet."""
        ...

    def enlarge(self, volume_id: str, size_gib: int) -> int | None:
        """See that a volume has at least this size; gives the size that it has. None: AWS takes it later only."""
        ...

    def detach(self, volume_id: str) -> bool:
        """Begin to detach a volume from whatever holds it. Whether nothing does any more."""
        ...

    def delete_volume(self, volume_id: str) -> bool:
        """Delete a volume. False: something still holds it."""
        ...

    def attach(self, instance_id: str, slots: dict[str, Slot]) -> tuple[str, ...]:
        """Attach what can be attached now. Returns the hosts whose volume is attached to this instance.

        Raises CloudRefused for a volume that was refused, after all the others have been tried.
        """
        ...

    def point_disks(self) -> list[PointDisk]:
        """All volumes of the stack that were made from restore points, found by their tag; none that is going."""
        ...

    def make_point_volume(self, vault_id: str, volume: PointVolume) -> str:
        """The volume's id. For the same host and run it is the same one."""
        ...

    def attach_point_volume(self, instance_id: str, volume: PointVolume) -> bool:
        """Whether it is attached to this instance. False: not yet, ask again."""
        ...

    def ingress(self, group_id: str) -> frozenset[str]: ...
    def admit(self, group_id: str, address: str) -> None: ...
    def revoke(self, group_id: str, address: str) -> None: ...

    def find_snapshots(self, window_id: str) -> dict[str, str]:
        """Snapshot id by host, of those that this window made and that have not failed."""
        ...

    def snapshot(self, point: RestorePoint) -> str: ...
    def snapshot_states(self, snapshot_ids: Iterable[str]) -> dict[str, PointState]: ...

    def host_snapshots(self, host: str) -> dict[str, PointState]:
        """The state of each snapshot of this host that EC2 has, by id."""
        ...

    def delete_snapshot(self, snapshot_id: str, host: str) -> None:
        """Delete a snapshot whose tags say this stack and this host; CloudRefused if they say anything else.

        One that is gone already is fine.
        """
        ...

    def locked_snapshots(self) -> frozenset[str]:
        """Those that EBS's own lock keeps from being deleted, of the whole account."""
        ...


@dataclass(frozen=True, kw_only=True)
class CopyShot:
    """A copy of a restore point as EC2 describes it in its own region. `detail`: why it failed."""

    copy_id: str
    host: str
    point_id: str
    taken_at: datetime
    state: PointState
    detail: str = ""


class Copier(Protocol):
    """Copies of restore points in another region. Every method may raise CloudRefused."""

    region: str

    def copies(self) -> list[CopyShot]:
        """All of the stack, found by their tags."""
        ...

    def copy(self, point: RestorePoint) -> str:
        """Begin to copy a completed snapshot; gives the copy's id. To be called once: it knows no client token."""
        ...

    def delete(self, copy_id: str, host: str) -> None:
        """Delete a copy whose tags say this stack and this host; CloudRefused if they say anything else.

        One that is gone already is fine.
        """
        ...


class Notifier(Protocol):
    def notify(self, subject: str, message: str) -> None:
        """Tell the operator. At most 100 characters of subject (SNS)."""
        ...


class Pinger(Protocol):
    def ping(self, urls: list[str]) -> dict[str, str]:
        """Ask each URL once, all at once, within a few seconds. Returns what was wrong with those that failed."""
        ...


class Telemetry(Protocol):
    def event(self, name: str, **fields: object) -> None:
        """A log line: a constant name, fields that vary. Never a header or a token."""
        ...

    def fault(self, name: str, **fields: object) -> None:
        """The same, as an error, counted."""
        ...

    def fact(self, fact: Fact) -> None:
        """Log and measure what has become known."""
        ...

    def gauges(self, hosts: list[Host], vaults: list[Vault], now: datetime) -> None:
        """Hours since each host's last backup, how many are overdue, also with drills, and how full the volumes are."""
        ...

    def past_window(self, vaults: list[Vault], now: datetime) -> None:
        """How long each vault that should have stopped has been awake past its window."""
        ...
