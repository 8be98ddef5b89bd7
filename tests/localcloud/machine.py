"""One boot of one machine: its process, its metadata service, and the gate before its sshd."""

import contextlib
import functools
import getpass
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .disks import Disks
from .gateway import Cuts, Gateway
from .hypervisor import Guest
from .metadata import MetadataService

_SSH = 22
_BUTTON_SECONDS = 60.0
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


@dataclass(frozen=True)
class Image:
    """What the machine boots: vault-image/, or a stand-in of a test. `agent` is the agent's file name in it."""

    folder: Path
    agent: str = "agent.py"

    def sshd_config(self, **values: Any) -> str:
        """The image's own sshd configuration."""
        specification = importlib.util.spec_from_file_location("_user_data", self.folder / "user_data.py")
        if specification is None or specification.loader is None:
            raise FileNotFoundError(self.folder / "user_data.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return str(module.sshd_config(**values))


class BootedMachine:
    """Runs from `__init__` until it is off; then `on_exit` is called."""

    def __init__(
        self,
        guest: Guest,
        on_exit: Callable[[], None],
        *,
        root: Path,
        disks: Disks,
        image: Image,
        control_url: str,
        cuts: Cuts,
        rooted: bool,
    ) -> None:
        self._root = root
        self._disks = disks
        self._rooted = rooted
        self._on_exit = on_exit
        self._off = threading.Event()
        listener = _listen()
        address, port = listener.getsockname()
        self._metadata = MetadataService(lambda: {**guest.metadata(), "meta-data/public-ipv4": address})
        self.gateway = Gateway(listener, lambda source: guest.admits(source, _SSH), cuts)
        config = _Layout(root, rooted, image).config(
            port=port,
            control_url=control_url,
            metadata_url=self._metadata.url,
            devices=disks.devices(guest.instance_id),
        )
        file = root / "machine.json"
        file.write_text(json.dumps(config, indent=1))
        command = [sys.executable, str(_SUPERVISOR), str(file)]
        if rooted:
            command = [*_unshare(), *command]
        with Path(config["logs"], "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        threading.Thread(target=self._watch, name=f"machine {guest.instance_id}", daemon=True).start()

    def power_button(self) -> None:
        """Clean shutdown; the plug is pulled if that takes longer than a minute."""
        with contextlib.suppress(OSError, ValueError):
            self._power.write(b"off\n")
            self._power.flush()
        if not self._off.wait(_BUTTON_SECONDS):
            self.pull_plug()

    def pull_plug(self) -> None:
        if self._off.is_set():
            return
        if self._rooted:
            self._crash_namespace()
        with contextlib.suppress(OSError, ValueError):
            self._power.close()  # the supervisor ends every process of the machine, hard
        if not self._off.wait(10):
            self._process.kill()
            self._off.wait(10)

    @property
    def _power(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise AssertionError("it was started with a pipe")
        return self._process.stdin

    def _crash_namespace(self) -> None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                places = Path(f"/proc/{pid}/root/mnt")
                self._disks.crash([each for each in places.iterdir() if each.is_mount()])
                os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        self._process.wait()
        self.gateway.close()
        self._metadata.close()
        with contextlib.suppress(OSError, ValueError):
            self._power.close()
        self._off.set()
        self._on_exit()


@dataclass(frozen=True)
class _Layout:
    """Where things are on a machine: as on EC2 with root, all below its root disk without."""

    root: Path
    rooted: bool
    image: Image

    def config(self, *, port: int, control_url: str, metadata_url: str, devices: Path) -> dict[str, Any]:
        """machine.json, for the supervisor."""
        for name in ("etc", "etc.work", "mnt", "state", "run", "keys", "logs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            (self.root / name).chmod(0o755)
        if not self.rooted:  # what is in memory on a real machine
            shutil.rmtree(self.root / "run")
            (self.root / "run").mkdir()
        folder = Path("/run/vault-image") if self.rooted else self.image.folder
        host_key = Path("/etc/nightvault/ssh_host_key") if self.rooted else self.root / "state" / "ssh_host_key"
        keys = Path("/etc/nightvault/keys") if self.rooted else self.root / "keys"
        agent: dict[str, Any] = {
            "control_url": control_url,
            "metadata_url": metadata_url,
            "state_dir": str(self.root / "state"),
            "run_dir": "/run/nightvault" if self.rooted else str(self.root / "run"),
            "mount_root": "/mnt" if self.rooted else str(self.root / "mnt"),
            "device_dir": str(devices),
            "accounts": "system" if self.rooted else "single",
            "host_key_files": [f"{host_key}.pub"],
            "keys_dir": str(keys),
            "port": port,
            "power_off_command": ["kill", "-TERM", "@PID@"],
            "boot_id_file": str(self.root / "boot_id"),
        }
        return {
            "rooted": self.rooted,
            "root": str(self.root),
            "image": str(self.image.folder),
            "logs": str(self.root / "logs"),
            "boot_id_file": agent["boot_id_file"],
            "host_key": str(host_key),
            "agent": agent,
            "agent_config": str(self.root / "agent.json"),
            "commands": {
                "sshd": [self._sshd(), "-D", "-e", "-f", str(self._sshd_config(port, host_key, keys))],
                "agent": [sys.executable, str(folder / self.image.agent), "--config", f"{self.root}/agent.json"],
            },
        }

    def _sshd_config(self, port: int, host_key: Path, keys: Path) -> Path:
        values: dict[str, Any] = {
            "port": port,
            "listen": "127.0.0.1",
            "host_key": str(host_key),
            "keys_dir": str(keys),
        }
        if not self.rooted:
            values["account"] = getpass.getuser()
        file = self.root / "sshd_config"
        file.write_text(self.image.sshd_config(**values))
        return file

    @staticmethod
    def _sshd() -> str:
        return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "/usr/sbin/sshd"


def _listen() -> socket.socket:
    """A public address with a port that is free there and, for sshd, on 127.0.0.1.

    Two addresses, one port: as on EC2, the agent then finds its sshd on 127.0.0.1 without passing the gate.
    """
    for _ in range(100):
        listener = socket.socket()
        try:
            listener.bind((public_address(), 0))
            with socket.socket() as other:
                other.bind(("127.0.0.1", listener.getsockname()[1]))
        except OSError:
            listener.close()
            continue
        listener.listen(256)
        return listener
    raise OSError("no port is free on both addresses")


@functools.cache
def public_address() -> str:
    """127.0.0.2; macOS has it only after `ifconfig lo0 alias 127.0.0.2`."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.2", 0))
        except OSError as error:
            raise OSError("the machines' public address is missing: ifconfig lo0 alias 127.0.0.2") from error
    return "127.0.0.2"


def _unshare() -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]


@functools.cache
def may_root() -> bool:
    """Whether this user may make namespaces, overlays and loop devices here. Tried, not guessed."""
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return False
    if not shutil.which("mkfs.xfs"):
        return False
    script = (
        "mount -t tmpfs tmpfs /run && mkdir /run/u /run/w && "
        "mount -t overlay -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w overlay /etc"
    )
    tried = subprocess.run([*_unshare(), "sh", "-c", script], capture_output=True, check=False)
    loops = subprocess.run(["losetup", "--find"], capture_output=True, check=False)
    return tried.returncode == 0 and loops.returncode == 0
