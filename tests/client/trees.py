"""Folders with everything awkward in them, and their exact descriptions."""

# Names here are bytes, many of them no UTF-8, which os takes and pathlib does not.
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH118, PTH123, PTH211, S103

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ODD_NAMES = [
    b"line\nbreak",
    b"\xff\xfe not utf-8",
    b" blanks ",
    b"-rf",
    b"*star?[b]",
    b"back\\slash",
    b"quo'te\"s",
    b"c\xc3\xa9",
]
LONG_NAMES = [b"x" * 255, b"\xe4" * 200, b"long " * 36]  # above 175 bytes gocryptfs keeps names in files of their own


def noise(size: int, seed: int = 1) -> bytes:
    """The same incompressible bytes every time."""
    return random.Random(seed).randbytes(size)  # noqa: S311, nothing secret


class Entry(NamedTuple):
    kind: str
    mode: int
    mtime: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


Description = dict[bytes, Entry]


def describe(tree: Path, *, keeps: str = "all") -> tuple[Description, set[frozenset[bytes]]]:
    """Each path's entry, and the groups of names that share one file; of what an archive does not keep, nothing."""
    rdiff = keeps == "rdiff"
    entries: Description = {}
    inodes: dict[int, set[bytes]] = defaultdict(set)
    root = os.fsencode(tree)
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            content = ""
            if stat.S_ISLNK(found.st_mode):
                content = repr(os.readlink(path))
            elif stat.S_ISREG(found.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
                if found.st_nlink > 1:
                    inodes[found.st_ino].add(os.path.relpath(path, root))
            names = os.listxattr(path, follow_symlinks=False) if keeps == "all" else []
            entries[os.path.relpath(path, root)] = Entry(
                oct(stat.S_IFMT(found.st_mode)),
                stat.S_IMODE(found.st_mode),
                0 if rdiff and stat.S_ISLNK(found.st_mode) else found.st_mtime_ns // (10**9 if rdiff else 1),
                content,
                tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)),
            )
    return entries, {frozenset(names) for names in inodes.values() if len(names) > 1}


def settle(tree: Path) -> None:
    """Folders and links get a time long ago: rsync sets theirs to the second, and not at all within one."""
    for folder, folders, files in os.walk(os.fsencode(tree), topdown=False):
        for path in [os.path.join(folder, name) for name in folders + files]:
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) and found.st_mtime > time.time() - 500:
                os.utime(path, ns=(0, found.st_mtime_ns - 10**12), follow_symlinks=False)


def write(path: bytes, data: bytes, age: int = 1000) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.utime(path, ns=((time.time_ns() - age * 10**9), (time.time_ns() - age * 10**9)))


def first_night(tree: Path) -> None:
    root = os.fsencode(tree)
    for folder in (b"folder", b"empty", b"going", b"odd\nfolder", b"read-only"):
        os.mkdir(os.path.join(root, folder))
    data = noise(300_000)
    write(root + b"/big", data)
    write(root + b"/folder/changed", data[:50_000])
    write(root + b"/going/gone", b"gone soon")
    write(root + b"/read-only/secret", b"for my eyes", 5000)
    os.chmod(root + b"/read-only/secret", 0o400)
    os.chmod(root + b"/read-only", 0o550)
    write(root + b"/script", b"#!/bin/sh\n")
    os.chmod(root + b"/script", 0o4755)
    write(root + b"/zero", b"")
    with open(root + b"/sparse", "wb") as file:
        file.truncate(3_000_000)
        file.seek(1_500_000)
        file.write(b"in the middle")
    for name in ODD_NAMES:
        write(root + b"/" + name, name * 3)
        write(root + b"/odd\nfolder/" + name, name * 4)
    os.symlink(b"nowhere\n\xff", root + b"/link")
    os.symlink(b"folder", root + b"/link to folder")
    write(root + b"/hard 1", b"one file, two names")
    os.link(root + b"/hard 1", root + b"/folder/hard 2")
    write(root + b"/parting 1", b"shared until tomorrow" * 500)
    os.link(root + b"/parting 1", root + b"/parting 2")
    write(root + b"/becomes folder", b"file")
    os.setxattr(root + b"/big", "user.mark", b"\0 \xff")
    settle(tree)


def long_names(tree: Path) -> None:
    for name in LONG_NAMES:
        write(os.fsencode(tree) + b"/" + name, name)


def second_night(tree: Path) -> None:
    root = os.fsencode(tree)
    with open(root + b"/big", "r+b") as file:
        file.seek(100_000)
        file.write(b"changed in the middle")
    write(root + b"/folder/changed", b"shorter", 10)
    os.unlink(root + b"/going/gone")
    os.rmdir(root + b"/going")
    os.rename(root + b"/" + ODD_NAMES[0], root + b"/renamed\n\n")
    os.unlink(root + b"/" + ODD_NAMES[1])
    # What editors do: the new file takes the name, and parts it from the other.
    for number in (b"1", b"2"):
        os.unlink(root + b"/parting " + number)
        write(root + b"/parting " + number, b"apart: " + number * 600, 20)
    write(root + b"/folder/hard 2", b"both names changed", 30)
    os.unlink(root + b"/becomes folder")
    os.mkdir(root + b"/becomes folder")
    write(root + b"/becomes folder/inside", b"now a folder")
    os.unlink(root + b"/link")
    os.symlink(b"elsewhere", root + b"/link")
    os.chmod(root + b"/script", 0o700)
    os.unlink(root + b"/read-only/secret")
    write(root + b"/read-only/secret", b"another secret", 40)
    os.chmod(root + b"/read-only/secret", 0o400)
    settle(tree)
