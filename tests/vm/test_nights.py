"""Nights on a whole machine: its first boot, its second, and its plug pulled in the middle of a push."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.demo.player import Player
from tests.demo.proof import decrypted
from tests.demo.trees import MIB
from tests.e2e.nights import (
    ONE_BIG_FILE,
    asleep,
    cipher,
    host,
    last_backups,
    on_the_vault,
    points,
    portrait,
    pushed,
    windows,
)
from tests.localcloud.aws import user_data_in_template
from tests.localcloud.cloud import LocalCloud
from tests.vm.machines import NIGHT_SECONDS, hypervisor, inside

INSTALLED = "until test -e /etc/cloud/cloud-init.disabled; do sleep 1; done"  # the last thing that install.sh does
STATUS = "cat /run/cloud-init/status.json"  # of the stages that ran
# What a first boot leaves behind, and would be made anew if the user data ran again.
ONCE = "stat -c '%n %Z' /etc/cloud/cloud-init.disabled /opt/nightvault/agent.py; cat /etc/ssh/*_key.pub"


@dataclass(frozen=True)
class FirstNight:
    """C's first backup, on the machine's first boot, and what the machine said of itself."""

    host: Player
    instances: list[str]
    user_data: str
    cloud_init: dict[str, Any]
    once: str
    console: str


@pytest.fixture(scope="module")
def first(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstNight]:
    with host(cloud, "C", tmp_path_factory.mktemp("first"), keep="mirror") as c:
        c.run("backup")
        inside(cloud, INSTALLED)
        user_data = inside(cloud, "sha256sum /var/lib/cloud/instance/user-data.txt").split()[0]
        once = inside(cloud, ONCE)
        cloud_init = json.loads(inside(cloud, STATUS))["v1"]
        cloud.wait_until(c.poll, NIGHT_SECONDS, what="C has ended")
        asleep(cloud, NIGHT_SECONDS)
        yield FirstNight(c, list(cloud.instances()), user_data, cloud_init, once, cloud.console())


def test_a_first_boot_makes_a_vault_of_a_stock_image(cloud: LocalCloud, first: FirstNight) -> None:
    assert first.host.exit_code == 0, first.host.output
    assert first.cloud_init["datasource"] == "DataSourceEc2Local"
    stages = {
        name: stage["errors"] for name, stage in first.cloud_init.items() if isinstance(stage, dict) and stage["start"]
    }
    assert stages == {"init-local": [], "init": []}
    assert first.user_data == hashlib.sha256(base64.b64decode(user_data_in_template())).hexdigest()
    point = points(cloud, "C")[0]
    assert point["tags"]["nightvault:label"] == "complete"
    assert not cloud.failures


def test_the_power_button_leaves_nothing_to_repair(cloud: LocalCloud, first: FirstNight) -> None:
    assert "All filesystems unmounted" in first.console
    assert first.console.rstrip().endswith("reboot: Power down")
    volume = hypervisor(cloud).disks.volume(points(cloud, "C")[0]["VolumeId"])
    checked = subprocess.run(["xfs_repair", "-n", str(volume)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_next_night_boots_the_same_machine_and_runs_no_user_data(cloud: LocalCloud, first: FirstNight) -> None:
    c = first.host
    c.work_by_day()
    cloud.clock.advance(seconds=86400)
    c.run("backup")
    assert inside(cloud, f"test ! -e /run/cloud-init/status.json; {ONCE}") == first.once
    cloud.wait_until(c.poll, NIGHT_SECONDS, what="C has ended")
    assert c.exit_code == 0, c.output
    asleep(cloud, NIGHT_SECONDS)
    assert list(cloud.instances()) == first.instances
    point = points(cloud, "C")[-1]
    assert last_backups(cloud)["C"] == point["SnapshotId"]
    with cloud.open_snapshot(point["SnapshotId"]) as snapshot, decrypted(snapshot, c) as plain:
        assert portrait(plain / str(c.live).lstrip("/")) == portrait(c.live)


def test_a_push_cut_by_the_plug_goes_on_where_it_was(cloud: LocalCloud, first: FirstNight, tmp_path: Path) -> None:
    """The machine is woken again, XFS recovers, the same client goes on; what was there before stays as it was."""
    before = {each["SnapshotId"]: each["tags"] for each in cloud.snapshots()}
    cloud.clock.advance(seconds=86400)
    with host(cloud, "H", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="1500") as h:
        h.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "H", 10 * MIB), NIGHT_SECONDS, what="H has pushed 10 MiB")
        cloud.pull_plug()
        h.configure(bandwidth_kib=0)
        kernel = inside(cloud, "until mountpoint -q /mnt/H; do sleep 1; done; dmesg")
        assert "Starting recovery" in kernel, "the filesystem's log was replayed"
        cloud.wait_until(h.poll, NIGHT_SECONDS, what="H has ended")
        assert h.exit_code == 0, h.output
        asleep(cloud, NIGHT_SECONDS)
        (point,) = points(cloud, "H")
        assert point["tags"]["nightvault:label"] == "complete"
        with cloud.open_snapshot(point["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(h)
        assert len(windows(cloud)[-1]["runs"]) == 1
    now = {each["SnapshotId"]: each["tags"] for each in cloud.snapshots()}
    assert before.items() <= now.items()
