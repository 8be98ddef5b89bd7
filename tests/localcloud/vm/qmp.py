"""qemu's machine protocol: asks, and waits for events.

https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

Message = dict[str, Any]


class QmpError(Exception):
    """qemu refused a command, with its own words; or it has gone."""


class Qmp:
    """One connection to a running qemu; may be used from any thread."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self._lock = threading.RLock()
        self._events: list[Message] = []
        self._socket = _connected(path, seconds)
        self._lines = self._socket.makefile("rb")
        self._read()  # its greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """What the command returns. Raises QmpError."""
        with self._lock:
            try:
                self._socket.settimeout(60)
                self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            except OSError as error:
                raise QmpError(f"{command}: qemu has gone") from error
            while True:
                answer = self._read()
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"{command}: {answer['error']['desc']}")

    def await_event(self, name: str, device: str, seconds: float) -> bool:
        """Whether the event came for that device, now or earlier."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                for event in self._events:
                    if event["event"] == name and event["data"].get("device") == device:
                        self._events.remove(event)
                        return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._socket.settimeout(min(left, 0.2))  # the lock is let go in between
                with contextlib.suppress(TimeoutError):
                    self._read()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> Message:
        try:
            line = self._lines.readline()
        except TimeoutError:
            # A buffered reader that timed out refuses to go on.
            self._lines = self._socket.makefile("rb")
            raise
        except OSError as error:
            raise QmpError("qemu has gone") from error
        if not line:
            raise QmpError("qemu has gone")
        message: Message = json.loads(line)
        if "event" in message:
            self._events.append(message)
        return message


def _connected(path: Path, seconds: float) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(str(path))
        except OSError:
            found.close()
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.02)
        else:
            return found
