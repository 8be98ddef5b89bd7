"""Each rule of EC2 that the local cloud holds callers to, by the code that AWS answers with."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.account import TABLE, ZONE, Account
from tests.localcloud.aws import LocalAws
from tests.localcloud.clock import OffsetClock
from tests.localcloud.faults import Faults
from tests.localcloud.no_machines import NoMachines
from tests.localcloud.states import Delays


@pytest.fixture
def account() -> Iterator[Account]:
    delays = Delays(boot=0.02, stop=0.02, terminate=0.02, volume=0.01, attach=0.01, detach=0.01, snapshot=0.3)
    with LocalAws(hypervisor=NoMachines(), delays=delays, clock=OffsetClock(), faults=Faults()) as aws:
        yield Account(aws, aws.make_stack("test", table=TABLE))


@pytest.fixture
def refused() -> Any:
    """`refused("Code", call)`: the call is refused with that code."""

    def check(code: str, call: Any, **arguments: Any) -> None:
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        assert caught.value.response["Error"]["Code"] == code

    return check


# attaching


def test_a_volume_is_attached_once(account: Account, refused: Any) -> None:
    first, second, volume = account.running("a"), account.running("b"), account.volume()
    account.attach(volume, first)
    refused("VolumeInUse", account.attach, volume_id=volume, instance_id=second)
    refused("VolumeInUse", account.attach, volume_id=volume, instance_id=first, device="/dev/sdg")


def test_a_volume_attaches_in_its_zone_only(account: Account, refused: Any) -> None:
    instance, volume = account.running(), account.volume("eu-central-1b")
    refused("InvalidVolume.ZoneMismatch", account.attach, volume_id=volume, instance_id=instance)


def test_a_device_name_is_used_once(account: Account, refused: Any) -> None:
    instance, first, second = account.running(), account.volume(), account.volume()
    account.attach(first, instance)
    refused("InvalidParameterValue", account.attach, volume_id=second, instance_id=instance)


def test_a_volume_that_is_being_made_cannot_be_attached(account: Account, refused: Any) -> None:
    instance = account.running()
    volume = account.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    refused("IncorrectState", account.attach, volume_id=volume, instance_id=instance)


def test_a_stopped_instance_takes_volumes(account: Account) -> None:
    instance, volume = account.stopped(), account.volume()
    account.attach(volume, instance)
    assert account.volume_state(volume) == "in-use"


def test_a_pending_or_stopping_instance_takes_none(account: Account, refused: Any) -> None:
    volume = account.volume()
    instance = account.launch()
    refused("IncorrectState", account.attach, volume_id=volume, instance_id=instance)
    account.until(lambda: account.state(instance) == "running")
    account.ec2.stop_instances(InstanceIds=[instance])
    refused("IncorrectState", account.attach, volume_id=volume, instance_id=instance)


def test_an_instance_has_28_attachments(account: Account, refused: Any) -> None:
    instance = account.running()  # its root volume and its network interface are two
    for number in range(26):
        account.attach(account.volume(), instance, f"/dev/xvdb{chr(ord('a') + number)}")
    refused(
        "AttachmentLimitExceeded",
        account.attach,
        volume_id=account.volume(),
        instance_id=instance,
        device="/dev/xvdca",
    )


def test_only_what_is_attached_can_be_detached(account: Account, refused: Any) -> None:
    volume, other = account.volume(), account.volume()
    account.attach(volume, account.running("a"))
    refused("IncorrectState", account.ec2.detach_volume, VolumeId=other)
    refused(
        "InvalidAttachment.NotFound",
        account.ec2.detach_volume,
        VolumeId=volume,
        InstanceId=account.running("b"),
    )
    account.ec2.detach_volume(VolumeId=volume)  # moto alone raises TypeError without InstanceId
    account.until(lambda: account.volume_state(volume) == "available")


def test_an_attached_volume_is_not_deleted(account: Account, refused: Any) -> None:
    volume = account.volume()
    account.attach(volume, account.running())
    refused("VolumeInUse", account.ec2.delete_volume, VolumeId=volume)


def test_a_volume_grows_only_and_four_times_a_day(account: Account, refused: Any) -> None:
    volume = account.volume()
    modify = account.ec2.modify_volume

    def completed() -> bool:
        (*_, newest) = account.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
        return bool(newest["ModificationState"] == "completed")

    for size in (2, 3, 4, 5):
        modify(VolumeId=volume, Size=size)
        refused("IncorrectModificationState", modify, VolumeId=volume, Size=9)
        account.until(completed)
    refused("VolumeModificationRateExceeded", modify, VolumeId=volume, Size=6)
    refused("InvalidParameterValue", modify, VolumeId=volume, Size=4)
    refused("InvalidParameterValue", modify, VolumeId=volume, Size=16385)
    account.aws.ec2._clock.advance(seconds=86400)
    modify(VolumeId=volume, Size=6)
    (found,) = account.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert found["Size"] == 6


def test_a_volume_that_is_being_made_does_not_grow(account: Account, refused: Any) -> None:
    volume = account.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    refused("IncorrectState", account.ec2.modify_volume, VolumeId=volume, Size=2)


# instances


def test_a_stopping_instance_does_not_start(account: Account, refused: Any) -> None:
    instance = account.running()
    account.ec2.stop_instances(InstanceIds=[instance])
    refused("IncorrectInstanceState", account.ec2.start_instances, InstanceIds=[instance])


def test_a_first_launch_is_not_stopped_while_pending(account: Account, refused: Any) -> None:
    instance = account.launch()
    refused("IncorrectInstanceState", account.ec2.stop_instances, InstanceIds=[instance])


def test_a_later_start_can_be_stopped_while_pending(account: Account) -> None:
    instance = account.stopped()
    account.ec2.start_instances(InstanceIds=[instance])
    account.ec2.stop_instances(InstanceIds=[instance])
    account.until(lambda: account.state(instance) == "stopped")


def test_a_terminated_instance_neither_starts_nor_stops_nor_takes_volumes(account: Account, refused: Any) -> None:
    instance, volume = account.running(), account.volume()
    account.ec2.terminate_instances(InstanceIds=[instance])
    for state in ("shutting-down", "terminated"):
        account.until(lambda state=state: account.state(instance) == state)
        refused("IncorrectInstanceState", account.ec2.start_instances, InstanceIds=[instance])
        refused("IncorrectInstanceState", account.ec2.stop_instances, InstanceIds=[instance])
        refused("IncorrectState", account.attach, volume_id=volume, instance_id=instance)
    account.ec2.terminate_instances(InstanceIds=[instance])  # again: no error


def test_an_unknown_instance_is_not_found(account: Account, refused: Any) -> None:
    for call in ("start_instances", "stop_instances", "terminate_instances", "describe_instances"):
        refused("InvalidInstanceID.NotFound", getattr(account.ec2, call), InstanceIds=["i-0123456789abcdef0"])


def test_starting_and_stopping_are_idempotent(account: Account) -> None:
    instance = account.running()
    answer = account.ec2.start_instances(InstanceIds=[instance])["StartingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "running")
    for before in ("running", "stopping"):
        answer = account.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
        assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == (before, "stopping")


# client tokens


def test_a_launch_with_the_same_token_is_the_same_launch(account: Account, refused: Any) -> None:
    instance = account.launch("once")
    assert account.launch("once") == instance
    assert account.launch("another") != instance
    refused("IdempotentParameterMismatch", account.launch, token="once", InstanceType="t4g.large")
    found = account.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["once"]}])
    assert [each["InstanceId"] for each in found["Reservations"][0]["Instances"]] == [instance]


def test_a_volume_with_the_same_token_is_the_same_volume(account: Account, refused: Any) -> None:
    volume = account.volume(ClientToken="once")
    assert account.volume(ClientToken="once") == volume
    assert account.volume() != account.volume()
    refused(
        "IdempotentParameterMismatch",
        account.ec2.create_volume,
        AvailabilityZone=ZONE,
        VolumeType="gp3",
        Size=2,
        ClientToken="once",
    )


# snapshots


def test_a_volume_has_five_pending_snapshots(account: Account, refused: Any) -> None:
    volume, other = account.volume(), account.volume()
    for _ in range(5):
        account.ec2.create_snapshot(VolumeId=volume)
    refused("ConcurrentSnapshotLimitExceeded", account.ec2.create_snapshot, VolumeId=volume)
    account.ec2.create_snapshot(VolumeId=other)


def test_a_volume_comes_from_a_completed_snapshot_and_is_not_smaller(account: Account, refused: Any) -> None:
    snapshot = account.ec2.create_snapshot(VolumeId=account.volume(Size=2))["SnapshotId"]
    make = account.ec2.create_volume
    refused("IncorrectState", make, AvailabilityZone=ZONE, SnapshotId=snapshot)
    account.until(
        lambda: account.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed"
    )
    refused("InvalidParameterValue", make, AvailabilityZone=ZONE, SnapshotId=snapshot, Size=1)
    assert make(AvailabilityZone=ZONE, SnapshotId=snapshot)["Size"] == 2


# security groups


def _rule(address: str) -> list[Any]:
    return [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": f"{address}/32"}]}]


def _group(account: Account) -> str:
    vpc = account.ec2.describe_subnets(SubnetIds=[account.stack.subnet])["Subnets"][0]["VpcId"]
    return str(account.ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"])


def test_a_rule_is_there_once(account: Account, refused: Any) -> None:
    group = _group(account)
    change = {"GroupId": group, "IpPermissions": _rule("198.51.100.7")}
    refused("InvalidPermission.NotFound", account.ec2.revoke_security_group_ingress, **change)
    account.ec2.authorize_security_group_ingress(**change)
    refused("InvalidPermission.Duplicate", account.ec2.authorize_security_group_ingress, **change)
    account.ec2.revoke_security_group_ingress(**change)
    refused("InvalidPermission.NotFound", account.ec2.revoke_security_group_ingress, **change)


def test_a_group_has_sixty_rules(account: Account, refused: Any) -> None:
    group = _group(account)
    authorize = account.ec2.authorize_security_group_ingress
    for number in range(60):
        authorize(GroupId=group, IpPermissions=_rule(f"198.51.100.{number}"))
    refused(
        "RulesPerSecurityGroupLimitExceeded",
        authorize,
        GroupId=group,
        IpPermissions=_rule("198.51.100.60"),
    )


def test_a_groups_name_is_used_once_in_its_network(account: Account, refused: Any) -> None:
    _group(account)
    refused("InvalidGroup.Duplicate", lambda: _group(account))


# metadata


def test_tags_that_metadata_cannot_show_are_refused(account: Account, refused: Any) -> None:
    for key in ("two words", "a/b", "_index"):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": "v"}]}]
        refused("InvalidParameterValue", account.launch, TagSpecifications=tags)
    instance = account.launch()
    tag = {"Key": "a/b", "Value": "v"}
    refused("InvalidParameterValue", account.ec2.create_tags, Resources=[instance], Tags=[tag])


def test_the_launch_templates_metadata_options_hold(account: Account) -> None:
    instance = account.launch()
    found = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["InstanceMetadataTags"] == "enabled"
    assert [each["DeviceName"] for each in found["BlockDeviceMappings"]] == ["/dev/xvda"]
