"""EC2 and EBS: the adapter behind ports.Cloud. It decides nothing; each method may be repeated.

Everything it makes carries the tag `nightvault:stack`, by which it is found again and by which IAM lets
our roles touch it and nothing else.
"""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from chalicelib.calling import ask_once, calling
from chalicelib.errors import CloudRefused
from chalicelib.model import InstanceState, PointState, PointVolume, RestorePoint, Slot, Vault
from chalicelib.ports import RESTORE_PURPOSE, Machine, PointDisk

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ssm import SSMClient

SSH_PORT = 22
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]
# Refusals that only mean "not yet"; the next observation tries again.
_NOT_YET = {"IncorrectState", "IncorrectInstanceState", "VolumeInUse"}
# Four times in 24 hours, and only when the one before is completed; before 2026, once in six hours:
# https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html
_TOO_SOON = {"VolumeModificationRateExceeded", "IncorrectModificationState"}
_POINT_STATES: dict[str, PointState] = {state.value: state for state in PointState}


class Ec2Cloud:
    """ports.Cloud on EC2. `kms_key` empty: EBS volumes are encrypted with the account's EBS default key.

    `launch_template` is its name. `control_url` is asked for at a launch only; it raises CloudRefused.
    """

    def __init__(
        self,
        client: "EC2Client",
        *,
        stack: str,
        launch_template: str,
        subnet: str,
        kms_key: str,
        control_url: Callable[[], str],
    ) -> None:
        self._client = client
        # Whoever seals next looks for the snapshot by its tags first.
        ask_once(client, "CreateSnapshot")
        self._stack = stack
        self._launch_template = launch_template
        self._subnet = subnet
        self._kms_key = kms_key
        self._control_url = control_url

    # --- the machine ---

    def machines(self) -> list[Machine]:
        filters: Any = [*self._mine(), {"Name": "instance-state-name", "Values": _ALIVE}]
        found = []
        with calling("DescribeInstances"):
            for page in self._client.get_paginator("describe_instances").paginate(Filters=filters):
                for reservation in page["Reservations"]:
                    for instance in reservation["Instances"]:
                        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
                        found.append(
                            Machine(
                                instance_id=instance["InstanceId"],
                                vault_id=tags.get("nightvault:vault", ""),
                                state=InstanceState(instance["State"]["Name"]),
                                launched_at=instance["LaunchTime"],
                            )
                        )
        return found

    def find_launched(self, client_token: str) -> str | None:
        with calling("DescribeInstances"):
            answer = self._client.describe_instances(Filters=[{"Name": "client-token", "Values": [client_token]}])
            for reservation in answer["Reservations"]:
                for instance in reservation["Instances"]:
                    return instance["InstanceId"]
        return None

    def make_group(self, vault_id: str) -> str:
        name = f"{self._stack}-{vault_id}"
        with calling("DescribeSubnets"):
            vpc = self._client.describe_subnets(SubnetIds=[self._subnet])["Subnets"][0]["VpcId"]
        with calling("CreateSecurityGroup", "InvalidGroup.Duplicate"):
            made = self._client.create_security_group(
                GroupName=name,
                Description=f"nightvault {vault_id}: ssh from hosts with a live run",
                VpcId=vpc,
                TagSpecifications=self._tags("security-group", vault=vault_id),
            )
            return made["GroupId"]
        with calling("DescribeSecurityGroups"):
            filters: Any = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
            return self._client.describe_security_groups(Filters=filters)["SecurityGroups"][0]["GroupId"]

    def launch(self, vault: Vault) -> str:
        if vault.launch is None or vault.security_group_id is None:
            raise AssertionError("a launch is saved as an intent, with its group, before it is made")
        tags = self._tags("instance", vault=vault.vault_id, Name=f"{self._stack} {vault.vault_id}")
        # The machine reads where to ask and its one-use code from its metadata; keys there hold no blank or slash:
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
        tags[0]["Tags"].append({"Key": "nightvault-code", "Value": vault.launch.code})
        tags[0]["Tags"].append({"Key": "nightvault-url", "Value": self._control_url()})
        with calling("RunInstances"):
            answer = self._client.run_instances(
                MinCount=1,
                MaxCount=1,
                ClientToken=vault.launch.client_token,
                LaunchTemplate={"LaunchTemplateName": self._launch_template, "Version": "$Latest"},
                NetworkInterfaces=[
                    {
                        "DeviceIndex": 0,
                        "SubnetId": self._subnet,
                        "Groups": [vault.security_group_id],
                        "AssociatePublicIpAddress": True,
                        "DeleteOnTermination": True,
                    }
                ],
                TagSpecifications=[*tags, *self._tags("volume", vault=vault.vault_id)],
            )
        return answer["Instances"][0]["InstanceId"]

    def start(self, instance_id: str) -> None:
        with calling("StartInstances"):
            self._client.start_instances(InstanceIds=[instance_id])

    def stop(self, instance_id: str, *, force: bool) -> None:
        with calling("StopInstances", "InvalidInstanceID.NotFound"):
            self._client.stop_instances(InstanceIds=[instance_id], Force=force)

    def terminate(self, instance_id: str) -> None:
        with calling("TerminateInstances", "InvalidInstanceID.NotFound"):
            self._client.terminate_instances(InstanceIds=[instance_id])

    # --- volumes ---

    def make_volume(self, vault_id: str, host: str, slot: Slot) -> str:
        # The same token for the same host's same slot: a repeat gives the volume that is there.
        # And another volume after that one, which is of another snapshot too, has another.
        again = f"/{slot.remade}/{slot.rests_as}" if slot.remade else ""
        token = hashlib.sha256(f"{self._stack}/{vault_id}/{host}/{slot.uid}{again}".encode()).hexdigest()[:64]
        zone = self._zone()
        source: Any = {"Encrypted": True, **({"KmsKeyId": self._kms_key} if self._kms_key else {})}
        size = slot.size_gib
        if slot.rests_as:
            source = {"SnapshotId": slot.rests_as}  # as encrypted as that is: see make_point_volume
            size = max(size, self._snapshot_gib(slot.rests_as))
        with calling("CreateVolume"):
            volume = self._client.create_volume(
                AvailabilityZone=zone,
                Size=size,
                VolumeType="gp3",
                ClientToken=token,
                TagSpecifications=self._tags("volume", vault=vault_id, host=host, Name=f"{self._stack} {host}"),
                **source,
            )
        return volume["VolumeId"]

    def _snapshot_gib(self, snapshot_id: str) -> int:
        """Of the volume that it was made of, which may have been enlarged unbeknown to us; 0 if it is gone.

        A volume of it may not be smaller: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html
        """
        filters: Any = [{"Name": "snapshot-id", "Values": [snapshot_id]}]
        with calling("DescribeSnapshots"):
            found = self._client.describe_snapshots(Filters=filters)["Snapshots"]
        return max((snapshot["VolumeSize"] for snapshot in found), default=0)

    def _zone(self) -> str:
        with calling("DescribeSubnets"):
            return self._client.describe_subnets(SubnetIds=[self._subnet])["Subnets"][0]["AvailabilityZone"]

    def missing_volumes(self, volume_ids: Iterable[str]) -> frozenset[str]:
        wanted = sorted(volume_ids)
        filters: Any = [{"Name": "volume-id", "Values": wanted}]
        there = set()
        if wanted:
            with calling("DescribeVolumes"):
                there = {volume["VolumeId"] for volume in self._client.describe_volumes(Filters=filters)["Volumes"]}
        return frozenset(volume_id for volume_id in wanted if volume_id not in there and self._unknown(volume_id))

    def _unknown(self, volume_id: str) -> bool:
        """EC2 says in so many words that there is no such volume: that a list lacks it is not enough."""
        try:
            with calling("DescribeVolumes"):
                self._client.describe_volumes(VolumeIds=[volume_id])
        except CloudRefused as refused:
            if refused.aws_code == "InvalidVolume.NotFound":
                return True
            raise
        return False

    def enlarge(self, volume_id: str, size_gib: int) -> int | None:
        # Asked first: whoever tried before may have died before it could say so, and the same size is refused.
        with calling("DescribeVolumes"):
            size = self._client.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Size"]
        if size >= size_gib:
            return size
        try:
            with calling("ModifyVolume"):
                self._client.modify_volume(VolumeId=volume_id, Size=size_gib)
        except CloudRefused as refused:
            if refused.aws_code in _TOO_SOON:
                return None
            raise
        return size_gib

    def detach(self, volume_id: str) -> bool:
        holders = self._holders(volume_id)
        if not holders:
            return True
        # IncorrectState: it is detaching already.
        with calling("DetachVolume", "IncorrectState"):
            self._client.detach_volume(VolumeId=volume_id, InstanceId=holders[0])
        return False

    def _holders(self, volume_id: str) -> list[str]:
        filters: Any = [{"Name": "volume-id", "Values": [volume_id]}]  # a volume that is gone is held by none
        with calling("DescribeVolumes"):
            volumes = self._client.describe_volumes(Filters=filters)["Volumes"]
        return [
            attachment["InstanceId"]
            for volume in volumes
            for attachment in volume.get("Attachments", [])
            if attachment.get("State") != "detached"
        ]

    def delete_volume(self, volume_id: str) -> bool:
        try:
            with calling("DeleteVolume", "InvalidVolume.NotFound"):
                self._client.delete_volume(VolumeId=volume_id)
        except CloudRefused as refused:
            if refused.aws_code in _NOT_YET:
                return False
            raise
        return True

    def attach(self, instance_id: str, slots: dict[str, Slot]) -> tuple[str, ...]:
        wanted = {slot.volume_id: host for host, slot in slots.items() if slot.volume_id}
        attached = []
        with calling("DescribeVolumes"):
            # A filter and not VolumeIds: one volume that is gone must not fail the others.
            filters: Any = [{"Name": "volume-id", "Values": list(wanted)}]
            volumes = self._client.describe_volumes(Filters=filters)["Volumes"]
        refused: CloudRefused | None = None
        for volume in volumes:
            host = wanted[volume["VolumeId"]]
            try:
                if self._attach(instance_id, volume, _device(slots[host])):
                    attached.append(host)
            except CloudRefused as error:
                refused = error  # one bad volume must not keep the others out
        if refused:
            raise refused
        return tuple(attached)

    def _attach(self, instance_id: str, volume: Any, device: str) -> bool:
        """Whether it is there; `volume` as EC2 has just described it. One that another instance holds is left alone."""
        holders = [each["InstanceId"] for each in volume.get("Attachments", []) if each.get("State") != "detached"]
        if holders:
            return instance_id in holders
        try:
            with calling("AttachVolume"):
                self._client.attach_volume(InstanceId=instance_id, VolumeId=volume["VolumeId"], Device=device)
        except CloudRefused as refused:
            if refused.aws_code in _NOT_YET:
                return False
            raise
        return True

    # --- volumes made from restore points ---

    def point_disks(self) -> list[PointDisk]:
        filters: Any = [
            *self._mine(),
            {"Name": "tag:nightvault:purpose", "Values": [RESTORE_PURPOSE]},
            {"Name": "status", "Values": ["creating", "available", "in-use", "error"]},
        ]
        found = []
        with calling("DescribeVolumes"):
            for page in self._client.get_paginator("describe_volumes").paginate(Filters=filters):
                for volume in page["Volumes"]:
                    tags = {tag["Key"]: tag["Value"] for tag in volume["Tags"]}
                    found.append(
                        PointDisk(
                            volume_id=volume["VolumeId"],
                            vault_id=tags.get("nightvault:vault", ""),
                            host=tags.get("nightvault:host", ""),
                            run_id=tags.get("nightvault:run", ""),
                            made_at=volume["CreateTime"],
                        )
                    )
        return found

    def make_point_volume(self, vault_id: str, volume: PointVolume) -> str:
        token = hashlib.sha256(f"{self._stack}/{vault_id}/{volume.host}/{volume.run_id}".encode()).hexdigest()[:64]
        with calling("CreateVolume"):
            # As large and, with the same key, as encrypted as the snapshot: both are what AWS does when nobody says.
            # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html
            made = self._client.create_volume(
                AvailabilityZone=self._zone(),
                SnapshotId=volume.point_id,
                VolumeType="gp3",
                ClientToken=token,
                TagSpecifications=self._tags(
                    "volume",
                    vault=vault_id,
                    host=volume.host,
                    run=volume.run_id,
                    point=volume.point_id,
                    purpose=RESTORE_PURPOSE,
                    Name=f"{self._stack} {volume.host} {RESTORE_PURPOSE}",
                ),
            )
        return made["VolumeId"]

    def attach_point_volume(self, instance_id: str, volume: PointVolume) -> bool:
        filters: Any = [*self._mine(), {"Name": "volume-id", "Values": [volume.volume_id]}]
        with calling("DescribeVolumes"):
            found = self._client.describe_volumes(Filters=filters)["Volumes"]
        if not found:
            return False  # EC2 may not list yet what it has just made
        if found[0]["State"] == "error":
            raise CloudRefused("CreateVolume", "VolumeFailed", f"EC2 could not make {volume.volume_id}")
        # Other names than those of hosts' volumes, so that no host that enrols meanwhile wants the same one.
        return self._attach(instance_id, found[0], f"/dev/xvdc{chr(ord('a') + volume.place)}")

    # --- who may reach it ---

    def ingress(self, group_id: str) -> frozenset[str]:
        with calling("DescribeSecurityGroups"):
            group = self._client.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
        addresses = set()
        for permission in group.get("IpPermissions", []):
            addresses |= {r["CidrIp"].removesuffix("/32") for r in permission.get("IpRanges", [])}
            addresses |= {r["CidrIpv6"].removesuffix("/128") for r in permission.get("Ipv6Ranges", [])}
        return frozenset(addresses)

    def admit(self, group_id: str, address: str) -> None:
        with calling("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate"):
            self._client.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[_permission(address)])

    def revoke(self, group_id: str, address: str) -> None:
        with calling("RevokeSecurityGroupIngress", "InvalidPermission.NotFound"):
            self._client.revoke_security_group_ingress(GroupId=group_id, IpPermissions=[_permission(address)])

    # --- restore points ---

    def find_snapshots(self, window_id: str) -> dict[str, str]:
        filters: Any = [
            *self._mine(),
            {"Name": "tag:nightvault:window", "Values": [window_id]},
            {"Name": "status", "Values": ["pending", "completed"]},
        ]
        found = {}
        with calling("DescribeSnapshots"):
            pages = self._client.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
            for page in pages:
                for snapshot in page["Snapshots"]:
                    tags = {tag["Key"]: tag["Value"] for tag in snapshot.get("Tags", [])}
                    found[tags["nightvault:host"]] = snapshot["SnapshotId"]
        return found

    def snapshot(self, point: RestorePoint) -> str:
        label = "complete" if point.complete else "incomplete"
        # Given in the same call, so that nobody needs a right to tag what is there; 256 characters at most:
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
        marked = {"unusual": point.marks.unusual[:256]} if point.marks.unusual else {}
        with calling("CreateSnapshot"):
            made = self._client.create_snapshot(
                VolumeId=point.volume_id,
                Description=f"nightvault {point.host} {point.window_id} {label}",
                TagSpecifications=self._tags(
                    "snapshot",
                    vault=point.vault_id,
                    host=point.host,
                    window=point.window_id,
                    run=point.run_id,
                    outcome=point.outcome,
                    label=label,
                    started=f"{point.run_started_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                    Name=f"{self._stack} {point.host} {label}",
                    **marked,
                ),
            )
        return made["SnapshotId"]

    def snapshot_states(self, snapshot_ids: Iterable[str]) -> dict[str, PointState]:
        filters: Any = [{"Name": "snapshot-id", "Values": list(snapshot_ids)}]
        return self._states(Filters=filters)

    def host_snapshots(self, host: str) -> dict[str, PointState]:
        filters: Any = [*self._mine(), {"Name": "tag:nightvault:host", "Values": [host]}]
        return self._states(OwnerIds=["self"], Filters=filters)

    def _states(self, **parameters: Any) -> dict[str, PointState]:
        states = {}
        with calling("DescribeSnapshots"):
            for page in self._client.get_paginator("describe_snapshots").paginate(**parameters):
                for snapshot in page["Snapshots"]:
                    # `recoverable` and `recovering` (Recycle Bin) do not count either.
                    state = _POINT_STATES.get(snapshot["State"], PointState.PENDING)
                    states[snapshot["SnapshotId"]] = state
        return states

    def delete_snapshot(self, snapshot_id: str, host: str) -> None:
        filters: Any = [{"Name": "snapshot-id", "Values": [snapshot_id]}]
        with calling("DescribeSnapshots"):
            found = self._client.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        if not found:
            return
        tags = {tag["Key"]: tag["Value"] for tag in found[0].get("Tags", [])}
        if (tags.get("nightvault:stack"), tags.get("nightvault:host")) != (self._stack, host):
            raise CloudRefused("DeleteSnapshot", "NotOurs", f"the tags of {snapshot_id} do not say that it is {host}'s")
        with calling("DeleteSnapshot", "InvalidSnapshot.NotFound"):
            self._client.delete_snapshot(SnapshotId=snapshot_id)

    def locked_snapshots(self) -> frozenset[str]:
        # https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-lock-concepts.html: the fourth state is `expired`
        filters: Any = [{"Name": "lock-state", "Values": ["compliance-cooloff", "governance", "compliance"]}]
        locked: set[str] = set()
        token: Any = {}
        while True:  # botocore knows no paginator for it
            with calling("DescribeLockedSnapshots"):
                answer = self._client.describe_locked_snapshots(Filters=filters, **token)
            locked |= {each["SnapshotId"] for each in answer.get("Snapshots", [])}
            if not answer.get("NextToken"):
                return frozenset(locked)
            token = {"NextToken": answer["NextToken"]}

    def _mine(self) -> list[Any]:
        return [{"Name": "tag:nightvault:stack", "Values": [self._stack]}]

    def _tags(self, resource: str, **tags: str) -> list[Any]:
        named = {key if key == "Name" else f"nightvault:{key}": value for key, value in tags.items()}
        named["nightvault:stack"] = self._stack
        return [{"ResourceType": resource, "Tags": [{"Key": k, "Value": v} for k, v in named.items()]}]


def _device(slot: Slot) -> str:
    # Names for data volumes; the kernel's own are NVMe, and the agent goes by the volume's id:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
    return f"/dev/xvdb{chr(ord('a') + slot.number)}"


def parameter(client: "SSMClient", name: str) -> str:
    """The value of an SSM parameter. Raises CloudRefused."""
    with calling("GetParameter"):
        return client.get_parameter(Name=name)["Parameter"]["Value"]


def _permission(address: str) -> Any:
    parsed = ip_address(address)
    source: dict[str, Any]
    if isinstance(parsed, IPv6Address):
        source = {"Ipv6Ranges": [{"CidrIpv6": f"{parsed}/128"}]}
    else:
        source = {"IpRanges": [{"CidrIp": f"{parsed}/32"}]}
    return {"IpProtocol": "tcp", "FromPort": SSH_PORT, "ToPort": SSH_PORT, **source}
