"""Pushes that are cut: by the vault's plug, by the window, by the host's death. Nothing is lost, little is resent."""

from pathlib import Path

import pytest

from tests.demo.trees import MIB
from tests.e2e.nights import (
    BIG,
    ONE_BIG_FILE,
    POLICY,
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
from tests.localcloud.cloud import LocalCloud


def test_a_push_cut_by_the_plug_goes_on_where_it_was(tmp_path: Path) -> None:
    """The machine is killed in the middle; the control plane wakes it again and the same client goes on."""
    with (
        LocalCloud(tmp_path / "cloud", policy=POLICY) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="6000") as c,
    ):
        c.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "C", 10 * MIB), 60, what="C has pushed 10 MiB")
        cloud.pull_plug()
        cloud.wait_until(c.poll, 120, what="C has ended")
        assert c.exit_code == 0, c.output
        asleep(cloud)
        (point,) = points(cloud, "C")
        assert point["tags"]["nightvault:label"] == "complete"
        with cloud.open_snapshot(point["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(c)
        assert len(windows(cloud)) == 1


def test_a_push_cut_by_its_hosts_death_sends_the_remainder_next_night(tmp_path: Path) -> None:
    with (
        LocalCloud(tmp_path / "cloud", policy={**POLICY, "lease_seconds": 4}) as cloud,
        host(cloud, "L", tmp_path, ONE_BIG_FILE, keep="mirror") as dies,
    ):
        back_up(cloud, dies)
        good = cipher(dies)
        first = last_backups(cloud)["L"]
        dies.work_by_day()
        dies.configure(bandwidth_kib=4000)
        cloud.clock.advance(seconds=86400)
        dies.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "L", 16 * MIB), 60, what="L has pushed 16 MiB")
        dies.die()
        asleep(cloud)
        _, cut = points(cloud, "L")
        assert (cut["tags"]["nightvault:label"], cut["tags"]["nightvault:outcome"]) == ("incomplete", "abandoned")
        assert last_backups(cloud)["L"] == first
        with cloud.open_snapshot(cut["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == good, "what is current is still last night's, whole"

        (run,) = windows(cloud)[-1]["runs"]
        sent_before_the_cut = run["progress"]["transfer_bytes"]
        dies.configure(bandwidth_kib=0)
        cloud.clock.advance(seconds=86400)
        back_up(cloud, dies)
        assert dies.exit_code == 0, dies.output
        (run,) = windows(cloud)[-1]["runs"]
        remainder = BIG - sent_before_the_cut
        assert run["stats"]["bytes_sent"] <= remainder + 10_000_000
        with cloud.open_snapshot(points(cloud, "L")[-1]["SnapshotId"]) as snapshot:
            assert on_the_vault(snapshot) == cipher(dies)


def test_the_window_cuts_a_push_and_the_next_night_finishes_it(tmp_path: Path) -> None:
    with (
        LocalCloud(tmp_path / "cloud", policy={**POLICY, "window_seconds": 45}) as cloud,
        host(cloud, "O", tmp_path, ONE_BIG_FILE, keep="mirror", bandwidth_kib="1000") as o,
    ):
        o.run("backup")
        cloud.wait_until(o.poll, 90, what="O has ended")
        assert o.exit_code == 9, o.output
        asleep(cloud)
        (window,) = windows(cloud)
        (run,) = window["runs"]
        assert run["outcome"] == "cut"
        assert window["stopped_at"] <= window["closes_at"]
        assert "O" not in last_backups(cloud)
        o.configure(bandwidth_kib=0)
        cloud.clock.advance(seconds=86400)
        back_up(cloud, o)
        assert o.exit_code == 0, o.output
        assert last_backups(cloud)["O"] == points(cloud, "O")[-1]["SnapshotId"]


@pytest.mark.parametrize("attempt", ["lost event", "throttled", "never boots"])
def test_what_breaks_behind_the_scenes_is_repaired(tmp_path: Path, attempt: str) -> None:
    policy = {**POLICY, "claim_seconds": 2, "wake_timeout_seconds": 10}
    with LocalCloud(tmp_path / "cloud", policy=policy) as cloud, host(cloud, "C", tmp_path) as c:
        match attempt:
            case "lost event":
                cloud.faults.lose_event("stopped")
                cloud.faults.lose_event("succeeded")
            case "throttled":
                for operation in ("RunInstances", "StopInstances", "CreateSnapshot", "AttachVolume"):
                    cloud.faults.throttle(operation)
            case "never boots":
                cloud.faults.never_boot()
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        assert last_backups(cloud)["C"] == points(cloud, "C")[-1]["SnapshotId"]
        assert len(points(cloud, "C")) == 1
