"""What vault-image/ makes of a stock Debian: two boots of one machine, seen as root and as a host without its gate.

With no cloud around it: what stands where the control plane would gives the program and the orders.
"""

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.localcloud.paths import VAULT_IMAGE
from tests.localcloud.vm.alone import Alone
from tests.localcloud.vm.machine import VirtualMachine
from tests.vm.machines import NIGHT_SECONDS

if str(VAULT_IMAGE) not in sys.path:
    sys.path.insert(0, str(VAULT_IMAGE))

import user_data  # vault-image is found only now

from tests.vault import vaults

# Switched off, so that no boot and no power-off waits for them.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service", "man-db.timer")
VOLUMES = {"vol-0123456789abcdef1": 1, "vol-0123456789abcdef2": 1}
ROUTER = "172.31.0.1"  # this machine, seen from the other


@dataclass
class Vault:
    """One machine and C and H, who have volumes on it."""

    cloud: vaults.Cloud
    alone: Alone
    machine: VirtualMachine
    c: vaults.Host
    h: vaults.Host

    def boot(self) -> None:
        seen = self.cloud.order(self.c, self.h, power_off=False)
        self.machine = self.alone.boot()
        self.cloud.wait_for(
            lambda report: (
                report["state"] == "ready" and [mount["state"] for mount in report["mounts"]] == ["mounted"] * 2
            ),
            NIGHT_SECONDS,
            seen,
        )

    def inside(self, command: str) -> str:
        """What `command` prints as root; it must succeed."""
        ran = self.machine.peephole.run(command, seconds=NIGHT_SECONDS)
        assert ran.code == 0, f"{command}: {ran.code}, {ran.stdout}"
        return ran.stdout

    def ssh_command(self, command: str) -> list[str]:
        """For C, whose vault is known by its host key."""
        address = self.machine.gateway.address
        known = self.c.key.with_suffix(".known")
        known.write_text("".join(f"{address} {key}\n" for key in self.cloud.reports[-1]["host_keys"]))
        options = ["-F", "none", "-i", str(self.c.key), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        options += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60"]
        return ["ssh", *options, f"nv{self.c.uid}@{address}", command]

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        return run(self.ssh_command(command))

    @contextmanager
    def no_gate(self) -> Iterator[None]:
        """As if the gate let everything through: a host's command is what its account runs."""
        evil = "/opt/nightvault/evil"
        script = '#!/bin/sh\\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\\n'
        self.inside(f"printf '{script}' >{evil}; chmod 755 {evil}; mount --bind {evil} /opt/nightvault/gate.py")
        try:
            yield
        finally:
            self.inside("umount /opt/nightvault/gate.py")


def run(command: list[str], *, text: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, cwd=folder, capture_output=True, text=True, check=False, timeout=NIGHT_SECONDS
    )


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """On its first boot."""
    folder = tmp_path_factory.mktemp("image")
    hosts = []
    for number, (name, volume_id) in enumerate(zip("CH", VOLUMES, strict=True), 20001):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        hosts.append(vaults.Host(name, number, volume_id, folder / name))
    with vaults.cloud_of() as cloud:
        cloud.program = user_data.program()
        tags = {"nightvault-url": cloud.url.replace("127.0.0.1", ROUTER), "nightvault-code": vaults.CODE}
        with Alone(folder / "machine", user_data=user_data.user_data(), tags=tags, volumes=VOLUMES) as alone:
            made = Vault(cloud, alone, machine=None, c=hosts[0], h=hosts[1])  # type: ignore[arg-type]
            made.boot()
            yield made


@pytest.mark.parametrize("unit", ["nightvault-agent.service", "ssh.service"])
def test_units_may_do_the_least(vault: Vault, unit: str) -> None:
    vault.inside(f"systemd-analyze security --no-pager --threshold=30 {unit}")


def test_the_first_boot_left_nothing_undone(vault: Vault) -> None:
    vault.inside("until test -e /etc/cloud/cloud-init.disabled; do sleep 1; done")
    assert vault.inside("systemctl --failed --no-legend --plain") == ""
    for unit in MASKED:
        assert vault.inside(f"systemctl is-enabled {unit} || :").strip() == "masked"
    assert vault.inside("systemctl is-enabled nightvault-agent.service nightvault-upkeep.timer") == "enabled\n" * 2
    assert "agent.cpython" in vault.inside("ls /opt/nightvault/__pycache__"), "compiled once, not at every start"


def test_nothing_listens_but_sshd(vault: Vault) -> None:
    lines = vault.inside("ss -Hltun").splitlines()
    local = re.compile(r"(127\.|\[::1\]|\[fe80:)")
    heard = {(line.split()[0], line.split()[4]) for line in lines if not local.match(line.split()[4])}
    dhcp = {entry for entry in heard if entry[0] == "udp" and entry[1].endswith("%eth0:68")}
    assert heard - dhcp == {("tcp", "0.0.0.0:22")}


# Each must fail for a host's account whose gate lets everything through. {} is the account's number.
FORBIDDEN = {
    "the root disk": "touch /var/tmp/x || touch /etc/x || touch /opt/nightvault/x || touch /x",
    "temporary files": "touch /tmp/x || touch /dev/shm/x",
    "its memory for notes, filled": "head -c 64M /dev/zero >/run/nightvault/C/x",
    "another's notes": "ls /run/nightvault/H",
    "another's volume": "ls /mnt/H || touch /mnt/H/x",
    "the vault's token": "cat /var/lib/nightvault/token",
    "instance metadata": "python3 -c 'import socket; socket.create_connection((\"169.254.169.254\", 80), 10)'",
    "D-Bus": "ls /run/dbus",
    "to hold the machine up": "systemd-inhibit true",
    "to power it off": "systemctl poweroff",
    "namespaces of its own": "unshare --user true",
    "rights from a setuid program": "grep -q '^NoNewPrivs:.0' /proc/self/status",
    "every system call": "grep -q '^Seccomp:.0' /proc/self/status",
}


def test_a_host_without_its_gate(vault: Vault) -> None:
    with vault.no_gate():
        who = vault.ssh("id -un; touch /mnt/C/x && rm /mnt/C/x && echo mine")
        assert who.stdout == "nv20001\nmine\n", who.stderr
        script = "\n".join(f'if ( {what} ) >/dev/null 2>&1; then echo "{name}"; fi' for name, what in FORBIDDEN.items())
        allowed = vault.ssh(f"{script}\nrm -f /run/nightvault/C/x; echo done")
        assert allowed.stdout == "done\n", allowed.stderr
        seen = vault.ssh("stat -c %U /proc/[0-9]*")
        assert set(seen.stdout.split()) == {"nv20001"}, "a host sees its own processes and nobody else's"
    assert vault.inside("python3 -c 'import socket; socket.create_connection((\"169.254.169.254\", 80), 10)'") == ""
    refused = vault.ssh("id")
    assert (refused.returncode, refused.stderr) == (126, "nightvault: refused\n")


def test_an_update_of_openssh_ends_no_transfer(vault: Vault) -> None:
    """It restarts ssh.service; what hosts run there goes on."""
    with vault.no_gate():
        command = vault.ssh_command("cat")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdin and session.stdout
            for line in ("before\n", "after\n"):
                session.stdin.write(line)
                session.stdin.flush()
                assert session.stdout.readline() == line
                if line == "before\n":
                    vault.inside("systemctl restart ssh.service")
            session.stdin.close()
            assert session.wait(60) == 0
        assert vault.ssh("echo new").stdout == "new\n"


def test_security_updates(vault: Vault) -> None:
    tried = vault.inside("unattended-upgrade --dry-run --verbose 2>&1")
    assert "Allowed origins are: origin=Debian,codename=bookworm-security,label=Debian-Security" in tried
    assert "No packages found" in tried or "Packages that will be upgraded" in tried, tried
    settings = vault.inside("apt-config dump")
    for line in (
        'Unattended-Upgrade::Automatic-Reboot "false";',
        'Unattended-Upgrade::MinimalSteps "true";',
        'APT::Periodic::Enable "0";',
    ):
        assert line in settings
    assert vault.inside("systemctl show -P NextElapseUSecMonotonic -P LastTriggerUSec nightvault-upkeep.timer").strip()
    assert vault.inside("systemctl show -P Nice nightvault-upkeep.service") == "19\n"


def test_the_archive_over_sftp(vault: Vault, tmp_path: Path) -> None:
    """By an account that is locked in, where sshd itself is."""
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "file").write_text("ciphertext")
    run_id = uuid.uuid4()
    assert vault.ssh(f"begin {run_id}").returncode == 0
    *ssh, place, _ = vault.ssh_command("")
    command = ["rsync", "-a", "-e", " ".join(ssh), f"{tmp_path}/file", f"{place}:."]
    pushed = run(command)
    assert pushed.returncode == 0, pushed.stderr
    assert vault.ssh(f"commit {run_id}").stdout == "committed\n"
    user, address = place.split("@")
    vault.inside("until mountpoint -q /mnt/.sftp/C/archive; do sleep 1; done")
    batch = "get /archive/file\n-put file /archive/other\n-ls /etc\n"
    read = run(["sftp", *ssh[1:], "-b", "-", f"{user}r@{address}"], text=batch, folder=into)
    assert read.returncode == 0, read.stderr
    assert (into / "file").read_text() == "ciphertext"
    assert "Permission denied" in read.stderr and "not found" in read.stderr


@dataclass(frozen=True)
class Before:
    """What the first boot said, and how it ended."""

    host_keys: str
    console: str


@pytest.fixture(scope="module")
def second(vault: Vault) -> Before:
    """The machine on its next boot. On the first, a process of C's did not want it to go."""
    keys = vault.inside("cat /etc/ssh/ssh_host_*.pub")
    with vault.no_gate():
        stays = "trap '' TERM HUP INT; while :; do sleep 1; done"
        assert vault.ssh(f'setsid sh -c "{stays}" >/dev/null 2>&1 </dev/null & echo on').stdout == "on\n"
        vault.inside("pgrep -u nv20001 sh")
    vault.cloud.order(power_off=True)
    vaults.wait_until(lambda: not vault.machine.on, NIGHT_SECONDS)
    console = vault.alone.console()
    vault.boot()
    return Before(keys, console)


def test_a_host_that_stays_does_not_keep_the_machine_awake(second: Before) -> None:
    """And its process does not keep the disks from being unmounted either."""
    assert "All filesystems unmounted" in second.console
    assert second.console.rstrip().endswith("reboot: Power down")


def test_the_second_boot_has_no_cloud_init(vault: Vault, second: Before) -> None:
    """The network is what cloud-init left, and the machine is who it was."""
    assert vault.inside("systemctl list-units --no-legend --plain 'cloud-*'") == ""
    assert vault.inside("test -e /run/cloud-init/result.json || echo nothing ran") == "nothing ran\n"
    assert vault.inside("cat /etc/ssh/ssh_host_*.pub") == second.host_keys
    assert vault.inside("systemctl --failed --no-legend --plain") == ""
