"""What breaks behind the scenes is repaired by the deployed functions: a night each, with vaults that are played."""

from pathlib import Path

import pytest

from deploy.packaging import Package
from tests.e2e.nights import last_backups, points, windows
from tests.stack.cloud import StackCloud
from tests.stack.nights import POLICY, night

pytestmark = pytest.mark.stack


def test_lost_doubled_throttled_and_never_booted(tmp_path: Path, made: Package) -> None:
    with StackCloud(tmp_path / "cloud", made, policy=POLICY, machines=False) as cloud:
        h = cloud.enroll("H")
        for number, breaks in enumerate((_relapses, _loses, _doubles, _throttles, _loses_answers), start=1):
            breaks(cloud)
            night(cloud, h)
            assert not cloud.faults.pending(), f"{breaks.__name__} struck"
            recorded = cloud.operate("restore_points", host="H")["restore_points"]
            assert len(recorded) == number, "one restore point a night, whatever happened"
            assert last_backups(cloud)["H"] == recorded[0]["snapshot_id"]
            assert len(points(cloud, "H")) == number, "and no snapshot that nobody knows of"
            cloud.clock.advance(seconds=86400)
        assert len(windows(cloud)) == number
        assert not cloud.denied()
        assert not cloud.failures


def _relapses(cloud: StackCloud) -> None:
    """The launch is accepted, and the machine falls back at once."""
    cloud.faults.relapse()


def _loses(cloud: StackCloud) -> None:
    cloud.faults.lose_event("stopped")
    cloud.faults.lose_event("succeeded")


def _doubles(cloud: StackCloud) -> None:
    for state in ("running", "stopped", "succeeded"):
        cloud.faults.double_event(state)


def _throttles(cloud: StackCloud) -> None:
    """Four times each: botocore gives up after three."""
    for operation in ("StartInstances", "StopInstances", "CreateSnapshot"):
        cloud.faults.throttle(operation, times=4)
    cloud.faults.throttle("PutItem", times=2)


def _loses_answers(cloud: StackCloud) -> None:
    """The calls were done, and botocore asks again; but for CreateSnapshot, whose snapshot the next sweep finds."""
    for operation in ("StartInstances", "StopInstances", "CreateSnapshot", "UpdateItem"):
        cloud.faults.lose_response(operation)
