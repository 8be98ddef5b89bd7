"""What a commit changes: two trees compared by path, size and mtime, without a look into any file."""

import json
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

CHANGE = (
    *("files_before", "files_after", "files_added", "files_changed", "files_deleted"),
    *("bytes_before", "bytes_after", "bytes_changed"),
)
KEPT_OUT = ".nightvault"  # the manifest's folder: new in every push
_SECONDS = 30
_DATA_BYTES = 512 * 1024 * 1024


def change(before: Path, after: Path) -> dict[str, int] | None:
    """`count`, in a process of its own: whatever happens to that, the commit goes on. None if nothing came of it.

    It may take half a minute, and half a gibibyte of memory (a folder of a million files).
    """
    with suppress(OSError, ValueError):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_SECONDS)
                resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
                os.write(write, json.dumps(count(before, after)).encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:  # noqa: PTH123
            text = pipe.read()
        os.waitpid(child, 0)
        counted: dict[str, int] = json.loads(text)
        return counted
    return None


def count(before: Path, after: Path) -> dict[str, int]:
    """Files (whatever is no folder) and bytes of both trees, and how many differ. Raises OSError."""
    files_before = files_after = added = changed = deleted = bytes_before = bytes_after = bytes_changed = 0
    folders = [("", True, True)]  # below the trees: where, and in which of them
    while folders:
        where, was_there, is_there = folders.pop()
        old, old_folders = _look(before, where) if was_there else ({}, set())
        new, new_folders = _look(after, where) if is_there else ({}, set())
        files_before += len(old)
        files_after += len(new)
        bytes_before += sum(size for size, _ in old.values())
        bytes_after += sum(size for size, _ in new.values())
        for name, found in new.items():
            was = old.pop(name, None)
            if was != found:
                added += was is None
                changed += was is not None
                bytes_changed += found[0]
        deleted += len(old)
        folders += ((f"{where}{name}/", name in old_folders, name in new_folders) for name in old_folders | new_folders)
    counts = (files_before, files_after, added, changed, deleted, bytes_before, bytes_after, bytes_changed)
    return dict(zip(CHANGE, counts, strict=True))


def _look(tree: Path, where: str) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """A folder's files, each with its size and mtime, and its folders."""
    files, folders = {}, set()
    with os.scandir(f"{tree}/{where}") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
            else:
                found = entry.stat(follow_symlinks=False)
                files[entry.name] = (found.st_size, found.st_mtime_ns)
    if not where:
        folders.discard(KEPT_OUT)
    return files, folders
