"""Disks of a machine: plugged in while it runs, found in another order, grown, crashed, somebody else's, kept.

All tests of this page share three boots: two of one machine, and a new machine's with the old volumes.
"""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.demo.player import Player
from tests.demo.trees import MIB
from tests.e2e.nights import cipher, host, on_the_vault, points, portrait, vault
from tests.localcloud.cloud import LocalCloud
from tests.vm.machines import Holder, cut_off, ended, hypervisor, inside, one_file

GIB = 1024 * MIB
# Whose disk holds what is not theirs: how that is made, and what is said of it.
FOREIGN = {
    "E": (["mkfs.xfs", "-q", "-L", "somebodyelse"], "holds xfs labelled 'somebodyelse'"),
    "F": (["mkfs.ext4", "-q", "-L", "photos"], "holds ext4 labelled 'photos'"),
}
# Each place, its device, and that device's serial number, which is the volume's id.
PLACES = """findmnt -rno TARGET,SOURCE -t xfs | grep '^/mnt/[A-Z] ' | while read place disk; do
    echo $place $disk $(cat /sys/class/nvme/$(basename $disk n1)/serial)
done"""
JOURNAL = "journalctl -b -u nightvault-agent -o cat --no-pager"
# What the agent says of this boot, once it has refused what is not ours.
SAID = f"""until [ $({JOURNAL} | grep -c '"state": "refused"') -ge {len(FOREIGN)} ]; do sleep 1; done; {JOURNAL}"""
MOUNTED = "until mountpoint -q /mnt/C && mountpoint -q /mnt/D; do sleep 1; done"


@dataclass
class Boot:
    """What was found on one boot of the machine."""

    instance: str
    places: dict[str, tuple[str, str]]  # device and serial number, by host
    shown: dict[str, dict[str, Any]]  # to the operator, of the strangers' disks
    said: str  # by the agent
    kernel: str
    owners: set[str]  # of the files on C's volume
    user: str  # C's
    size_bytes: int  # of C's filesystem


@dataclass
class First:
    """The first boot, and who is there."""

    boot: Boot
    c: Player  # there when the machine boots first
    d: Player  # enrolled while it ran
    holder: Holder
    disks: dict[str, str]  # SHA-256 of the strangers' disks, before


@dataclass
class Rebuilt:
    """The new machine's first boot."""

    boot: Boot
    restored: Path  # C's files
    expected: dict[str, tuple[str, ...]]


def shown(cloud: LocalCloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.operate("host", host=name)["host"]
    return found


def disk(cloud: LocalCloud, name: str) -> Path:
    cloud.wait_until(lambda: shown(cloud, name)["volume_id"], 60, what=f"{name} has a volume")
    return hypervisor(cloud).disks.volume(shown(cloud, name)["volume_id"])


def digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def look(cloud: LocalCloud) -> Boot:
    """At the machine that is on, once C and D have their places and what is wrong with E and F is known."""
    inside(cloud, MOUNTED)
    said = inside(cloud, SAID)
    for name in FOREIGN:
        cloud.wait_until(lambda name=name: shown(cloud, name)["volume_trouble"], 60, what="the operator sees it")  # type: ignore[misc]
    lines = [line.split() for line in inside(cloud, PLACES).splitlines()]
    return Boot(
        instance=vault(cloud)["instance_id"],
        places={place.removeprefix("/mnt/"): (device, serial) for place, device, serial in lines},
        shown={name: shown(cloud, name) for name in FOREIGN},
        kernel=inside(cloud, "dmesg"),
        said=said,
        owners=set(inside(cloud, "find /mnt/C -printf '%u\\n'").split()),
        user=inside(cloud, "stat -c %U /mnt/C").strip(),
        size_bytes=int(inside(cloud, "stat -f -c %b /mnt/C")) * int(inside(cloud, "stat -f -c %S /mnt/C")),
    )


@pytest.fixture(scope="module")
def first(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    folder = tmp_path_factory.mktemp("hosts")
    holder = Holder(cloud, "E")
    cloud.enroll("F")
    for name, (make, _) in FOREIGN.items():
        file = disk(cloud, name)
        cloud.wait_until(lambda file=file: file.exists() and file.stat().st_size, 30, what="the volume is made")  # type: ignore[misc]
        subprocess.run([*make, str(file)], check=True, capture_output=True)
    disks = {name: digest(disk(cloud, name)) for name in FOREIGN}
    with host(cloud, "C", folder, one_file(1), keep="mirror") as c:
        holder.wake()
        c.run("backup")
        ended(cloud, c)
        with host(cloud, "D", folder, one_file(8), keep="mirror") as d:
            d.run("backup")
            ended(cloud, d)
            yield First(look(cloud), c, d, holder, disks)


@pytest.fixture(scope="module")
def second(cloud: LocalCloud, first: First) -> Boot:
    """After a push of D's that the plug cut; C's volume is larger, and the disks are the other way round."""
    cut_off(cloud, first.d, 2 * MIB, 300)
    # Nothing but the device: that EC2 is asked for it is shown elsewhere (tests/e2e/test_volumes.py).
    hypervisor(cloud).resize_volume(shown(cloud, "C")["volume_id"], 2)
    hypervisor(cloud).disk_order = lambda ids: ids[::-1]
    cloud.clock.advance(seconds=86400)
    first.holder.wake()
    boot = look(cloud)
    first.d.configure(bandwidth_kib=0)
    first.d.run("backup")
    ended(cloud, first.d)
    first.holder.let_go()
    return boot


@pytest.fixture(scope="module")
def rebuilt(cloud: LocalCloud, first: First, second: Boot, tmp_path_factory: pytest.TempPathFactory) -> Rebuilt:
    """A new machine gets the old volumes: C restores from its own, and backs up."""
    restored = tmp_path_factory.mktemp("restored")
    cloud.operate("rebuild_vault", vault_id="vault-1")
    cloud.clock.advance(seconds=86400)
    first.holder.wake()
    expected = portrait(first.c.live)
    first.c.run("restore", str(restored / "C"))
    ended(cloud, first.c)
    first.c.work_by_day()
    first.c.run("backup")
    ended(cloud, first.c)
    boot = look(cloud)
    first.holder.let_go()
    return Rebuilt(boot, restored / "C", expected)


def at_their_own(cloud: LocalCloud, boot: Boot) -> bool:
    """Whether C's and D's places, and no other, hold their own volumes."""
    mine = {name: shown(cloud, name)["volume_id"].replace("-", "") for name in ("C", "D")}
    return {name: serial for name, (_, serial) in boot.places.items()} == mine


def test_a_disk_is_plugged_in_while_the_machine_runs(cloud: LocalCloud, first: First) -> None:
    """D's: it was enrolled when C had backed up."""
    assert at_their_own(cloud, first.boot)


@pytest.mark.parametrize("name", FOREIGN)
def test_somebody_elses_disk_is_refused_named_and_left_alone(cloud: LocalCloud, first: First, name: str) -> None:
    assert FOREIGN[name][1] in first.boot.shown[name]["volume_trouble"]
    assert FOREIGN[name][1] in first.boot.said
    assert name not in first.boot.places
    assert digest(disk(cloud, name)) == first.disks[name], "not a byte of it has changed"


def test_another_order_of_the_disks_changes_nobodys_place(cloud: LocalCloud, first: First, second: Boot) -> None:
    assert at_their_own(cloud, second)
    assert second.instance == first.boot.instance
    before, after = ({name: device for name, (device, _) in boot.places.items()} for boot in (first.boot, second))
    assert (before["C"] < before["D"]) != (after["C"] < after["D"]), "they really were found the other way round"


def test_a_larger_volume_is_grown_when_it_is_mounted(first: First, second: Boot) -> None:
    assert first.boot.size_bytes < GIB
    assert second.size_bytes > 1.9 * GIB


def test_a_dirty_journal_is_replayed_and_the_push_goes_on(cloud: LocalCloud, first: First, second: Boot) -> None:
    device = second.places["D"][0].removeprefix("/dev/")
    assert f"XFS ({device}): Starting recovery" in second.kernel
    assert "Starting recovery" not in first.boot.kernel
    with cloud.open_snapshot(points(cloud, "D")[-1]["SnapshotId"]) as snapshot:
        assert on_the_vault(snapshot) == cipher(first.d)


def test_a_new_machine_serves_what_the_old_one_took(
    cloud: LocalCloud, first: First, second: Boot, rebuilt: Rebuilt
) -> None:
    boot = rebuilt.boot
    assert boot.instance not in ("", first.boot.instance)
    assert at_their_own(cloud, boot)
    assert first.boot.owners == second.owners == boot.owners == {boot.user}, "accounts have the same numbers"
    assert boot.size_bytes == second.size_bytes
    assert portrait(rebuilt.restored / str(first.c.live).lstrip("/")) == rebuilt.expected
    for name, disk_before in first.disks.items():
        assert name not in boot.places
        assert digest(disk(cloud, name)) == disk_before
    assert "Starting recovery" not in boot.kernel, "the machine before it was switched off in good order"
    assert not cloud.failures
