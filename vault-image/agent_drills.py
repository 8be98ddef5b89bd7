"""Restore points that are checked, each by a process of its own (drill.py), which the agent never waits for."""

import json
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import registry
from agent_config import Config
from agent_orders import DrillOrder, HostOrder, RestoreOrder
from agent_transfers import MOST

_PROGRAM = Path(__file__).resolve().with_name("drill.py")
_END_SECONDS = 2.0
_LINES_BYTES = 65536
_STATES = ("checking", "passed", "failed", "unproven", "error")
_NUMBERS = ("files", "checked_bytes", "total_bytes")
_DETAIL = 200
# The check reads what the host has pushed, by ssh-keygen too, which is C. So it is done under the host's own number:
# whoever broke it from within would have no more than that host has here already, its own files. It could also tell
# a lie about them, or end the check; but who has the host's key can sign what he likes.
_POLITE = ("nice", "-n", "19", "ionice", "-c", "idle")
_AS_HOST = (
    *("setpriv", "--reuid=@UID@", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"),
    *_POLITE,
)
# Who starts it where the agent may not become a host; see nightvault-agent.service.
_IN_MY_PLACE = os.environ.get("NIGHTVAULT_DRILL_COMMAND", "").split()


class Drills:
    """The checks of the restore points that are ordered and mounted."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._checks: dict[RestoreOrder, _Check] = {}

    def apply(
        self, restores: Iterable[RestoreOrder], hosts: Iterable[HostOrder] = (), mounted: Iterable[str] = ()
    ) -> None:
        """See that what is ordered, of a host whose point is mounted, is checked, and nothing else is."""
        uids = {order.host: order.uid for order in hosts}
        wanted = {order: order.drill for order in restores if order.drill and order.host in {*uids} & {*mounted}}
        for order in self._checks.keys() - wanted.keys():
            self._checks.pop(order).end()
        for order, drill in wanted.items():
            if order not in self._checks:
                place = self._config.mount_root / registry.POINTS / order.host
                self._checks[order] = _Check(order, drill, place, self._command(uids[order.host]))

    def end(self, host: str) -> None:
        """End what is checked of a host: its point is about to be unmounted."""
        for order in [order for order in self._checks if order.host == host]:
            self._checks.pop(order).end()

    def told(self) -> list[dict[str, Any]]:
        """What the report says of them."""
        return [self._checks[order].told() for order in sorted(self._checks, key=lambda order: order.host)]

    def ends(self) -> list[int]:
        """Descriptors that become readable as checks end."""
        return [check.process_fd for check in self._checks.values() if check.process_fd >= 0]

    def _command(self, uid: int) -> list[str]:
        words = _POLITE if self._config.accounts == "single" else _IN_MY_PLACE or _AS_HOST
        return [*(word.replace("@UID@", str(uid)) for word in words), str(_PROGRAM)]


class _Check:
    """One process, and what it has said last. Its standard input is its life: it ends with the agent, however that
    ends."""

    def __init__(self, order: RestoreOrder, drill: DrillOrder, place: Path, command: list[str]) -> None:
        self._told: dict[str, Any] = {"host": order.host, "volume_id": order.volume_id, "run_id": drill.run_id}
        self._told |= {"state": "checking", **dict.fromkeys(_NUMBERS, 0), "detail": ""}
        self._half_line = b""
        theirs_in, self._life = os.pipe()
        self._said, theirs_out = os.pipe()
        os.set_blocking(self._said, False)
        self.process_fd = -1
        try:
            self._process = subprocess.Popen(command, stdin=theirs_in, stdout=theirs_out)
            self.process_fd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._told |= {"state": "error", "detail": ascii(f"it could not be started: {error}")[1:-1][:_DETAIL]}
            self._close()
            return
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        asked = {"place": str(place), "host": order.host, "run_id": drill.point_run_id}
        with suppress(BrokenPipeError):  # its end tells
            os.write(self._life, json.dumps({**asked, "public_keys": drill.public_keys}).encode() + b"\n")

    def told(self) -> dict[str, Any]:
        """What it has come to, without waiting for it."""
        if self.process_fd >= 0:
            ended = self._process.poll() is not None  # before the last look at what it said
            self._listen()
            if ended:
                if self._told["state"] == "checking":
                    why = f"the check was ended, exit code {self._process.returncode}; see the machine's journal"
                    self._told |= {"state": "error", "detail": why}
                self._close()
        return dict(self._told)

    def end(self) -> None:
        """End it, now."""
        if self.process_fd < 0:
            return
        os.close(self._life)
        self._life = -1
        registry.see_end(self._process.pid, _END_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        self._close()

    def _listen(self) -> None:
        # It runs as the host's account: what it says is believed in its shape alone.
        with suppress(BlockingIOError):
            self._half_line = (self._half_line + os.read(self._said, _LINES_BYTES))[-_LINES_BYTES:]
        *lines, self._half_line = self._half_line.split(b"\n")
        with suppress(ValueError, KeyError, TypeError, RecursionError, IndexError):
            said = json.loads(lines[-1])
            state, detail, numbers = said["state"], said["detail"], {name: said[name] for name in _NUMBERS}
            if (
                state in _STATES
                and (isinstance(detail, str) and detail.isascii() and detail.isprintable())
                and all(type(number) is int and number >= 0 for number in numbers.values())
            ):
                self._told |= {name: min(number, MOST) for name, number in numbers.items()}
                self._told |= {"state": state, "detail": detail[:_DETAIL]}

    def _close(self) -> None:
        for descriptor in (self._life, self._said, self.process_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._life = self._said = self.process_fd = -1
