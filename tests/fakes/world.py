"""A whole control plane over fakes, with the words that scenarios are told in."""

import boto3.session
from msgspec.structs import replace

from chalicelib.auth import sha256
from chalicelib.commands import DrillSeen, Finish, Report, Start
from chalicelib.control import Control
from chalicelib.documents import Orders, RestoreOrder, RunDocument
from chalicelib.enrolment import Enrolment
from chalicelib.growth import GIB
from chalicelib.model import Agent, Change, Checked, DrillState, Kind, Mount, Outcome, PointMount, Policy, Stats, Vault
from chalicelib.settings import Settings
from chalicelib.wiring import Wiring
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.copier import FakeCopier
from tests.fakes.store import MemoryStore
from tests.fakes.told import Told

NO_DRILLS = Policy(drill_seconds=0)  # of nights that are about something else
KEY = "ssh-ed25519 " + "A" * 68
SETTINGS = Settings(
    stack="s",
    table="t",
    launch_template="lt",
    subnet="sub",
    topic_arn="a",
    kms_key="",
    policy=Policy(),
    url="https://id.execute-api.eu-central-1.amazonaws.com/api",
)


class World:
    """Hosts that act, a machine that reports, time that passes."""

    def __init__(self, policy: Policy | None = None, *, copies: bool = False) -> None:
        self.clock = FakeClock()
        self.cloud = FakeCloud(self.clock)
        self.store = MemoryStore()
        self.copier = FakeCopier(self.cloud)
        self.told = Told()
        self.control = Control(
            store=self.store,
            cloud=self.cloud,
            notifier=self.told,
            telemetry=self.told,
            clock=self.clock,
            policy=policy or NO_DRILLS,
            pause=lambda _: None,
            pinger=self.told,
            copier=self.copier if copies else None,
        )
        self.enrolment = Enrolment(self.control)
        self.commits: dict[str, str] = {}
        self.changes: dict[str, Change] = {}
        self.used_gib: dict[str, int] = {}
        self.seen_restores: dict[str, PointMount] | None = None  # what the agent says instead of what is so
        self.drill_orders: dict[str, RestoreOrder] = {}  # by host
        self.checks: dict[str, Checked] = {}  # of the others it says that it is checking
        self.knows_drills = True

    def enrol(self, *names: str, every_seconds: int = 86400) -> None:
        for name in names:
            self.enrolment.enroll(self.enrolment.invite(name, 5, every_seconds).code, KEY)

    @property
    def wired(self) -> Wiring:
        """What operators' actions are answered with."""
        session = boto3.session.Session(region_name="eu-central-1")  # no client is made of it
        made = Wiring(SETTINGS, session=session, clock=self.clock)
        vars(made).update(store=self.store, control=self.control, enrolment=self.enrolment, telemetry=self.told)
        return made

    @property
    def vault(self) -> Vault:
        vault = self.store.vault("vault-1")
        assert vault
        return vault

    def start(
        self,
        host: str,
        run_id: str,
        kind: Kind = Kind.BACKUP,
        address: str = "198.51.100.7",
        point_id: str | None = None,
    ) -> RunDocument:
        return self.control.start(Start(host=host, run_id=run_id, kind=kind, source_address=address), point_id)

    def finish(self, host: str, run_id: str, outcome: Outcome = Outcome.COMPLETE, exit_code: int = 0) -> RunDocument:
        stats = Stats(bytes_sent=1000)
        return self.control.finish(Finish(host=host, run_id=run_id, outcome=outcome, exit_code=exit_code, stats=stats))

    def commit(self, host: str, run_id: str, change: Change | None = None) -> None:
        """The host's push is committed on its volume; the agent says so, and what that changed."""
        self.commits[host] = run_id
        self.changes.pop(host, None)
        if change:
            self.changes[host] = change
        self.report()

    def backed_up(self, host: str, run_id: str, change: Change | None = None) -> str:
        """A night of this host alone, until its restore point counts; gives the snapshot's id."""
        self.start(host, run_id)
        self.boot()
        self.commit(host, run_id, change)
        self.finish(host, run_id)
        self.clock.advance(1)
        self.arrive()
        last = self.control.status(host, run_id).last
        assert last
        return last.snapshot_id

    def boot(self) -> Orders:
        """The machine comes up, enrols if it must, and reports ready."""
        self.cloud.settle()
        self.control.instance_changed(self.vault.instance_id or "")
        if self.vault.agent is None:
            self.enrol_agent()
        return self.report()

    def enrol_agent(self) -> None:
        """The machine's agent uses the code that it found in its metadata."""
        known = self.store._codes.values()
        code = next(c for c in reversed(list(known)) if c.name == "@vault-1" and not c.used_at)
        self.store.redeem(code, self._with_agent(self.vault), None, self.clock.now())

    def _with_agent(self, vault: Vault) -> Vault:
        return replace(vault, agent=Agent(token_hash=sha256("secret"), host_key=KEY))

    def report(
        self, state: str = "ready", transfers: dict[str, int] | None = None, instance_id: str | None = None
    ) -> Orders:
        vault = self.vault
        mounts = {
            host: self._mount(host, slot.volume_id, vault.instance_id)
            for host, slot in vault.hosts.items()
            if slot.volume_id
        }
        for host, run_id in self.cloud.came_back.items():
            self.commits.pop(host, None)
            self.commits |= {host: run_id} if run_id else {}
        self.cloud.came_back.clear()
        machine = instance_id or vault.instance_id or ""
        self.cloud.agent_mounts(machine)
        answer = self.control.report(
            "vault-1",
            Report(
                instance_id=machine,
                boot_id="boot",
                state=state,
                address="203.0.113.9",
                port=22,
                host_key=KEY,
                mounts=mounts,
                transfers=transfers or {},
                commits={host: self.commits[host] for host in self.commits if host in mounts and mounts[host].mounted},
                changes=self.changes,
                restores=self.seen_restores
                or {
                    host: PointMount(volume_id=v, state="mounted" if v in self.cloud.mounted_points else "absent")
                    for host, v in self.cloud.ordered_points.items()
                },
                drills={
                    host: DrillSeen(
                        run_id=order.drill.run_id,
                        volume_id=order.volume_id,
                        checked=self.checks.get(host, Checked(state=DrillState.CHECKING)),
                    )
                    for host, order in self.drill_orders.items()
                    if order.drill and self.knows_drills and order.volume_id in self.cloud.mounted_points
                },
            ),
        )
        self.drill_orders = {order.host: order for order in answer.restores if order.drill}
        self.cloud.ordered_points = {order.host: order.volume_id for order in answer.restores}
        self.cloud.agent_mounts(machine)
        return answer

    def _mount(self, host: str, volume_id: str, instance_id: str | None) -> Mount:
        if self.cloud.attached.get(volume_id) != instance_id:
            return Mount(volume_id=volume_id, mounted=False, detail="absent")
        size = self.cloud.sizes[volume_id] * GIB
        used = min(size, self.used_gib.get(host, 0) * GIB)
        return Mount(volume_id=volume_id, mounted=True, size_bytes=size, free_bytes=size - used)

    def arrive(self) -> None:
        """States on their way arrive, and their events are delivered."""
        self.cloud.settle()
        if self.vault.instance_id:
            self.control.instance_changed(self.vault.instance_id)
        self.cloud.settle()
        for snapshot_id in self.vault.pending_points:
            self.control.snapshot_changed(snapshot_id)

    def pass_minutes(self, minutes: int) -> None:
        """Time goes by, with the sweep each minute."""
        for _ in range(minutes):
            self.clock.advance(60)
            self.control.sweep()
