"""Drills for real: of what the real client pushed, checked by the real agent on a volume of the real snapshot."""

from pathlib import Path
from typing import Any

from tests.e2e.nights import POLICY, asleep, back_up, host, points
from tests.e2e.test_points import nothing_is_left
from tests.localcloud.cloud import LocalCloud


def drilled(cloud: LocalCloud, name: str) -> dict[str, Any]:
    """Begin a drill of a host's newest restore point, and see it through. What is recorded of it."""
    begun = cloud.operate("drill", host=name)

    def recorded() -> dict[str, Any] | None:
        [seen] = [each for each in cloud.operate("hosts")["hosts"] if each["name"] == name]
        drill: dict[str, Any] | None = seen["drill"]
        return drill if drill and drill["run_id"] == begun["run"]["run_id"] else None

    found: dict[str, Any] = cloud.wait_until(recorded, 60, what=f"the drill of {begun['point']} is over")
    asleep(cloud)
    return found


def test_a_flipped_bit_in_a_snapshot_is_found(tmp_path: Path) -> None:
    """The whole way: the client's manifest, the snapshot, a volume of it, the agent, and what is recorded."""
    policy = {**POLICY, "claim_seconds": 3, "drill_seconds": 3600}
    with LocalCloud(tmp_path / "cloud", policy=policy) as cloud, host(cloud, "C", tmp_path, keep="mirror") as c:
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        passed = drilled(cloud, "C")
        assert (passed["state"], passed["detail"]) == ("passed", "")
        assert passed["files"] > 200
        assert passed["checked_bytes"] == passed["total_bytes"] > 8_000_000
        [point] = points(cloud, "C")
        cloud.damage_snapshot(point["SnapshotId"])
        failed = drilled(cloud, "C")
        assert (failed["state"], failed["checked_bytes"]) == ("failed", passed["total_bytes"])
        assert ": another content than listed" in failed["detail"]
        nothing_is_left(cloud)
        assert not cloud.failures, cloud.console()
