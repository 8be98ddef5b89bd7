"""What ports.Copier promises: of the fake, and of Ec2Copier on the local cloud's other region."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

from chalicelib.copier import Ec2Copier
from chalicelib.errors import CloudRefused
from chalicelib.model import Outcome, PointState, RestorePoint
from chalicelib.ports import Copier, CopyShot
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud, Snapshot
from tests.fakes.copier import FakeCopier
from tests.localcloud.account import TABLE, Account
from tests.localcloud.aws import LocalAws
from tests.localcloud.clock import OffsetClock
from tests.localcloud.faults import Faults
from tests.localcloud.interposer import REGION
from tests.localcloud.no_machines import NoMachines
from tests.localcloud.patience import wait_until
from tests.localcloud.states import Delays

THERE = "eu-west-1"
TAKEN = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


def a_point(snapshot_id: str, host: str = "C") -> RestorePoint:
    return RestorePoint(
        host=host,
        vault_id="vault-1",
        window_id="w-1",
        volume_id="vol-1",
        run_id="r-1",
        run_started_at=TAKEN,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id=snapshot_id,
        state=PointState.COMPLETED,
        made_at=TAKEN,
    )


@dataclass
class Bed:
    """A copier, how to make a completed snapshot for it, and (not for the fake) clients of both regions."""

    copier: Copier
    snapshot: Callable[[], str]
    settle: Callable[[], None] = lambda: None
    fail_next: Callable[[], None] = lambda: None
    limited: Any = None  # what holds the number of copies that may be under way, as its attribute `limit`
    limit: str = ""
    here: Any = None
    there: Any = None

    def shots(self) -> dict[str, CopyShot]:
        return {shot.copy_id: shot for shot in self.copier.copies()}

    def arrived(self, copy_id: str) -> CopyShot:
        def here() -> bool:
            self.settle()
            return self.shots()[copy_id].state is not PointState.PENDING

        wait_until(here, 5.0)
        return self.shots()[copy_id]


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[Account, Faults]]:
    faults = Faults()
    delays = Delays(volume=0.01, snapshot=0.02, copy=0.3)
    with LocalAws(hypervisor=NoMachines(), delays=delays, clock=OffsetClock(), faults=faults) as aws:
        yield Account(aws, aws.make_stack("copies", table=TABLE)), faults


_numbers = count(1)


def local_bed(account: tuple[Account, Faults], *, kms_key: str = "") -> Bed:
    """One account for all tests, and a stack of its own for each: its tag keeps them apart."""
    rig, faults = account
    there = rig.aws.session.client("ec2", region_name=THERE)

    def snapshot() -> str:
        made = str(rig.ec2.create_snapshot(VolumeId=rig.volume())["SnapshotId"])
        wait_until(lambda: state(made) == "completed", 5.0)
        return made

    def state(snapshot_id: str) -> str:
        return str(rig.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"])

    copier = Ec2Copier(lambda: there, stack=f"s{next(_numbers)}", home=REGION, region=THERE, kms_key=kms_key)
    fail = partial(faults.fail_copy, "Given key ID is not accessible")
    return Bed(
        copier,
        snapshot,
        fail_next=fail,
        limited=rig.aws.other_region(THERE),
        limit="copies_at_once",
        here=rig.ec2,
        there=there,
    )


def fake_bed() -> Bed:
    cloud = FakeCloud(FakeClock())
    copier = FakeCopier(cloud)
    settled = copier.settle

    def snapshot() -> str:
        snapshot_id = f"snap-{next(_numbers)}"
        cloud.snapshots[snapshot_id] = Snapshot(snapshot_id, a_point(snapshot_id), PointState.COMPLETED)
        return snapshot_id

    bed = Bed(copier, snapshot, settle=settled, limited=copier, limit="limit")

    def fail_next() -> None:
        bed.settle = partial(settled, PointState.ERROR, "Given key ID is not accessible")

    bed.fail_next = fail_next
    return bed


@pytest.fixture(params=["fake", "local"])
def bed(request: pytest.FixtureRequest) -> Bed:
    return fake_bed() if request.param == "fake" else local_bed(request.getfixturevalue("account"))


def test_a_copy_is_under_way_and_then_complete(bed: Bed) -> None:
    point = a_point(bed.snapshot())
    copy_id = bed.copier.copy(point)
    pending = bed.shots()[copy_id]
    assert (pending.host, pending.point_id, pending.taken_at) == ("C", point.snapshot_id, TAKEN)
    assert pending.state is PointState.PENDING
    assert bed.arrived(copy_id).state is PointState.COMPLETED


def test_a_copy_that_fails_says_why(bed: Bed) -> None:
    bed.fail_next()
    failed = bed.arrived(bed.copier.copy(a_point(bed.snapshot())))
    assert (failed.state, failed.detail) == (PointState.ERROR, "Given key ID is not accessible")


def test_what_is_not_there_is_not_copied(bed: Bed) -> None:
    with pytest.raises(CloudRefused) as refused:
        bed.copier.copy(a_point("snap-00000000000000000"))
    assert refused.value.aws_code == "InvalidSnapshot.NotFound"
    assert not bed.shots()


def test_a_deleted_copy_is_gone_and_its_source_stays(bed: Bed) -> None:
    copy_id = bed.copier.copy(a_point(bed.snapshot()))
    bed.arrived(copy_id)
    for _ in range(2):  # may be repeated
        bed.copier.delete(copy_id, "C")
    assert not bed.shots()


def test_no_more_are_under_way_than_are_allowed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed.limited, bed.limit, 1)
    point = a_point(bed.snapshot())
    made = bed.copier.copy(point)
    with pytest.raises(CloudRefused) as refused:
        bed.copier.copy(point)
    assert refused.value.aws_code == "ResourceLimitExceeded"
    bed.arrived(made)


# on EC2 only


def test_it_is_encrypted_tagged_and_told_in_words_that_another_account_sees(
    account: tuple[Account, Faults],
) -> None:
    bed = local_bed(account)
    point = a_point(bed.snapshot())
    copy_id = bed.copier.copy(point)
    bed.arrived(copy_id)
    (found,) = bed.there.describe_snapshots(SnapshotIds=[copy_id])["Snapshots"]
    assert found["Encrypted"]
    assert found["Description"] == f"nightvault C w-1 complete, copy of {point.snapshot_id}"
    assert {"nightvault:host", "nightvault:label", "nightvault:copy-of", "Name"} <= {t["Key"] for t in found["Tags"]}
    everywhere = bed.here.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert copy_id not in {each["SnapshotId"] for each in everywhere}, "a region knows nothing of another"


@pytest.mark.parametrize(
    ("region", "state"), [(THERE, PointState.COMPLETED), (REGION, PointState.ERROR)], ids=["its own", "another's"]
)
def test_a_key_must_be_of_the_copies_region(account: tuple[Account, Faults], region: str, state: PointState) -> None:
    bed = local_bed(account, kms_key=f"arn:aws:kms:{region}:123456789012:key/k")
    assert bed.arrived(bed.copier.copy(a_point(bed.snapshot()))).state is state


def test_a_source_that_is_gone_before_the_copy_is_complete_fails_it(account: tuple[Account, Faults]) -> None:
    bed = local_bed(account)
    snapshot_id = bed.snapshot()
    copy_id = bed.copier.copy(a_point(snapshot_id))
    bed.here.delete_snapshot(SnapshotId=snapshot_id)
    assert bed.arrived(copy_id).state is PointState.ERROR


def test_only_what_its_tags_call_a_copy_of_this_host_is_deleted(account: tuple[Account, Faults]) -> None:
    bed, other = local_bed(account), local_bed(account)
    copy_id = bed.copier.copy(a_point(bed.snapshot()))
    bed.arrived(copy_id)
    for copier, host in ((bed.copier, "H"), (other.copier, "C")):
        with pytest.raises(CloudRefused) as refused:
            copier.delete(copy_id, host)
        assert refused.value.aws_code == "NotOurs"
    bed.there.delete_tags(Resources=[copy_id], Tags=[{"Key": "nightvault:copy-of"}])
    with pytest.raises(CloudRefused):
        bed.copier.delete(copy_id, "C")
    assert bed.there.describe_snapshots(SnapshotIds=[copy_id])["Snapshots"]


def test_a_tag_that_is_no_time_is_not_believed(account: tuple[Account, Faults]) -> None:
    bed = local_bed(account)
    copy_id = bed.copier.copy(a_point(bed.snapshot()))
    began = bed.there.describe_snapshots(SnapshotIds=[copy_id])["Snapshots"][0]["StartTime"]
    bed.there.create_tags(Resources=[copy_id], Tags=[{"Key": "nightvault:taken", "Value": "yesterday"}])
    assert bed.arrived(copy_id).taken_at == began
