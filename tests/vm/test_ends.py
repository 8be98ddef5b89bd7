"""How a machine's nights end: by the window in the middle of a push, by the plug, and by itself, left alone.

Each night is a fixture over the one before; all tests of this page share them, and five boots of one machine.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.demo.player import Player
from tests.demo.trees import MIB
from tests.e2e.nights import asleep, cipher, host, last_backups, on_the_vault, points, vault, windows
from tests.localcloud.cloud import LocalCloud
from tests.vm import conftest
from tests.vm.machines import (
    NIGHT_SECONDS,
    Holder,
    cut_off,
    ended,
    half_pushed,
    hypervisor,
    inside,
    one_file,
    running,
)

GRACE_SECONDS = 15
# A lease is longer than the window: so nothing ends W's run before that.
POLICY = {**conftest.POLICY, "power_off_grace_seconds": GRACE_SECONDS, "lease_seconds": 7200}
DAY, WINDOW = 86400, POLICY["window_seconds"]
O_MIB, O_CUT_MIB = 24, 13  # so that to send all of it again is more than the remainder and 10 MB
LAST_SECONDS = 30  # of a window, in which nobody can be reached
WITHOUT_ORDERS_SECONDS = 20
AGENT = "/etc/nightvault/agent.json"
POWERED_DOWN = "reboot: Power down"

Trees = dict[str, tuple[str, ...]]


@dataclass
class First:
    """O and P have backed up, and W, which keeps windows open, has enrolled."""

    o: Player
    p: Player
    w: Holder
    good: dict[str, Trees]
    points: dict[str, str]  # SHA-256 of each restore point


@dataclass
class Ended:
    """How a boot ended."""

    console: str
    stops: int  # ordered from EC2 meanwhile
    log: str = ""  # of the filesystem that was pushed to
    point: str = ""  # the restore point made of it
    current: Trees | None = None  # what is committed there
    run: dict[str, Any] | None = None


@dataclass
class Lone:
    """The end of a machine that was left alone."""

    ended: Ended
    kernel: str  # before that
    over_seconds: float  # since the window's end


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), policy=POLICY, vault="vm") as cloud:
        yield cloud


def xfs_log(image: Path) -> str:
    """CLEAN or DIRTY."""
    told = subprocess.run(["xfs_logprint", "-t", str(image)], capture_output=True, text=True, check=False).stdout
    return told.partition("state: <")[2].partition(">")[0]


def digests(cloud: LocalCloud, ids: list[str]) -> dict[str, str]:
    found = {}
    for snapshot_id in ids:
        with (cloud.directory / "snapshots" / snapshot_id).open("rb") as file:
            found[snapshot_id] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


class Watch:
    """From now on."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud
        self._begun, self._orders = len(cloud.console()), len(cloud.calls("StopInstances", ended="ok"))

    def look(self, name: str = "") -> Ended:
        """What has come; also of the host that was pushing, once the vault sleeps."""
        stops = len(self._cloud.calls("StopInstances", ended="ok")) - self._orders
        found = Ended(self._cloud.console()[self._begun :].rstrip(), stops)
        if name:
            snapshot = points(self._cloud, name)[-1]
            found.log = xfs_log(hypervisor(self._cloud).disks.volume(snapshot["VolumeId"]))
            found.point = snapshot["SnapshotId"]
            found.run = next(run for run in windows(self._cloud)[-1]["runs"] if run["host"] == name)
            with self._cloud.open_snapshot(found.point) as folder:
                found.current = on_the_vault(folder)
        return found


@pytest.fixture(scope="module")
def first(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    folder = tmp_path_factory.mktemp("hosts")
    w = Holder(cloud, "W")
    with (
        host(cloud, "O", folder, one_file(O_MIB), keep="mirror") as o,
        host(cloud, "P", folder, one_file(4), keep="mirror") as p,
    ):
        w.wake()
        o.run("backup")
        p.run("backup")
        ended(cloud, o)
        ended(cloud, p)
        # The one setting that no test can wait for; it is an hour.
        settings = json.dumps({"power_off_without_orders_seconds": WITHOUT_ORDERS_SECONDS})
        inside(cloud, f"echo '{settings}' >{AGENT}; sync")
        w.let_go()
        good = {player.name: cipher(player) for player in (o, p)}
        kept = digests(cloud, [each["SnapshotId"] for each in cloud.snapshots()])
        yield First(o, p, w, good, kept)


@pytest.fixture(scope="module")
def cut(cloud: LocalCloud, first: First) -> Ended:
    """The second night: the window ends while O pushes."""
    cloud.clock.advance(seconds=DAY)
    watch = Watch(cloud)
    half_pushed(cloud, first.o, O_CUT_MIB * MIB, 1500)
    cloud.clock.advance(seconds=WINDOW)
    ended(cloud, first.o, 9)
    asleep(cloud, NIGHT_SECONDS)
    return watch.look("O")


@pytest.fixture(scope="module")
def orphan(cloud: LocalCloud, first: First, cut: Ended) -> Ended:
    """The third night: the machine is started, and nobody answers its agent. Then it is started again."""
    cloud.clock.advance(seconds=DAY)
    first.w.wake()
    watch = Watch(cloud)
    with cloud.front.silent():
        off(cloud)
        return watch.look()


@pytest.fixture(scope="module")
def plug(cloud: LocalCloud, first: First, orphan: Ended) -> dict[str, Ended]:
    """O's push goes on; then the plug is pulled while P pushes. P's host has gone too, and the window: nobody wakes."""
    first.o.configure(bandwidth_kib=0)
    first.o.run("backup")
    ended(cloud, first.o)
    watch = Watch(cloud)
    cut_off(cloud, first.p, MIB, 200)
    return {name: watch.look(name) for name in ("O", "P")}


@pytest.fixture(scope="module")
def lone(cloud: LocalCloud, first: First, plug: dict[str, Ended]) -> Lone:
    """The fourth night: what was said of P's disk, and the end of a machine that nobody can reach, nor stop."""
    cloud.clock.advance(seconds=DAY)
    first.w.wake()
    cloud.wait_until(lambda: first.w.status()["ready"], NIGHT_SECONDS, what="the vault is open")
    kernel = inside(cloud, "until mountpoint -q /mnt/P; do sleep 1; done; dmesg")
    window = first.w.status()["window"]
    cloud.clock.advance(seconds=window["seconds_left"] - LAST_SECONDS)
    since = cloud.clock.now()
    cloud.wait_until(lambda: reported_at(cloud) >= since, 60, what="the agent knows how long it has")
    watch = Watch(cloud)
    with cloud.front.silent():
        assert vault(cloud)["phase"] == "open", "it has not been ordered to go"
        cloud.faults.refuse("StopInstances", "InternalError", times=1000)
        off(cloud)
        over = cloud.clock.now() - datetime.fromisoformat(window["closes_at"])
        found = watch.look()
        cloud.faults.clear()
    asleep(cloud, NIGHT_SECONDS)
    return Lone(found, kernel, over.total_seconds())


def reported_at(cloud: LocalCloud) -> datetime:
    return datetime.fromisoformat(vault(cloud)["reported_at"])


def off(cloud: LocalCloud) -> None:
    """The machine that is on, or will be, has gone."""
    machine = running(cloud)
    cloud.wait_until(lambda: not machine.on, NIGHT_SECONDS, what="the machine is off")


def test_the_windows_end_cuts_a_push_and_leaves_the_disk_clean(cloud: LocalCloud, first: First, cut: Ended) -> None:
    assert cut.log == "CLEAN"
    assert "All filesystems unmounted" in cut.console
    assert cut.console.endswith(POWERED_DOWN)
    assert cut.run
    assert cut.run["outcome"] == "cut"
    tags = {each["SnapshotId"]: each["tags"] for each in cloud.snapshots()}[cut.point]
    assert (tags["nightvault:label"], tags["nightvault:outcome"]) == ("incomplete", "cut")
    assert cut.current == first.good["O"], "what is current is the last push that was whole"


def test_the_next_night_sends_the_remainder(first: First, cut: Ended, plug: dict[str, Ended]) -> None:
    resumed = plug["O"]
    assert cut.run
    assert resumed.run
    remainder = O_MIB * MIB - cut.run["progress"]["transfer_bytes"]
    assert resumed.run["stats"]["bytes_sent"] <= remainder + 10_000_000
    assert resumed.run["outcome"] == "complete"
    assert resumed.current == cipher(first.o)


def test_a_machine_that_gets_no_orders_powers_off(orphan: Ended) -> None:
    assert orphan.console.endswith(POWERED_DOWN)
    assert orphan.stops == 0, "by itself"


def test_the_plug_in_the_middle_of_a_push_costs_that_push_alone(
    cloud: LocalCloud, first: First, plug: dict[str, Ended], lone: Lone
) -> None:
    crashed = plug["P"]
    assert POWERED_DOWN not in crashed.console
    assert crashed.log == "DIRTY"
    assert "Starting recovery" in lone.kernel, "by the next boot"
    tags = {each["SnapshotId"]: each["tags"] for each in cloud.snapshots()}[crashed.point]
    assert tags["nightvault:label"] == "incomplete"
    assert crashed.current == first.good["P"], "what is current is the last push that was whole"
    assert digests(cloud, [*first.points]) == first.points, "not a byte of a restore point has changed"
    assert last_backups(cloud)["P"] in first.points


def test_a_machine_that_can_reach_nobody_powers_off_when_the_window_is_over(cloud: LocalCloud, lone: Lone) -> None:
    assert lone.ended.stops == 0, "by itself"
    assert lone.over_seconds >= GRACE_SECONDS - 2
    assert "All filesystems unmounted" in lone.ended.console
    assert lone.ended.console.endswith(POWERED_DOWN)
    volumes = {each["VolumeId"] for each in cloud.snapshots()}
    assert {xfs_log(hypervisor(cloud).disks.volume(each)) for each in volumes} == {"CLEAN"}
    assert not cloud.failures
