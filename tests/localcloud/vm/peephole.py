"""A root shell on the machine's second serial port, for tests: no part of the image, nor of its user data.

systemd's debug shell (`systemd.debug_shell=ttyS1` on the kernel's command line) is there from early in the boot until
the machine is off. It is not there on EC2, and no host of the network can reach it.
"""

import base64
import contextlib
import secrets
import socket
import textwrap
import threading
import time
from pathlib import Path
from typing import NamedTuple

_BEGIN, _END = b"\x1e", b"\x1f"


class Ran(NamedTuple):
    """What a command came to."""

    code: int
    stdout: str


class Peephole:
    """Runs one command at a time; may be used from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._heard = b""
        self._lock = threading.Lock()

    def run(self, command: str, *, seconds: float = 120.0) -> Ran:
        """`command` in `sh`, as root. TimeoutError after `seconds`; the time until there is a shell counts too."""
        deadline = time.monotonic() + seconds
        with self._lock:
            port = self._shell(deadline)
            name = secrets.token_hex(8)
            # In short lines: a terminal takes no line of more than 4095 bytes.
            script = "\n".join(textwrap.wrap(base64.b64encode(command.encode()).decode(), 1000))
            lines = (
                f"d=/run/peephole-{name}; mkdir -m 700 $d; base64 -d >$d/in <<'.'",
                f"{script}\n.",
                "sh $d/in >$d/out 2>$d/err </dev/null; c=$?",
                f"printf '\\036{name} %d ' $c; base64 -w0 $d/out; printf '\\037'; rm -r $d",
            )
            port.sendall("".join(f"{line}\n" for line in lines).encode())
            _, code, text = self._answer(port, name, deadline).split(b" ")
            return Ran(int(code), base64.b64decode(text).decode(errors="replace"))

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _shell(self, deadline: float) -> socket.socket:
        """Connected, and the shell has answered."""
        if self._socket is None:
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(str(self._path))
                self._find_shell(port, deadline)
            except OSError:
                port.close()
                raise
            self._socket = port
        return self._socket

    def _find_shell(self, port: socket.socket, deadline: float) -> None:
        """What is typed before there is a shell is lost; so it is asked again, at ever longer intervals."""
        name = secrets.token_hex(8)
        pause = 2.0
        while time.monotonic() < deadline:
            # No quotes: the beginning of a line may be lost, and half a pair would swallow all that follows.
            port.sendall(f"\nstty -echo; PS1= PS2=; printf \\\\036{name}\\\\037\n".encode())
            with contextlib.suppress(TimeoutError):
                self._answer(port, name, min(deadline, time.monotonic() + pause))
                return
            pause = min(2 * pause, 30.0)
        raise TimeoutError("the machine has no shell on its second serial port")

    def _answer(self, port: socket.socket, name: str, deadline: float) -> bytes:
        """What stands between the two marks of that name, the name first."""
        while True:
            begin = self._heard.find(_BEGIN + name.encode())
            if begin >= 0 and (end := self._heard.find(_END, begin)) >= 0:
                answer, self._heard = self._heard[begin + 1 : end], self._heard[end + 1 :]
                return answer
            port.settimeout(max(0.01, deadline - time.monotonic()))
            more = port.recv(65536)
            if not more:
                self._socket = None
                raise ConnectionError("the machine is off")
            self._heard += more
