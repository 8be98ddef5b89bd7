"""The ssh commands under way on a vault: noted by the gate as a host's account, read by the agent as root.

Each command holds an exclusive flock on its own file, `run_dir/HOST/KIND.PID`, and every process it turns
into or starts inherits that lock. So a command is under way exactly as long as one of its processes lives,
whatever killed the others, and no clean-up can be forgotten.
"""

import fcntl
import json
import os
import re
import select
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
POINTS = ".points"  # below mount_root, where hosts' volumes stand: restore points of them, by host
READS = ("pull", "sftp")
TRANSFERS = ("push", *READS)
_ENTRY = re.compile(r"(begin|push|pull|sftp|commit|clean)\.([0-9]{1,9})")
_SOCKET = "agent.sock"
_COMMIT_SECONDS = 15.0  # what a commit may take to bring a push to the disk before it is cut


@dataclass(frozen=True)
class Command:
    """One command under way. `counter_pid` is its sshd, which reads what the network brings; of SFTP, the server
    itself, which no keepalive reaches."""

    kind: str
    pid: int
    counter_pid: int
    path: Path


@contextmanager
def alone(directory: Path, seconds: float) -> Iterator[int]:
    """Hold the host's lock, so that one command at a time changes what is under way or where trees stand.

    Gives the lock's descriptor, for children that must hold it too. Raises TimeoutError after `seconds`.
    """
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _flock(lock, fcntl.LOCK_EX, seconds):
            raise TimeoutError("another command of this host is still at work; try again in a minute")
        yield lock
    finally:
        os.close(lock)


def note(directory: Path, kind: str) -> int:
    """Note this process as a `kind` of command until it and all it becomes are gone. Call while `alone`.

    Gives the note's descriptor: whatever process holds it keeps the command under way.
    """
    entry = os.open(directory / f"{kind}.{os.getpid()}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(entry, 0)
    counter = os.getpid() if kind == "sftp" else os.getppid()
    os.write(entry, json.dumps({"counter_pid": counter}).encode())
    os.set_inheritable(entry, True)  # exec must not end it; it is closed by the last process's end
    return entry


def under_way(directory: Path) -> list[Command]:
    """The host's commands that live now; those of an account that was never mounted are none."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(directory.iterdir()):
            match = _ENTRY.fullmatch(path.name)
            text = _read_if_locked(path) if match else None
            if match and text is not None:
                found.append(Command(match[1], int(match[2]), _counter(text), path))
    return found


def forget_ended(directory: Path) -> None:
    """Remove the notes of commands that are gone. Call while `alone`, or a new note might go with them."""
    living = {command.path for command in under_way(directory)}
    for path in directory.iterdir():
        if _ENTRY.fullmatch(path.name) and path not in living:
            path.unlink(missing_ok=True)


def end(commands: Iterable[Command], grace_seconds: float = 2.0) -> bool:
    """End commands: politely, after `grace_seconds` by force. True once every process of theirs is gone.

    A commit is first let finish: it would survive a kill, but its host would not learn of it.
    """
    left = list(commands)
    for deed in (signal.SIGTERM, signal.SIGKILL):
        for command in left:
            # The note's lock is held, so a process of the group lives and its number can't be anyone else's.
            if command.kind == "commit" and deed == signal.SIGTERM:
                continue
            if _is_anothers(command):
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(command.pid, deed)
        left = [c for c in left if not _gone(c, _COMMIT_SECONDS if c.kind == "commit" else grace_seconds)]
    return not left


def poke(run_dir: Path) -> None:
    """Tell the agent that something changed. Never waits, never fails: the agent looks by itself too."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        _short(run_dir) as address,
    ):
        sender.setblocking(False)
        sender.sendto(b"!", address)


def listen(run_dir: Path, mode: int) -> socket.socket:
    """The agent's end of `poke`: a non-blocking datagram socket that accounts allowed by `mode` may write to."""
    (run_dir / _SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with _short(run_dir) as address:
        listener.bind(address)
    listener.setblocking(False)
    (run_dir / _SOCKET).chmod(mode)
    return listener


@contextmanager
def _short(run_dir: Path) -> Iterator[str]:
    # A unix socket's address holds 108 bytes; a path through a descriptor is short wherever run_dir is.
    directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{_SOCKET}"
    finally:
        os.close(directory)


def _is_anothers(command: Command) -> bool:
    # The agent is root, and the name of a note its owner's: it must not become a way to signal others.
    with suppress(FileNotFoundError):
        owner = command.path.stat().st_uid
        return Path(f"/proc/{command.pid}").stat().st_uid != owner
    return False


def _read_if_locked(path: Path) -> bytes | None:
    try:
        # The folder is the host's: never follow or wait for what lies there.
        entry = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(entry, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(entry, 4096)
    else:
        return None
    finally:
        os.close(entry)


def _counter(text: bytes) -> int:
    try:
        return int(json.loads(text)["counter_pid"])
    except (ValueError, KeyError, TypeError):
        return 0


def _gone(command: Command, seconds: float) -> bool:
    try:
        entry = os.open(command.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        if not _flock(entry, fcntl.LOCK_SH, seconds):
            return False
    finally:
        os.close(entry)
    # A process lets go of its files before its folder, and a volume can't be unmounted in between.
    see_end(command.pid, seconds)
    return True


def see_end(pid: int, seconds: float, *, kill: bool = False) -> None:
    """Wait until a process has ended, so many seconds at most; with `kill`, end it first."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)  # never another process that is given its number
        try:
            if kill:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], seconds)
        finally:
            os.close(process)


def _flock(descriptor: int, operation: int, seconds: float) -> bool:
    # flock has no timeout of its own; an alarm interrupts it, where a loop would sleep past the event.
    def expire(_signal: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        fcntl.flock(descriptor, operation)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
