"""Disks whose state can be kept and taken up again: image files as root, plain folders otherwise.

A night is measured from the same base state for every contender. restic and borg look at inode numbers and
change times, so a copied tree would look new to them: only a copy of the whole disk is the same state.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Protocol

from tests.localcloud.patience import wait_until

SNAPSHOT_BLOCK = 512 * 1024  # EBS snapshots keep changed blocks of this size
_FIEMAP, _SYNC, _SHARED, _BATCH = 0xC020660B, 1, 0x2000, 512


class Disks(Protocol):
    """Named disks. A disk is mounted at one place or nowhere."""

    kind: str

    def make(self, name: str) -> None:
        """An empty disk."""

    def clone(self, name: str, new: str) -> None:
        """`new` becomes what `name` is now; neither may be mounted."""

    def drop(self, name: str) -> None:
        """Remove a disk that is not mounted."""

    def mount(self, name: str, at: Path, *, read_only: bool = False) -> None:
        """Show a disk at a path, with cold caches where they are the disk's."""

    def unmount(self, at: Path) -> None:
        """Take it away again."""

    def used_bytes(self, at: Path) -> int:
        """The blocks really used on the mounted disk."""

    def snapshot_bytes(self, name: str) -> int | None:
        """What a snapshot of this clone would add to one of its original; None where that can't be told."""

    def close(self) -> None:
        """Unmount and remove everything."""


class Images:
    """XFS in image files, which lie on an XFS of their own so that a clone is a reflink and costs nothing."""

    kind = "loop-mounted XFS"

    def __init__(self, folder: Path, disk_bytes: int, shelf_bytes: int) -> None:
        self._shelf = folder / "shelf"
        self._bytes = disk_bytes
        self._mounted: list[Path] = []
        self._file = folder / "shelf.img"
        _xfs(self._file, shelf_bytes)
        self._mount(self._file, self._shelf, "loop")

    def make(self, name: str) -> None:
        _xfs(self._image(name), self._bytes)

    def clone(self, name: str, new: str) -> None:
        self.drop(new)
        _run("cp", "--reflink=always", str(self._image(name)), str(self._image(new)))

    def drop(self, name: str) -> None:
        self._image(name).unlink(missing_ok=True)

    def mount(self, name: str, at: Path, *, read_only: bool = False) -> None:
        # nouuid: a clone has its original's. nodiscard is the default: a hole would hide what was written.
        self._mount(self._image(name), at, "loop,nouuid,noatime" + (",ro" if read_only else ""))

    def unmount(self, at: Path) -> None:
        # The daemon of a FUSE folder on it, which was unmounted, ends a moment later; on a busy machine, seconds.
        def unmounted() -> bool:
            return subprocess.run(["umount", at], check=False, capture_output=True).returncode == 0

        wait_until(unmounted, 60, what=f"the unmounting of {at}")
        self._mounted.remove(at)

    def used_bytes(self, at: Path) -> int:
        room = os.statvfs(at)
        return (room.f_blocks - room.f_bfree) * room.f_frsize

    def snapshot_bytes(self, name: str) -> int | None:
        """The blocks in which the clone has written: its extents that it shares with nothing."""
        blocks: set[int] = set()
        with self._image(name).open("rb") as file:
            start, end = 0, file.seek(0, os.SEEK_END)
            while start < end:
                header = struct.pack("=QQIIII", start, end - start, _SYNC, 0, _BATCH, 0)
                buffer = bytearray(header + bytes(56 * _BATCH))
                fcntl.ioctl(file, _FIEMAP, buffer, True)
                extents = struct.unpack_from("=I", buffer, 20)[0]
                for number in range(extents):
                    logical, _, length, _, _, flags = struct.unpack_from("=QQQQQI", buffer, 32 + 56 * number)
                    if not flags & _SHARED:
                        blocks.update(range(logical // SNAPSHOT_BLOCK, -(-(logical + length) // SNAPSHOT_BLOCK)))
                    start = logical + length
                if not extents:
                    break
        return len(blocks) * SNAPSHOT_BLOCK

    def close(self) -> None:
        for at in reversed(self._mounted):
            if subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode:
                _run("umount", "--lazy", str(at))
        self._mounted.clear()
        self._file.unlink(missing_ok=True)

    def _image(self, name: str) -> Path:
        return self._shelf / f"{name}.img"

    def _mount(self, image: Path, at: Path, options: str) -> None:
        at.mkdir(exist_ok=True)
        _run("mount", "-t", "xfs", "-o", options, str(image), str(at))
        self._mounted.append(at)


class Folders:
    """Without root: folders, moved to where they are wanted, and really copied."""

    kind = "plain folders (not root: copies look new to restic and borg, which then read every file)"

    def __init__(self, folder: Path) -> None:
        self._store = folder / "store"
        self._store.mkdir()
        self._mounted: dict[Path, str] = {}

    def make(self, name: str) -> None:
        (self._store / name).mkdir()

    def clone(self, name: str, new: str) -> None:
        self.drop(new)
        _run("cp", "-a", "--reflink=auto", str(self._store / name), str(self._store / new))

    def drop(self, name: str) -> None:
        shutil.rmtree(self._store / name, ignore_errors=True)

    def mount(self, name: str, at: Path, *, read_only: bool = False) -> None:  # noqa: ARG002, a folder can't be
        (self._store / name).rename(at)
        self._mounted[at] = name

    def unmount(self, at: Path) -> None:
        at.rename(self._store / self._mounted.pop(at))

    def used_bytes(self, at: Path) -> int:
        return 1024 * int(_run("du", "-sk", str(at)).split()[0])

    def snapshot_bytes(self, name: str) -> int | None:  # noqa: ARG002
        return None

    def close(self) -> None:
        self._mounted.clear()


def _xfs(image: Path, size: int) -> None:
    with image.open("xb") as file:
        file.truncate(size)
    _run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
