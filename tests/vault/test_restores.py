"""Restore points: mounted to be read, served to pulls, and gone again when nobody orders them any more."""

import dataclasses
import os
import signal
import subprocess
import uuid
from pathlib import Path

import agent_volumes
import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.test_volumes import digest, mkfs
from tests.vault.vaults import Host, Machine, Rootless

Vault = Machine | Rootless


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    (tree / "file").write_text("first")
    (tree / "link").symlink_to("/etc/passwd")
    return tree


def pulled(host: Host, where: Path) -> str:
    """What a pull brings as `file`."""
    back = where / "back"
    back.mkdir(exist_ok=True)
    done = host.pull(back, "--delete")
    assert done.returncode == 0, done.stderr
    return (back / "file").read_text()


def points(vault: Vault) -> str:
    """What of restore points is mounted on a vault."""
    if isinstance(vault, Machine):
        lines = vault.run("cat", "/proc/mounts").stdout.splitlines()
        return "\n".join(line for line in lines if "/.points/" in line)
    return "\n".join(str(path.resolve()) for path in (vault.base / "mnt" / ".points").iterdir())


def pushed_twice(vault: Vault, source: Path) -> tuple[Host, dict[str, str]]:
    """A host whose restore point holds "first" and whose volume "second"."""
    [host] = vaults.mounted(vault, "C")
    vaults.back_up(host, source, str(uuid.uuid4()))
    point = vault.restore_point(host)
    (source / "file").write_text("second")
    vaults.back_up(host, source, str(uuid.uuid4()))
    return host, point


def test_a_point_is_what_is_pulled_while_it_is_mounted(vault: Vault, source: Path, tmp_path: Path) -> None:
    host, point = pushed_twice(vault, source)
    assert "restores" not in vault.cloud.reports[-1]
    before = vault.cloud.order(host, restores=[point])
    vault.poke()
    vault.cloud.wait_restores(point, after=before)
    assert pulled(host, tmp_path) == "first"
    assert (tmp_path / "back" / "link").readlink() == Path("/etc/passwd")
    if isinstance(vault, Machine):
        options = vault.run("findmnt", "-n", "-o", "OPTIONS", "/mnt/.points/C").stdout.strip().split(",")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    # A backup meanwhile goes to the volume, and a pull still comes from the point.
    (source / "file").write_text("third")
    vaults.back_up(host, source, str(uuid.uuid4()))
    assert pulled(host, tmp_path) == "first"
    before = vault.cloud.order(host, restores=[])
    vault.poke()
    vault.cloud.wait_restores(after=before)
    assert points(vault) == ""
    assert pulled(host, tmp_path) == "third"


def test_the_point_of_a_crashed_volume(machine: Machine, source: Path, tmp_path: Path) -> None:
    """Its log is replayed: without that, what was committed last would not be there."""
    [host] = vaults.mounted(machine, "C")
    vaults.back_up(host, source, str(uuid.uuid4()))
    point = machine.restore_point(host)
    before = digest(machine.base / f"{point['volume_id']}.img")
    machine.cloud.order(host, restores=[point])
    machine.poke()
    machine.cloud.wait_restores(point)
    assert pulled(host, tmp_path) == "first"
    assert digest(machine.base / f"{point['volume_id']}.img") != before


def test_what_is_no_restore_point_of_the_host_is_left_alone(machine: Machine) -> None:
    """A blank disk above all: beside a host's place it would be formatted."""
    hosts = vaults.mounted(machine, "Blank", "Ext", "Other")
    orders = [{"host": host.name, "volume_id": f"vol-{0xBAD + n:017x}"} for n, host in enumerate(hosts)]
    images = [machine.image(order["volume_id"]) for order in orders]
    mkfs("ext4", images[1])
    mkfs("xfs", images[2], "-L", agent_volumes.label("H"))
    before = [digest(image) for image in images]
    for order in orders:
        machine.attach(order["volume_id"])
    seen = machine.cloud.order(*hosts, restores=orders)
    machine.poke()
    report = machine.cloud.wait_restores(*orders, state="refused", after=seen)
    assert [word in told["detail"] for word, told in zip(("blank", "ext4", "xfs"), report["restores"], strict=True)]
    assert points(machine) == ""
    assert machine.stop_agent() == 0
    assert [digest(image) for image in images] == before


@pytest.mark.parametrize("own_volume", [f"vol-{0xDEAD:017x}", ""])
def test_a_point_that_is_attached_later(vault: Vault, source: Path, tmp_path: Path, own_volume: str) -> None:
    """Also of a host whose own volume isn't there: it can't push, and gets its data."""
    [host] = vaults.mounted(vault, "C")
    vaults.back_up(host, source, str(uuid.uuid4()))
    gone = dataclasses.replace(host, volume_id=own_volume)
    point = {"host": "C", "volume_id": f"vol-{0xBADC0FFEE:017x}"}
    before = vault.cloud.order(gone, restores=[point])
    vault.poke()
    vault.cloud.wait_restores(point, state="absent", after=before)
    vault.restore_point(host)
    vault.cloud.wait_restores(point, after=before)
    assert pulled(host, tmp_path) == "first"
    assert host.ssh("begin", str(uuid.uuid4())).returncode == 75


@pytest.mark.parametrize("how", ["not ordered", "other point", "stopped", "killed"])
def test_pulls_end_with_their_point(vault: Vault, source: Path, tmp_path: Path, how: str) -> None:
    (source / "big").write_bytes(os.urandom(20_000_000))
    host, point = pushed_twice(vault, source)
    before = vault.cloud.order(host, restores=[point])
    vault.poke()
    vault.cloud.wait_restores(point, after=before)
    command = host.rsync_command("-a", "--bwlimit=2000", "127.0.0.1:/", f"{tmp_path}/back/")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
        vault.cloud.wait_for(lambda r: r["transfers"] and r["transfers"][0]["transfer_bytes"] > 0, after=before)
        after = []
        if how == "other point":
            after = [vault.restore_point(host, 1)]
        if how == "stopped":
            assert vault.stop_agent() == 0
        elif how == "killed":  # the next agent finds what it left
            vault.stop_agent(signal.SIGKILL)
            before = vault.cloud.order(host, restores=[])
            vault.start_agent()
        else:
            before = vault.cloud.order(host, restores=after)
            vault.poke()
        assert client.wait(10) != 0
    if how != "stopped":
        vault.cloud.wait_restores(*after, after=before)
    # A new agent's first report, which has no orders yet, tells of no restores while one is still mounted.
    wait_until(lambda: len(points(vault).splitlines()) == len(after))


def test_a_point_that_does_not_let_go(machine: Machine, source: Path) -> None:
    """It is told of until it is unmounted: only then may its volume be taken away."""
    host, point = pushed_twice(machine, source)
    machine.cloud.order(host, restores=[point])
    machine.poke()
    machine.cloud.wait_restores(point)
    holder = ["/bin/sh", "-c", "cd /mnt/.points/C && exec sleep 60"]
    pid = machine.tell(do="start", name="holder", argv=holder, log=str(machine.base / "holder.log"))
    wait_until(lambda: machine.run("readlink", f"/proc/{pid}/cwd").stdout == "/mnt/.points/C\n")
    before = machine.cloud.order(host, restores=[])
    machine.poke()
    report = machine.cloud.wait_restores(point, state="error", after=before)
    assert "in use" in report["restores"][0]["detail"]
    machine.tell(do="stop", name="holder", signal=int(signal.SIGKILL), seconds=10)
    machine.cloud.wait_restores(after=before)
    assert points(machine) == ""
