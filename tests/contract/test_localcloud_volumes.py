"""Hosts' volumes that come and go on the local cloud: EC2's rules, its states that take time, and what may go wrong."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib import wiring
from tests.contract.test_localcloud_restores import DELAYS, POLICY, night, over, ready
from tests.e2e.test_retention import looks
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    policy = {**POLICY, "lease_seconds": 300}
    with LocalCloud(tmp_path, machines=False, policy=policy, delays=DELAYS, sweep_every=0.3) as cloud:
        yield cloud
        cloud.faults.clear()
        over(cloud)
        assert not cloud.failures


def volumes(cloud: LocalCloud, name: str) -> list[str]:
    """Those that EC2 has of a host."""
    tags: Any = [
        {"Name": "tag:nightvault:host", "Values": [name]},
        {"Name": "status", "Values": ["creating", "available", "in-use"]},
    ]
    found = cloud.aws.session.client("ec2").describe_volumes(Filters=tags)["Volumes"]
    return [volume["VolumeId"] for volume in found]


def cold(cloud: LocalCloud) -> tuple[FakeHost, str]:
    """C after a night, resting as the snapshot of it."""
    host = cloud.enroll("C")
    night(cloud, host)
    over(cloud)
    cloud.operate("change_host", host="C", resting="snapshot")
    (point,) = wiring.store().points("C")
    assert wiring.store().mark(point, replace(point.marks, fit=True, drilled_at=cloud.clock.now()))
    looks(cloud, 1)
    cloud.wait_until(lambda: not volumes(cloud, "C"), 30, what="its volume is deleted")
    return host, str(point.snapshot_id)


@pytest.mark.parametrize("fault", ["none", "throttled, then lost"])
def test_a_volume_goes_for_its_proven_snapshot_and_comes_back_once(cloud: LocalCloud, fault: str) -> None:
    for operation in ("DetachVolume", "DeleteVolume") if fault != "none" else ():
        cloud.faults.throttle(operation, times=2)
        cloud.faults.lose_response(operation)
    host, point_id = cold(cloud)
    cloud.wait_until(lambda: not cloud.faults.pending(), 10, what="what was to go wrong has gone wrong")
    if fault != "none":
        cloud.faults.throttle("CreateVolume", times=2)
        cloud.faults.lose_response("CreateVolume")
    night(cloud, host)
    (volume_id,) = volumes(cloud, "C")
    (volume,) = cloud.aws.session.client("ec2").describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert volume["SnapshotId"] == point_id
    over(cloud)


def test_a_volume_that_is_taken_off_and_deleted_under_a_run_comes_back_for_it(cloud: LocalCloud) -> None:
    host = cloud.enroll("C")
    first = night(cloud, host)
    over(cloud)
    run_id = str(uuid.uuid4())
    host.start(run_id)
    ready(cloud, host, run_id)
    (volume_id,) = volumes(cloud, "C")
    ec2 = cloud.aws.session.client("ec2")
    ec2.detach_volume(VolumeId=volume_id)

    def free() -> bool:
        return bool(ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "available")

    # The vault attaches it again as soon as it misses it: that is refused, as if somebody held on to it.
    cloud.faults.refuse("AttachVolume", "IncorrectState", times=9)
    cloud.wait_until(free, 10, what=f"{volume_id} is attached to nothing")
    ec2.delete_volume(VolumeId=volume_id)
    cloud.faults.clear()

    def missed() -> bool:
        slot = wiring.store().vault("vault-1").hosts["C"]  # type: ignore[union-attr]
        return slot.missing_since is not None

    cloud.wait_until(missed, 20, what="it is missed")
    cloud.clock.advance(seconds=45)
    cloud.wait_until(lambda: volumes(cloud, "C") not in ([], [volume_id]), 60, what="another is made")
    ready(cloud, host, run_id)
    assert cloud.vaults.restores_from("C") == first
    cloud.vaults.commit("C", run_id)
    cloud.wait_until(lambda: host.status(run_id).document["committed"], 30, what="the commit is known")
    host.finish(run_id)
    over(cloud)
