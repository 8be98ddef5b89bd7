"""A volume's life, for real: filled by its host, enlarged in its sleep, grown when it wakes, deleted when retired."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.demo.trees import MIB, Tree
from tests.e2e.nights import POLICY, back_up, host
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root

GIB = 1024 * MIB
NEARLY_ALL = 800 * MIB  # of a volume of 1 GiB, whose filesystem keeps some for itself


def _make(to: Path) -> None:
    to.mkdir(parents=True)
    noise = random.Random(3)  # noqa: S311 (content, not a secret)
    with (to / "big").open("wb") as file:  # no zeroes: those would be holes on the vault
        for _ in range(NEARLY_ALL // MIB):
            file.write(noise.randbytes(MIB))


def _change(to: Path) -> None:
    (to / "small").write_text("a day's work")


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
    tree = Tree("nearly all of a volume", _make, _change)
    with LocalCloud(tmp_path / "cloud", policy=POLICY) as cloud, host(cloud, "C", tmp_path, tree, keep="mirror") as c:
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
        assert answer["kept"]["restore_points"] == 2
        assert answer["deleted"] == {"volume_id": after["volume_id"]}
        cloud.wait_until(lambda: disks(cloud, "C") == [], 30, what="its volume is deleted")
        assert len(cloud.snapshots()) == 2, "what it held stays"
        c.run("backup")
        cloud.wait_until(c.poll, 30, what="C is turned away")
        assert c.exit_code != 0
        assert cloud.operate("vaults")["vaults"][0]["phase"] == "asleep", "nobody wakes for it"
        assert not cloud.failures
