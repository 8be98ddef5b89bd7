"""A stack under watch: the control plane on fakes, telling what it tells through Powertools, a minute at a time."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from chalicelib.commands import Report
from chalicelib.control import Control
from chalicelib.enrolment import Enrolment
from chalicelib.model import Change, Checked, DrillState, Mount, Outcome, Phase, PointState, Policy, RestorePoint
from chalicelib.telemetry import PowertoolsTelemetry
from deploy.alarms import alarms
from tests.fakes.cloud import Snapshot
from tests.fakes.world import NO_DRILLS, World
from tests.watch.cloudwatch import Metrics, Watch, key, resolve

STACK = "nightvault-test"
NAMES = {"AWS::StackName": STACK, "Topic": "arn:topic", "Runbooks": "https://example.org/runbooks"}
KEY = "ssh-ed25519 " + "A" * 68
R = "00000000-0000-4000-8000-{:012d}".format


class Watched:
    """`minute()` is a minute of that stack: whatever is due happens, is told, and all alarms are evaluated."""

    def __init__(self, capsys: pytest.CaptureFixture[str], extra: int) -> None:
        self.capsys = capsys
        self.world = world = World()
        world.control = Control(
            store=world.store,
            cloud=world.cloud,
            notifier=world.told,
            telemetry=PowertoolsTelemetry(STACK),
            clock=world.clock,
            policy=NO_DRILLS,
            pause=lambda _: None,
            pinger=world.told,
        )
        world.enrolment = Enrolment(world.control)
        self.metrics = Metrics()
        self.watches = {
            resource["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): Watch(
                resolve(resource["Properties"], NAMES), self.metrics, extra
            )
            for resource in alarms()["Resources"].values()
        }
        self.sweeping = True

    def minute(self) -> None:
        world = self.world
        world.clock.advance(60)
        if self.sweeping:
            self.called("sweep", world.control.sweep)
        self.metrics.put_emf(self.capsys.readouterr().out, world.clock.now())
        for watch in self.watches.values():
            watch.evaluate(world.clock.now())

    def minutes(self, number: int) -> None:
        for _ in range(number):
            self.minute()

    def called(self, function: str, body: Callable[[], object]) -> None:
        """What Lambda itself counts of a call."""
        self.count(function, "Invocations", 1)
        try:
            body()
            self.count(function, "Errors", 0)
        except Exception:
            self.count(function, "Errors", 1)

    def count(self, function: str, name: str, value: float) -> None:
        metric = key("AWS/Lambda", name, {"FunctionName": f"{STACK}-{function}"})
        self.metrics.put(metric, self.world.clock.now(), value)

    def night(self, number: int, *hosts: str, change: Change | None = None) -> None:
        """All hosts push and are done within ten minutes; the rest of 24 hours passes. `change`: by each of them."""
        world = self.world
        began = world.clock.now()
        runs = {host: R(100 * number + n) for n, host in enumerate(hosts)}
        for host, run_id in runs.items():
            world.start(host, run_id)
        self.minute()
        world.boot()
        self.minutes(8)
        for host, run_id in runs.items():
            world.commit(host, run_id, change)
            world.finish(host, run_id)
        self.minute()
        world.arrive()
        left = 86400 - (world.clock.now() - began).total_seconds()
        self.minutes(int(left) // 60)

    def old_point(self, host: str, snapshot_id: str) -> None:
        """A restore point of an hour ago, of a run that was cut."""
        made_at = self.world.clock.now() - timedelta(hours=1)
        slot = self.world.vault.hosts[host]
        point = RestorePoint(
            host=host,
            vault_id="vault-1",
            window_id="w",
            volume_id=slot.volume_id or "",
            run_id="r",
            run_started_at=made_at,
            outcome=Outcome.CUT,
            complete=False,
            snapshot_id=snapshot_id,
            state=PointState.COMPLETED,
            made_at=made_at,
        )
        self.world.store.put_point(point)
        self.world.cloud.snapshots[snapshot_id] = Snapshot(snapshot_id, point, PointState.COMPLETED)

    @property
    def raised(self) -> set[str]:
        """Alarms that have been in ALARM since the beginning."""
        return {n for n, watch in self.watches.items() if any(state == "ALARM" for _, state in watch.history)}

    @property
    def up(self) -> set[str]:
        """Alarms that are in ALARM now."""
        return {name for name, watch in self.watches.items() if watch.state == "ALARM"}


def drill(stack: Watched, host: str, state: DrillState) -> None:
    """An operator's drill of a host's newest restore point, of which the vault says that."""
    world = stack.world
    world.control.policy = Policy()
    record = world.store.host(host)
    assert record
    world.control.drilling.begin(record, None)
    stack.minute()
    world.boot()
    stack.minute()
    world.checks = {host: Checked(state=state, detail="a file: another checksum")}
    for _ in range(4):
        world.report()
    world.checks = {}
    world.control.policy = NO_DRILLS
    while world.vault.phase is not Phase.ASLEEP or world.vault.drilled:
        stack.minute()
        world.arrive()


def opened(stack: Watched, *hosts: str, first: int = 0) -> None:
    """A window with live runs of these hosts, and a machine that is ready."""
    for n, host in enumerate(hosts or ("C", "H")):
        stack.world.start(host, R(first + n))
    stack.minute()
    stack.world.boot()


def report(stack: Watched, *, host_key: str = KEY, used: float = 0.1) -> None:
    world = stack.world
    mounts = {
        host: Mount(volume_id=slot.volume_id, mounted=True, size_bytes=10**9, free_bytes=round(10**9 * (1 - used)))
        for host, slot in world.vault.hosts.items()
        if slot.volume_id
    }
    world.control.report(
        "vault-1",
        Report(
            instance_id=world.vault.instance_id or "",
            boot_id="boot",
            state="ready",
            address="203.0.113.9",
            port=22,
            host_key=host_key,
            mounts=mounts,
            transfers={"C": 5},
            commits={},
        ),
    )
