"""A volume's life, for real: full, enlarged in its sleep, grown when it wakes, deleted when its host is retired."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.demo.trees import MIB, Tree
from tests.e2e.nights import POLICY, back_up, host
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root
from tests.localcloud.machines import Machines

GIB = 1024 * MIB
NEARLY_ALL = 800 * MIB  # of a volume of 1 GiB, whose filesystem keeps some for itself


def _make(to: Path) -> None:
    to.mkdir(parents=True)
    (to / "file").write_text("what there is")


def _change(to: Path) -> None:
    (to / "file").write_text("a day's work")


def fill(cloud: LocalCloud, volume_id: str, folder: Path) -> None:
    """Nearly all of a volume that is at rest is taken, as if by years of pushes: blocks that nobody has to write."""
    (instance_id,) = cloud.instances()
    assert isinstance(cloud.hypervisor, Machines)
    folder.mkdir()
    subprocess.run(["mount", "-t", "xfs", cloud.hypervisor.disks.devices(instance_id) / volume_id, folder], check=True)
    try:
        with (folder / "years").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, NEARLY_ALL)
    finally:
        subprocess.run(["umount", folder], check=True)


def shown(cloud: LocalCloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.operate("host", host=name)["host"]
    return found


def disks(cloud: LocalCloud, name: str) -> list[int]:
    """Sizes in GiB of the host's volumes, as EC2 lists them."""
    tags: Any = [
        {"Name": "tag:nightvault:host", "Values": [name]},
        {"Name": "status", "Values": ["in-use", "available"]},
    ]
    found = cloud.aws.session.client("ec2").describe_volumes(Filters=tags)["Volumes"]
    return [volume["Size"] for volume in found]


def test_a_full_volume_grows_and_a_retired_hosts_goes(tmp_path: Path) -> None:
    if not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    tree = Tree("next to nothing", _make, _change)
    with LocalCloud(tmp_path / "cloud", policy=POLICY) as cloud, host(cloud, "C", tmp_path, tree, keep="mirror") as c:
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        fill(cloud, shown(cloud, "C")["volume_id"], tmp_path / "volume")
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        cloud.wait_until(lambda: disks(cloud, "C") == [2], 10, what=f"its volume is enlarged: {shown(cloud, 'C')}")
        before = shown(cloud, "C")
        assert before["size_gib"] == 2
        assert before["volume_bytes"] < GIB, "its filesystem is not, yet"
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        after = shown(cloud, "C")
        assert after["volume_bytes"] > 1.8 * GIB, "the agent has grown it"
        assert after["used_bytes"] >= NEARLY_ALL
        assert disks(cloud, "C") == [2], "once was enough"

        answer = cloud.operate("retire", host="C", delete_volume=True)
        assert answer["kept"]["restore_points"] == 3
        assert answer["deleted"] == {"volume_id": after["volume_id"]}
        cloud.wait_until(lambda: disks(cloud, "C") == [], 30, what="its volume is deleted")
        assert len(cloud.snapshots()) == 3, "what it held stays"
        c.run("backup")
        cloud.wait_until(c.poll, 30, what="C is turned away")
        assert c.exit_code != 0
        assert cloud.operate("vaults")["vaults"][0]["phase"] == "asleep", "nobody wakes for it"
        assert not cloud.failures
