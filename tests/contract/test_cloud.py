"""What ports.Cloud promises: of the fake, and of Ec2Cloud on the local cloud: moto, held to EC2's rules."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from msgspec.structs import replace

from chalicelib.cloud import Ec2Cloud
from chalicelib.errors import CloudRefused
from chalicelib.model import (
    MAX_HOSTS,
    MAX_VOLUMES,
    InstanceState,
    Launch,
    Marks,
    Outcome,
    PointState,
    PointVolume,
    RestorePoint,
    Slot,
    Vault,
)
from chalicelib.ports import Cloud
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.localcloud.aws import LocalAws
from tests.localcloud.aws import Stack as LocalStack
from tests.localcloud.clock import OffsetClock
from tests.localcloud.faults import Faults
from tests.localcloud.interposer import dead_session
from tests.localcloud.no_machines import NoMachines
from tests.localcloud.patience import wait_until
from tests.localcloud.states import Delays

REGION = "eu-central-1"
URL = "https://abcdefghij.execute-api.eu-central-1.amazonaws.com/api"
KEY = "ssh-ed25519 " + "A" * 68
SLOT = Slot(number=0, uid=20001, public_key=KEY, size_gib=5, every_seconds=86400)


@dataclass
class Bed:
    """A cloud under test, how its states arrive, and (not for the fake) a client that sees what it made."""

    name: str
    cloud: Cloud
    settle: Callable[[], None]
    fail_next_snapshot: Callable[[], None]
    fail: Callable[[str], None]
    ec2: Any = None

    def until(self, predicate: Callable[[], object]) -> None:
        def looked() -> object:
            self.settle()
            return predicate()

        wait_until(looked, 5.0)

    def state(self, instance_id: str) -> InstanceState:
        return {m.instance_id: m.state for m in self.cloud.machines()}.get(instance_id, InstanceState.GONE)

    def launched(self, token: str = "t") -> str:  # noqa: S107 - a client token is no secret
        instance_id = self.cloud.launch(self.vault(token))
        self.until(lambda: self.state(instance_id) is InstanceState.RUNNING)
        return instance_id

    def stopped(self, token: str = "t") -> str:  # noqa: S107
        instance_id = self.launched(token)
        self.cloud.stop(instance_id, force=False)
        self.until(lambda: self.state(instance_id) is InstanceState.STOPPED)
        return instance_id

    def vault(self, token: str = "t") -> Vault:  # noqa: S107
        group = self.cloud.make_group("vault-1")
        launch = Launch(client_token=f"{self.name}-{token}", code="s3cret")
        return Vault(vault_id="vault-1", security_group_id=group, launch=launch)

    def attached(self, instance_id: str, slots: dict[str, Slot]) -> None:
        self.until(lambda: set(self.cloud.attach(instance_id, slots)) == set(slots))


def point(volume_id: str, host: str = "C", window_id: str = "w-1") -> RestorePoint:
    return RestorePoint(
        host=host,
        vault_id="vault-1",
        window_id=window_id,
        volume_id=volume_id,
        run_id="r-1",
        run_started_at=datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC),
        outcome=Outcome.COMPLETE,
        complete=True,
    )


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[LocalAws, LocalStack, Faults]]:
    delays = Delays(
        boot=0.02, stop=0.02, terminate=0.02, volume=0.01, attach=0.01, detach=0.01, snapshot=0.05, modify=0.3
    )
    faults = Faults()
    with LocalAws(hypervisor=NoMachines(), delays=delays, clock=OffsetClock(), faults=faults) as aws:
        yield aws, aws.make_stack("contract"), faults


_numbers = count(1)


@pytest.fixture
def local_bed(account: tuple[LocalAws, LocalStack, Faults]) -> Bed:
    """One account for all tests, and a stack of its own for each: its tag keeps them apart."""
    aws, made, faults = account
    name = f"stack{next(_numbers)}"
    ec2 = aws.session.client("ec2")
    cloud = Ec2Cloud(
        ec2, stack=name, launch_template=made.launch_template, subnet=made.subnet, kms_key="", control_url=lambda: URL
    )
    return Bed(name, cloud, lambda: None, faults.fail_snapshot, lambda _: None, ec2)


@pytest.fixture
def fake_bed() -> Bed:
    cloud = FakeCloud(FakeClock())
    return Bed("test", cloud, cloud.settle, lambda: None, cloud.fail_snapshot)


@pytest.fixture(params=["fake_bed", "local_bed"])
def bed(request: pytest.FixtureRequest) -> Bed:
    found: Bed = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def aws(local_bed: Bed) -> Bed:
    return local_bed


# --- the machine ----------------------------------------------------------------------------------------


def test_a_launched_machine_is_found_and_named(bed: Bed) -> None:
    instance_id = bed.launched()
    (machine,) = bed.cloud.machines()
    assert (machine.instance_id, machine.vault_id) == (instance_id, "vault-1")
    assert machine.launched_at.tzinfo
    assert bed.cloud.find_launched(f"{bed.name}-t") == instance_id
    assert bed.cloud.find_launched("another") is None


def test_starts_and_stops_may_be_repeated(bed: Bed) -> None:
    instance_id = bed.stopped()
    bed.cloud.stop(instance_id, force=False)
    bed.cloud.stop(instance_id, force=True)
    assert bed.state(instance_id) is InstanceState.STOPPED
    bed.cloud.start(instance_id)
    bed.cloud.start(instance_id)
    bed.until(lambda: bed.state(instance_id) is InstanceState.RUNNING)
    bed.cloud.start(instance_id)


def test_a_terminated_machine_is_listed_no_more(bed: Bed) -> None:
    instance_id = bed.launched()
    bed.cloud.terminate(instance_id)
    bed.until(lambda: bed.state(instance_id) is InstanceState.GONE)


def test_a_terminated_machine_may_be_terminated_again_and_cannot_be_started(bed: Bed) -> None:
    instance_id = bed.launched()
    bed.cloud.terminate(instance_id)
    bed.cloud.terminate(instance_id)
    bed.until(lambda: bed.state(instance_id) is InstanceState.GONE)
    with pytest.raises(CloudRefused):
        bed.cloud.start(instance_id)


def test_the_same_launch_is_the_same_machine(bed: Bed) -> None:
    first = bed.cloud.launch(bed.vault())
    assert bed.cloud.launch(bed.vault()) == first
    assert len(bed.cloud.machines()) == 1
    assert bed.cloud.launch(bed.vault("another")) != first


def test_machines_of_another_stack_are_not_ours(aws: Bed) -> None:
    bed_id = aws.launched()
    aws.ec2.create_tags(Resources=[bed_id], Tags=[{"Key": "nightvault:stack", "Value": "other"}])
    assert aws.cloud.machines() == []


# --- volumes --------------------------------------------------------------------------------------------


def test_the_same_host_has_the_same_volume(bed: Bed) -> None:
    first = bed.cloud.make_volume("vault-1", "C", SLOT)
    assert bed.cloud.make_volume("vault-1", "C", SLOT) == first
    assert bed.cloud.make_volume("vault-1", "H", replace(SLOT, number=1, uid=20002)) != first


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_volumes_are_attached_once_and_said_to_be(bed: Bed, state: str) -> None:
    instance_id = bed.launched() if state == "running" else bed.stopped()
    slots = {
        host: replace(SLOT, number=number, uid=20001 + number) for number, host in enumerate(("C", "H", "not yet made"))
    }
    for host in ("C", "H"):
        slots[host] = replace(slots[host], volume_id=bed.cloud.make_volume("vault-1", host, slots[host]))
    made = {host: slot for host, slot in slots.items() if slot.volume_id}
    bed.attached(instance_id, made)
    assert set(bed.cloud.attach(instance_id, slots)) == {"C", "H"}


def test_a_volume_that_another_machine_holds_is_not_attached(bed: Bed) -> None:
    first, second = bed.launched("a"), bed.launched("b")
    slots = {"C": replace(SLOT, volume_id=bed.cloud.make_volume("vault-1", "C", SLOT))}
    bed.attached(first, slots)
    assert bed.cloud.attach(second, slots) == ()
    bed.cloud.terminate(first)
    bed.until(lambda: bed.state(first) is InstanceState.GONE)
    bed.attached(second, slots)


def test_nothing_is_attached_to_a_machine_that_is_not_there_yet(bed: Bed) -> None:
    slots = {"C": replace(SLOT, volume_id=bed.cloud.make_volume("vault-1", "C", SLOT))}
    instance_id = bed.cloud.launch(bed.vault())
    attached = bed.cloud.attach(instance_id, slots)
    assert attached == () or bed.state(instance_id) is InstanceState.RUNNING
    bed.attached(instance_id, slots)


def test_as_many_volumes_as_a_vault_has_hosts_fit(local_bed: Bed) -> None:
    instance_id = local_bed.launched()
    slots = {}
    for number in range(MAX_HOSTS):
        slot = replace(SLOT, number=number, uid=20001 + number)
        slots[f"h{number}"] = replace(slot, volume_id=local_bed.cloud.make_volume("vault-1", f"h{number}", slot))
    local_bed.attached(instance_id, slots)
    ours = [
        {"Name": "attachment.instance-id", "Values": [instance_id]},
        {"Name": "tag-key", "Values": ["nightvault:host"]},
    ]
    volumes = local_bed.ec2.describe_volumes(Filters=ours)["Volumes"]
    devices = {volume["Attachments"][0]["Device"] for volume in volumes}
    assert len(devices) == MAX_HOSTS
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html: HVM, available
    assert all(re.fullmatch(r"/dev/xvd[a-d][a-x]", device) for device in devices)


def test_a_volume_is_enlarged_once_and_never_made_smaller(bed: Bed) -> None:
    volume_id = bed.cloud.make_volume("vault-1", "C", SLOT)
    assert wait_until(lambda: _try_size(bed.cloud, volume_id, 8)) == 8
    assert bed.cloud.enlarge(volume_id, 8) == 8, "a repeat finds it done, and asks for nothing that would be refused"
    assert bed.cloud.enlarge(volume_id, 7) == 8


def _try_size(cloud: Cloud, volume_id: str, size_gib: int) -> int | None:
    """What it answers; None while the volume is still being made."""
    try:
        return cloud.enlarge(volume_id, size_gib)
    except CloudRefused as refused:
        if refused.aws_code != "IncorrectState":
            raise
        return None


def test_a_volume_that_aws_takes_later_only_is_no_refusal(aws: Bed) -> None:
    volume_id = aws.cloud.make_volume("vault-1", "C", SLOT)
    assert wait_until(lambda: _try_size(aws.cloud, volume_id, 6)) == 6
    assert aws.cloud.enlarge(volume_id, 7) is None, "the change before is not yet completed"
    for size in (7, 8, 9):
        assert wait_until(partial(aws.cloud.enlarge, volume_id, size)) == size
    modified = aws.ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
    assert len(modified) == 4
    with pytest.raises(TimeoutError):
        wait_until(lambda: aws.cloud.enlarge(volume_id, 10), 0.5)


def test_a_volume_is_deleted_when_nothing_holds_it(bed: Bed) -> None:
    instance_id = bed.stopped()
    slots = {"C": replace(SLOT, volume_id=bed.cloud.make_volume("vault-1", "C", SLOT))}
    volume_id = slots["C"].volume_id or ""
    bed.attached(instance_id, slots)
    assert not bed.cloud.delete_volume(volume_id)
    assert not bed.cloud.detach(volume_id), "it takes a moment"
    bed.until(lambda: bed.cloud.detach(volume_id))
    assert bed.cloud.delete_volume(volume_id)
    assert bed.cloud.delete_volume(volume_id), "a repeat finds it done"
    assert bed.cloud.detach(volume_id), "what is gone is held by nothing"
    assert bed.cloud.attach(instance_id, slots) == ()


def test_volumes_are_encrypted_and_in_the_subnets_zone(aws: Bed) -> None:
    volume_id = aws.cloud.make_volume("vault-1", "C", SLOT)
    (volume,) = aws.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert volume["Encrypted"]
    assert volume["Size"] == 5
    assert volume["VolumeType"] == "gp3"
    assert volume["AvailabilityZone"].startswith(REGION)


# --- volumes made from restore points -------------------------------------------------------------------


def lent(snapshot_id: str, run_id: str = "r-9", host: str = "C", place: int = 0) -> PointVolume:
    return PointVolume(host=host, run_id=run_id, point_id=snapshot_id, place=place)


def completed(bed: Bed, host: str = "C") -> str:
    """A completed snapshot of a host's volume."""
    volume_id = bed.cloud.make_volume("vault-1", host, SLOT)
    snapshot_id = wait_until(lambda: _try(lambda: bed.cloud.snapshot(point(volume_id, host))))
    bed.until(lambda: bed.cloud.snapshot_states([snapshot_id]) == {snapshot_id: PointState.COMPLETED})
    return snapshot_id


def test_a_restores_volume_is_made_once_attached_and_removed(bed: Bed) -> None:
    instance_id, snapshot_id = bed.launched(), completed(bed)
    volume = lent(snapshot_id)
    volume_id = bed.cloud.make_point_volume("vault-1", volume)
    assert bed.cloud.make_point_volume("vault-1", volume) == volume_id
    assert bed.cloud.make_point_volume("vault-1", lent(snapshot_id, "r-10")) != volume_id
    found = {(d.vault_id, d.host, d.run_id): d.volume_id for d in bed.cloud.point_disks()}
    assert found["vault-1", "C", "r-9"] == volume_id
    assert len(found) == 2
    volume = replace(volume, volume_id=volume_id)
    bed.until(lambda: bed.cloud.attach_point_volume(instance_id, volume))
    assert bed.cloud.attach_point_volume(instance_id, volume), "a repeat finds it done"
    assert not bed.cloud.delete_volume(volume_id)
    assert not bed.cloud.detach(volume_id)
    bed.until(lambda: bed.cloud.detach(volume_id))
    assert bed.cloud.delete_volume(volume_id)
    assert [disk.run_id for disk in bed.cloud.point_disks()] == ["r-10"]
    assert not bed.cloud.attach_point_volume(instance_id, volume), "what is gone is not attached"


def test_hosts_own_volumes_are_none_of_a_restores(bed: Bed) -> None:
    bed.cloud.make_volume("vault-1", "C", SLOT)
    assert bed.cloud.point_disks() == []


def test_a_volume_of_a_snapshot_that_is_not_there_is_refused_for_good(bed: Bed) -> None:
    bed.launched()
    with pytest.raises(CloudRefused) as refused:
        bed.cloud.make_point_volume("vault-1", lent("snap-0123456789abcdef0"))
    assert (refused.value.call, refused.value.aws_code) == ("CreateVolume", "InvalidSnapshot.NotFound")
    assert not refused.value.passing


def test_a_restores_volume_is_as_its_snapshot_and_named_for_what_it_is(aws: Bed) -> None:
    aws.launched()
    snapshot_id = completed(aws)
    volume_id = aws.cloud.make_point_volume("vault-1", lent(snapshot_id))
    (volume,) = aws.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    (own,) = aws.ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [f"{aws.name} C"]}])["Volumes"]
    assert {key: volume[key] for key in ("Size", "Encrypted", "VolumeType", "AvailabilityZone")} == {
        key: own[key] for key in ("Size", "Encrypted", "VolumeType", "AvailabilityZone")
    }
    assert volume["SnapshotId"] == snapshot_id
    assert tags_of(aws.ec2, volume_id) == {
        "nightvault:stack": aws.name,
        "nightvault:vault": "vault-1",
        "nightvault:host": "C",
        "nightvault:run": "r-9",
        "nightvault:point": snapshot_id,
        "nightvault:purpose": "restore",
        "Name": f"{aws.name} C restore",
    }


def test_two_restores_fit_beside_as_many_hosts_as_a_vault_has(local_bed: Bed) -> None:
    instance_id, snapshot_id = local_bed.launched(), completed(local_bed)
    slots = {}
    for number in range(MAX_HOSTS):
        slot = replace(SLOT, number=number, uid=20001 + number)
        slots[f"h{number}"] = replace(slot, volume_id=local_bed.cloud.make_volume("vault-1", f"h{number}", slot))
    local_bed.attached(instance_id, slots)
    for place in range(MAX_VOLUMES - MAX_HOSTS):
        volume = lent(snapshot_id, f"r-{place}", place=place)
        volume = replace(volume, volume_id=local_bed.cloud.make_point_volume("vault-1", volume))
        local_bed.until(partial(local_bed.cloud.attach_point_volume, instance_id, volume))


# --- hosts' volumes that come and go --------------------------------------------------------------------


def test_a_hosts_next_volume_is_made_once_of_its_snapshot(bed: Bed) -> None:
    bed.launched()
    snapshot_id = completed(bed)
    first = bed.cloud.make_volume("vault-1", "C", SLOT)
    rests = replace(SLOT, rests_as=snapshot_id, remade=1)
    second = bed.cloud.make_volume("vault-1", "C", rests)
    assert second != first
    assert bed.cloud.make_volume("vault-1", "C", rests) == second, "a lost answer makes no second one"
    assert bed.cloud.delete_volume(first)
    assert bed.cloud.make_volume("vault-1", "C", replace(SLOT, remade=2)) not in {first, second}, "a blank one"
    with pytest.raises(CloudRefused) as refused:
        bed.cloud.make_volume("vault-1", "C", replace(SLOT, rests_as="snap-0123456789abcdef0", remade=1))
    assert refused.value.aws_code == "InvalidSnapshot.NotFound"


def test_a_hosts_next_volume_is_as_its_own_and_no_smaller_than_its_snapshot(aws: Bed) -> None:
    aws.launched()
    snapshot_id = completed(aws)
    rests = replace(SLOT, size_gib=3, rests_as=snapshot_id, remade=1)
    for slot, gib in ((rests, 5), (replace(rests, size_gib=9, remade=2), 9)):
        volume_id = aws.cloud.make_volume("vault-1", "C", slot)
        (volume,) = aws.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
        assert (volume["Size"], volume["Encrypted"], volume["SnapshotId"]) == (gib, True, snapshot_id)
        assert tags_of(aws.ec2, volume_id) == {
            "nightvault:stack": aws.name,
            "nightvault:vault": "vault-1",
            "nightvault:host": "C",
            "Name": f"{aws.name} C",
        }


def test_volumes_that_are_gone_are_told_from_those_that_are_there(bed: Bed) -> None:
    c, h = (bed.cloud.make_volume("vault-1", host, replace(SLOT, uid=20001 + ord(host))) for host in "CH")
    assert bed.cloud.missing_volumes([]) == frozenset()
    assert bed.cloud.missing_volumes([c, h]) == frozenset()
    bed.until(lambda: bed.cloud.delete_volume(c))
    bed.until(lambda: bed.cloud.missing_volumes([c, h]) == {c})


def test_a_volume_that_a_list_lacks_and_ec2_knows_is_there(aws: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list was of before it was made; or the second question is throttled."""
    volume_id = aws.cloud.make_volume("vault-1", "C", SLOT)
    client: Any = aws.cloud._client  # type: ignore[attr-defined]
    ask, answers = client.describe_volumes, [True]

    def describe(**parameters: Any) -> Any:
        if "Filters" in parameters:
            return {"Volumes": []}
        if answers:
            return ask(**parameters)
        raise ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": "slow"}}, "DescribeVolumes")

    monkeypatch.setattr(client, "describe_volumes", describe)
    assert aws.cloud.missing_volumes([volume_id]) == frozenset()
    answers.clear()
    with pytest.raises(CloudRefused):
        aws.cloud.missing_volumes([volume_id])


def test_the_snapshots_of_a_host_are_those_with_its_tag(bed: Bed) -> None:
    bed.launched()
    mine = completed(bed)
    volume_id = bed.cloud.make_volume("vault-1", "H", replace(SLOT, number=1, uid=20002))
    wait_until(lambda: _try(lambda: bed.cloud.snapshot(point(volume_id, "H"))))
    assert bed.cloud.host_snapshots("C") == {mine: PointState.COMPLETED}
    assert bed.cloud.host_snapshots("N") == {}


# --- who may reach it -----------------------------------------------------------------------------------

ADDRESSES = ["198.51.100.7", "2001:db8::7"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_admitted_and_revoked_and_both_may_be_repeated(bed: Bed, address: str) -> None:
    group = bed.cloud.make_group("vault-1")
    assert bed.cloud.ingress(group) == frozenset()
    for _ in range(2):
        bed.cloud.admit(group, address)
    assert bed.cloud.ingress(group) == {address}
    for _ in range(2):
        bed.cloud.revoke(group, address)
    assert bed.cloud.ingress(group) == frozenset()


def test_addresses_do_not_touch_each_other(bed: Bed) -> None:
    group = bed.cloud.make_group("vault-1")
    for address in ADDRESSES:
        bed.cloud.admit(group, address)
    assert bed.cloud.ingress(group) == set(ADDRESSES)
    bed.cloud.revoke(group, ADDRESSES[1])
    assert bed.cloud.ingress(group) == {ADDRESSES[0]}


def test_a_group_is_made_once(bed: Bed) -> None:
    group = bed.cloud.make_group("vault-1")
    bed.cloud.admit(group, "198.51.100.7")
    assert bed.cloud.make_group("vault-1") == group
    assert bed.cloud.make_group("vault-2") != group
    assert bed.cloud.ingress(group) == {"198.51.100.7"}


def test_only_ssh_is_opened(aws: Bed) -> None:
    group = aws.cloud.make_group("vault-1")
    for address in ADDRESSES:
        aws.cloud.admit(group, address)
    (found,) = aws.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert {(p["IpProtocol"], p["FromPort"], p["ToPort"]) for p in found["IpPermissions"]} == {("tcp", 22, 22)}
    ranges = [r["CidrIp"] for p in found["IpPermissions"] for r in p.get("IpRanges", [])]
    assert ranges == ["198.51.100.7/32"]


# --- restore points -------------------------------------------------------------------------------------


def test_snapshots_are_found_by_window_and_host(bed: Bed) -> None:
    volumes = {
        host: bed.cloud.make_volume("vault-1", host, replace(SLOT, number=n, uid=20001 + n))
        for n, host in enumerate("CH")
    }
    bed.settle()
    made: dict[str, str] = {}

    def snapshot(host: str, window_id: str) -> str:
        return wait_until(lambda: _try(lambda: bed.cloud.snapshot(point(volumes[host], host, window_id))))

    assert bed.cloud.find_snapshots("w-1") == {}
    for host in volumes:
        made[host] = snapshot(host, "w-1")
    other = snapshot("C", "w-2")
    assert bed.cloud.find_snapshots("w-1") == made
    assert bed.cloud.find_snapshots("w-2") == {"C": other}
    assert bed.cloud.find_snapshots("w-3") == {}
    bed.until(lambda: set(bed.cloud.snapshot_states(made.values()).values()) == {PointState.COMPLETED})
    assert set(bed.cloud.snapshot_states(made.values())) == set(made.values())
    assert bed.cloud.find_snapshots("w-1") == made, "completed ones are found too"


def _try(call: Callable[[], str]) -> str:
    """What the call answers; "" while its volume is still being made."""
    try:
        return call()
    except CloudRefused as refused:
        if refused.aws_code != "IncorrectState":
            raise
        return ""


def test_a_failed_snapshot_is_found_no_more_and_said_to_have_failed(bed: Bed) -> None:
    volume_id = bed.cloud.make_volume("vault-1", "C", SLOT)
    bed.fail_next_snapshot()
    snapshot_id = wait_until(lambda: _try(lambda: bed.cloud.snapshot(point(volume_id))))
    bed.fail(snapshot_id)
    wait_until(lambda: bed.cloud.snapshot_states([snapshot_id]) == {snapshot_id: PointState.ERROR})
    assert bed.cloud.find_snapshots("w-1") == {}


def test_a_snapshot_is_deleted_and_that_may_be_repeated(bed: Bed) -> None:
    volume_id = bed.cloud.make_volume("vault-1", "C", SLOT)
    snapshot_id = wait_until(lambda: _try(lambda: bed.cloud.snapshot(point(volume_id))))
    bed.until(lambda: bed.cloud.snapshot_states([snapshot_id]) == {snapshot_id: PointState.COMPLETED})
    for _ in range(2):
        bed.cloud.delete_snapshot(snapshot_id, "C")
        assert bed.cloud.snapshot_states([snapshot_id]) == {}


def tagged_snapshot(aws: Bed, **tags: str) -> str:
    """A snapshot with these tags and no others."""
    volume_id = aws.cloud.make_volume("vault-1", "C", SLOT)
    described = {"VolumeIds": [volume_id]}
    wait_until(lambda: aws.ec2.describe_volumes(**described)["Volumes"][0]["State"] == "available")
    named = [{"Key": f"nightvault:{key}", "Value": value} for key, value in tags.items()]
    made = {"VolumeId": volume_id, "TagSpecifications": [{"ResourceType": "snapshot", "Tags": named}]}
    made = made if named else {"VolumeId": volume_id}
    snapshot_id: str = aws.ec2.create_snapshot(**made)["SnapshotId"]
    wait_until(lambda: aws.cloud.snapshot_states([snapshot_id]) == {snapshot_id: PointState.COMPLETED})
    return snapshot_id


@pytest.mark.parametrize("tags", [{}, {"host": "C"}, {"host": "C", "stack": "another"}, {"host": "H", "stack": ""}])
def test_a_snapshot_whose_tags_say_anything_else_is_not_deleted(aws: Bed, tags: dict[str, str]) -> None:
    tags = {key: value or aws.name for key, value in tags.items()}
    snapshot_id = tagged_snapshot(aws, **tags)
    with pytest.raises(CloudRefused, match="NotOurs"):
        aws.cloud.delete_snapshot(snapshot_id, "C")
    assert aws.cloud.snapshot_states([snapshot_id])


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_a_snapshot_that_ebs_has_locked_is_known_and_not_deleted(aws: Bed, mode: str) -> None:
    snapshot_id = tagged_snapshot(aws, host="C", stack=aws.name)
    assert snapshot_id not in aws.cloud.locked_snapshots()
    aws.ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode=mode, LockDuration=3)
    assert snapshot_id in aws.cloud.locked_snapshots()
    with pytest.raises(CloudRefused, match="DeleteSnapshot"):
        aws.cloud.delete_snapshot(snapshot_id, "C")


def test_a_snapshot_that_is_not_there_has_no_state(bed: Bed) -> None:
    assert bed.cloud.snapshot_states(["snap-0123456789abcdef0"]) == {}


# --- what it makes carries its stack's tag --------------------------------------------------------------


def tags_of(ec2: Any, resource_id: str) -> dict[str, str]:
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource_id]}])["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found if not tag["Key"].startswith("aws:")}


def test_everything_is_tagged(aws: Bed) -> None:
    vault_tags = {"nightvault:stack": aws.name, "nightvault:vault": "vault-1"}
    instance_id = aws.launched()
    assert tags_of(aws.ec2, instance_id) == {
        **vault_tags,
        "Name": f"{aws.name} vault-1",
        "nightvault-code": "s3cret",
        "nightvault-url": URL,
    }
    group = aws.cloud.make_group("vault-1")
    assert tags_of(aws.ec2, group) == vault_tags
    volume_id = aws.cloud.make_volume("vault-1", "C", SLOT)
    assert tags_of(aws.ec2, volume_id) == {**vault_tags, "nightvault:host": "C", "Name": f"{aws.name} C"}
    snapshot_id = wait_until(lambda: _try(lambda: aws.cloud.snapshot(point(volume_id))))
    assert tags_of(aws.ec2, snapshot_id) == {
        **vault_tags,
        "nightvault:host": "C",
        "nightvault:window": "w-1",
        "nightvault:run": "r-1",
        "nightvault:outcome": "complete",
        "nightvault:label": "complete",
        "nightvault:started": "2026-11-23T01:02:03Z",
        "Name": f"{aws.name} C complete",
    }

    flagged = replace(point(volume_id), marks=Marks(unusual="999 of 1,000 files fewer (100%; usually 0%)"))
    snapshot_id = wait_until(lambda: _try(lambda: aws.cloud.snapshot(flagged)))
    assert tags_of(aws.ec2, snapshot_id)["nightvault:unusual"] == flagged.marks.unusual


def test_the_machine_is_alone_in_its_group_and_its_tags_may_stand_in_its_metadata(aws: Bed) -> None:
    instance_id = aws.launched()
    (instance,) = aws.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    (interface,) = instance["NetworkInterfaces"]
    assert [group["GroupId"] for group in interface["Groups"]] == [aws.cloud.make_group("vault-1")]
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
    assert all(re.fullmatch(r"[A-Za-z0-9+\-=.,_:@]+", tag["Key"]) for tag in instance["Tags"])


# --- refusals -------------------------------------------------------------------------------------------


def test_a_refusal_carries_awss_code(aws: Bed) -> None:
    with pytest.raises(CloudRefused) as refused:
        aws.cloud.start("i-0123456789abcdef0")
    assert (refused.value.call, refused.value.aws_code) == ("StartInstances", "InvalidInstanceID.NotFound")


def test_what_is_gone_is_stopped(aws: Bed) -> None:
    aws.cloud.stop("i-0123456789abcdef0", force=False)
    aws.cloud.terminate("i-0123456789abcdef0")


class Refusing:
    """A client each of whose calls fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.meta = dead_session().client("ec2").meta

    def __getattr__(self, name: str) -> Any:
        def call(*_: object, **__: object) -> None:
            raise self._error

        return call


CALLS: dict[str, Callable[[Cloud], object]] = {
    "machines": lambda cloud: cloud.machines(),
    "find_launched": lambda cloud: cloud.find_launched("t"),
    "make_group": lambda cloud: cloud.make_group("vault-1"),
    "launch": lambda cloud: cloud.launch(
        Vault(vault_id="v", security_group_id="sg-1", launch=Launch(client_token="t", code="c"))
    ),
    "start": lambda cloud: cloud.start("i-1"),
    "stop": lambda cloud: cloud.stop("i-1", force=False),
    "terminate": lambda cloud: cloud.terminate("i-1"),
    "make_volume": lambda cloud: cloud.make_volume("vault-1", "C", SLOT),
    "missing_volumes": lambda cloud: cloud.missing_volumes(["vol-1"]),
    "enlarge": lambda cloud: cloud.enlarge("vol-1", 9),
    "detach": lambda cloud: cloud.detach("vol-1"),
    "delete_volume": lambda cloud: cloud.delete_volume("vol-1"),
    "attach": lambda cloud: cloud.attach("i-1", {"C": replace(SLOT, volume_id="vol-1")}),
    "point_disks": lambda cloud: cloud.point_disks(),
    "make_point_volume": lambda cloud: cloud.make_point_volume("vault-1", lent("snap-1")),
    "attach_point_volume": lambda cloud: cloud.attach_point_volume("i-1", replace(lent("snap-1"), volume_id="vol-1")),
    "host_snapshots": lambda cloud: cloud.host_snapshots("C"),
    "ingress": lambda cloud: cloud.ingress("sg-1"),
    "admit": lambda cloud: cloud.admit("sg-1", "192.0.2.1"),
    "revoke": lambda cloud: cloud.revoke("sg-1", "192.0.2.1"),
    "find_snapshots": lambda cloud: cloud.find_snapshots("w"),
    "snapshot": lambda cloud: cloud.snapshot(point("vol-1")),
    "snapshot_states": lambda cloud: cloud.snapshot_states(["snap-1"]),
    "delete_snapshot": lambda cloud: cloud.delete_snapshot("snap-1", "C"),
    "locked_snapshots": lambda cloud: cloud.locked_snapshots(),
}


def test_every_method_is_tried() -> None:
    assert set(CALLS) == {name for name in vars(Cloud) if not name.startswith("_")}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": "slow"}}, "X"), "RequestLimitExceeded"),
        (ConnectTimeoutError(endpoint_url="https://ec2"), "ConnectTimeoutError"),
    ],
)
def test_whatever_botocore_raises_is_a_refusal(name: str, error: Exception, code: str) -> None:
    client: Any = Refusing(error)
    cloud = Ec2Cloud(client, stack="s", launch_template="lt", subnet="sub", kms_key="", control_url=lambda: URL)
    with pytest.raises(CloudRefused) as refused:
        CALLS[name](cloud)
    assert refused.value.aws_code == code
