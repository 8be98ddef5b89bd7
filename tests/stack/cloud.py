"""The local cloud with the deployed stack in it, in place of the application in this process."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.packaging import Package
from tests.localcloud.aws import LocalAws
from tests.localcloud.clock import OffsetClock
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.events import ACCOUNT, Event, Rule
from tests.localcloud.hypervisor import Guest
from tests.localcloud.interposer import REGION, plain_client
from tests.localcloud.machines import Machines
from tests.stack.deployed import Deployed
from tests.stack.iam import Need
from tests.stack.ministack import Ministack, free_port
from tests.stack.needs import Place, needs
from tests.stack.router import Caller, Router
from tests.stack.wire import Asked

_IMAGE = "/images/debian"  # AWS's own public parameters, /aws/service/..., can't be made
_API = re.compile(r"https://(\w+)\.execute-api\.[\w.-]+/api")
# Of a test's policy, what is a parameter of the template. The rest the workers get as variables of their own.
_PARAMETERS: dict[str, tuple[str, Callable[[int], str]]] = {
    "window_seconds": ("WindowHours", lambda seconds: f"{seconds / 3600:.6f}"),
    "restore_seconds": ("RestoreHours", lambda seconds: f"{seconds / 3600:.6f}"),
    "linger_seconds": ("LingerSeconds", str),
}


class StackCloud(LocalCloud):
    """LocalCloud, with `package` deployed by CloudFormation and its Lambdas as processes of their own.

    `policy`, `machines`, `delays`, `sweep_every` as there. Machines need root. `deployed` is the stack, `router` what
    its functions called, `emulator` everything of AWS but EC2.
    """

    emulator: Ministack
    deployed: Deployed
    router: Router

    def __init__(self, directory: Path, package: Package, **options: Any) -> None:
        super().__init__(directory, rooted=True, **options)
        self.package = package
        self.clock: FileClock = FileClock(directory / "clock")
        self.poll_seconds = 0.2  # looking is an invocation, in a process of its own

    def __enter__(self) -> "StackCloud":
        with ExitStack() as undo:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.clock.advance(seconds=0)
            self.hypervisor = _Machines(self.directory, self.resolved) if self._machines else self.vaults
            undo.callback(self.hypervisor.close)
            self.aws = LocalAws(hypervisor=self.hypervisor, delays=self._delays, clock=self.clock, faults=self.faults)
            undo.callback(self.aws.close)
            self._start(undo)
            self._deploy()
            self.url = self.vaults.url = self.deployed.api_url
            self.aws.bus.rules.append(Rule({}, self._put_event))
            undo.callback(self.hypervisor.close)
            undo.callback(self.aws.timeline.close)
            self._exit = undo.pop_all()
        if self._sweep_every is not None:
            self._schedule(self._sweep_every)
        return self

    def operate(self, action: str, **arguments: Any) -> dict[str, Any]:
        """lambda:Invoke of the deployed `operate`."""
        answer: dict[str, Any] = self.deployed.invoke("operate", {"action": action, **arguments})
        return answer

    @property
    def failures(self) -> list[tuple[str, BaseException]]:
        """What sweeps and state changes raised, and calls that our IAM and ministack's judged differently."""
        return [*super().failures, *(("a call", AssertionError(each)) for each in self.router.surprises)]

    def update(self, package: Package | None = None, **changed: Any) -> None:
        """Brings the running stack to another zip or other parameters, and waits until it is there."""
        self.deployed.begin_update(package or self.package, **changed)
        self.deployed.settle("UPDATE_COMPLETE")
        self._copy_launch_template()

    def denied(self) -> set[tuple[str, str]]:
        """Function and action of every decision that went against the caller."""
        return {(each.function, each.need.action) for each in list(self.router.decisions) if not each.by}

    # setting up

    def _start(self, undo: ExitStack) -> None:
        port = free_port()
        self.router = Router(
            emulator=port,
            interposer=self.aws.interposer,
            faults=self.faults,
            ledger=self.aws.ledger,
            caller=self._caller,
            needs=self._needs,
        )
        undo.callback(self.router.close)
        own = {name: value for name, value in self._policy.items() if name not in _PARAMETERS}
        workers = {
            "AWS_ENDPOINT_URL": self.router.url,
            "NIGHTVAULT_CLOCK": str(self.clock.file),
            **{f"NIGHTVAULT_{name.upper()}": str(value) for name, value in own.items()},
        }
        self.emulator = Ministack(self.directory / "ministack", port, workers)
        undo.callback(self.emulator.close)
        self.deployed = Deployed(self.emulator, self._stack_name)

    def _deploy(self) -> None:
        self.emulator.client("ssm").put_parameter(Name=_IMAGE, Value=self.aws.make_image(), Type="String")
        zone = [{"Name": "availability-zone", "Values": [f"{REGION}a"]}]
        subnet = plain_client("ec2").describe_subnets(Filters=zone)["Subnets"][0]
        chosen = {name: write(self._policy[key]) for key, (name, write) in _PARAMETERS.items() if key in self._policy}
        self.deployed.create(
            self.package, Vpc=subnet["VpcId"], Subnet=subnet["SubnetId"], Image=_IMAGE, AlertEmail="a@b.c", **chosen
        )
        self._copy_launch_template()

    def _copy_launch_template(self) -> None:
        """EC2 is elsewhere than CloudFormation here: what that made of the launch template is brought over."""
        data = self.deployed.template_of_vaults()["LaunchTemplateData"]
        data["MetadataOptions"].pop("State", None)  # of an answer only
        named = {"LaunchTemplateName": f"{self._stack_name}-vault", "LaunchTemplateData": data}
        with self.aws.ec2.lock:
            ec2 = plain_client("ec2")
            there = ec2.describe_launch_templates()["LaunchTemplates"]
            (ec2.create_launch_template_version if there else ec2.create_launch_template)(**named)

    def resolved(self, url: str) -> str:
        """What DNS does: where that API is on this machine."""
        return _API.sub(lambda found: f"{self.emulator.url}/restapis/{found[1]}/api/_user_request_", url)

    def _put_event(self, event: Event) -> None:
        """To the deployed rules, as EC2 and EBS do it."""
        entry = {
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event["detail"]),
            "Resources": event["resources"],
        }
        answer = self.emulator.client("events").put_events(Entries=[entry])
        if answer["FailedEntryCount"]:
            raise RuntimeError(f"EventBridge took no {event['detail-type']}: {answer['Entries']}")

    def _invoke(self, name: str, event: Event) -> None:
        self.deployed.invoke(name, event)

    def _schedule(self, seconds: float) -> None:
        """The next sweep after this one has ended: they are processes, and must not pile up on a busy machine."""

        def tick() -> None:
            try:
                self.sweep()
            finally:
                self._schedule(seconds)

        self.aws.timeline.after(seconds, "sweep", tick)

    # IAM

    def _caller(self, access_key: str) -> Caller:
        return self.deployed.caller(access_key)

    def _needs(self, asked: Asked) -> Iterable[Need]:
        place = Place(REGION, ACCOUNT, self._tags, self._keys_of, self.deployed.launch_template)
        return needs(asked.service, asked.operation, asked.parameters, place)

    def _tags(self, resource: str) -> Mapping[str, str]:
        filters = [{"Name": "resource-id", "Values": [resource]}]
        with self.aws.ec2.lock:
            tags = plain_client("ec2").describe_tags(Filters=filters)["Tags"]
        return {each["Key"]: each["Value"] for each in tags}

    def _keys_of(self, resource: str) -> Set[str]:
        if resource.startswith("arn:"):
            return self.deployed.keys_of(resource)
        with self.aws.ec2.lock:
            volumes = list(self.aws.ec2.backend.volumes.values())
            if resource.startswith("i-"):
                mine = [each for each in volumes if each.attachment and each.attachment.instance.id == resource]
            else:
                mine = [each for each in volumes if each.id == resource]
            return {str(each.kms_key_id) for each in mine if each.kms_key_id}


class FileClock(OffsetClock):
    """Its offset is in a file too, where the workers read it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def advance(self, *, seconds: float) -> None:
        super().advance(seconds=seconds)
        half = self.file.with_suffix(".half")
        half.write_text(str(self._offset.total_seconds()))
        half.replace(self.file)


class _Machines(Machines):
    """Machines that resolve the API's name. They are told no URL: it comes from the instance's tag, as on EC2."""

    def __init__(self, directory: Path, resolve: Callable[[str], str]) -> None:
        super().__init__(directory, rooted=True)
        self._resolve = resolve

    def boot(self, guest: Guest, on_exit: Callable[[], None]) -> None:
        super().boot(replace(guest, metadata=functools.partial(self._metadata, guest)), on_exit)

    def _metadata(self, guest: Guest) -> Mapping[str, str]:
        return {name: self._resolve(value) for name, value in guest.metadata().items()}
