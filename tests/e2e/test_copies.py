"""A copy in another region, on real bytes: the region is gone, and the copy alone gives the files back."""

import shutil
from pathlib import Path
from typing import Any

from tests.demo.proof import decrypted
from tests.e2e.nights import ONE_BIG_FILE, POLICY, back_up, host, points, portrait
from tests.e2e.test_retention import looks
from tests.localcloud.cloud import LocalCloud


def copied(cloud: LocalCloud) -> list[dict[str, Any]]:
    """After so many looks that what is under way is complete: its copies, oldest first."""

    def complete() -> bool:
        return all(each["State"] == "completed" for each in cloud.copies())

    looks(cloud, 1)
    cloud.wait_until(complete, 60, what="the copy is complete")
    looks(cloud, 1)
    return sorted(cloud.copies(), key=lambda each: str(each["tags"]["nightvault:taken"]))


def test_the_region_is_gone_and_the_copy_gives_the_files_back(tmp_path: Path) -> None:
    with (
        LocalCloud(tmp_path / "cloud", policy={**POLICY, "copies_kept": 1}, copy_region="eu-west-1") as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror") as c,
    ):
        back_up(cloud, c)
        (first,) = copied(cloud)
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        (second,) = copied(cloud)
        newest = points(cloud, "C")[-1]["SnapshotId"]
        assert (first["tags"]["nightvault:copy-of"] != newest) and (second["tags"]["nightvault:copy-of"] == newest)
        there = tmp_path / "cloud" / "regions" / "eu-west-1" / "snapshots"
        assert [path.name for path in there.iterdir()] == [second["SnapshotId"]], "older bytes are gone too"
        (view,) = cloud.operate("restore_points", host="C")["copies"]
        assert (view["copy_id"], view["state"]) == (second["SnapshotId"], "completed")
        assert not cloud.failures

        wanted = portrait(c.live)
        for name in ("volumes", "snapshots", "instances"):  # the region burns
            shutil.rmtree(tmp_path / "cloud" / name)
        with cloud.open_copy(second["SnapshotId"]) as copy, decrypted(copy, c) as plain:
            assert portrait(plain / c.live.relative_to("/")) == wanted
