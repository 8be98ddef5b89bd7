"""Disks: the right one, formatted once, grown, never harmed; on a machine with real XFS on loop devices."""

import dataclasses
import hashlib
import os
import subprocess
import uuid
from pathlib import Path

import agent_config
import agent_volumes
import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.vaults import Machine, Rootless


def digest(image: Path) -> str:
    """Of all its bytes that are not holes, and where they are."""
    seen = hashlib.sha256()
    with image.open("rb") as file:
        at = 0
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return seen.hexdigest()
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            data = os.pread(file.fileno(), end - at, at)
            # A block of zeros is as good as the hole it was before someone read it.
            seen.update(f"{at}".encode() + data if data.strip(b"\0") else b"")
            at = end


def mkfs(kind: str, image: Path, *options: str) -> None:
    subprocess.run([f"mkfs.{kind}", "-q", *options, str(image)], check=True, capture_output=True)


def mount_of(report: dict[str, object], host: str) -> dict[str, object]:
    mounts = report["mounts"]
    assert isinstance(mounts, list)
    return next((mount for mount in mounts if mount["host"] == host), {"state": None})


def test_disks_that_are_not_ours_are_left_alone(machine: Machine) -> None:
    """ext4; another host's XFS; no filesystem but bytes; a partition table; blank, though it was made of a snapshot.
    And one blank one beside them."""
    hosts = [machine.host(name) for name in ("Ext", "Other", "Bytes", "Table", "Point", "Blank")]
    hosts[4] = dataclasses.replace(hosts[4], blank_ok=False)
    images = {host.name: machine.image(host.volume_id) for host in hosts}
    mkfs("ext4", images["Ext"])
    mkfs("xfs", images["Other"], "-L", agent_volumes.label("H"))
    with images["Bytes"].open("r+b") as file:
        file.seek(1024 * 1024 - 1)
        file.write(b"\1")
    with images["Table"].open("r+b") as file:  # an MBR with one Linux partition
        file.seek(446)
        file.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")
    before = {name: digest(image) for name, image in images.items()}
    for host in hosts:
        machine.attach(host.volume_id)
    machine.cloud.order(*hosts)
    machine.start_agent()
    report = machine.cloud.wait_for(
        lambda report: (
            [m["state"] for m in report["mounts"]] == ["mounted", *["refused"] * 5]  # by name
            if report["mounts"]
            else False
        )
    )
    assert "ext4" in str(mount_of(report, "Ext")["detail"])
    assert agent_volumes.label("Other") in str(mount_of(report, "Other")["detail"])
    assert "first MiB" in str(mount_of(report, "Bytes")["detail"])
    assert "made of a restore point" in str(mount_of(report, "Point")["detail"])
    assert hosts[0].ssh("begin", str(uuid.uuid4())).returncode == 75
    assert machine.stop_agent() == 0
    for name in ("Ext", "Other", "Bytes", "Table", "Point"):
        assert digest(images[name]) == before[name], name
    assert digest(images["Blank"]) != before["Blank"]


def test_formatted_once_and_only_once_then_grown(machine: Machine, tmp_path: Path) -> None:
    [host] = vaults.mounted(machine, "C")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("kept")
    run_id = str(uuid.uuid4())
    vaults.back_up(host, source, run_id)
    root = machine.volume(host).stat()
    assert (root.st_uid, root.st_mode & 0o777) == (host.uid, 0o700)
    made = machine.run("blkid", "-p", "-o", "value", "-s", "UUID", f"/srv/dev/{host.volume_id}").stdout
    assert machine.stop_agent() == 0
    assert "/mnt/C" not in machine.run("cat", "/proc/mounts").stdout
    # As after a stop: another device number, and a bigger volume.
    machine.detach(host.volume_id)
    machine.attach(host.volume_id, 400)
    seen = len(machine.cloud.reports)
    machine.start_agent()
    report = machine.cloud.wait_mounted(host, after=seen)
    assert report["commits"] == [{"host": "C", "run_id": run_id}]
    assert mount_of(report, "C")["size_bytes"] > 300 * 1024 * 1024  # type: ignore[operator]
    assert (machine.volume(host) / "current" / "file").read_text() == "kept"
    assert machine.run("blkid", "-p", "-o", "value", "-s", "UUID", f"/srv/dev/{host.volume_id}").stdout == made
    # And grown while it is mounted.
    machine.image(host.volume_id, 500)
    seen = len(machine.cloud.reports)
    machine.tell(do="grow", volume_id=host.volume_id)
    machine.cloud.order(host, report_every_seconds=1)
    machine.poke()
    machine.cloud.wait_for(lambda report: mount_of(report, "C").get("size_bytes", 0) > 400 * 1024 * 1024, after=seen)  # type: ignore[operator]


def test_the_disks_change_places(machine: Machine) -> None:
    """Device names come in any order; a volume never shows at another host's place."""
    c, h = vaults.mounted(machine, "C", "H")
    for host in (c, h):
        assert host.ssh("begin", str(uuid.uuid4())).returncode == 0
        (machine.volume(host) / "staging" / host.name).touch()
    # The links change places under the mounted volumes, as device names do over a restart.
    script = f"cd /srv/dev && mv {c.volume_id} x && mv {h.volume_id} {c.volume_id} && mv x {h.volume_id}"
    seen = len(machine.cloud.reports)
    assert machine.run("/bin/sh", "-c", script).returncode == 0
    machine.poke()
    machine.cloud.wait_for(lambda report: [m["state"] for m in report["mounts"]] == ["refused"] * 2, after=seen)
    for host in (c, h):
        assert not list(machine.volume(host).iterdir())
        assert host.ssh("begin", str(uuid.uuid4())).returncode == 75
    # The control plane that mixed up two hosts' volumes is refused as well; put right, all is as before.
    seen = machine.cloud.order(c, h)
    assert machine.run("/bin/sh", "-c", script).returncode == 0
    machine.poke()
    machine.cloud.wait_mounted(c, h, after=seen)
    for host in (c, h):
        assert [path.name for path in (machine.volume(host) / "staging").iterdir()] == [host.name]


def test_a_host_that_is_no_longer_ordered(vault: Machine | Rootless) -> None:
    c, h = vaults.mounted(vault, "C", "H")
    assert h.ssh("begin", str(uuid.uuid4())).returncode == 0
    seen = vault.cloud.order(c, report_every_seconds=1)
    vault.poke()
    vault.cloud.wait_mounted(c, after=seen)
    assert h.ssh("begin", str(uuid.uuid4())).returncode in ((255,) if isinstance(vault, Machine) else (255, 126))
    if isinstance(vault, Machine):
        assert "/mnt/H" not in vault.run("cat", "/proc/mounts").stdout
    else:
        assert not vault.volume(h).is_symlink()
    # And back again, with another key and account number.
    seen = vault.cloud.order(c, h)
    vault.poke()
    vault.cloud.wait_mounted(c, h, after=seen)
    assert h.ssh("begin", str(uuid.uuid4())).stdout.startswith("resumed")


def test_account_numbers_are_as_ordered(machine: Machine) -> None:
    """Whatever order hosts come in, and also where an account of that name or number is there already."""
    c, h = machine.host("C"), machine.host("H")
    machine.attach(c.volume_id)
    machine.attach(h.volume_id)
    machine.run("useradd", "--uid", "30001", "-g", "nightvault", "-M", f"nv{c.uid}")
    machine.run("useradd", "--uid", str(h.uid), "-g", "nightvault", "-M", "gone")
    machine.cloud.order(h, c)
    machine.start_agent()
    machine.cloud.wait_mounted(c, h)
    for host in (c, h):
        line = machine.run("getent", "passwd", f"nv{host.uid}").stdout.strip()
        group = machine.run("getent", "group", "nightvault").stdout.split(":")[2]
        assert line == f"nv{host.uid}:x:{host.uid}:{group}::/:/bin/sh"
        assert host.ssh("begin", str(uuid.uuid4())).returncode == 0
    # Never one of the system's own.
    bad = dataclasses.replace(c, uid=20099)
    seen = len(machine.cloud.reports)
    machine.run("useradd", "--uid", "20099", "-M", "-N", "somebody")
    machine.cloud.order(bad, h, report_every_seconds=1)
    machine.poke()
    report = machine.cloud.wait_for(lambda report: mount_of(report, "C")["state"] == "error", after=seen)
    assert "account" in str(mount_of(report, "C")["detail"])
    assert machine.run("getent", "passwd", "somebody").stdout.startswith("somebody:x:20099")
    wait_until(lambda: not machine.path(f"/srv/keys/nv{c.uid}").exists())


@pytest.mark.parametrize("serial", ["vol0123456789abcdef0", "vol-0123456789abcdef0", "vol0123456789abcdef0   "])
@pytest.mark.parametrize("namespace", ["nvme3n1", "nvme3c3n1"])
def test_a_volume_is_found_by_its_serial(
    tmp_path: Path, serial: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, text in ((0, "AWS12345"), (3, serial), (4, "vol0123456789abcdef1")):
        controller = tmp_path / "sys" / "class" / "nvme" / f"nvme{number}"
        (controller / (namespace if number == 3 else f"nvme{number}n1")).mkdir(parents=True)
        (controller / "serial").write_text(text + "\n")
    monkeypatch.setattr(Path, "is_block_device", lambda _path: True)
    config = agent_config.Config(control_url="http://x", sys_dir=tmp_path / "sys", dev_dir=Path("/dev"))
    volumes = agent_volumes.Volumes(config)
    assert volumes._find("vol-0123456789abcdef0") == Path("/dev/nvme3n1")
    assert volumes._find("vol-0123456789abcdef2") is None
