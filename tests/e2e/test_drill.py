"""Drills on real bytes: the real agent checks what real snapshots hold against what the real client signed."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.nights import POLICY, asleep, back_up, host
from tests.e2e.test_points import caller, nothing_is_left
from tests.e2e.test_retention import looks
from tests.localcloud.cloud import LocalCloud


def points(cloud: LocalCloud) -> list[dict[str, Any]]:
    """C's restore points, newest first."""
    found: list[dict[str, Any]] = cloud.operate("restore_points", host="C")["restore_points"]
    return found


def ended(cloud: LocalCloud, point_id: str) -> dict[str, Any]:
    """What came of the drill of that point, once it is recorded."""

    def look() -> dict[str, Any] | None:
        drill: dict[str, Any] | None = cloud.operate("host", host="C")["host"]["drill"]
        return drill if drill and drill["point_id"] == point_id else None

    found: dict[str, Any] = cloud.wait_until(look, 90, what=f"the drill of {point_id} has ended; {cloud.console()}")
    return found


def test_a_byte_that_flipped_in_a_snapshot_is_found_and_healed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = {**POLICY, "claim_seconds": 3, "drill_seconds": 600}
    with LocalCloud(tmp_path / "cloud", policy=policy) as cloud, host(cloud, "C", tmp_path, keep="mirror") as c:
        back_up(cloud, c)
        (first,) = points(cloud)
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)  # and in that night, unasked, the first night's is drilled
        drill = ended(cloud, first["snapshot_id"])
        assert (drill["state"], drill["detail"]) == ("passed", "")
        assert drill["files"] > 200
        assert drill["checked_bytes"] == drill["total_bytes"] > 0
        second, first = points(cloud)
        assert (second["fit"], first["fit"]) == (None, True)
        asking = caller(c)
        assert asking.status().document["verify"] is False

        cloud.damage_snapshot(second["snapshot_id"])
        cloud.operate("drill", host="C")
        drill = ended(cloud, second["snapshot_id"])
        assert drill["state"] == "failed"
        assert "another content than listed" in drill["detail"]
        second, first = points(cloud)
        assert (second["fit"], first["fit"]) == (False, True)
        nothing_is_left(cloud)
        told = capsys.readouterr().out
        assert '"DrillsPassed":[1.0]' in told
        assert '"DrillsFailed":[1.0]' in told

        run_id = str(uuid.uuid4())
        document = asking.start(run_id, "restore").document
        assert document["restore"]["point_id"] == first["snapshot_id"], "not the newest, which is unfit"
        assert document["verify"] is True
        asking.finish(run_id)
        asleep(cloud)

        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        third, *_ = points(cloud)
        looks(cloud, 1)  # it is woken for the point that should be healed
        assert ended(cloud, third["snapshot_id"])["state"] == "passed"
        assert asking.status().document["verify"] is False
        nothing_is_left(cloud)
        assert not cloud.failures, cloud.console()
