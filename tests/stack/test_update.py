"""The stack is updated while a host pushes: nothing is lost, and the window ends on time. Rolled back, likewise."""

import shutil
import zipfile
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.packaging import Package
from tests.demo.trees import MIB
from tests.e2e.nights import (
    ONE_BIG_FILE,
    asleep,
    back_up,
    cipher,
    host,
    last_backups,
    on_the_vault,
    points,
    pushed,
    windows,
)
from tests.localcloud.machine import may_root
from tests.stack.cloud import StackCloud
from tests.stack.test_night import TOGETHER

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(not may_root(), reason="needs root, namespaces and loop devices"),
]
SETTINGS = "chalicelib/settings.py"


def next_version(made: Package, to: Path) -> Package:
    """Other code that does the same: each function says in its log that it is the next one."""
    to.mkdir()
    shutil.copy(made.template_path, to / "template.json")
    with (
        zipfile.ZipFile(made.zip_path) as old,
        zipfile.ZipFile(to / "deployment.zip", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name == SETTINGS:
                new.writestr(name, old.read(name).decode() + "\nprint('this is the next version')\n")
            elif not name.startswith("chalicelib/__pycache__/settings."):
                new.writestr(name, old.read(name))
    return Package(to / "template.json", to / "deployment.zip")


def is_next(cloud: StackCloud) -> bool:
    """Whether functions that begin now are the next version."""
    seen = len(cloud.deployed.logged("sweep"))
    cloud.sweep()
    cloud.wait_until(lambda: len(cloud.deployed.logged("sweep")) > seen, what="the sweep's log")
    return any("next version" in line for line in cloud.deployed.logged("sweep")[seen:])


def broken(template: dict[str, Any]) -> dict[str, Any]:
    """The template with a resource that CloudFormation can't make, tried after everything else was done."""
    everything = [name for name, each in template["Resources"].items() if "Condition" not in each]
    bad = {
        "Type": "AWS::SSM::Parameter",
        "DependsOn": everything,
        "Properties": {"Name": "/aws/reserved", "Type": "String", "Value": "x"},
    }
    return {**template, "Resources": {**template["Resources"], "Bad": bad}}


def test_an_update_in_the_middle_of_a_window(tmp_path: Path, made: Package) -> None:
    """C's push goes on through it. O's is so slow that the window cuts it, at the end that it had from the start."""
    policy = {**TOGETHER, "window_seconds": 720, "lease_seconds": 900}
    with (
        StackCloud(tmp_path / "cloud", made, policy=policy) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="3000") as c,
        host(cloud, "O", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="100") as o,
    ):
        for player in (c, o):
            player.run("backup")
        for name in ("C", "O"):
            cloud.wait_until(partial(pushed, cloud, name, MIB // 4), 120, what=f"{name} pushes")
        closes_at = cloud.operate("vaults")["vaults"][0]["window"]["closes_at"]
        cloud.update(next_version(made, tmp_path / "next"), WindowHours="1", LogRetentionDays="30")
        assert is_next(cloud)
        assert cloud.operate("about")["policy"]["window_seconds"] == 3600
        cloud.wait_until(c.poll, 120, what="C has ended")
        assert c.exit_code == 0, c.output

        assert cloud.operate("vaults")["vaults"][0]["window"]["closes_at"] == closes_at
        left = datetime.fromisoformat(closes_at) - cloud.clock.now()
        cloud.clock.advance(seconds=left.total_seconds() - 20)
        cloud.wait_until(o.poll, 120, what="O has ended")
        assert o.exit_code, "cut; it could not see the clock being moved, so it may call it a failed push"
        asleep(cloud)
        (window,) = windows(cloud)
        assert {run["host"]: run["outcome"] for run in window["runs"]} == {"C": "complete", "O": "cut"}
        assert window["closes_at"] == closes_at
        with cloud.open_snapshot(last_backups(cloud)["C"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)
        assert not cloud.denied()


def test_an_update_that_fails_and_is_rolled_back(tmp_path: Path, made: Package) -> None:
    with (
        StackCloud(tmp_path / "cloud", made, policy=TOGETHER) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="2000") as c,
    ):
        c.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "C", MIB), 120, what="C pushes")
        new = next_version(made, tmp_path / "next")
        cloud.deployed.begin_update(new, broken(new.uploaded("nightvault-artifacts")), WindowHours="1")
        cloud.deployed.settle("UPDATE_ROLLBACK_COMPLETE")
        assert any("Bad" in each for each in cloud.deployed.failures())
        assert not is_next(cloud)
        assert cloud.operate("about")["policy"]["window_seconds"] == TOGETHER["window_seconds"]
        cloud.wait_until(c.poll, 120, what="C has ended")
        assert c.exit_code == 0, c.output
        asleep(cloud)
        assert len(windows(cloud)) == 1
        with cloud.open_snapshot(last_backups(cloud)["C"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)

        c.configure(bandwidth_kib=0)
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c, seconds=180)
        assert last_backups(cloud)["C"] == points(cloud, "C")[-1]["SnapshotId"]
        assert not cloud.denied()
