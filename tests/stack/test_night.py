"""The whole night, on the stack that CloudFormation deployed: real clients, real sshd, agents and rsync."""

import shutil
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from deploy.packaging import Package
from tests.demo.player import Player
from tests.demo.proof import decrypted, restore
from tests.demo.trees import MIB
from tests.e2e.nights import (
    ONE_BIG_FILE,
    POLICY,
    asleep,
    back_up,
    cipher,
    host,
    last_backups,
    on_the_vault,
    points,
    portrait,
    pushed,
    windows,
)
from tests.localcloud.machine import may_root
from tests.stack.cloud import StackCloud
from tests.stack.nights import finish, ready, start

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(not may_root(), reason="needs root, namespaces and loop devices"),
]
# Hosts that begin together need not find the vault still awake: their archives take as long as the machine is busy.
TOGETHER = {**POLICY, "linger_seconds": 30, "lease_seconds": 300}


def test_two_nights_of_four_hosts(tmp_path: Path, made: Package) -> None:
    """Everything that tests/e2e/test_night.py asserts, of four hosts at once; and nobody was denied anything."""
    with (
        StackCloud(tmp_path / "cloud", made, policy=TOGETHER) as cloud,
        host(cloud, "C", tmp_path, keep="rdiff") as c,
        host(cloud, "H", tmp_path, keep="mirror") as h,
        host(cloud, "O", tmp_path, keep="directory") as o,
        host(cloud, "L", tmp_path, keep="mirror", encrypt="reverse") as elle,
    ):
        everyone = {player.name: player for player in (c, h, o, elle)}
        back_up(cloud, *everyone.values(), seconds=240)
        assert {name: player.exit_code for name, player in everyone.items()} == dict.fromkeys(everyone, 0), said(cloud)
        before = portrait(c.live)
        first = last_backups(cloud)
        assert sorted(first) == sorted(everyone)
        for player in everyone.values():
            player.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, *everyone.values(), seconds=240)
        assert {name: player.exit_code for name, player in everyone.items()} == dict.fromkeys(everyone, 0), said(cloud)

        archived = windows(cloud)
        assert len(cloud.calls("StopInstances", ended="ok")) == len(archived), "each window, however many, stops once"
        runs = [run for window in archived for run in window["runs"]]
        assert sorted(run["host"] for run in runs) == sorted(2 * list(everyone))
        assert {run["outcome"] for run in runs} == {"complete"}
        assert len(cloud.calls("CreateSnapshot", ended="ok")) == len(runs)
        for name, player in everyone.items():
            old, new = points(cloud, name)
            assert {each["tags"]["nightvault:label"] for each in (old, new)} == {"complete"}
            assert (old["SnapshotId"], new["SnapshotId"]) == (first[name], last_backups(cloud)[name])
            with cloud.open_snapshot(new["SnapshotId"]) as snapshot:
                assert restored(snapshot, player, tmp_path / new["SnapshotId"]) == portrait(player.live)
        with cloud.open_snapshot(first["C"]) as snapshot:
            assert restored(snapshot, c, tmp_path / first["C"]) == before
        assert not cloud.failures
        assert not cloud.denied()
        launched = cloud.aws.ec2.backend.get_instance_by_id(next(iter(cloud.instances())))
        assert str(launched.user_data) == cloud.deployed.template_of_vaults()["LaunchTemplateData"]["UserData"]
        assert launched.metadata_options.http_tokens == "required"


def restored(snapshot: Path, player: Player, to: Path) -> dict[str, tuple[str, ...]]:
    """What a restore point holds, as its host would get it back."""
    with decrypted(snapshot, player) as plain:
        if player.settings["keep"] == "rdiff":
            restore(plain, player.live, to)
        else:
            whole = player.settings["keep"] == "directory" or player.settings.get("encrypt") == "reverse"
            shutil.copytree(plain if whole else plain / str(player.live).lstrip("/"), to, symlinks=True)
    return portrait(to)


def said(cloud: StackCloud) -> str:
    return f"{cloud.failures} {cloud.denied()} {cloud.console()[-3000:]}"


def test_a_push_cut_by_the_plug_goes_on_where_it_was(tmp_path: Path, made: Package) -> None:
    with (
        StackCloud(tmp_path / "cloud", made, policy=TOGETHER) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="4000") as c,
    ):
        c.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "C", 10 * MIB), 120, what="C has pushed 10 MiB")
        cloud.pull_plug()
        cloud.wait_until(c.poll, 180, what="C has ended")
        assert c.exit_code == 0, c.output
        asleep(cloud)
        (point,) = points(cloud, "C")
        assert point["tags"]["nightvault:label"] == "complete"
        with cloud.open_snapshot(point["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)
        assert len(windows(cloud)) == 1
        assert not cloud.denied()


def test_the_window_cuts_a_push_and_the_next_night_finishes_it(tmp_path: Path, made: Package) -> None:
    """Most of the day's budget is spent by another host; of what is left, a minute or so, each party knows."""
    policy = {**TOGETHER, "window_seconds": 400, "lease_seconds": 600, "linger_seconds": 0}
    with (
        StackCloud(tmp_path / "cloud", made, policy=policy) as cloud,
        host(cloud, "O", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="300") as o,
    ):
        spender, run_id = cloud.enroll("S"), str(uuid.uuid4())
        start(cloud, spender, run_id)
        ready(cloud, spender, run_id)
        closes_at = cloud.operate("vaults")["vaults"][0]["window"]["closes_at"]
        left = datetime.fromisoformat(closes_at) - cloud.clock.now()
        cloud.clock.advance(seconds=left.total_seconds() - 90)
        finish(cloud, spender, run_id, "failed")
        asleep(cloud)
        o.run("backup")
        cloud.wait_until(o.poll, 240, what="O has ended")
        assert o.exit_code == 9, o.output
        asleep(cloud)
        window = windows(cloud)[-1]
        assert [run["outcome"] for run in window["runs"]] == ["cut"]
        assert window["stopped_at"] <= window["closes_at"]
        assert "O" not in last_backups(cloud)
        o.configure(bandwidth_kib=0)
        cloud.clock.advance(seconds=86400)
        back_up(cloud, o, seconds=180)
        assert o.exit_code == 0, o.output
        assert last_backups(cloud)["O"] == points(cloud, "O")[-1]["SnapshotId"]
        assert not cloud.denied()
