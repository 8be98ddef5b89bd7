"""SFTP of one tree, for reading: a rootless vault's, where sshd can't lock an account into a folder.

OpenSSH's own sftp-server would show whatever the account can read, so also what is other hosts'. Here every path is
of names below the tree, opened one by one without following a symlink; there is no call that writes.
Protocol version 3: https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02
"""

import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_INIT = 1
_WRITES = (9, 10, 13, 14, 15, 18, 20)  # SETSTAT, FSETSTAT, REMOVE, MKDIR, RMDIR, RENAME, SYMLINK
_VERSION, _STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 2, 101, 102, 103, 104, 105
_OK, _EOF, _NO_SUCH_FILE, _DENIED, _FAILURE, _BAD_MESSAGE, _UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
_READING = 1  # the one flag of OPEN that is no wish to write
_PACKET_LIMIT = 256 * 1024
_NAMES_AT_ONCE = 100


def serve(tree: Path, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    served = _Served(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
    with suppress(BrokenPipeError):
        while len(head := source.read(4)) == 4:
            (length,) = struct.unpack(">I", head)
            body = source.read(length) if 5 <= length <= _PACKET_LIMIT else b""
            if len(body) < 5:
                return
            answer = served.answer(body[0], body[5:], body[1:5])
            sink.write(struct.pack(">I", len(answer)) + answer)
            sink.flush()


class _Served:
    def __init__(self, root: int) -> None:
        self._root = root
        self._files: dict[bytes, int] = {}
        self._folders: dict[bytes, list[str]] = {}  # names that are still to be told
        self._handles = 0
        # Each takes the string that every request begins with, a path or a handle, and what follows it.
        self._calls = {
            3: self._open,
            4: self._close,
            5: self._read,
            7: self._stat,  # LSTAT, the same as STAT: what would be followed is nobody's link
            8: self._fstat,
            11: self._open_folder,
            12: self._read_folder,
            16: self._real_path,
            17: self._stat,
        }

    def answer(self, kind: int, body: bytes, request_id: bytes) -> bytes:
        """The answer to one request, without its length."""
        if kind == _INIT:
            return bytes([_VERSION]) + struct.pack(">I", 3)
        call = self._calls.get(kind, self._refuse_write if kind in _WRITES else self._refuse)
        try:
            (length,) = struct.unpack_from(">I", body)
            answer, content = call(body[4 : 4 + length], body[4 + length :])
        except (FileNotFoundError, NotADirectoryError):
            answer, content = _status(_NO_SUCH_FILE)
        except OSError:
            answer, content = _status(_FAILURE)
        except (ValueError, KeyError, struct.error):
            answer, content = _status(_BAD_MESSAGE)
        return bytes([answer]) + request_id + content

    def _refuse_write(self, _text: bytes, _rest: bytes) -> tuple[int, bytes]:
        return _status(_DENIED)

    def _refuse(self, _text: bytes, _rest: bytes) -> tuple[int, bytes]:
        return _status(_UNSUPPORTED)

    def _open(self, path: bytes, rest: bytes) -> tuple[int, bytes]:
        if struct.unpack_from(">I", rest)[0] != _READING:
            return _status(_DENIED)
        with self._at(path) as (folder, name):
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                return _status(_FAILURE)
            return self._keep(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder))

    def _open_folder(self, path: bytes, _rest: bytes) -> tuple[int, bytes]:
        with self._at(path) as (folder, name):
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=folder)
        kept = self._keep(opened)
        self._folders[b"%d" % self._handles] = os.listdir(opened)  # noqa: PTH208 # by descriptor
        return kept

    def _keep(self, opened: int) -> tuple[int, bytes]:
        self._handles += 1
        handle = b"%d" % self._handles
        self._files[handle] = opened
        return _HANDLE, _string(handle)

    def _close(self, handle: bytes, _rest: bytes) -> tuple[int, bytes]:
        os.close(self._files.pop(handle))
        self._folders.pop(handle, None)
        return _status(_OK)

    def _read(self, handle: bytes, rest: bytes) -> tuple[int, bytes]:
        offset, wanted = struct.unpack_from(">QI", rest)
        data = os.pread(self._files[handle], min(wanted, _PACKET_LIMIT - 1024), offset)
        return (_DATA, _string(data)) if data else _status(_EOF)

    def _read_folder(self, handle: bytes, _rest: bytes) -> tuple[int, bytes]:
        left = self._folders[handle]
        told: list[bytes] = []
        while left and len(told) < _NAMES_AT_ONCE:
            name = left.pop()
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=self._files[handle], follow_symlinks=False)
                # As `ls -l` has it, for people: programs read the attributes.
                line = f"{stat.filemode(found.st_mode)} 1 {found.st_uid} {found.st_gid} {found.st_size:>12} "
                line += time.strftime("%b %d %Y ", time.gmtime(found.st_mtime))
                raw = os.fsencode(name)
                told.append(_string(raw) + _string(line.encode() + raw) + _attributes(found))
        return (_NAME, struct.pack(">I", len(told)) + b"".join(told)) if told else _status(_EOF)

    def _stat(self, path: bytes, _rest: bytes) -> tuple[int, bytes]:
        with self._at(path) as (folder, name):
            return _ATTRS, _attributes(os.stat(name, dir_fd=folder, follow_symlinks=False))

    def _fstat(self, handle: bytes, _rest: bytes) -> tuple[int, bytes]:
        return _ATTRS, _attributes(os.fstat(self._files[handle]))

    def _real_path(self, path: bytes, _rest: bytes) -> tuple[int, bytes]:
        return _NAME, struct.pack(">I", 1) + _string(b"/" + b"/".join(_names(path))) * 2 + struct.pack(">I", 0)

    @contextmanager
    def _at(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The folder of a path, open, and the name in it."""
        *folders, last = _names(path) or [b"."]
        here = os.dup(self._root)
        try:
            for name in folders:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = inner
            yield here, last
        finally:
            os.close(here)


def _names(path: bytes) -> list[bytes]:
    """A path's names below the tree, which is its own parent."""
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            del names[-1:]
        elif name not in (b"", b"."):
            names.append(name)
    return names


def _string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _status(code: int) -> tuple[int, bytes]:
    words = {_OK: b"", _EOF: b"end", _NO_SUCH_FILE: b"no such file", _DENIED: b"read-only"}
    return _STATUS, struct.pack(">I", code) + _string(words.get(code, b"failed")) + _string(b"")


def _attributes(found: os.stat_result) -> bytes:
    # Flags: size, uid and gid, permissions, times.
    times = (int(found.st_atime) & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF)
    return struct.pack(">IQIIIII", 15, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)
