"""Restores of older points on the local cloud: EC2's rules, its states that take time, and whatever may go wrong."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost
from tests.localcloud.interposer import plain_client
from tests.localcloud.states import Delays

POLICY = {
    "window_seconds": 600,
    "minimum_window_seconds": 1,
    "linger_seconds": 0,
    "lease_seconds": 30,
    "claim_seconds": 2,
    "report_seconds": 1,
}
DELAYS = Delays(boot=0.5, volume=0.3, attach=0.2, detach=0.2)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path, machines=False, policy=POLICY, delays=DELAYS, sweep_every=0.3) as cloud:
        yield cloud
        cloud.faults.clear()
        over(cloud)
        assert cloud.vaults.torn == [], "a volume was detached while it was mounted"
        assert not cloud.failures


def vault(cloud: LocalCloud) -> dict[str, Any]:
    found: dict[str, Any] = cloud.operate("vaults")["vaults"][0]
    return found


def lent(cloud: LocalCloud) -> list[str]:
    """Volumes that were made from restore points, and are there."""
    with cloud.aws.ec2.lock:
        mine = [{"Name": "tag:nightvault:purpose", "Values": ["restore"]}]
        return [each["VolumeId"] for each in plain_client("ec2").describe_volumes(Filters=mine)["Volumes"]]


def over(cloud: LocalCloud) -> None:
    """The vault sleeps, and nothing that was made for a restore is left."""

    def look() -> bool:
        found = vault(cloud)
        return found["phase"] == "asleep" and not found["pending_points"] and not lent(cloud)

    cloud.wait_until(look, 60, what="all is over, and no volume is left")


def ready(cloud: LocalCloud, host: FakeHost, run_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        document = host.status(run_id).document
        assert document["outcome"] is None, document
        return document if document["ready"] else None

    found: dict[str, Any] = cloud.wait_until(look, 60, what=f"{host.name} is ready")
    return found


def night(cloud: LocalCloud, host: FakeHost) -> str:
    """A backup until it counts; gives its run."""
    run_id = str(uuid.uuid4())
    host.start(run_id)
    ready(cloud, host, run_id)
    cloud.vaults.commit(host.name, run_id)
    cloud.wait_until(lambda: host.status(run_id).document["committed"], 30, what="the commit is known")
    host.finish(run_id)
    cloud.wait_until(lambda: (host.status(run_id).document["last"] or {}).get("backup_run_id") == run_id, 30)
    return run_id


def two_nights(cloud: LocalCloud) -> tuple[FakeHost, str, str]:
    """C, the run of its first night, and that night's restore point."""
    host = cloud.enroll("C")
    first = night(cloud, host)
    night(cloud, host)
    over(cloud)
    older = host.points()[1]
    assert older["point_run_id"] == first
    return host, first, older["point_id"]


@pytest.mark.parametrize("fault", ["throttled, then lost", "killed"])
def test_an_older_point_is_served_and_nothing_is_left(cloud: LocalCloud, fault: str) -> None:
    host, first, point_id = two_nights(cloud)
    snapshots = len(cloud.snapshots())
    for operation in ("CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume") if fault != "killed" else ():
        cloud.faults.throttle(operation, times=2)
        cloud.faults.lose_response(operation)
    run_id = str(uuid.uuid4())
    assert host.start(run_id, "restore", point_id).document["restore"]["source"] == "point"
    ready(cloud, host, run_id)
    assert cloud.vaults.restores_from("C") == first
    if fault == "killed":
        cloud.pull_plug()
        cloud.wait_until(lambda: cloud.vaults.restores_from("C") == first, 60, what="the next boot serves it too")
    assert len(lent(cloud)) == 1
    host.finish(run_id)
    over(cloud)
    assert len(cloud.snapshots()) == snapshots
    cloud.wait_until(lambda: not cloud.faults.pending(), 10, what="what was to go wrong has gone wrong")
    made = [each.gist for each in cloud.calls("CreateVolume", ended="ok") if "SnapshotId" in each.gist]
    assert len({gist["ClientToken"] for gist in made}) == 1, "asked again, it is the same volume"


def test_the_newest_is_served_from_the_hosts_own_volume(cloud: LocalCloud) -> None:
    host = cloud.enroll("C")
    newest = night(cloud, host)
    run_id = str(uuid.uuid4())
    cloud.wait_until(lambda: vault(cloud)["phase"] == "asleep", 30)
    assert host.start(run_id, "restore").document["restore"]["source"] == "live"
    ready(cloud, host, run_id)
    assert cloud.vaults.restores_from("C") == newest
    assert lent(cloud) == []
    host.finish(run_id)


def test_a_limit_fails_the_run_at_once_and_holds_up_nobody(cloud: LocalCloud) -> None:
    host, _, point_id = two_nights(cloud)
    other = cloud.enroll("H")
    cloud.faults.refuse("CreateVolume", "VolumeLimitExceeded", when={"SnapshotId": point_id})
    run_id = str(uuid.uuid4())
    document = host.start(run_id, "restore", point_id).document
    assert document["outcome"] == "failed"
    assert "VolumeLimitExceeded" in document["reason"]
    night(cloud, other)
    over(cloud)
    run_id = str(uuid.uuid4())
    host.start(run_id, "restore", point_id)
    ready(cloud, host, run_id)
    host.finish(run_id)


def test_a_restore_that_nobody_pulls_ends_with_its_lease(cloud: LocalCloud) -> None:
    host, _, point_id = two_nights(cloud)
    run_id = str(uuid.uuid4())
    host.start(run_id, "restore", point_id)
    ready(cloud, host, run_id)
    cloud.clock.advance(seconds=POLICY["lease_seconds"] + 1)
    cloud.wait_until(lambda: host.status(run_id).document["outcome"] == "abandoned", 30)


def test_it_is_removed_while_another_host_keeps_the_vault_awake(cloud: LocalCloud) -> None:
    host, _, point_id = two_nights(cloud)
    other = cloud.enroll("H")
    backup, restore = str(uuid.uuid4()), str(uuid.uuid4())
    other.start(backup)
    host.start(restore, "restore", point_id)
    ready(cloud, host, restore)
    ready(cloud, other, backup)
    host.finish(restore)
    cloud.wait_until(lambda: not lent(cloud), 30, what="the volume is gone")
    assert vault(cloud)["phase"] == "open"
    cloud.vaults.commit("H", backup)
    other.finish(backup)
