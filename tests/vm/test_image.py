"""What vault-image/ makes of a stock Debian: two boots of one machine, seen as root and as a host without its gate.

With no cloud around it: what stands where the control plane would gives the program and the orders.
"""

import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.localcloud.patience import wait_until
from tests.vm.booted import Booted, booted  # first: with it vault-image can be found

# isort: split
from tests.vault import vaults
from tests.vm.machines import NIGHT_SECONDS

# Switched off, so that no boot and no power-off waits for them.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service", "man-db.timer")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Booted, vaults.Host]]:
    """On its first boot, and C."""
    with booted(tmp_path_factory.mktemp("image"), "C", "H") as (vault, (c, _)):
        yield vault, c


@pytest.fixture
def vault(first: tuple[Booted, vaults.Host]) -> Booted:
    return first[0]


@pytest.fixture
def c(first: tuple[Booted, vaults.Host]) -> vaults.Host:
    return first[1]


@pytest.mark.parametrize("unit", ["nightvault-agent.service", "ssh.service"])
def test_units_may_do_the_least(vault: Booted, unit: str) -> None:
    vault.inside(f"systemd-analyze security --no-pager --threshold=30 {unit}")


def test_the_first_boot_left_nothing_undone(vault: Booted) -> None:
    vault.inside("until test -e /etc/cloud/cloud-init.disabled; do sleep 1; done")
    assert vault.inside("systemctl --failed --no-legend --plain") == ""
    for unit in MASKED:
        assert vault.inside(f"systemctl is-enabled {unit} || :").strip() == "masked"
    assert vault.inside("systemctl is-enabled nightvault-agent.service nightvault-upkeep.timer") == "enabled\n" * 2
    assert "agent.cpython" in vault.inside("ls /opt/nightvault/__pycache__"), "compiled once, not at every start"


def test_nothing_listens_but_sshd(vault: Booted) -> None:
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


def test_a_host_without_its_gate(vault: Booted, c: vaults.Host) -> None:
    with vault.no_gate():
        who = c.ssh("id -un; touch /mnt/C/x && rm /mnt/C/x && echo mine")
        assert who.stdout == "nv20001\nmine\n", who.stderr
        script = "\n".join(f'if ( {what} ) >/dev/null 2>&1; then echo "{name}"; fi' for name, what in FORBIDDEN.items())
        allowed = c.ssh(f"{script}\nrm -f /run/nightvault/C/x; echo done")
        assert allowed.stdout == "done\n", allowed.stderr
        seen = c.ssh("stat -c %U /proc/[0-9]*")
        assert set(seen.stdout.split()) == {"nv20001"}, "a host sees its own processes and nobody else's"
    assert vault.inside("python3 -c 'import socket; socket.create_connection((\"169.254.169.254\", 80), 10)'") == ""
    refused = c.ssh("id")
    assert (refused.returncode, refused.stderr) == (126, "nightvault: refused\n")


def test_an_update_of_openssh_ends_no_transfer(vault: Booted, c: vaults.Host) -> None:
    """It restarts ssh.service; what hosts run there goes on."""
    with vault.no_gate():
        command = [*c.ssh_command(), f"{c.user}@127.0.0.1", "cat"]
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
        assert c.ssh("echo new").stdout == "new\n"


def test_security_updates(vault: Booted) -> None:
    # Starting the unit waits for one that the timer began, which holds the lock.
    tried = vault.inside("systemctl start nightvault-upkeep.service && unattended-upgrade --dry-run --verbose 2>&1")
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


def test_the_archive_over_sftp(vault: Booted, c: vaults.Host, tmp_path: Path) -> None:
    """By an account that is locked in, where sshd itself is."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("ciphertext")
    run_id = uuid.uuid4()
    assert c.ssh(f"begin {run_id}").returncode == 0
    pushed = c.push(tmp_path / "source")
    assert pushed.returncode == 0, pushed.stderr
    assert c.ssh(f"commit {run_id}").stdout == "committed\n"
    vault.inside("until mountpoint -q /mnt/.sftp/C/archive; do sleep 1; done")
    read = c.sftp(f"get /archive/file {tmp_path}/file", f"-put {tmp_path}/file /archive/other", "-ls /etc")
    assert read.returncode == 0, read.stderr
    assert (tmp_path / "file").read_text() == "ciphertext"
    assert "Permission denied" in read.stderr and "not found" in read.stderr


@dataclass(frozen=True)
class Before:
    """What the first boot said, and how it ended."""

    host_keys: str
    console: str


@pytest.fixture(scope="module")
def second(first: tuple[Booted, vaults.Host]) -> Before:
    """The machine on its next boot. On the first, a process of C's did not want it to go."""
    vault, c = first
    keys = vault.inside("cat /etc/ssh/ssh_host_*.pub")
    with vault.no_gate():
        stays = "trap '' TERM HUP INT; while :; do sleep 1; done"
        assert c.ssh(f'setsid sh -c "{stays}" >/dev/null 2>&1 </dev/null & echo on').stdout == "on\n"
        vault.inside("pgrep -u nv20001 sh")
    vault.cloud.order(power_off=True)
    wait_until(lambda: not vault.machine.on, NIGHT_SECONDS)
    console = vault.console()
    vault.boot()
    return Before(keys, console)


def test_a_host_that_stays_does_not_keep_the_machine_awake(second: Before) -> None:
    """And its process does not keep the disks from being unmounted either."""
    assert "All filesystems unmounted" in second.console
    assert second.console.rstrip().endswith("reboot: Power down")


def test_the_second_boot_has_no_cloud_init(vault: Booted, second: Before) -> None:
    """The network is what cloud-init left, and the machine is who it was."""
    assert vault.inside("systemctl list-units --no-legend --plain 'cloud-*'") == ""
    assert vault.inside("test -e /run/cloud-init/status.json || echo nothing ran") == "nothing ran\n"
    assert vault.inside("cat /etc/ssh/ssh_host_*.pub") == second.host_keys
    assert vault.inside("systemctl --failed --no-legend --plain") == ""
