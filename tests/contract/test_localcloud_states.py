"""States take time and show it; events come in AWS's own shape; faults strike as often as they were ordered."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.localcloud.account import TABLE, ZONE, Account
from tests.localcloud.aws import LocalAws
from tests.localcloud.clock import OffsetClock
from tests.localcloud.events import Event, Rule, matches
from tests.localcloud.faults import Faults
from tests.localcloud.no_machines import NoMachines
from tests.localcloud.states import Delays

SAMPLES = Path(__file__).parent.parent / "events"


class Rig:
    """An account, its faults and clock, and every event that was delivered."""

    def __init__(self, aws: LocalAws, faults: Faults, clock: OffsetClock) -> None:
        self.account = Account(aws, aws.make_stack("test", table=TABLE))
        self.ec2 = self.account.ec2
        self.aws = aws
        self.faults = faults
        self.clock = clock
        self.seen: list[Event] = []
        aws.bus.rules.append(Rule({"source": ["aws.ec2"]}, self.seen.append))

    def states(self) -> list[str]:
        return [e["detail"].get("state") or e["detail"]["result"] for e in list(self.seen)]

    def volume_attachment(self, volume_id: str) -> list[str]:
        found = self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
        return [found["State"], *(each["State"] for each in found["Attachments"])]

    def snapshot(self, volume_id: str) -> str:
        return str(self.ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"])

    def snapshot_state(self, snapshot_id: str) -> str:
        found = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return str(found[0]["State"])


@pytest.fixture
def rig() -> Iterator[Rig]:
    faults, clock = Faults(), OffsetClock()
    delays = Delays(boot=0.1, stop=0.1, terminate=0.1, volume=0.1, attach=0.1, detach=0.1, snapshot=0.1)
    with LocalAws(hypervisor=NoMachines(), delays=delays, clock=clock, faults=faults) as aws:
        yield Rig(aws, faults, clock)


def refusal(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


# states


def test_an_instance_passes_through_every_state(rig: Rig) -> None:
    instance = rig.account.launch()
    assert rig.account.state(instance) == "pending"
    rig.account.until(lambda: rig.account.state(instance) == "running")
    rig.ec2.stop_instances(InstanceIds=[instance])
    assert rig.account.state(instance) == "stopping"
    rig.account.until(lambda: rig.account.state(instance) == "stopped")
    rig.ec2.start_instances(InstanceIds=[instance])
    assert rig.account.state(instance) == "pending"
    rig.account.until(lambda: rig.account.state(instance) == "running")
    rig.ec2.terminate_instances(InstanceIds=[instance])
    assert rig.account.state(instance) == "shutting-down"
    rig.account.until(lambda: rig.account.state(instance) == "terminated")
    expected = ["pending", "running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated"]
    rig.account.until(lambda: len(rig.seen) == len(expected))
    assert [e["detail"]["state"] for e in rig.aws.bus.sent] == expected


def test_states_can_be_filtered_by(rig: Rig) -> None:
    instance = rig.account.launch()

    def found(state: str) -> int:
        filters = [{"Name": "instance-state-name", "Values": [state]}]
        return len(rig.ec2.describe_instances(Filters=filters)["Reservations"])

    assert (found("pending"), found("running")) == (1, 0)
    rig.account.until(lambda: rig.account.state(instance) == "running")
    assert (found("pending"), found("running")) == (0, 1)


def test_a_volume_is_created_attached_and_detached_in_time(rig: Rig) -> None:
    instance = rig.account.running()
    volume = rig.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    assert rig.volume_attachment(volume) == ["creating"]
    rig.account.until(lambda: rig.volume_attachment(volume) == ["available"])
    rig.account.attach(volume, instance)
    assert rig.volume_attachment(volume) == ["in-use", "attaching"]
    rig.account.until(lambda: rig.volume_attachment(volume) == ["in-use", "attached"])
    rig.ec2.detach_volume(VolumeId=volume)
    assert rig.volume_attachment(volume) == ["in-use", "detaching"]
    rig.account.until(lambda: rig.volume_attachment(volume) == ["available"])


def test_volumes_outlive_their_instance_and_its_root_volume_does_not(rig: Rig) -> None:
    instance, volume = rig.account.running(), rig.account.volume()
    rig.account.attach(volume, instance)
    assert len(rig.ec2.describe_volumes()["Volumes"]) == 2
    rig.ec2.terminate_instances(InstanceIds=[instance])
    rig.account.until(lambda: rig.account.state(instance) == "terminated")
    assert [each["VolumeId"] for each in rig.ec2.describe_volumes()["Volumes"]] == [volume]
    assert rig.volume_attachment(volume) == ["available"]


def test_a_snapshot_is_pending_then_completed(rig: Rig) -> None:
    snapshot = rig.snapshot(rig.account.volume())
    assert rig.snapshot_state(snapshot) == "pending"
    rig.account.until(lambda: rig.snapshot_state(snapshot) == "completed")


def test_times_are_the_control_planes(rig: Rig) -> None:
    rig.clock.advance(seconds=86400)
    instance = rig.account.launch()
    found = rig.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert abs((rig.clock.now() - found["LaunchTime"]).total_seconds()) < 5


# events


def same_shape(sample: Any, event: Any) -> bool:
    if isinstance(sample, dict):
        return sample.keys() == event.keys() and all(same_shape(sample[key], event[key]) for key in sample)
    return isinstance(event, type(sample))


def test_an_instances_events_have_the_shape_of_the_sample(rig: Rig) -> None:
    instance = rig.account.running()
    rig.account.until(lambda: rig.states() and "running" in rig.states())
    sample = json.loads((SAMPLES / "ec2_instance_state_change.json").read_text())
    event = next(each for each in rig.seen if each["detail"].get("state") == "running")
    assert same_shape(sample, event)
    assert event["detail"] == {"instance-id": instance, "state": "running"}
    assert event["resources"] == [f"arn:aws:ec2:eu-central-1:123456789012:instance/{instance}"]


def test_a_snapshots_event_has_the_shape_of_the_sample(rig: Rig) -> None:
    volume = rig.account.volume()
    snapshot = rig.snapshot(volume)
    rig.account.until(lambda: rig.states() == ["succeeded"])
    sample = json.loads((SAMPLES / "ebs_create_snapshot.json").read_text())
    assert same_shape(sample, rig.seen[0])
    detail = rig.seen[0]["detail"]
    assert detail["snapshot_id"] == f"arn:aws:ec2:eu-central-1::snapshot/{snapshot}"
    assert detail["source"] == f"arn:aws:ec2:eu-central-1::volume/{volume}"


def test_a_pattern_matches_what_it_lists(rig: Rig) -> None:
    event = {"source": "aws.ec2", "detail": {"state": "stopped"}}
    assert matches({"source": ["aws.ec2"], "detail": {"state": ["running", "stopped"]}}, event)
    assert not matches({"detail": {"state": ["running"]}}, event)
    assert not matches({"detail": {"result": ["succeeded"]}}, event)
    assert not matches({"detail-type": ["other"]}, event)


def test_a_target_that_fails_is_tried_twice_more(rig: Rig) -> None:
    tries: list[Event] = []

    def fail(event: Event) -> None:
        tries.append(event)
        raise RuntimeError("a bug")

    rig.aws.bus.rules[:] = [Rule({"detail": {"state": ["running"]}}, fail)]
    rig.account.running()
    rig.account.until(lambda: len(tries) == 3 and rig.aws.timeline.idle())
    assert [type(error) for _, error in rig.aws.timeline.errors] == [RuntimeError] * 3


# faults


def test_a_call_is_refused_as_often_as_ordered_and_has_no_effect(rig: Rig) -> None:
    instance = rig.account.stopped()
    rig.faults.no_capacity(times=2)
    for _ in range(2):
        start = rig.ec2.start_instances
        assert refusal(start, InstanceIds=[instance]) == "InsufficientInstanceCapacity"
        assert rig.account.state(instance) == "stopped"
    rig.ec2.start_instances(InstanceIds=[instance])
    assert rig.faults.pending() == 0


def test_a_fault_can_wait_for_the_nth_call_and_choose_by_parameters(rig: Rig) -> None:
    first, second = rig.account.volume(), rig.account.volume()
    rig.faults.refuse("CreateSnapshot", "InternalError", skip=1, when={"VolumeId": second})
    rig.snapshot(first)
    rig.snapshot(second)
    rig.snapshot(first)
    assert refusal(rig.ec2.create_snapshot, VolumeId=second) == "InternalError"
    rig.snapshot(second)


def test_each_service_throttles_in_its_own_words(rig: Rig) -> None:
    rig.faults.throttle("DescribeInstances")
    assert refusal(rig.ec2.describe_instances) == "RequestLimitExceeded"
    dynamodb: Any = rig.aws.session.client("dynamodb")
    rig.faults.throttle("GetItem")
    read = {"TableName": rig.account.stack.table, "Key": {"pk": {"S": "a"}}}
    assert refusal(dynamodb.get_item, **read) == "ProvisionedThroughputExceededException"
    dynamodb.get_item(**read)


def test_a_lost_response_had_its_effect(rig: Rig) -> None:
    instance = rig.account.running()
    rig.faults.lose_response("StopInstances")
    with pytest.raises(ConnectionClosedError):
        rig.ec2.stop_instances(InstanceIds=[instance])
    rig.account.until(lambda: rig.account.state(instance) == "stopped")
    assert [call.ended for call in rig.aws.ledger("StopInstances")] == ["lost"]


def test_events_are_lost_doubled_and_late(rig: Rig) -> None:
    rig.faults.lose_event("pending")
    rig.faults.double_event("running")
    rig.faults.delay_event("stopping", 0.5)
    rig.account.stopped()
    rig.account.until(lambda: len(rig.seen) == 4)
    assert rig.states() == ["running", "running", "stopped", "stopping"]


def test_a_snapshot_ends_in_error(rig: Rig) -> None:
    volume, other = rig.account.volume(), rig.account.volume()
    rig.faults.fail_snapshot(volume_id=volume)
    bad, good = rig.snapshot(volume), rig.snapshot(other)
    rig.account.until(lambda: sorted(rig.states()) == ["failed", "succeeded"])
    assert (rig.snapshot_state(bad), rig.snapshot_state(good)) == ("error", "completed")


def test_a_start_falls_back(rig: Rig) -> None:
    rig.faults.relapse()
    lost = rig.account.launch("lost")
    rig.account.until(lambda: rig.account.state(lost) == "terminated")
    instance = rig.account.stopped()
    rig.faults.relapse()
    rig.ec2.start_instances(InstanceIds=[instance])
    rig.account.until(lambda: rig.account.state(instance) == "stopped")


def test_a_call_is_slow(rig: Rig) -> None:
    rig.faults.slow("DescribeInstances", 0.3)
    done = threading.Event()

    def ask() -> None:
        rig.ec2.describe_instances()
        done.set()

    threading.Thread(target=ask).start()
    assert not done.wait(0.1)
    assert done.wait(5)


def test_a_crash_is_seen_or_not(rig: Rig) -> None:
    instance = rig.account.running()
    rig.aws.ec2.crash(instance, then="running")
    assert rig.account.state(instance) == "running"
    rig.aws.ec2.crash(instance)
    assert rig.account.state(instance) == "stopped"


# the ledger


def test_calls_are_counted_by_kind_with_their_gist(rig: Rig) -> None:
    instance, volume = rig.account.running(), rig.account.volume()
    rig.aws.ledger.forget()
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "host", "Value": "C"}]}]
    rig.ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags)
    assert refusal(rig.account.attach, volume_id=volume, instance_id="i-0123456789abcdef0").startswith("Invalid")
    (call,) = rig.aws.ledger("CreateSnapshot", ended="ok", VolumeId=volume)
    assert call.gist["Tags"] == {"host": "C"}
    assert rig.aws.ledger.by_kind() == {"ec2.CreateSnapshot": 1, "ec2.AttachVolume": 1}
    assert not rig.aws.ledger("StopInstances", InstanceIds=[instance])
