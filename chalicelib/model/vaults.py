"""A vault: the machine, its agent and what that says, and everything that is under way with it."""

from datetime import datetime

from msgspec import Struct, field

from chalicelib.model.points import RestorePoint
from chalicelib.model.runs import Run
from chalicelib.model.slots import PointVolume, Slot
from chalicelib.model.windows import Spent, Window
from chalicelib.model.words import Phase


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
    no_drills: bool = False  # it has mounted a point that was to be drilled, and said nothing of it


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

    @property
    def live_runs(self) -> tuple[Run, ...]:
        """In the window under way, then those that wait for the next."""
        runs = (*(self.window.runs.values() if self.window else ()), *self.queued.values())
        return tuple(run for run in runs if run.live)

    def slot(self, host: str) -> Slot | None:
        """A host's place, also when it was retired."""
        return self.hosts.get(host) or self.retired.get(host)

    def find_run(self, run_id: str) -> Run | None:
        """In the window under way, among the queued, or in the window before."""
        for runs in (self.window and self.window.runs, self.queued, self.recent and self.recent.runs):
            if runs and run_id in runs:
                return runs[run_id]
        return None
