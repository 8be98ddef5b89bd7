"""An intruder with a host's own credentials: what it pushes is flagged, and ages nothing out of what was there."""

import os
from pathlib import Path

from tests.e2e.nights import POLICY, back_up, host, on_the_vault, points
from tests.e2e.test_retention import looks
from tests.localcloud.cloud import LocalCloud


def encrypt_all(live: Path) -> int:
    """What ransomware does: every file is noise of the same size."""
    files = [path for path in live.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        path.write_bytes(os.urandom(path.stat().st_size))
    return len(files)


def test_what_was_there_before_an_intruder_came_stays_until_an_operator_says_otherwise(tmp_path: Path) -> None:
    """Retention by itself would keep the last three points, and after three nights of rubbish nothing else."""
    policy = {**POLICY, "keep_daily": 1, "keep_weekly": 0, "keep_monthly": 0}
    with (
        LocalCloud(tmp_path / "cloud", policy=policy) as cloud,
        host(cloud, "C", tmp_path, keep="directory") as c,
    ):
        good = []
        for work in (c.work_by_day, lambda: None):
            back_up(cloud, c)
            assert c.exit_code == 0, c.output
            good.append(points(cloud, "C")[-1]["SnapshotId"])
            with cloud.open_snapshot(good[-1]) as snapshot:
                before = on_the_vault(snapshot)
            work()
            cloud.clock.advance(seconds=86400)
        assert cloud.operate("accept", host="C", dry_run=True)["accepted"] == []

        for _ in range(3):
            assert encrypt_all(c.live) > 200
            back_up(cloud, c)
            assert c.exit_code == 0, c.output
            looks(cloud, 2)
            cloud.clock.advance(seconds=80000)

        flagged = points(cloud, "C")[2:]
        assert all("files changed or deleted" in point["tags"]["nightvault:unusual"] for point in flagged)
        assert [point["SnapshotId"] for point in points(cloud, "C")[:2]] == good
        with cloud.open_snapshot(good[-1]) as snapshot:
            assert on_the_vault(snapshot) == before
        (check,) = [each for each in cloud.operate("doctor")["checks"] if each["name"] == "unusual"]
        assert (check["ok"], check["resource"]) == (False, "C")

        answer = cloud.operate("accept", host="C")
        assert [each["snapshot_id"] for each in answer["accepted"]] == [each["SnapshotId"] for each in flagged[::-1]]
        looks(cloud, 2)
        assert [point["SnapshotId"] for point in points(cloud, "C")] == [each["SnapshotId"] for each in flagged]
        assert not cloud.failures
