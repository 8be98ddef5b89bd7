"""Each volume at its place: found by its id, mounted, and let go; a host's own is formatted once, and grown."""

import hashlib
import os
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import registry
from agent_config import Config
from agent_orders import HostOrder, RestoreOrder

State = Literal["mounted", "absent", "refused", "error"]
# Data of hosts: no program, device or setuid file on it is ever to have any effect.
_OPTIONS = "nosuid,nodev,noexec,noatime"
# nouuid: a restore point has its volume's UUID. Mounting replays the log of one taken in a crash.
_READ_ONLY = "ro,nouuid,nosuid,nodev,noexec"
_BLANK_BYTES = 1024 * 1024
# Who changes disks and mounts where the agent may not; see nightvault-agent.service.
_IN_MY_PLACE = os.environ.get("NIGHTVAULT_DISK_COMMAND", "").split()


@dataclass(frozen=True)
class Mount:
    """What stands at a host's place. `free_bytes` changes all the time and is no news."""

    host: str
    volume_id: str
    state: State
    detail: str = ""
    size_bytes: int = 0
    free_bytes: int = 0


class NotOurs(Exception):
    """The disk holds something that is not this host's nightvault volume; it is left untouched."""


def label(host: str) -> str:
    """The XFS label (at most 12 bytes) of a host's volume.

    Of the host and not of the volume id, which changes when a volume is restored from a snapshot: the serial
    number already tells which volume it is, the label tells whose data is on it.
    """
    return "nv" + hashlib.sha256(f"nightvault {host}".encode()).hexdigest()[:10]


class Volumes:
    """The places below mount_root, or `points`: those below mount_root/.points, of restore points, which are only read.

    `apply` reports failures in its result; none is raised for one host's disk.
    """

    def __init__(self, config: Config, *, points: bool = False) -> None:
        self._config = config
        self._points = points
        self.root = config.mount_root / registry.POINTS if points else config.mount_root
        self._sizes: dict[str, int] = {}  # bytes of each mounted device when its filesystem was last grown

    def apply(self, order: HostOrder | RestoreOrder) -> Mount:
        """Mount a volume, if it is attached and its place is free or holds it already."""
        mount = Mount(order.host, order.volume_id, "absent")
        try:
            source = self._find(order.volume_id)
            if source is None:
                return mount
            if source.is_dir():
                self._link(order, source)
            else:
                self._mount(order, source)
            room = os.statvfs(self.root / order.host)
        except NotOurs as error:
            return replace(mount, state="refused", detail=str(error)[:120])
        except (OSError, subprocess.SubprocessError) as error:
            return replace(mount, state="error", detail=said(error, 120))
        size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        return replace(mount, state="mounted", size_bytes=size, free_bytes=free)

    def misplaced(self, orders: Iterable[HostOrder | RestoreOrder]) -> list[str]:
        """Hosts whose place holds what it should not: no longer ordered, another disk, or a disk that is gone."""
        ordered = {order.host: order.volume_id for order in orders}
        places = self._places()
        return sorted(host for host in places if host not in ordered or not self._is(places[host], ordered[host]))

    def places(self) -> list[str]:
        """Hosts at whose place something is mounted now."""
        return sorted(self._places())

    def release(self, host: str) -> None:
        """Free a host's place, whose processes have ended. Raises OSError or SubprocessError."""
        self._sizes.pop(host, None)
        place = self.root / host
        if place.is_symlink():
            run("sync", "-f", str(place.resolve()))
            place.unlink()
            return
        while host in self._places():  # once for each layer, should there be several
            run("umount", str(place))

    def _find(self, volume_id: str) -> Path | None:
        """The block device, or rootless the folder, that is a volume."""
        if self._config.device_dir is not None:
            source = (self._config.device_dir / volume_id).resolve()
            return source if source.is_dir() or source.is_block_device() else None
        # An EBS volume's NVMe serial is its id without the dash; device names come in any order:
        # https://docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html
        for controller in (self._config.sys_dir / "class/nvme").glob("nvme*"):
            with suppress(OSError):
                serial = (controller / "serial").read_text().strip()
                if serial not in (volume_id, volume_id.replace("-", "", 1)):
                    continue
                for namespace in controller.glob("nvme*n*"):
                    # nvme1n1, or with native multipath nvme1c1n1, whose usable device is nvme1n1.
                    device = self._config.dev_dir / re.sub(r"c\d+(?=n)", "", namespace.name)
                    if device.is_block_device():
                        return device
        return None

    def _link(self, order: HostOrder | RestoreOrder, source: Path) -> None:
        place = self.root / order.host
        if place.is_symlink():
            return  # misplaced() has looked where it leads
        if place.is_dir():
            place.rmdir()  # what an earlier system-mode agent left; never one with anything in it
        self._own(source, order)
        place.symlink_to(source)

    def _mount(self, order: HostOrder | RestoreOrder, device: Path) -> None:
        place = self.root / order.host
        number = os.stat(device).st_rdev  # noqa: PTH116
        if self._places().get(order.host) is None:
            _make_ours(device, label(order.host), blank_too=isinstance(order, HostOrder) and order.blank_ok)
            place.mkdir(mode=0o700, exist_ok=True)
            run("mount", "-t", "xfs", "-o", _READ_ONLY if self._points else _OPTIONS, str(device), str(place))
            if self._places().get(order.host) != number or os.stat(device).st_rdev != number:  # noqa: PTH116
                raise OSError(f"{device} changed while it was being mounted; it is looked at again")
            self._own(place, order)
        if self._points:
            return
        size = _size(device)
        if self._sizes.get(order.host) != size:
            if _blocks_fit(device, size):
                run("xfs_growfs", "-d", str(place))
            self._sizes[order.host] = size

    def _own(self, root: Path, order: HostOrder | RestoreOrder) -> None:
        if not isinstance(order, HostOrder):
            return
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if self._config.accounts == "system":
                os.fchown(descriptor, order.uid, -1)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def _is(self, what: int | str, volume_id: str) -> bool:
        source = self._find(volume_id)
        if source is None:
            return False
        return what == (str(source) if source.is_dir() else os.stat(source).st_rdev)  # noqa: PTH116

    def _places(self) -> dict[str, int | str]:
        """What each place holds: a device's number, or rootless where the symlink leads. Only places of ours:
        a host has a folder in run_dir from when it was first ordered."""
        found: dict[str, int | str] = {place: device for place, device, _ in mounts_below(self.root)}
        with suppress(FileNotFoundError):
            for place in self.root.iterdir():
                if place.is_symlink():
                    found[place.name] = str(place.resolve())
        ours = (host for host in found if registry.HOST.fullmatch(host) and (self._config.run_dir / host).is_dir())
        return {host: found[host] for host in ours}


def mounts_below(root: Path) -> Iterator[tuple[str, int, str]]:
    """Each mount below a folder, the topmost last: its path there, its device's number, and which folder of that."""
    below = str(root.resolve()).rstrip("/") + "/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _id, _parent, device, folder, point = line.split(" ")[:5]
        if point.startswith(below):
            major, _, minor = device.partition(":")
            yield point.removeprefix(below), os.makedev(int(major), int(minor)), folder


def _make_ours(device: Path, name: str, *, blank_too: bool) -> None:
    """See that a device holds our XFS, making it on a blank one if `blank_too`.

    Raises NotOurs, and has written nothing then.
    """
    # -p looks at the disk itself, never at a cache; exit code 2 is "nothing found", 8 "ambiguous".
    probe = subprocess.run(
        ["blkid", "-p", "-o", "export", str(device)], capture_output=True, text=True, check=False, timeout=60
    )
    if probe.returncode == 2 and not probe.stdout.strip():
        with device.open("rb") as disk:
            if disk.read(_BLANK_BYTES).strip(b"\0"):
                raise NotOurs("no filesystem, yet its first MiB is not blank; detach it, or blank it by hand")
        if not blank_too:
            raise NotOurs("blank, though it was made of a restore point; detach it")
        # Never -f: mkfs.xfs looks for signatures once more by itself.
        run("mkfs.xfs", "-q", "-K", "-m", "reflink=1", "-L", name, str(device))
        return
    found = dict(line.split("=", 1) for line in probe.stdout.splitlines() if "=" in line)
    if probe.returncode != 0 or found.get("TYPE") != "xfs" or found.get("LABEL") != name:
        kind = found.get("TYPE") or found.get("PTTYPE") or "something unknown"
        raise NotOurs(
            f"holds {kind} labelled {found.get('LABEL', '')!r}, not xfs labelled {name!r}; attach the right one"
        )


def _blocks_fit(device: Path, size_bytes: int) -> bool:
    """Whether more blocks fit on a device than its XFS has. The superblock is "XFSB", their size, their number, …"""
    with device.open("rb") as disk:
        block_bytes, blocks = struct.unpack(">4xIQ", disk.read(16))
    return bool(size_bytes // block_bytes > blocks)


def _size(device: Path) -> int:
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def run(*command: str) -> None:
    subprocess.run(
        [*_IN_MY_PLACE, *command], check=True, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


def said(error: Exception, most: int = 300) -> str:
    """What a command that failed has written, or else the error's own words; in one line, cut to so many characters."""
    return " ".join(str(getattr(error, "stderr", None) or error).split())[:most]
