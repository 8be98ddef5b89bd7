"""What the benchmarks of a booted vault share: the machine, a control plane that is always there, and a host."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vault-image"))  # plain files, as on a vault

from chalicelib.model import Policy
from deploy import parts
from tests.localcloud.vm import qemu
from tests.localcloud.vm.alone import Alone
from tests.localcloud.vm.machine import VirtualMachine
from tests.localcloud.vm.machines import MEMORY_MIB
from tests.vault import vaults

SECONDS = 900.0  # before anything on an emulated machine counts as stuck
ALIAS = "vault"
_VOLUME = "vol-00000000000000001"


def need_root() -> None:
    if os.geteuid() != 0:
        sys.exit("needs root: machines have their sshd on port 22, and process machines make accounts; sudo -E")


def load() -> str:
    """What a figure is worth: how busy this machine is."""
    return f"{os.cpu_count()} processors, load {' '.join(f'{each:.1f}' for each in os.getloadavg())}"


@dataclass
class Client(vaults.Host):
    """Asks for what host-client/nightvault asks for, by the same options; `cipher` "" is its own: none."""

    address: str = "127.0.0.1"
    cipher: str = ""

    def ssh_command(self) -> list[str]:
        options = ["IdentitiesOnly=yes", "BatchMode=yes", f"HostKeyAlias={ALIAS}", "StrictHostKeyChecking=yes"]
        options += [f"UserKnownHostsFile={self.known_hosts}", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"]
        command = ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(self.port)]
        command += [word for option in options for word in ("-o", option)]
        return command + (["-c", self.cipher] if self.cipher else [])

    def trust(self, host_key: str) -> None:
        self.known_hosts.write_text(f"{ALIAS} {host_key}\n")

    def begin(self) -> str:
        """A new run at the gate. Gives the cipher that both ends agreed on."""
        said = _run([*self.ssh_command(), "-v", f"{self.user}@{self.address}", f"begin {uuid.uuid4()}"]).stderr
        (agreed,) = re.findall(r"kex: client->server cipher: (\S+)", said)[:1]
        return str(agreed)

    def send(self, source: Path) -> None:
        options = ["-aH", "--numeric-ids", "--inplace", "--partial", "--delete", "--timeout=600"]
        _run(self.rsync_command(*options, f"{source}/", f"{self.address}:."))


class Plane(vaults.Cloud):
    """Each report carries when it `came`, on the monotonic clock."""

    def answer(self, path: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        came = {"came": time.monotonic()} if path == "/report" else {}
        return super().answer(path, body | came, authorization)


class Vault:
    """One instance with the volume of one host, off at first. A context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._exit = ExitStack()
        self.plane = Plane()
        self._exit.callback(self.plane.close)
        self.plane.program = parts.vault_image().program()
        tags = {"nightvault-url": self.plane.url.replace("127.0.0.1", qemu.ROUTER), "nightvault-code": vaults.CODE}
        self.alone = self._exit.enter_context(Alone(folder / "machine", tags=tags, volumes={_VOLUME: 4}))
        key = vaults.keygen(folder / "key")
        self.host = Client("T", 20001, _VOLUME, key, "nv20001", qemu.SSH, folder / "known_hosts")
        self.machine: VirtualMachine
        self._before = 0

    def power_on(self, memory_mib: int = MEMORY_MIB) -> float:
        """Gives when, on the monotonic clock."""
        self.alone.hypervisor.memory_mib = memory_mib
        orders = {"power_off": False, "report_every_seconds": Policy().report_seconds, "seconds_to_power_off": 36_000}
        self._before = self.plane.order(self.host, **orders)
        began = time.monotonic()
        self.machine = self.alone.boot()
        return began

    def wait_ready(self) -> tuple[float, float]:
        """Until the host may push: when the first report of this boot came, and when the one that says so."""
        report = self.plane.wait_for(_ready, SECONDS, after=self._before)
        self.host.address = self.machine.gateway.address
        self.host.trust(report["host_keys"][0])
        return self.plane.reports[self._before]["came"], report["came"]

    def inside(self, command: str) -> str:
        """What `command` prints as root on the machine; it must succeed."""
        ran = self.machine.peephole.run(command, seconds=SECONDS)
        if ran.code:
            raise RuntimeError(f"{command}: exited with {ran.code}: {ran.stdout}")
        return ran.stdout

    def power_off(self) -> tuple[float, float]:
        """Orders and StopInstances, as after the last finish. Seconds until the agent's last report, and until off."""
        finished = time.monotonic()
        before = self.plane.order(self.host, power_off=True)
        self.machine.power_button()
        off = time.monotonic()
        stopping = self.plane.wait_for(lambda report: report["state"] == "stopping", after=before)
        return stopping["came"] - finished, off - finished

    def __enter__(self) -> "Vault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()


def default_type() -> str:
    """The instance type that is deployed unless another is asked for."""
    resources = json.loads((Path(__file__).resolve().parents[1] / ".chalice" / "resources.json").read_text())
    return str(resources["Parameters"]["InstanceType"]["Default"])


def _ready(report: dict[str, Any]) -> bool:
    return report["state"] == "ready" and [mount["state"] for mount in report["mounts"]] == ["mounted"]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exited with {done.returncode}: {done.stderr[-2000:]}")
    return done
