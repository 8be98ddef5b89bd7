"""EC2 whose states take time: what a call begins, and what the cloud does about it later.

moto keeps the records and answers; this sets its objects' states as they would be, tells the hypervisor,
and sends the events that EC2 and EBS send. Every step is taken under one lock, held never while the
hypervisor works.
"""

import base64
import copy
import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from moto.ec2.models.elastic_block_store import Snapshot, Volume, VolumeModification

from .clock import OffsetClock
from .ec2_rules import check, template_data
from .events import EventBus
from .faults import Faults
from .hypervisor import Guest, Hypervisor
from .interposer import REGION, Answer, Forward, Refused, plain_client
from .locks import describe_locked, lock_snapshot, unlock_snapshot
from .timeline import Timeline

_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Real seconds that EC2 takes; the shutdown of a real machine comes on top."""

    boot: float = 0.1
    stop: float = 0.1
    terminate: float = 0.1
    volume: float = 0.05
    attach: float = 0.05
    detach: float = 0.05
    snapshot: float = 0.2
    copy: float = 0.2
    modify: float = 0.1


class SlowVolume(Volume):
    """A volume whose status can also be `creating` or `deleting`."""

    phase: str | None = None

    @property
    def status(self) -> str:
        return self.phase or str(super().status)


class SlowModification(VolumeModification):
    """A change of a volume that is on its way: its size is there at once, and EBS moves data for a while."""

    over = False

    @property
    def modification_state(self) -> str:
        return "completed" if self.over else "optimizing"


class SlowSnapshot(Snapshot):
    """A snapshot that is on its way."""

    @property
    def progress(self) -> str:
        return "100%" if self.status == "completed" else "42%"


class SlowEc2:
    """Handles every EC2 call of the app. `backend` is moto's."""

    def __init__(
        self,
        backend: Any,
        *,
        timeline: Timeline,
        clock: OffsetClock,
        faults: Faults,
        bus: EventBus,
        hypervisor: Hypervisor,
        delays: Delays,
    ) -> None:
        self.backend = backend
        self.lock = threading.RLock()
        self._timeline = timeline
        self._clock = clock
        self._faults = faults
        self._bus = bus
        self._hypervisor = hypervisor
        self._delays = delays
        self._ever_ran: set[str] = set()
        self._roots: set[str] = set()  # volumes made by launches: no disks of ours
        self._lives: dict[str, int] = {}  # counts an instance's state changes, so that a stale timer does nothing
        self._tokens: dict[tuple[str, str], tuple[str, Answer]] = {}

    # calls

    def __call__(self, operation: str, parameters: dict[str, Any], forward: Forward) -> Answer:
        """Refused, or done: at once what EC2 does at once, and the rest set in motion."""
        with self.lock:
            if parameters.get("DryRun"):
                return forward()
            check(operation, parameters, self.backend, self._ever_ran, self._clock.now())
            if operation in ("LockSnapshot", "UnlockSnapshot", "DescribeLockedSnapshots"):
                return self._lock(operation, parameters)
            handler = self._handlers.get(operation)
            if handler is None:
                return forward()
            answer, afterwards = handler(self, parameters, forward)
        if afterwards:
            afterwards()
        return answer

    def _run_instances(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        known = self._known_token("RunInstances", parameters)
        if known:
            for each in known["Instances"]:  # the same launch, as it is by now
                self._refresh(each)
            return known, None
        answer = forward()
        options = template_data(parameters, self.backend).get("MetadataOptions") or {}
        for each in answer["Instances"]:
            instance = self._instance(each["InstanceId"])
            # moto forgets the template's metadata options and doubles its root volume.
            for name, value in {**options, **parameters.get("MetadataOptions", {})}.items():
                setattr(instance.metadata_options, _snake(name), value)
            each["MetadataOptions"] = {**each.get("MetadataOptions", {}), **options}
            self._drop_default_root(instance, parameters)
            for device in instance.block_device_mapping.values():
                self.backend.volumes[device.volume_id].__class__ = SlowVolume
                self._roots.add(device.volume_id)
            instance.launch_time = self._clock.now().replace(tzinfo=None)
            self._begin_boot(instance)
            self._refresh(each)
        self._tokens["RunInstances", parameters["ClientToken"]] = (_canonical(parameters), answer)
        return copy.deepcopy(answer), None

    def _start_instances(self, parameters: dict[str, Any], _: Forward) -> "_Begun":
        changes = []
        for instance_id in parameters["InstanceIds"]:
            instance = self._instance(instance_id)
            before = instance.state
            if before == "stopped":
                instance.start()  # a new public address
                instance.launch_time = self._clock.now().replace(tzinfo=None)
                self._begin_boot(instance)
            changes.append(_change(instance, before))
        return {"StartingInstances": changes, **_metadata()}, None

    def _stop_instances(self, parameters: dict[str, Any], _: Forward) -> "_Begun":
        changes = []
        for instance_id in parameters["InstanceIds"]:
            instance = self._instance(instance_id)
            before = instance.state
            if before in ("running", "pending"):
                self._begin_stop(instance, "Client.UserInitiatedShutdown: User initiated shutdown")
            changes.append(_change(instance, before))

        def force() -> None:
            for instance_id in parameters["InstanceIds"]:
                self._hypervisor.pull_plug(instance_id)

        return {"StoppingInstances": changes, **_metadata()}, force if parameters.get("Force") else None

    def _terminate_instances(self, parameters: dict[str, Any], _: Forward) -> "_Begun":
        changes = []
        for instance_id in parameters["InstanceIds"]:
            instance = self._instance(instance_id)
            before = instance.state
            if before not in ("shutting-down", "terminated"):
                self._begin_termination(instance)
            changes.append(_change(instance, before))
        return {"TerminatingInstances": changes, **_metadata()}, None

    def _create_volume(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        known = self._known_token("CreateVolume", parameters)
        if known:
            volume = self.backend.volumes.get(known["VolumeId"])
            return {**known, "State": volume.status if volume else "deleted"}, None
        answer = forward()
        volume = self.backend.volumes[answer["VolumeId"]]
        volume.__class__ = SlowVolume
        volume.phase = answer["State"] = "creating"
        volume.create_time = self._clock.now().replace(tzinfo=None)

        def created() -> None:
            self._hypervisor.create_volume(volume.id, volume.size, parameters.get("SnapshotId"))
            with self.lock:
                volume.phase = None

        self._timeline.after(self._delays.volume, f"create {volume.id}", created)
        self._tokens["CreateVolume", parameters["ClientToken"]] = (_canonical(parameters), answer)
        return copy.deepcopy(answer), None

    def _delete_volume(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        return forward(), lambda: self._hypervisor.delete_volume(parameters["VolumeId"])

    def _attach_volume(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        answer = forward()
        volume = self.backend.volumes[parameters["VolumeId"]]
        instance = volume.attachment.instance
        device = instance.block_device_mapping[parameters["Device"]]
        volume.attachment.status = device.status = "attaching"

        def attached() -> None:
            self._hypervisor.attach(instance.id, volume.id, parameters["Device"])
            with self.lock:
                if volume.attachment is not None and volume.attachment.status == "attaching":
                    volume.attachment.status, device.status = "attached", "in-use"

        self._timeline.after(self._delays.attach, f"attach {volume.id}", attached)
        return answer, None

    def _modify_volume(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        answer = forward()
        volume = self.backend.volumes[parameters["VolumeId"]]
        modification = volume.modifications[-1]
        modification.__class__ = SlowModification
        modification.start_time = self._clock.now().replace(tzinfo=None)
        answer["VolumeModification"].update(ModificationState="modifying", Progress=0)

        def completed() -> None:
            with self.lock:
                modification.over = True

        self._timeline.after(self._delays.modify, f"modify {volume.id}", completed)
        return answer, lambda: self._hypervisor.resize_volume(volume.id, volume.size)

    def _detach_volume(self, parameters: dict[str, Any], _: Forward) -> "_Begun":
        volume = self.backend.volumes[parameters["VolumeId"]]
        attachment = volume.attachment
        begun = attachment.status == "detaching"
        attachment.status = "detaching"

        def detached() -> None:
            self._hypervisor.detach(attachment.instance.id, volume.id)
            with self.lock:
                if volume.attachment is attachment:
                    self.backend.detach_volume(volume.id, attachment.instance.id, attachment.device)

        if not begun:
            self._timeline.after(self._delays.detach, f"detach {volume.id}", detached)
        return {
            "VolumeId": volume.id,
            "InstanceId": attachment.instance.id,
            "Device": attachment.device,
            "State": "detaching",
            **_metadata(),
        }, None

    def _create_snapshot(self, _: dict[str, Any], forward: Forward) -> "_Begun":
        answer = forward()
        snapshot = self.backend.snapshots[answer["SnapshotId"]]
        snapshot.__class__ = SlowSnapshot
        started = self._clock.now()
        snapshot.start_time = started.replace(tzinfo=None)
        snapshot.status = answer["State"] = "pending"
        answer["Progress"] = ""
        failing = self._faults.strike("snapshot", snapshot.volume_id)

        def completed() -> None:
            with self.lock:
                snapshot.status = "error" if failing else "completed"
            result = "failed" if failing else "succeeded"
            self._bus.snapshot(snapshot.id, snapshot.volume_id, result, started)

        def freeze() -> None:
            # The point in time is that of the call, so it is copied before the call returns.
            self._hypervisor.snapshot(snapshot.id, snapshot.volume_id)
            self._timeline.after(self._delays.snapshot, f"snapshot {snapshot.id}", completed)

        return answer, freeze

    def _delete_snapshot(self, parameters: dict[str, Any], forward: Forward) -> "_Begun":
        return forward(), lambda: self._hypervisor.delete_snapshot(parameters["SnapshotId"])

    def _lock(self, operation: str, parameters: dict[str, Any]) -> Answer:
        calls = {"LockSnapshot": lock_snapshot, "UnlockSnapshot": unlock_snapshot}
        call = calls.get(operation, describe_locked)
        return {**call(parameters, self.backend, self._clock.now()), **_metadata()}

    _handlers: Mapping[str, Callable[["SlowEc2", dict[str, Any], Forward], "_Begun"]] = {
        "RunInstances": _run_instances,
        "StartInstances": _start_instances,
        "StopInstances": _stop_instances,
        "TerminateInstances": _terminate_instances,
        "CreateVolume": _create_volume,
        "DeleteVolume": _delete_volume,
        "AttachVolume": _attach_volume,
        "DetachVolume": _detach_volume,
        "ModifyVolume": _modify_volume,
        "CreateSnapshot": _create_snapshot,
        "DeleteSnapshot": _delete_snapshot,
    }

    # instances' lives

    def crash(self, instance_id: str, *, then: str = "stopped") -> None:
        """The host under the instance dies. `then`: EC2 sees it `stopped`, or believes it is still `running`."""
        with self.lock:
            instance = self._instance(instance_id)
            life = self._next_life(instance_id)  # whatever was under way for it no longer applies
        self._hypervisor.pull_plug(instance_id)
        if then == "stopped":
            with self.lock:
                if self._lives[instance_id] == life:
                    instance.stop()
                    self._enter(instance, "stopped", "Server.InternalError: the host failed")

    def _begin_boot(self, instance: Any) -> None:
        self._enter(instance, "pending")
        life = self._next_life(instance.id)
        fate = self._faults.strike("boot", instance.id)

        def running() -> None:
            with self.lock:
                if self._lives[instance.id] != life:
                    return
                if fate == "relapse":
                    self._relapse(instance)
                    return
                self._ever_ran.add(instance.id)
                self._enter(instance, "running")
                guest = self._guest(instance)
            if fate != "never":
                self._hypervisor.boot(guest, lambda: self._exited(instance, life))

        self._timeline.after(self._delays.boot, f"boot {instance.id}", running)

    def _relapse(self, instance: Any) -> None:
        reason = "Server.InternalError: Internal error on launch"
        if instance.id in self._ever_ran:
            instance.stop()
            self._enter(instance, "stopped", reason)
        else:
            instance.terminate()
            self._enter(instance, "terminated", reason)

    def _exited(self, instance: Any, life: int) -> None:
        """The machine went off. If no one at EC2 had asked for that, it was shut down from inside."""
        with self.lock:
            if self._lives[instance.id] == life and instance.state == "running":
                reason = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
                self._begin_stop(instance, reason)

    def _begin_stop(self, instance: Any, reason: str) -> None:
        self._enter(instance, "stopping", reason)
        life = self._next_life(instance.id)

        def stopped() -> None:
            self._hypervisor.power_button(instance.id)
            with self.lock:
                if self._lives[instance.id] == life:
                    instance.stop()
                    self._enter(instance, "stopped", reason)

        self._timeline.after(self._delays.stop, f"stop {instance.id}", stopped)

    def _begin_termination(self, instance: Any) -> None:
        reason = "Client.UserInitiatedShutdown: User initiated shutdown"
        self._enter(instance, "shutting-down", reason)
        self._next_life(instance.id)

        def terminated() -> None:
            self._hypervisor.power_button(instance.id)
            self._hypervisor.scrap(instance.id)
            with self.lock:
                instance.terminate()  # moto detaches the volumes, and deletes those that go with the instance
                self._enter(instance, "terminated", reason)

        self._timeline.after(self._delays.terminate, f"terminate {instance.id}", terminated)

    def _enter(self, instance: Any, state: str, reason: str = "") -> None:
        instance._state.name = state
        instance._state.code = _CODES[state]
        if reason:
            instance.state_reason.message = reason
            instance.state_reason.code = reason.split(":", maxsplit=1)[0]
        self._bus.instance(instance.id, state)

    def _next_life(self, instance_id: str) -> int:
        self._lives[instance_id] = self._lives.get(instance_id, 0) + 1
        return self._lives[instance_id]

    # looking

    def admits(self, instance_id: str, address: str, port: int) -> bool:
        """Whether the instance's security groups let that address in, as they are now."""
        with self.lock:
            instance = self.backend.get_instance_by_id(instance_id)
            groups = {group.id for group in instance.security_groups}
            groups |= {group.id for nic in instance.nics.values() for group in nic.group_set}
            found = plain_client("ec2").describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
        permissions = (rule for group in found for rule in group["IpPermissions"])
        return any(_lets_in(rule, ip_address(address), port) for rule in permissions)

    def _guest(self, instance: Any) -> Guest:
        volumes = {
            device: block.volume_id
            for device, block in instance.block_device_mapping.items()
            if block.volume_id not in self._roots
        }
        return Guest(
            instance_id=instance.id,
            metadata=lambda: self.metadata(instance.id),
            volumes=volumes,
            admits=functools.partial(self.admits, instance.id),
            user_data=base64.b64decode(str(instance.user_data)) if instance.user_data else None,
        )

    def metadata(self, instance_id: str) -> dict[str, str]:
        """The categories of instance metadata that exist here, by their path under `latest/`.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
        """
        with self.lock:
            instance = self._instance(instance_id)
            document = {"instanceId": instance.id, "region": REGION, "availabilityZone": instance.availability_zone}
            address = str(instance.private_ip)
            name = f"ip-{address.replace('.', '-')}.{REGION}.compute.internal"
            found = {
                "dynamic/instance-identity/document": json.dumps(document),
                "meta-data/ami-id": instance.image_id,
                "meta-data/hostname": name,
                "meta-data/instance-id": instance.id,
                "meta-data/instance-type": instance.instance_type,
                "meta-data/local-hostname": name,
                "meta-data/local-ipv4": address,
                "meta-data/placement/availability-zone": instance.availability_zone,
                "meta-data/placement/region": REGION,
            }
            if instance.public_ip:
                found["meta-data/public-ipv4"] = instance.public_ip
            if instance.metadata_options.instance_metadata_tags == "enabled":
                tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
                found |= {f"meta-data/tags/instance/{key}": value for key, value in tags.items()}
            return found

    def _instance(self, instance_id: str) -> Any:
        instance = self.backend.get_instance_by_id(instance_id)
        if instance is None:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        return instance

    def _refresh(self, each: Answer) -> None:
        instance = self._instance(each["InstanceId"])
        each["State"] = {"Code": instance.state_code, "Name": instance.state}

    def _drop_default_root(self, instance: Any, parameters: dict[str, Any]) -> None:
        wanted = {
            each["DeviceName"] for each in template_data(parameters, self.backend).get("BlockDeviceMappings") or ()
        }
        for device in set(instance.block_device_mapping) - wanted if wanted else ():
            volume_id = instance.block_device_mapping[device].volume_id
            self.backend.detach_volume(volume_id, instance.id, device)
            self.backend.delete_volume(volume_id)

    def _known_token(self, operation: str, parameters: dict[str, Any]) -> Answer | None:
        """The answer that this client token already got; IdempotentParameterMismatch if it was another request.

        https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
        """
        known = self._tokens.get((operation, parameters["ClientToken"]))
        if known is None:
            return None
        if known[0] != _canonical(parameters):
            raise Refused(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            )
        return copy.deepcopy(known[1])


_Begun = tuple[Answer, Callable[[], None] | None]


def _lets_in(rule: Any, address: IPv4Address | IPv6Address, port: int) -> bool:
    """Whether an IpPermission admits the address to the TCP port."""
    if rule["IpProtocol"] not in ("tcp", "-1"):
        return False
    if rule["IpProtocol"] == "tcp" and not rule["FromPort"] <= port <= rule["ToPort"]:
        return False
    ranges = [each["CidrIp"] for each in rule.get("IpRanges", ())]
    ranges += [each["CidrIpv6"] for each in rule.get("Ipv6Ranges", ())]
    return any(address in ip_network(each) for each in ranges)


def _change(instance: Any, before: str) -> Answer:
    return {
        "InstanceId": instance.id,
        "CurrentState": {"Code": instance.state_code, "Name": instance.state},
        "PreviousState": {"Code": _CODES[before], "Name": before},
    }


def _metadata() -> Answer:
    return {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RequestId": "", "RetryAttempts": 0}}


def _canonical(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
