"""The cloud on one machine, whole: AWS, the application over HTTP, its schedule and events, and the machines."""

import functools
import getpass
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from chalice.app import CloudWatchEventConfig

from .aws import LocalAws, Stack
from .calls import Ledger
from .clock import OffsetClock
from .events import Event, Rule, scheduled
from .fake_vault import FakeVault
from .faults import Faults
from .front import Front, lambda_context
from .gateway import Connection
from .hosts import FakeHost
from .hypervisor import Hypervisor
from .interposer import REGION, plain_client
from .machines import Machines
from .patience import wait_until
from .states import Delays


class LocalCloud:
    """A context manager; one at a time in a process, because `app` is a module.

    `directory` holds disks and logs, and may hold those of a run that was killed: they are cleared first.
    `policy` are fields of chalicelib.model.Policy; unless it says so, no drills begin. `machines=False`: agents are
    faked (`cloud.vaults`), no sshd, no disks. `rooted` None: real filesystems and namespaces where this user may make
    them. `sweep_every` None: only `sweep()` sweeps. `vault` "vm": machines are booted by qemu, see vm/. `copy_region`:
    where restore points are copied to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        policy: Mapping[str, int] | None = None,
        machines: bool = True,
        rooted: bool | None = None,
        delays: Delays | None = None,
        sweep_every: float | None = 1.0,
        stack: str = "nightvault",
        vault: Literal["process", "vm"] = "process",
        copy_region: str = "",
    ) -> None:
        self.directory = directory
        self.clock = OffsetClock()
        self.faults = Faults()
        self.vaults = FakeVault()
        self._machines = machines
        self._vault = vault
        self._rooted = rooted
        self._policy = {"drill_seconds": 0, **(policy or {})}
        self._delays = delays or Delays()
        self._sweep_every = sweep_every
        self._stack_name = stack
        self.copy_region = copy_region
        self.poll_seconds = 0.05  # of `wait_until`: looking is a request, in the same process as the application
        self._exit = ExitStack()
        self._app: Any = None  # the module app.py: its handlers are its functions
        self.aws: LocalAws
        self.stack: Stack
        self.url: str
        self.front: Front
        self.hypervisor: Hypervisor

    def __enter__(self) -> "LocalCloud":
        with ExitStack() as undo:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.hypervisor = self._hypervisor()
            undo.callback(self.hypervisor.close)
            self.aws = LocalAws(hypervisor=self.hypervisor, delays=self._delays, clock=self.clock, faults=self.faults)
            undo.callback(self.aws.close)
            self.stack = self.aws.make_stack(self._stack_name)
            self._app = self._wire_app(undo)
            rootless = isinstance(self.hypervisor, Machines) and not self.hypervisor.rooted
            self.front = Front(self._app.app, single_user=getpass.getuser() if rootless else None)
            undo.callback(self.front.close)
            self.url = self.vaults.url = self.front.url
            self.aws.put_parameter(f"/{self._stack_name}/url", self.url)
            if isinstance(self.hypervisor, Machines):
                self.hypervisor.url = self.url
            self._listen()
            # First of all at the end: nothing new begins while the rest is taken down.
            undo.callback(self.hypervisor.close)
            undo.callback(self.aws.timeline.close)
            self._exit = undo.pop_all()
        if self._sweep_every is not None:
            self._schedule(self._sweep_every)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    # what an operator does

    def operate(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Invokes the `operate` Lambda."""
        answer: dict[str, Any] = self._app.operate({"action": action, **arguments}, lambda_context("operate"))
        return answer

    def invite(self, host: str, *, size_gib: int = 1, every_seconds: int = 86400) -> str:
        """A code with which `host` may enrol."""
        return str(self.operate("invite", host=host, size_gib=size_gib, every_seconds=every_seconds)["code"])

    def enroll(self, host: str, *, source: str | None = None, **invitation: int) -> FakeHost:
        """A host that a test plays itself, enrolled; it calls from `source` (any address of 127.0.0.0/8)."""
        return FakeHost.enrolled(self.url, host, self.invite(host, **invitation), source=source)

    # what time does

    def sweep(self) -> None:
        """The scheduled pass, now, and to its end; raises what it raises."""
        self._invoke("sweep", scheduled(self.clock.now()))

    def wait_until(self, predicate: Callable[[], Any], seconds: float = 10.0, *, what: str = "") -> Any:
        """The first true value of `predicate`. TimeoutError, with the failures so far, if none comes in time."""
        try:
            return wait_until(predicate, seconds, what=what or "it", poll_seconds=self.poll_seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; failures: {self.failures}") from None

    # what happened

    @property
    def calls(self) -> Ledger:
        """Every call of AWS that the application made: `cloud.calls("StopInstances", ended="ok")`."""
        return self.aws.ledger

    @property
    def failures(self) -> list[tuple[str, BaseException]]:
        """What events, sweeps and state changes raised."""
        return self.aws.timeline.errors

    def instances(self) -> dict[str, str]:
        """State by instance id."""
        with self.aws.ec2.lock:
            return {each.id: each.state for each in self.aws.ec2.backend.all_instances()}

    def snapshots(self) -> list[dict[str, Any]]:
        """As DescribeSnapshots gives them, with `tags` as a mapping."""
        with self.aws.ec2.lock:
            return self._snapshots(REGION)

    def copies(self) -> list[dict[str, Any]]:
        """The same, of the region that restore points are copied to."""
        return self._snapshots(self.copy_region)

    def _snapshots(self, region: str) -> list[dict[str, Any]]:
        found = plain_client("ec2", region).describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [{**each, "tags": {tag["Key"]: tag["Value"] for tag in each.get("Tags", ())}} for each in found]

    def pull_plug(self, instance_id: str | None = None, *, then: str = "stopped") -> None:
        """Kills the machine (the one that runs) in the middle of whatever it does."""
        if instance_id is None:
            (instance_id,) = (each for each, state in self.instances().items() if state == "running")
        self.aws.ec2.crash(instance_id, then=then)

    def cut_connections(self, after_bytes: int, *, source: str | None = None, times: int = 1) -> None:
        """Breaks the next `times` connections (of `source`) that brought a vault more than `after_bytes`."""
        self._real_machines.cuts.order(after_bytes, source=source, times=times)

    def connections(self) -> list[Connection]:
        """Every connection that came to a vault's gate, with the bytes that went each way."""
        return self._real_machines.connections()

    def console(self) -> str:
        """What the machines' sshd and agents printed: the place to look when a vault does not come up."""
        return "".join(self._real_machines.console(each) for each in self.instances())

    @contextmanager
    def open_snapshot(self, snapshot_id: str) -> Iterator[Path]:
        """The frozen filesystem of a snapshot, as a folder to read."""
        with self._real_machines.disks.open_snapshot(snapshot_id) as folder:
            yield folder

    @contextmanager
    def open_copy(self, copy_id: str) -> Iterator[Path]:
        """The same of a copy, from the other region's own disks."""
        with self._real_machines.disks.region(self.copy_region).open_snapshot(copy_id) as folder:
            yield folder

    def damage_snapshot(self, snapshot_id: str) -> Path:
        """One bit of its largest file is flipped; returns which file that is."""
        return self._real_machines.disks.damage(snapshot_id)

    @property
    def _real_machines(self) -> Machines:
        if not isinstance(self.hypervisor, Machines):
            raise TypeError("this cloud has no machines")
        return self.hypervisor

    # setting up

    def _hypervisor(self) -> Hypervisor:
        if not self._machines:
            return self.vaults
        if self._vault == "vm":
            from .vm.machines import VirtualMachines  # noqa: PLC0415 - only where there is a qemu

            return VirtualMachines(self.directory)
        return Machines(self.directory, rooted=self._rooted)

    def _wire_app(self, undo: ExitStack) -> Any:
        import app  # noqa: PLC0415 - only now: importing it is the application's cold start
        from chalicelib import wiring  # noqa: PLC0415
        from chalicelib.settings import Settings  # noqa: PLC0415
        from deploy import parts  # noqa: PLC0415

        program = self.directory / "vault-program.tar.xz"
        program.write_bytes(parts.vault_image().program())
        environment = {
            "NIGHTVAULT_PROGRAM": str(program),
            "NIGHTVAULT_STACK": self._stack_name,
            "NIGHTVAULT_TABLE": self.stack.table,
            "NIGHTVAULT_LAUNCH_TEMPLATE": self.stack.launch_template,
            "NIGHTVAULT_SUBNET": self.stack.subnet,
            "NIGHTVAULT_TOPIC_ARN": self.stack.topic_arn,
            "NIGHTVAULT_COPY_REGION": self.copy_region,
            "NIGHTVAULT_URL_PARAMETER": f"/{self._stack_name}/url",
            **{f"NIGHTVAULT_{name.upper()}": str(value) for name, value in self._policy.items()},
        }
        settings = Settings.from_environment(environment)
        wiring.install(wiring.Wiring(settings, session=self.aws.session, clock=self.clock))
        undo.callback(wiring.install, None)
        return app

    def _listen(self) -> None:
        """What the deployed rules would do: the patterns are the application's own."""
        for source in self._app.app.event_sources:
            if isinstance(source, CloudWatchEventConfig):
                name = source.handler_string.removeprefix("app.")
                handler = functools.partial(self._invoke, name)
                self.aws.bus.rules.append(Rule(source.event_pattern, handler))

    def _invoke(self, name: str, event: Event) -> None:
        getattr(self._app, name)(event, lambda_context(name))

    def _schedule(self, seconds: float) -> None:
        def tick() -> None:
            self._schedule(seconds)
            self.sweep()

        self.aws.timeline.after(seconds, "sweep", tick)
