#!/usr/bin/python3 -EsS
"""Checks the tree of a restore point against the manifest that its host has signed: docs/protocol.md, "Drills".

A process of its own, started by the agent with few rights. Its standard input is one line of JSON, what to check, and
is held open after that: its end ends the check, whatever became of the agent. Its standard output is a line of JSON
every two seconds, the last of which is the verdict.

All that it reads is the host's word, and may be hostile. So no path of a manifest is ever looked up but folder by
folder, through no symlink; nothing is opened that could block; and no list grows with the number of files.
"""

import errno
import hashlib
import json
import os
import pwd
import re
import resource
import select
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from agent_transfers import commit_of
from gate_changes import KEPT_OUT
from gate_trees import Trees

_DATA_BYTES = 256 * 1024 * 1024
_DESCRIPTORS = 16384  # a folder that is walked takes two, and so does each one above it
_TELL_SECONDS = 2.0
_DETAIL, _SHOWN_PATH = 200, 130
_SIGNATURE_BYTES = 64 * 1024
# A volume made from a snapshot fetches each block from S3 when it is first read, which takes long, yet many at a time
# as well as one: AWS initialises volumes with 32 reads of 1 MiB under way.
# https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html
_THREADS = 32
_PIECE = 1024 * 1024
# The kernel takes advice to read ahead for one request's size at a time: 128 KiB, on EBS.
_ADVICE, _AHEAD = 128 * 1024, 8 * 1024 * 1024
_BATCH_FILES, _LARGE = 64, 4 * 1024 * 1024

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Our want of rights or means, which says nothing about the tree.
_OURS = (errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_FIRST_LINE = re.compile(rb"nightvault-manifest 1 ([0-9a-fA-F-]{36}) ([A-Za-z0-9_-]{1,32}) (\d{1,18}) (\d{1,19})\n")
_LINE = re.compile(rb"(\d{1,19}|-(?= \\?-)) (\\?)([0-9a-f]{64}|-{64})  ([^\0\n]+)\n")
_LINE_BYTES = 2 * 4096 + 128
_UNSURE = b"-" * 64
_ESCAPED = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


class Failed(Exception):
    """The tree is not what the host has pushed; the message says why."""


class Unproven(Exception):
    """The tree has no manifest."""


class Entry(NamedTuple):
    """A file as it is listed. One that is `maybe` there came or went while it was pushed."""

    size: int
    sha256: bytes
    path: bytes
    maybe: bool


class Names:
    """A set of paths, of which only sums are kept: two that are equal have the same sums.

    Sums of keyed hashes: whoever wrote the paths can't make up others that come to the same. In several of them, so
    that the paths of one that differs are few enough to be looked at.
    """

    SUMS = 256
    _key = os.urandom(32)

    def __init__(self) -> None:
        self.count = 0
        self.sums = [0] * self.SUMS

    def add(self, path: bytes, times: int = 1) -> None:
        """Add a path; with -1, take it out again."""
        number = self.number(path)
        self.sums[number % self.SUMS] += times * number
        self.count += times

    @classmethod
    def number(cls, path: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(path, digest_size=16, key=cls._key).digest(), "big")


class Drill:
    """One check. `files`, `checked_bytes` and `total_bytes` tell how far it is."""

    def __init__(self, place: str, host: str, run_id: str, public_keys: list[str]) -> None:
        self.files = self.checked_bytes = self.total_bytes = 0
        self._place = Path(place)
        self._host = host
        self._run_id = run_id.lower()  # uuidgen writes capitals on some hosts
        self._keys = public_keys
        self._lock = threading.Lock()
        self._wrong = self._unsure = 0
        self._first_wrong = ""

    def verdict(self) -> tuple[str, str]:
        """The state of docs/protocol.md's table that the check comes to, and its detail."""
        try:
            return "passed", self._check()
        except Failed as failed:
            return "failed", str(failed)
        except Unproven:
            return "unproven", ""
        except Exception as error:  # whatever it is, it says nothing about the tree
            return "error", f"it could not be checked: {error!r}"

    def _check(self) -> str:
        """What to say of a tree that is as it was pushed. Raises Failed, Unproven; OSError if it can't be checked."""
        tree = self._tree()
        with _reading(KEPT_OUT):
            try:
                folder = os.open(KEPT_OUT, _FOLDER, dir_fd=tree)
                manifest = open(_regular("manifest", folder), "rb")  # noqa: SIM115 # for as long as we live
            except FileNotFoundError:
                raise Unproven from None
        with _reading(f"{KEPT_OUT}/manifest.sig"):
            signature = os.read(_regular("manifest.sig", folder), _SIGNATURE_BYTES)
        signed = self._signed(manifest, signature)
        listed = Names()
        found = self._compare(tree, manifest, signed, listed)
        if found.sums != listed.sums:
            self._note(self._unlisted(tree, manifest, found, listed), max(1, found.count - listed.count))
        if self._wrong:
            raise Failed(self._first_wrong + (f"; and {self._wrong - 1} more" if self._wrong > 1 else ""))
        return f"{self._unsure} of {self.files} files changed while they were pushed" if self._unsure else ""

    def _tree(self) -> int:
        with _reading("the volume"):
            os.close(os.open(self._place, os.O_RDONLY | os.O_DIRECTORY))
            committed = commit_of(self._place)
            current = Trees(self._place).current()
            if committed is None or current is None:
                raise Failed("nothing is committed on the volume")
            for what, run_id in (("committed.json", committed["run_id"]), ("current", current.name.split(".")[1])):
                if run_id.lower() != self._run_id:
                    raise Failed(f"{what} is of run {run_id}, the restore point of run {self._run_id}")
        with _reading(current.name):
            return os.open(current, _FOLDER)

    def _signed(self, manifest: BinaryIO, signature: bytes) -> bytes:
        """See that one of the keys has signed the manifest. Gives the SHA-256 of what was signed."""
        pwd.getpwuid(os.getuid())  # ssh-keygen says no more than "no" to someone without an account
        digest = hashlib.sha256()
        allowed = "".join(f'{self._host} namespaces="nightvault-manifest" {key}\n' for key in self._keys)
        files = [_in_memory(allowed.encode()), _in_memory(signature)]
        names = [f"/proc/self/fd/{file}" for file in files]
        command = ["ssh-keygen", "-Y", "verify", "-f", names[0], "-I", self._host, "-n", "nightvault-manifest"]
        theirs, ours = os.pipe()
        with subprocess.Popen(
            [*command, "-s", names[1]],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=files,
        ) as verifier:
            os.close(theirs)
            with suppress(BrokenPipeError), open(ours, "wb") as feed:  # noqa: PTH123 # broken: it has seen enough
                while True:
                    with _reading(f"{KEPT_OUT}/manifest"):
                        piece = manifest.read(_PIECE)
                    if not piece:
                        break
                    digest.update(piece)
                    feed.write(piece)
        if verifier.returncode != 0:
            raise Failed("the manifest's signature is not by the host's key, or of another manifest")
        return digest.digest()

    def _compare(self, tree: int, manifest: BinaryIO, signed: bytes, listed: Names) -> Names:
        """Check what is listed, in order, many files at a time; `listed` gets those that are there, whatever they are
        like. Gives what is there."""
        pool = ThreadPoolExecutor(_THREADS + 1)
        walk = pool.submit(_walk, tree)
        under_way: deque[Future[list[tuple[Entry, str, bool]]]] = deque()

        def take() -> None:
            for entry, why, is_there in under_way.popleft().result():
                if why:
                    self._note(f"{_shown(entry.path)}: {why}")
                if not is_there:
                    listed.add(entry.path, -1)

        batch: list[Entry] = []
        for entry in self._entries(manifest, signed):
            listed.add(entry.path)
            batch.append(entry)
            if len(batch) == _BATCH_FILES or entry.size > _LARGE:
                under_way.append(pool.submit(self._batch, tree, batch))
                batch = []
            if len(under_way) > 2 * _THREADS:
                take()
        under_way.append(pool.submit(self._batch, tree, batch))
        while under_way:
            take()
        return walk.result()

    def _entries(self, manifest: BinaryIO, signed: bytes) -> Iterator[Entry]:
        """The lines of a manifest, which must be the signed one. Raises Failed."""
        digest = hashlib.sha256()
        manifest.seek(0)

        def read() -> bytes:
            with _reading(f"{KEPT_OUT}/manifest"):
                line = manifest.readline(_LINE_BYTES)
            digest.update(line)
            return line

        first = _FIRST_LINE.fullmatch(read())
        if not first:
            raise Failed("the manifest's first line is not one of version 1")
        run_id, host = first[1].decode(), first[2].decode()
        if (run_id.lower(), host) != (self._run_id, self._host):
            raise Failed(f"the manifest is of run {run_id} of {host}, the restore point of run {self._run_id}")
        self.total_bytes = int(first[4])
        files = size = 0
        while line := read():
            found = parse_line(line)
            files += 1
            if not found:
                raise Failed(f"line {files + 1} of the manifest is not one of a manifest")
            size += found.size
            yield found
        if digest.digest() != signed:
            raise Failed("the manifest changed while it was read")
        if (files, size) != (int(first[3]), self.total_bytes):
            raise Failed("the manifest's first line names another number of files or bytes than are listed")

    def _batch(self, tree: int, entries: list[Entry]) -> list[tuple[Entry, str, bool]]:
        """Check some files: each that is not as listed, why, and whether it is there at all. No why: it need not be."""
        wrong = []
        folder, name_of_folder = os.dup(tree), b""
        try:
            for entry in entries:
                head, _, name = entry.path.rpartition(b"/")
                try:
                    if head != name_of_folder:
                        inner = _descend(tree, head)
                        os.close(folder)
                        folder, name_of_folder = inner, head
                    file = os.open(name, _FILE, dir_fd=folder)
                    try:
                        why, is_there = self._one(file, entry)
                    finally:
                        os.close(file)
                except OSError as error:
                    if error.errno in _OURS:
                        raise
                    is_there = error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
                    why = f"cannot be read, {error.strerror}" if is_there else "missing"
                if entry.maybe and not is_there:
                    why = ""
                if why or not is_there:
                    wrong.append((entry, why, is_there))
                with self._lock:
                    self.files += 1
        finally:
            os.close(folder)
        return wrong

    def _one(self, file: int, entry: Entry) -> tuple[str, bool]:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file", not stat.S_ISDIR(found.st_mode)
        if not _is_regular(file):
            return "stored as something else than a regular file", False
        if entry.sha256 == _UNSURE:
            self._more(entry.size)
            with self._lock:
                self._unsure += 1
        elif found.st_size != entry.size:
            return f"{found.st_size} bytes, listed with {entry.size}", True
        elif self._sha256(file, entry.size) != entry.sha256:
            return "another content than listed", True
        return "", True

    def _sha256(self, file: int, size: int) -> bytes:
        digest, done, advised, freed = hashlib.sha256(), 0, 0, 0
        while True:
            while size > _PIECE and advised < min(size, done + _AHEAD):
                os.posix_fadvise(file, advised, _ADVICE, os.POSIX_FADV_WILLNEED)
                advised += _ADVICE
            piece = os.read(file, _PIECE)
            if not piece:
                break
            digest.update(piece)
            done += len(piece)
            self._more(len(piece))
            if done - freed >= _AHEAD:  # what the hosts push now needs the memory more
                os.posix_fadvise(file, freed, done - freed, os.POSIX_FADV_DONTNEED)
                freed = done
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return digest.hexdigest().encode()

    def _unlisted(self, tree: int, manifest: BinaryIO, found: Names, listed: Names) -> str:
        """What is there and not listed, by name, looking at one of the sums that differ alone."""
        differs = next(n for n in range(Names.SUMS) if found.sums[n] != listed.sums[n])
        numbers = set()
        manifest.seek(0)
        manifest.readline(_LINE_BYTES)
        for line in iter(lambda: manifest.readline(_LINE_BYTES), b""):
            listed_here = parse_line(line)
            number = Names.number(listed_here.path) if listed_here else 0
            if number % Names.SUMS == differs:
                numbers.add(number)
        for path in _files(tree):
            number = Names.number(path)
            if number % Names.SUMS == differs and number not in numbers:
                return f"{_shown(path)}: not listed in the manifest"
        return "the manifest lists a file more than once"

    def _note(self, why: str, times: int = 1) -> None:
        self._first_wrong = self._first_wrong or why
        self._wrong += times

    def _more(self, count: int) -> None:
        with self._lock:
            self.checked_bytes += count


def parse_line(line: bytes) -> Entry | None:
    """A line of a manifest, or None if it is not fit to be one."""
    match = _LINE.fullmatch(line)
    if not match:
        return None
    size, escaped, digest, path = match.groups()
    if escaped:
        if re.sub(rb"\\[\\nr]", b"", path).count(b"\\"):
            return None
        path = re.sub(rb"\\[\\nr]", lambda found: _ESCAPED[found[0]], path)
    parts = path.split(b"/")
    if parts[0] == KEPT_OUT.encode() or any(part in (b"", b".", b"..") for part in parts):
        return None
    return Entry(0 if size == b"-" else int(size), digest, path, size == b"-")


def _walk(tree: int) -> Names:
    names = Names()
    for path in _files(tree):
        names.add(path)
    return names


def _files(tree: int) -> Iterator[bytes]:
    """The path of whatever is no folder, and stands for a file of the host's. One folder is open for each level."""
    levels = [(os.dup(tree), os.scandir(tree), b"")]
    while levels:
        folder, entries, where = levels[-1]
        with _reading(_shown(where)):
            entry = next(entries, None)
            if entry is None:
                entries.close()
                os.close(folder)
                levels.pop()
                continue
            name = os.fsencode(entry.name)
            path = where + name
            if entry.is_dir(follow_symlinks=False):
                if path != KEPT_OUT.encode():
                    inner = os.open(name, _FOLDER, dir_fd=folder)
                    levels.append((inner, os.scandir(inner), path + b"/"))
            elif _is_regular(b"/proc/self/fd/%d/%s" % (folder, name)):
                yield path


def _is_regular(file: int | bytes) -> bool:
    """Not what stands for a symlink, a device or a socket of the host's: rsync's xattrs.c, set_stat_xattr."""
    with suppress(OSError, ValueError, IndexError):
        if isinstance(file, int):
            text = os.getxattr(file, "user.rsync.%stat")
        else:
            text = os.getxattr(file, "user.rsync.%stat", follow_symlinks=False)
        return stat.S_IFMT(int(text.split()[0], 8)) in (0, stat.S_IFREG)
    return True


def _descend(tree: int, path: bytes) -> int:
    folder = os.dup(tree)
    for part in path.split(b"/") if path else ():
        try:
            inner = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _regular(name: str, folder: int) -> int:
    file = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise Failed(f"{KEPT_OUT}/{name} is not a regular file")
    return file


def _in_memory(data: bytes) -> int:
    file = os.memfd_create("drill")
    os.write(file, data)
    return file


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What the disk refuses to give is lost to a restore as well."""
    try:
        yield
    except OSError as error:
        if error.errno in _OURS:
            raise
        raise Failed(f"{what}: cannot be read, {error.strerror}") from error


def _shown(path: bytes) -> str:
    text = "".join(
        chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in path[: _SHOWN_PATH + 1]
    )
    return text if len(text) <= _SHOWN_PATH else text[: _SHOWN_PATH - 3] + "..."


def _tell(drill: Drill, state: str, detail: str = "") -> None:
    told: dict[str, Any] = {"state": state, "files": drill.files, "checked_bytes": drill.checked_bytes}
    told |= {"total_bytes": drill.total_bytes, "detail": detail.encode("ascii", "backslashreplace").decode()[:_DETAIL]}
    os.write(1, json.dumps(told).encode() + b"\n")


def _watch(drill: Drill) -> None:
    with suppress(OSError):
        while not select.select([0], [], [], _TELL_SECONDS)[0]:
            _tell(drill, "checking")
    os._exit(1)  # nobody wants to know any more


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _DESCRIPTORS), most))
    threading.stack_size(512 * 1024)
    drill = Drill(**json.loads(open(0, "rb", buffering=0, closefd=False).readline()))  # noqa: SIM115
    threading.Thread(target=_watch, args=(drill,), daemon=True).start()
    _tell(drill, *drill.verdict())
    os._exit(0)  # not waiting for what is still being read


if __name__ == "__main__":
    main()
