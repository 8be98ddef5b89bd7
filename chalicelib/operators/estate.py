"""Everything in EC2 that carries the stack's tag: what doctor and cost look at. Read only."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class Machine(Struct, frozen=True, kw_only=True):
    """`template_version`: of the launch template it was made from, None if EC2 does not say."""

    instance_id: str
    vault_id: str
    state: str
    type: str
    launched_at: datetime
    template_version: int | None


class Disk(Struct, frozen=True, kw_only=True):
    """A volume. `host` "": a vault's root, or nobody's. `purpose` "restore": made from a restore point, for a while."""

    volume_id: str
    host: str
    vault_id: str
    gib: int
    type: str
    made_at: datetime
    encrypted: bool
    attached_to: str
    purpose: str = ""


class Shot(Struct, frozen=True, kw_only=True):
    """A snapshot. `full_bytes`: all blocks of it, not what it adds; None while EC2 does not say."""

    snapshot_id: str
    host: str
    volume_id: str
    started_at: datetime
    state: str
    volume_gib: int
    full_bytes: int | None
    encrypted: bool
    archived: bool


class Group(Struct, frozen=True, kw_only=True):
    """A security group with its ingress as EC2 gives it (IpPermissions)."""

    group_id: str
    vault_id: str
    ingress: tuple[dict[str, Any], ...]


class Estate(Struct, frozen=True, kw_only=True):
    """All of it, terminated instances left out."""

    machines: tuple[Machine, ...]
    disks: tuple[Disk, ...]
    shots: tuple[Shot, ...]
    groups: tuple[Group, ...]


def look(ec2: Any, stack: str) -> Estate:
    """Ask EC2. Raises botocore's errors."""
    mine = [{"Name": "tag:nightvault:stack", "Values": [stack]}]
    alive = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
    machines = [
        machine
        for page in _pages(ec2, "describe_instances", Filters=[*mine, alive])
        for reservation in page["Reservations"]
        for machine in reservation["Instances"]
    ]
    disks = [disk for page in _pages(ec2, "describe_volumes", Filters=mine) for disk in page["Volumes"]]
    pages = _pages(ec2, "describe_snapshots", OwnerIds=["self"], Filters=mine)
    shots = [shot for page in pages for shot in page["Snapshots"]]
    groups = [
        group for page in _pages(ec2, "describe_security_groups", Filters=mine) for group in page["SecurityGroups"]
    ]
    return Estate(
        machines=tuple(map(_machine, machines)),
        disks=tuple(map(_disk, disks)),
        shots=tuple(map(_shot, shots)),
        groups=tuple(map(_group, groups)),
    )


def _pages(ec2: Any, call: str, **parameters: Any) -> Any:
    return ec2.get_paginator(call).paginate(**parameters)


def _tags(thing: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def _machine(found: dict[str, Any]) -> Machine:
    tags = _tags(found)
    # EC2 itself tags what is launched from a template:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html
    version = tags.get("aws:ec2launchtemplate:version", "")
    return Machine(
        instance_id=found["InstanceId"],
        vault_id=tags.get("nightvault:vault", ""),
        state=found["State"]["Name"],
        type=found["InstanceType"],
        launched_at=found["LaunchTime"],
        template_version=int(version) if version.isdecimal() else None,
    )


def _disk(found: dict[str, Any]) -> Disk:
    tags = _tags(found)
    attached = [each["InstanceId"] for each in found.get("Attachments", []) if each.get("State") != "detached"]
    return Disk(
        volume_id=found["VolumeId"],
        host=tags.get("nightvault:host", ""),
        vault_id=tags.get("nightvault:vault", ""),
        gib=found["Size"],
        type=found["VolumeType"],
        made_at=found["CreateTime"],
        encrypted=found["Encrypted"],
        attached_to=attached[0] if attached else "",
        purpose=tags.get("nightvault:purpose", ""),
    )


def _shot(found: dict[str, Any]) -> Shot:
    tags = _tags(found)
    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Snapshot.html: the full, not the incremental size
    full = found.get("FullSnapshotSizeInBytes")
    return Shot(
        snapshot_id=found["SnapshotId"],
        host=tags.get("nightvault:host", ""),
        volume_id=found["VolumeId"],
        started_at=found["StartTime"],
        state=found["State"],
        volume_gib=found["VolumeSize"],
        full_bytes=full or None,
        encrypted=found["Encrypted"],
        archived=found.get("StorageTier") == "archive",
    )


def _group(found: dict[str, Any]) -> Group:
    return Group(
        group_id=found["GroupId"],
        vault_id=_tags(found).get("nightvault:vault", ""),
        ingress=tuple(found.get("IpPermissions", [])),
    )
