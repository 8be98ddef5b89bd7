"""Restores of older points, for real: a volume of the real snapshot, the real agent, and a pull over real ssh."""

import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.demo.player import Player
from tests.e2e.nights import POLICY, asleep, back_up, host, portrait
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost
from tests.localcloud.interposer import plain_client
from tests.localcloud.machine import may_root

Portrait = dict[str, tuple[str, ...]]
HANDLED = ("CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume")


def caller(player: Player) -> FakeHost:
    """Its control plane, asked with its own token."""
    state = (player.folder / "state" / "enrolment").read_text()
    token = next(line.split()[1] for line in state.splitlines() if line.startswith("token "))
    return FakeHost(player.url, player.name, token)


@contextmanager
def two_nights(
    folder: Path, *, rooted: bool = True, **more: int
) -> Iterator[tuple[LocalCloud, Player, Portrait, Portrait]]:
    """C after two nights, and its ciphertext as it was pushed in each."""
    if rooted and not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    policy = {**POLICY, "claim_seconds": 3, **more}
    with (
        LocalCloud(folder / "cloud", policy=policy, rooted=rooted) as cloud,
        host(cloud, "C", folder, keep="mirror") as c,
    ):
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        first = portrait(c.archive / "cipher")
        c.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        second = portrait(c.archive / "cipher")
        assert first != second
        yield cloud, c, first, second
        assert not cloud.failures, cloud.console()


def lent(cloud: LocalCloud) -> list[str]:
    """Volumes that were made from restore points, and are there."""
    with cloud.aws.ec2.lock:
        mine = [{"Name": "tag:nightvault:purpose", "Values": ["restore"]}]
        return [each["VolumeId"] for each in plain_client("ec2").describe_volumes(Filters=mine)["Volumes"]]


def nothing_is_left(cloud: LocalCloud) -> None:
    asleep(cloud)
    cloud.wait_until(lambda: not lent(cloud), 30, what="no volume is left")


def ready(cloud: LocalCloud, asking: FakeHost, run_id: str, seconds: float = 90) -> dict[str, Any]:
    """The run's document once it may be pulled."""

    def look() -> dict[str, Any] | None:
        document = asking.status(run_id).document
        assert document["outcome"] is None, document
        return document if document["ready"] else None

    found: dict[str, Any] = cloud.wait_until(look, seconds, what=f"the restore is ready; {cloud.console()}")
    return found


def pulling(player: Player, document: dict[str, Any], to: Path, *more: str) -> list[str]:
    """Plain rsync over ssh, with the host's key and the vault's pinned."""
    vault, state = document["vault"], player.folder / "state"
    known = state / "pull_hosts"
    known.write_text("".join(f"vault {key}\n" for key in vault["host_keys"]))
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "HostKeyAlias": "vault",
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }
    ssh = ["ssh", "-F", "/dev/null", "-i", str(state / "key"), "-p", str(vault["port"])]
    for name, value in options.items():
        ssh += ["-o", f"{name}={value}"]
    return ["rsync", "-aH", *more, "-e", shlex.join(ssh), f"{vault['user']}@{vault['address']}:/", f"{to}/"]


def pulled(player: Player, document: dict[str, Any], to: Path, seconds: float = 120) -> Portrait:
    """Of what came, but for the manifest."""
    done = subprocess.run(pulling(player, document, to), capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return {name: entry for name, entry in portrait(to).items() if not name.startswith(".nightvault")}


@pytest.mark.parametrize("rooted", [True, False], ids=["rooted", "rootless"])
def test_the_first_night_comes_back_and_then_the_second(tmp_path: Path, rooted: bool) -> None:
    with two_nights(tmp_path, rooted=rooted) as (cloud, c, first, second):
        asking = caller(c)
        snapshots = len(cloud.snapshots())
        newest, oldest = asking.points()
        for point_id, source, wanted in ((oldest["point_id"], "point", first), (newest["point_id"], "live", second)):
            run_id = str(uuid.uuid4())
            started = asking.start(run_id, "restore", point_id).document
            assert started["restore"]["source"] == source
            document = ready(cloud, asking, run_id)
            assert pulled(c, document, tmp_path / f"back {source}") == wanted
            asking.finish(run_id)
            nothing_is_left(cloud)
        assert len(cloud.snapshots()) == snapshots
        back_up(cloud, c)
        assert c.exit_code == 0, c.output


def test_each_call_is_throttled_and_then_its_answer_lost(tmp_path: Path) -> None:
    with two_nights(tmp_path) as (cloud, c, first, _):
        for operation in HANDLED:
            cloud.faults.throttle(operation)
            cloud.faults.lose_response(operation)
        asking, run_id = caller(c), str(uuid.uuid4())
        asking.start(run_id, "restore", asking.points()[1]["point_id"])
        assert pulled(c, ready(cloud, asking, run_id), tmp_path / "back") == first
        asking.finish(run_id)
        nothing_is_left(cloud)
        cloud.wait_until(lambda: not cloud.faults.pending(), 10, what="what was to go wrong has gone wrong")


def test_a_machine_that_dies_in_the_middle_of_a_pull(tmp_path: Path) -> None:
    with two_nights(tmp_path) as (cloud, c, first, _):
        asking, run_id = caller(c), str(uuid.uuid4())
        asking.start(run_id, "restore", asking.points()[1]["point_id"])
        document = ready(cloud, asking, run_id)
        back = tmp_path / "back"
        slow = subprocess.Popen(pulling(c, document, back, "--bwlimit=2000"), stderr=subprocess.DEVNULL)
        cloud.wait_until(lambda: asking.status(run_id).document["progress"], 60, what="the vault sees it pull")
        cloud.pull_plug()
        assert slow.wait(60) != 0
        before = document["vault"]["port"]

        def back_again() -> dict[str, Any] | None:
            document = ready(cloud, asking, run_id)
            return document if document["vault"]["port"] != before else None

        document = cloud.wait_until(back_again, 90, what="the vault is back, at another place")
        assert pulled(c, document, back) == first
        asking.finish(run_id)
        nothing_is_left(cloud)


def test_the_window_ends_in_the_middle_of_a_pull_and_it_goes_on_another_day(tmp_path: Path) -> None:
    with two_nights(tmp_path, lease_seconds=86400) as (cloud, c, first, _):  # or the run's lease would end before
        asking, back = caller(c), tmp_path / "back"
        oldest = asking.points()[1]["point_id"]
        run_id, the_next = str(uuid.uuid4()), str(uuid.uuid4())
        asking.start(run_id, "restore", oldest)
        document = ready(cloud, asking, run_id)
        slow = subprocess.Popen(pulling(c, document, back, "--bwlimit=500"), stderr=subprocess.DEVNULL)
        cloud.wait_until(lambda: asking.status(run_id).document["progress"], 60, what="the vault sees it pull")
        cloud.clock.advance(seconds=document["window"]["seconds_left"])
        nothing_is_left(cloud)
        assert slow.wait(60) != 0
        assert asking.status(run_id).document["outcome"] == "cut"
        cloud.clock.advance(seconds=86400)
        asking.start(the_next, "restore", oldest)
        assert pulled(c, ready(cloud, asking, the_next), back) == first
        asking.finish(the_next)
        nothing_is_left(cloud)
