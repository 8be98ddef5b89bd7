"""Who is pushing or pulling now and how far they are, and what each volume holds committed."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import registry
from gate_trees import RUN_ID

_COMMITTED_LIMIT = 4096


class Transfers:
    """The transfers noted in run_dir."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._first: dict[Path, int] = {}  # what a transfer's counter stood at when it was first seen
        self._live: list[registry.Command] = []

    def live(self, hosts: Iterable[str]) -> list[dict[str, Any]]:
        """The hosts with an rsync running, and the bytes that have come from each since it began."""
        self._live = []
        told = []
        for host in hosts:
            here = [c for c in registry.under_way(self._run_dir / host) if c.kind in registry.TRANSFERS]
            if here:
                told.append({"host": host, "live": True, "transfer_bytes": sum(map(self._bytes, here))})
            self._live += here
        living = {command.path for command in self._live}
        self._first = {path: count for path, count in self._first.items() if path in living}
        return told

    @contextmanager
    def ends(self) -> Iterator[tuple[list[int], bool]]:
        """Descriptors that become readable as the transfers last seen end; and whether one may have by now."""
        descriptors = []
        ended = False
        for command in self._live:
            try:
                descriptors.append(os.pidfd_open(command.pid))
            except OSError:
                ended = True
        try:
            yield descriptors, ended
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _bytes(self, command: registry.Command) -> int:
        # What its sshd has read: bytes from the network, and on a pull, bytes to it. rsync's own count would
        # be of files too. Where sshd can't be looked into, rsync's must do.
        count = _read_by(command.counter_pid)
        if count is None:
            count = _read_by(command.pid) or 0
        return max(0, count - self._first.setdefault(command.path, count))


def commit_of(place: Path) -> str | None:
    """The run whose commit is the newest on the volume at `place`. The file is the host's: it is believed in
    nothing but a UUID."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open("committed.json", flags, dir_fd=root)
        finally:
            os.close(root)
        try:
            text = os.read(file, _COMMITTED_LIMIT)
        finally:
            os.close(file)
        run_id = json.loads(text)["run_id"]
        if isinstance(run_id, str) and re.fullmatch(RUN_ID, run_id):
            return run_id
    return None


def _read_by(pid: int) -> int | None:
    """Bytes a process has read in all, by read(2) on whatever: proc(5), rchar."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.removeprefix("rchar:"))
    return None
