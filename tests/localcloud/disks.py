"""EBS's part: volumes and snapshots as files of this machine.

With root, a volume is a sparse image, attached as a loop device; without, a folder. Either way the agent
finds it as `device folder of its machine / volume id`. A snapshot is a frozen copy.
"""

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_GIB = 1024**3
_BLOCK = 4096
_ATTEMPTS = 20


class Disks(ABC):
    """Volumes and snapshots below `directory`; `devices(instance)` is where a machine sees its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._regions: dict[str, Self] = {}
        for name in ("volumes", "snapshots", "devices"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    def devices(self, instance_id: str) -> Path:
        folder = self._directory / "devices" / instance_id
        folder.mkdir(exist_ok=True)
        return folder

    def create(self, volume_id: str, size_gib: int, snapshot_id: str | None) -> None:
        if snapshot_id:
            self._copy(self._snapshot(snapshot_id), self.volume(volume_id))
        self._make(volume_id, size_gib)

    def resize(self, volume_id: str, size_gib: int) -> None:
        self._make(volume_id, size_gib)

    def delete(self, volume_id: str) -> None:
        _remove(self.volume(volume_id))

    def snapshot(self, snapshot_id: str, volume_id: str) -> None:
        self._copy(self.volume(volume_id), self._snapshot(snapshot_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        _remove(self._snapshot(snapshot_id))

    def region(self, name: str) -> Self:
        """The disks of another region, apart from these."""
        if name not in self._regions:
            self._regions[name] = type(self)(self._directory / "regions" / name)
        return self._regions[name]

    def copy_snapshot(self, snapshot_id: str, copy_id: str, region: str) -> None:
        self._copy(self._snapshot(snapshot_id), self.region(region)._snapshot(copy_id))

    def attach(self, instance_id: str, volume_id: str) -> None:
        link = self.devices(instance_id) / volume_id
        if not link.is_symlink():
            link.symlink_to(self._device(volume_id))

    def detach(self, instance_id: str, volume_id: str) -> None:
        (self.devices(instance_id) / volume_id).unlink(missing_ok=True)

    def used_bytes(self, snapshot_id: str) -> int:
        """What the snapshot really holds (EBS bills blocks that were written)."""
        path = self._snapshot(snapshot_id)
        files = [path] if path.is_file() else [each for each in path.rglob("*") if not each.is_symlink()]
        return sum(each.stat().st_blocks * 512 for each in files)

    @contextmanager
    @abstractmethod
    def open_snapshot(self, snapshot_id: str) -> Iterator[Path]:
        """The snapshot's filesystem as a folder. Look, do not write."""

    def damage(self, snapshot_id: str) -> Path:
        """A flipped bit in the middle of the largest file that is committed there, which is what is returned.

        It is flipped where it lies: names, sizes and times of everything stay as they were.
        """
        with self.open_snapshot(snapshot_id) as folder:
            tree = (folder / "current").resolve()
            largest = max((each for each in tree.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
            within = largest.relative_to(folder.resolve())
            with largest.open("rb") as file:
                file.seek(largest.stat().st_size // 2 // _BLOCK * _BLOCK)
                block = file.read(_BLOCK)
        frozen = self._snapshot(snapshot_id)
        path = frozen if frozen.is_file() else frozen / within
        times = path.stat()
        with path.open("r+b") as image, mmap.mmap(image.fileno(), 0) as content:
            at = content.find(block)
            if at < 0:
                raise RuntimeError(f"{within} is not found in {path}")
            while at >= 0:  # a tree that is there no more may have left a copy
                content[at] ^= 1
                at = content.find(block, at)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return within

    @abstractmethod
    def crash(self, mounts: list[Path]) -> None:
        """The power fails under these mounted filesystems: what was not yet on disk never gets there."""

    @abstractmethod
    def close(self) -> None:
        """No device and no mount of ours is left; the files stay."""

    @abstractmethod
    def _make(self, volume_id: str, size_gib: int) -> None: ...

    @abstractmethod
    def _copy(self, source: Path, target: Path) -> None: ...

    @abstractmethod
    def _device(self, volume_id: str) -> Path: ...

    def volume(self, volume_id: str) -> Path:
        """Its image file, or its folder."""
        return self._directory / "volumes" / volume_id

    def _snapshot(self, snapshot_id: str) -> Path:
        return self._directory / "snapshots" / snapshot_id


class FolderDisks(Disks):
    """Without root: no filesystem of its own, so no size and no real crash either."""

    @contextmanager
    def open_snapshot(self, snapshot_id: str) -> Iterator[Path]:
        yield self._snapshot(snapshot_id)

    def crash(self, mounts: list[Path]) -> None: ...

    def close(self) -> None: ...

    def _make(self, volume_id: str, size_gib: int) -> None:  # noqa: ARG002 - a folder has no size
        self.volume(volume_id).mkdir(exist_ok=True)

    def _copy(self, source: Path, target: Path) -> None:
        reflink = ["--reflink=auto", "--sparse=always"] if sys.platform == "linux" else []
        subprocess.run(["cp", "-Rp" if not reflink else "-a", *reflink, str(source), str(target)], check=True)

    def _device(self, volume_id: str) -> Path:
        return self.volume(volume_id)


class ImageDisks(Disks):
    """With root: sparse images, loop devices, XFS."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._loops: dict[str, tuple[Path, int]] = {}  # device and our descriptor of it
        self._lock = threading.Lock()
        clear_leftovers(directory)

    def delete(self, volume_id: str) -> None:
        self._let_go(volume_id)
        super().delete(volume_id)

    def resize(self, volume_id: str, size_gib: int) -> None:
        from fcntl import ioctl  # noqa: PLC0415 - not on every system that imports this module

        super().resize(volume_id, size_gib)
        with self._lock:
            if volume_id in self._loops:
                ioctl(self._loops[volume_id][1], 0x4C07)  # LOOP_SET_CAPACITY: linux/loop.h

    def detach(self, instance_id: str, volume_id: str) -> None:
        super().detach(instance_id, volume_id)
        self._let_go(volume_id)

    def snapshot(self, snapshot_id: str, volume_id: str) -> None:
        with self._lock:
            if volume_id in self._loops:
                os.fsync(self._loops[volume_id][1])
        super().snapshot(snapshot_id, volume_id)
        self._snapshot(snapshot_id).chmod(0o400)

    @contextmanager
    def open_snapshot(self, snapshot_id: str) -> Iterator[Path]:
        # A copy, because the snapshot of a crashed machine needs its log replayed before it can be read.
        with tempfile.TemporaryDirectory(dir=self._directory, prefix="open-") as folder:
            image, mount = Path(folder, "image"), Path(folder, "mount")
            self._copy(self._snapshot(snapshot_id), image)
            image.chmod(0o600)
            mount.mkdir()
            options = "loop,nouuid,nosuid,nodev,noexec"
            _retried(["mount", "-t", "xfs", "-o", options, str(image), str(mount)])
            try:
                subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
                yield mount
            finally:
                subprocess.run(["umount", "--lazy", str(mount)], check=True)

    def crash(self, mounts: list[Path]) -> None:
        from fcntl import ioctl  # noqa: PLC0415 - not on every system that imports this module

        for mount in mounts:
            with contextlib.suppress(OSError):
                folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    # XFS_IOC_GOINGDOWN with XFS_FSOP_GOING_FLAGS_NOLOGFLUSH: man 8 xfs_io, "shutdown"
                    ioctl(folder, 0x8004587D, (2).to_bytes(4, sys.byteorder))
                finally:
                    os.close(folder)

    def close(self) -> None:
        for volume_id in list(self._loops):
            self._let_go(volume_id)
        clear_leftovers(self._directory)

    def _make(self, volume_id: str, size_gib: int) -> None:
        path = self.volume(volume_id)
        path.touch(mode=0o600)
        os.truncate(path, size_gib * _GIB)

    def _copy(self, source: Path, target: Path) -> None:
        _remove(target)
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], check=True)
        target.chmod(0o600)

    def _device(self, volume_id: str) -> Path:
        with self._lock:
            if volume_id not in self._loops:
                command = ["losetup", "--find", "--show", str(self.volume(volume_id))]
                device = Path(_retried(command).strip())
                descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                # A device that is told to go while it is open goes with its last user, that is: also when
                # this process is killed.
                subprocess.run(["losetup", "--detach", str(device)], check=True)
                self._loops[volume_id] = (device, descriptor)
            return self._loops[volume_id][0]

    def _let_go(self, volume_id: str) -> None:
        with self._lock:
            if volume_id in self._loops:
                os.close(self._loops.pop(volume_id)[1])


def clear_leftovers(directory: Path) -> None:
    """Ends mounts and loop devices of a run in this directory that could not do so itself."""
    prefix = f"{directory.resolve()}/"
    mounts = Path("/proc/self/mountinfo")
    for line in reversed(mounts.read_text().splitlines() if mounts.exists() else []):
        place = line.split()[4].replace("\\040", " ")
        if place.startswith(prefix):
            subprocess.run(["umount", "--lazy", place], check=False)
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip().startswith(prefix):
                subprocess.run(["losetup", "--detach", f"/dev/{backing.parts[3]}"], check=False)


def _retried(command: list[str]) -> str:
    """Other test processes want loop devices too, and two may be given the same free one."""
    for attempt in range(_ATTEMPTS):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        threading.Event().wait(0.02 * (attempt + 1))
    raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
