"""A machine's way to the world: the security group as a real gate before its sshd.

A TCP proxy on the machine's public address. It asks the group at each new connection only, so a revoked
rule cuts nothing that is established, as AWS's connection tracking has it:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
(Where AWS would let a refused peer wait for an answer that never comes, here it is reset at once.)
"""

import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_BUFFER = 1024 * 1024
_SPLICES = sys.platform == "linux"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Connection:
    """One connection through the gate, and how much went each way."""

    source: str
    bytes_in: int = 0  # from the host to the vault
    bytes_out: int = 0
    admitted: bool = True
    open: bool = True
    _sockets: list[socket.socket] = field(default_factory=list, repr=False)

    def cut(self) -> None:
        """Both ends see a reset."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class _Cut:
    after_bytes: int
    source: str | None
    left: int


class Cuts:
    """Orders to cut connections; shared by all gateways of a cloud."""

    def __init__(self) -> None:
        self._orders: list[_Cut] = []
        self._lock = threading.Lock()

    def order(self, after_bytes: int, *, source: str | None = None, times: int = 1) -> None:
        """Cuts the next `times` connections (from `source`) that bring the vault more than `after_bytes`."""
        with self._lock:
            self._orders.append(_Cut(after_bytes, source, times))

    def due(self, connection: Connection) -> bool:
        if not self._orders:
            return False
        with self._lock:
            for order in self._orders:
                mine = order.source in (None, connection.source)
                if order.left and mine and connection.bytes_in > order.after_bytes:
                    order.left -= 1
                    return True
        return False


class Gateway:
    """Listens on `address` (a public address of the machine) and leads to 127.0.0.1, by default at the same port."""

    def __init__(
        self, listener: socket.socket, admits: Callable[[str], bool], cuts: Cuts, *, inner_port: int | None = None
    ) -> None:
        self.address, self.port = listener.getsockname()
        self._inner_port = inner_port or self.port
        self.connections: list[Connection] = []
        self._listener = listener
        self._admits = admits
        self._cuts = cuts
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="gateway", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self.connections:
            if connection.open:
                connection.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                peer, (source, *_) = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(peer, source), name="gateway", daemon=True).start()

    def _lead(self, peer: socket.socket, source: str) -> None:
        connection = Connection(source)
        self.connections.append(connection)
        with peer:
            if not self._admits(source):
                connection.admitted = connection.open = False
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self._inner_port), timeout=5)
            except OSError:
                connection.open = False
                return
            with inner:
                inner.settimeout(None)
                connection._sockets = [peer, inner]
                for end in (peer, inner):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=self._pump, args=(inner, peer, connection, False), daemon=True)
                back.start()
                self._pump(peer, inner, connection, True)
                back.join()
                connection.open = False

    def _pump(self, source: socket.socket, sink: socket.socket, connection: Connection, inward: bool) -> None:
        move = _Splice() if _SPLICES else _Copy()
        try:
            while size := move(source, sink):
                if inward:
                    connection.bytes_in += size
                    if self._cuts.due(connection):
                        connection.cut()
                        return
                else:
                    connection.bytes_out += size
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            connection.cut()
        finally:
            move.close()


class _Copy:
    """Moves what has come from one socket to another; 0 at its end."""

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER)

    def __call__(self, source: socket.socket, sink: socket.socket) -> int:
        size = source.recv_into(self._buffer)
        sink.sendall(memoryview(self._buffer)[:size])
        return size

    def close(self) -> None: ...


class _Splice:
    """The same inside the kernel (Linux): 500 MiB/s where `_Copy` made 370, both ends in the same process."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, _BUFFER)

    def __call__(self, source: socket.socket, sink: socket.socket) -> int:
        size = left = os.splice(source.fileno(), self._write, _BUFFER)
        while left:
            left -= os.splice(self._read, sink.fileno(), left)
        return size

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)
