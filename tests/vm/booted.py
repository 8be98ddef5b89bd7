"""One machine with hosts' volumes on it, and no cloud around it: what stands where the control plane would gives the
program and the orders. It answers to what tests/vault/ asks of a vault, so that attempts are written once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import join, quote

from tests.localcloud.paths import VAULT_IMAGE
from tests.localcloud.vm import qemu
from tests.localcloud.vm.alone import Alone
from tests.localcloud.vm.machine import VirtualMachine
from tests.vm.machines import NIGHT_SECONDS

if str(VAULT_IMAGE) not in sys.path:
    sys.path.insert(0, str(VAULT_IMAGE))

import user_data  # vault-image is found only now

from tests.vault import vaults

_GATE = "/opt/nightvault/gate.py"


class Booted:
    """On from its making to its power-off; `machine_init.py` is the quicker kind."""

    single = False
    outside = qemu.ROUTER

    machine: VirtualMachine

    def __init__(self, cloud: vaults.Cloud, alone: Alone, hosts: list[vaults.Host], base: Path) -> None:
        self.cloud = cloud
        self.base = base
        self._alone = alone
        self._hosts = hosts
        self.boot()

    def boot(self) -> None:
        """Until all volumes are mounted."""
        before = self.cloud.order(*self._hosts, power_off=False)
        self.machine = self._alone.boot()
        report = self.cloud.wait_for(
            lambda report: (
                report["state"] == "ready"
                and [mount["state"] for mount in report["mounts"]] == ["mounted"] * len(self._hosts)
            ),
            NIGHT_SECONDS,
            before,
        )
        for host in self._hosts:
            host.port, host.known_hosts = self.machine.ssh_port, self.base / "known_hosts"
            host.known_hosts.write_text("".join(f"[127.0.0.1]:{host.port} {key}\n" for key in report["host_keys"]))

    def console(self) -> str:
        """What it has printed, on all boots."""
        return self._alone.console()

    def inside(self, command: str) -> str:
        """What `command` prints as root; it must succeed."""
        ran = self.machine.peephole.run(command, seconds=NIGHT_SECONDS)
        assert ran.code == 0, f"{command}: {ran.code}, {ran.stdout}"
        return ran.stdout

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """As root."""
        ran = self.machine.peephole.run(f"{join(argv)} 2>&1", seconds=NIGHT_SECONDS)
        return subprocess.CompletedProcess(argv, ran.code, ran.stdout, "")

    def state(self, host: vaults.Host) -> object:
        """All of a host's volume; equal if nothing has changed."""
        return self.inside(f"cd /mnt/{host.name} && find . -printf '%p %T@ %m %s\\n' | sort")

    @contextmanager
    def no_gate(self) -> Iterator[None]:
        """As if the gate let everything through: a host's command is run by a shell in its session of sshd."""
        evil = "/opt/nightvault/evil"
        script = '#!/bin/sh\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        self.inside(f"printf %s {quote(script)} >{evil}; chmod 755 {evil}; mount --bind {evil} {_GATE}")
        try:
            yield
        finally:
            self.inside(f"umount {_GATE}; rm {evil}")


@contextmanager
def booted(folder: Path, *names: str) -> Iterator[tuple[Booted, list[vaults.Host]]]:
    """After its first boot."""
    hosts = [
        vaults.Host(name, number, f"vol-{number:017x}", vaults.keygen(folder / name), patience=300)
        for number, name in enumerate(names, 20001)
    ]
    for host in hosts:
        host.user, host.reader = f"nv{host.uid}", f"nv{host.uid}r"
    with vaults.cloud_of() as cloud:
        cloud.program = user_data.program()
        tags = {"nightvault-url": cloud.url.replace("127.0.0.1", qemu.ROUTER), "nightvault-code": vaults.CODE}
        volumes = {host.volume_id: 1 for host in hosts}
        with Alone(folder / "machine", user_data=user_data.user_data(), tags=tags, volumes=volumes) as alone:
            yield Booted(cloud, alone, hosts, folder), hosts
