"""Process 1 of an emulated machine: brings up sshd and the agent, and ends them.

Run as `python supervisor.py machine.json`, with root under `unshare --mount --pid --fork --mount-proc`.
Standard input is its power: a line is the power button (the agent ends first, then sshd), its end is the
plug pulled, so that no machine outlives the process that started it. SIGTERM, which the agent sends to
power the machine off, is the button too. Standard library only, and nothing of this package.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_AGENT_SECONDS = 30
_PAUSE_SECONDS = 0.2


class Machine:
    """What machine.json says, brought up."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._off = threading.Event()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._button)
        if self._config["rooted"]:
            self._own_filesystem()
        else:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)  # so that every descendant is found
        self._prepare()
        threading.Thread(target=self._watch_power, daemon=True).start()
        for name in ("sshd", "agent"):
            threading.Thread(target=self._keep, args=(name,), daemon=True).start()
        self._off.wait()
        self._stop("agent", _AGENT_SECONDS)
        self._stop("sshd", 5)

    def _own_filesystem(self) -> None:
        """What of the disk is this machine's own: accounts and keys in /etc, /run, and the hosts' places."""
        root = self._config["root"]
        layers = f"lowerdir=/etc,upperdir={root}/etc,workdir={root}/etc.work"
        for command in (
            ["mount", "-t", "overlay", "-o", layers, "overlay", "/etc"],
            ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
            ["mount", "--bind", f"{root}/mnt", "/mnt"],
        ):
            subprocess.run(command, check=True)
        for name in ("sshd", "vault-image"):
            Path("/run", name).mkdir(mode=0o755)
        # Hosts' accounts reach the gate here, wherever the project was cloned to.
        subprocess.run(["mount", "--bind", "-o", "ro", self._config["image"], "/run/vault-image"], check=True)

    def _prepare(self) -> None:
        config = self._config
        Path(config["boot_id_file"]).write_text(f"{uuid.uuid4()}\n")
        key = Path(config["host_key"])
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vault", "-f", str(key)]
            subprocess.run(command, check=True)
        agent = config["agent"]
        if "power_off_command" in agent:
            agent["power_off_command"] = [
                word.replace("@PID@", str(os.getpid())) for word in agent["power_off_command"]
            ]
        Path(config["agent_config"]).write_text(json.dumps(agent, indent=1))

    def _keep(self, name: str) -> None:
        """Starts it, and again when it ends by itself, as systemd does."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        while not self._off.is_set():
            with Path(self._config["logs"], f"{name}.log").open("ab") as log:
                self._running[name] = subprocess.Popen(
                    self._config["commands"][name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd="/",
                )
            self._running[name].wait()
            self._off.wait(_PAUSE_SECONDS)

    def _stop(self, name: str, seconds: float) -> None:
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()

    def _button(self, _signal: int, _frame: FrameType | None) -> None:
        self._off.set()

    def _watch_power(self) -> None:
        while os.read(sys.stdin.fileno(), 64):  # whoever pressed the button may still pull the plug
            self._off.set()
        end_all()
        os._exit(1)


def descendants() -> set[int]:
    """Every living process below this one."""
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as ps:
        lines = [line.split() for line in ps.communicate()[0].splitlines()]
    parents = {int(pid): int(parent) for pid, parent, state in lines if not state.startswith("Z")}
    parents.pop(ps.pid, None)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def end_all() -> None:
    """Kills every other process of this machine. Process 1 need not: the kernel does when it exits."""
    while os.getpid() != 1 and (left := descendants()):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    Machine(json.loads(Path(sys.argv[1]).read_text())).run()
    end_all()
    os._exit(0)  # past threads that wait for what is gone


if __name__ == "__main__":
    main()
