"""Retention on real bytes: what goes is gone from the disks too, and what stays opens as it was made."""

from pathlib import Path

from tests.demo.trees import MIB
from tests.e2e.nights import ONE_BIG_FILE, POLICY, asleep, back_up, cipher, host, on_the_vault, points, pushed
from tests.localcloud.cloud import LocalCloud


def looks(cloud: LocalCloud, times: int) -> None:
    """The sweep at the quarters of the hour, when it looks at hosts."""
    for _ in range(times):
        now = cloud.clock.now()
        cloud.clock.advance(seconds=900 - (now.minute % 15 * 60 + now.second))
        cloud.sweep()


def test_a_night_that_was_cut_goes_when_the_next_is_whole(tmp_path: Path) -> None:
    with (
        LocalCloud(tmp_path / "cloud", policy=POLICY) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror") as c,
    ):
        back_up(cloud, c)
        first_night = cipher(c)
        c.work_by_day()
        c.configure(bandwidth_kib=4000)
        cloud.clock.advance(seconds=86400)
        c.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "C", 4 * MIB), 120, what="C has pushed 4 MiB")
        cloud.operate("sleep", vault_id="vault-1", cut=True)
        cloud.wait_until(c.poll, 120, what="C has ended")
        asleep(cloud)
        looks(cloud, 2)
        whole, cut = points(cloud, "C")
        assert cut["tags"]["nightvault:label"] == "incomplete"
        newest = cloud.operate("retention", host="C")["verdicts"][0]
        assert (newest["keep"], newest["why"]) == (True, ["unfinished"])

        c.configure(bandwidth_kib=0)
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        looks(cloud, 2)
        assert points(cloud, "C")[0]["SnapshotId"] == whole["SnapshotId"]
        assert cut["SnapshotId"] not in {each["SnapshotId"] for each in cloud.snapshots()}
        assert not (tmp_path / "cloud" / "snapshots" / cut["SnapshotId"]).exists(), "its bytes are gone too"
        assert (tmp_path / "cloud" / "snapshots" / whole["SnapshotId"]).exists()
        (gone,) = cloud.operate("retention", host="C")["deleted"]
        assert (gone["snapshot_id"], gone["dropped_for"]) == (cut["SnapshotId"], "superseded")
        for point, wanted in zip(points(cloud, "C"), (first_night, cipher(c)), strict=True):
            with cloud.open_snapshot(point["SnapshotId"]) as snapshot:
                assert on_the_vault(snapshot) == wanted
        assert not cloud.failures
