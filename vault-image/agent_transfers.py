"""Who is pushing or pulling now and how far they are, and what each volume holds committed."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import registry
from gate_changes import CHANGE
from gate_trees import RUN_ID

_COMMITTED_LIMIT = 4096
MOST = 2**53  # that a report may name of anything


class Transfers:
    """The transfers noted in run_dir, and sessions of SFTP. `clock` is monotonic, in seconds."""

    def __init__(self, run_dir: Path, idle_seconds: float, clock: Callable[[], float]) -> None:
        self._run_dir = run_dir
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._first: dict[Path, int] = {}  # what a transfer's counter stood at when it was first seen
        self._moved: dict[Path, tuple[int, float]] = {}  # what it stood at last, and since when
        self._live: list[registry.Command] = []

    def live(self, hosts: Iterable[str], sessions: Mapping[str, list[registry.Command]]) -> list[dict[str, Any]]:
        """The hosts with a transfer running, and the bytes that have come from each (or gone to it) since it began.

        A session of SFTP that has asked for nothing for `idle_seconds` is none: a forgotten mount keeps no vault awake.
        """
        self._live = []
        told = []
        for host in hosts:
            here = [*registry.under_way(self._run_dir / host), *sessions.get(host, ())]
            here = [command for command in here if command.kind in registry.TRANSFERS]
            self._live += here
            counts = [self._bytes(command) for command in here if not self._is_idle(command)]
            if counts:
                told.append({"host": host, "live": True, "transfer_bytes": sum(counts)})
        living = {command.path for command in self._live}
        for kept in (self._first, self._moved):
            for path in kept.keys() - living:
                del kept[path]
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
        count = _count(command)
        return max(0, count - self._first.setdefault(command.path, count))

    def _is_idle(self, command: registry.Command) -> bool:
        now, count = self._clock(), _count(command)
        if self._moved.get(command.path, (None, now))[0] != count:
            self._moved[command.path] = (count, now)
        return command.kind == "sftp" and now - self._moved[command.path][1] >= self._idle_seconds


def commit_of(place: Path) -> dict[str, Any] | None:
    """The newest commit on the volume at `place`, as it is reported. The file is the host's: it is believed in nothing
    but a UUID, and numbers where numbers belong."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
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
        told = json.loads(text)
        run_id, change = told["run_id"], told.get("change")
        if isinstance(run_id, str) and re.fullmatch(RUN_ID, run_id):
            return {"run_id": run_id} | ({"change": change} if _is_change(change) else {})
    return None


def _is_change(told: Any) -> bool:
    if not isinstance(told, dict) or sorted(told) != sorted(CHANGE):
        return False
    return all(type(number) is int and 0 <= number <= MOST for number in told.values())


def _count(command: registry.Command) -> int:
    # What its sshd has read: bytes from the network, and on a pull, bytes to it. rsync's own count would
    # be of files too. Where sshd can't be looked into, rsync's must do.
    count = _read_by(command.counter_pid)
    return (_read_by(command.pid) or 0) if count is None else count


def _read_by(pid: int) -> int | None:
    """Bytes a process has read in all, by read(2) on whatever: proc(5), rchar."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.removeprefix("rchar:"))
    return None
