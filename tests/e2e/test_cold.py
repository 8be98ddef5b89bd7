"""A host that rests as its snapshot, and one whose volume somebody deleted: on real bytes, with the real agent."""

import random
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from tests.demo.trees import Tree
from tests.e2e.nights import POLICY, asleep, back_up, cipher, host, on_the_vault, points, portrait, windows
from tests.e2e.test_points import caller, pulled, ready
from tests.e2e.test_retention import looks
from tests.e2e.test_volumes import disks, shown
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root


def _make(to: Path) -> None:
    to.mkdir(parents=True)
    for number in range(40):
        (to / f"file {number}").write_bytes(random.Random(number).randbytes(100_000))  # noqa: S311 (content)


def _change(to: Path) -> None:
    with (to / "file 7").open("ab") as file:
        file.write(b"a day's work")


TREE = Tree("many files, of which one changes", _make, _change)


def sent(cloud: LocalCloud, name: str) -> int:
    """Bytes that its last run has sent."""
    return int(cloud.operate("host", host=name)["runs"][0]["stats"]["bytes_sent"])


def seconds(cloud: LocalCloud) -> str:
    """Of the last night: until the vault was open, and until its host was done."""
    last = windows(cloud)[-1]
    opened, ready_at, ended = (
        datetime.fromisoformat(str(each)) for each in (last["opened_at"], last["ready_at"], last["runs"][0]["ended_at"])
    )
    return f"{(ready_at - opened).total_seconds():.1f} and {(ended - opened).total_seconds():.1f}"


def delete_volume(cloud: LocalCloud, volume_id: str) -> None:
    """As in EC2's console: taken off the stopped machine, then deleted."""
    ec2 = cloud.aws.session.client("ec2")
    ec2.detach_volume(VolumeId=volume_id)

    def free() -> bool:
        return ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "available"

    cloud.wait_until(free, 10, what=f"{volume_id} is attached to nothing")
    ec2.delete_volume(VolumeId=volume_id)


def test_a_cold_host_and_a_lost_volume(tmp_path: Path) -> None:
    if not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    policy = {**POLICY, "claim_seconds": 3, "drill_seconds": 3600}
    with (
        LocalCloud(tmp_path / "cloud", policy=policy) as cloud,
        host(cloud, "C", tmp_path, TREE, keep="mirror") as c,
    ):
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        first, all_of_it, warm = portrait(c.archive / "cipher"), sent(cloud, "C"), seconds(cloud)
        cloud.operate("change_host", host="C", resting="snapshot")
        assert disks(cloud, "C") == [1], "nothing has proven its restore point"
        looks(cloud, 1)  # which wakes the vault for a drill
        cloud.wait_until(lambda: shown(cloud, "C")["drill"], 60, what="its restore point is drilled")
        assert shown(cloud, "C")["drill"]["state"] == "passed"
        asleep(cloud)
        looks(cloud, 1)
        cloud.wait_until(lambda: disks(cloud, "C") == [], 30, what="its volume is deleted")
        cold = cloud.wait_until(lambda: (it := shown(cloud, "C"))["volume_id"] is None and it, 10, what="it rests")
        (point,) = points(cloud, "C")
        assert cold["rests_as"] == point["SnapshotId"]

        # A restore, while there is no volume of its own.
        asking, run_id = caller(c), str(uuid.uuid4())
        asking.start(run_id, "restore")
        document = ready(cloud, asking, run_id)
        assert document["restore"]["source"] == "point"
        assert pulled(c, document, tmp_path / "back") == first
        asking.finish(run_id)
        asleep(cloud)
        assert shown(cloud, "C")["volume_id"] is None, "it needed none"

        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        assert sent(cloud, "C") < all_of_it / 20, "the difference alone"
        made = shown(cloud, "C")["volume_id"]
        with cloud.open_snapshot(points(cloud, "C")[-1]["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)
        woken = seconds(cloud)

        # Its new volume is deleted, by hand; that is noticed while the vault sleeps, or is awake for the next drill.
        delete_volume(cloud, made)
        looks(cloud, 1)
        cloud.clock.advance(seconds=50)
        cloud.wait_until(lambda: shown(cloud, "C")["rests_as"], 20, what="the loss is noticed")
        asleep(cloud)
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        assert sent(cloud, "C") < all_of_it / 20, "the difference alone"
        assert shown(cloud, "C")["volume_id"] not in {made, None}
        with cloud.open_snapshot(points(cloud, "C")[-1]["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)
        print(
            f"seconds until the vault is open and C done: {woken} with a volume to make, {warm} without (first night)"
        )
        assert not cloud.failures, cloud.console()
