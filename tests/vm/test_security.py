"""What host C can do to H on a booted vault: from outside with its own good key, from inside should its gate fail."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from tests.localcloud.patience import wait_until
from tests.vm.booted import Booted, booted  # first: with it vault-image can be found

# isort: split
from tests.vault import manifests, vaults
from tests.vault.test_isolation import (  # noqa: F401 # the same attempts, now on the machine
    OTHERS,
    SECRET,
    alone,
    test_environment_is_not_smuggled,
    test_no_forwarding,
    test_no_shell_no_terminal_no_other_program,
    test_with_another_hosts_name,
    unharmed,
)
from tests.vault.test_sftp import session, test_the_account_that_reads_runs_nothing  # noqa: F401
from tests.vm.machines import NIGHT_SECONDS

Both = tuple[Booted, vaults.Host, vaults.Host]
# From the window's end to power-off, with sessions open that would stay. Emulated it took 15 s; on hardware
# what counts is the agent's and systemd's own patience, 4 s for transfers and 15 s for a unit's processes.
AWAKE_AFTER_SECONDS = 90.0
IPV6_METADATA = "fd00:ec2::254"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """C and H, each with something committed and something staged."""
    with booted(tmp_path_factory.mktemp("security"), "C", "H") as (vault, (c, h)):
        short = tempfile.mkdtemp(prefix="nv")
        for host, text in ((c, "mine"), (h, SECRET)):
            host.shared = Path(short, host.name)  # a unix socket's path is short
            source = tmp_path_factory.mktemp(host.name)
            (source / "secret").write_text(text)
            vaults.back_up(host, source, str(uuid.uuid4()))
            host.ssh("begin", str(uuid.uuid4()))
            assert host.push(source).returncode == 0
        yield vault, c, h
        for host in (c, h):
            host.hang_up()
        shutil.rmtree(short)


def test_no_password_and_no_account_of_the_image(two: Both) -> None:
    """Not even with a key of C's where those of root would lie."""
    vault, c, _h = two
    agent = vault.inside("systemctl show -P MainPID nightvault-agent.service").strip()
    users = ["root", "nobody", "sshd", "debian", "admin"]
    public = c.key.with_suffix(".pub").read_text().strip()
    places = ["/root/.ssh/authorized_keys", *(f"/etc/nightvault/keys/{user}" for user in users)]
    plant = "; ".join(f"mkdir -p $(dirname {place}); echo '{public}' >{place}" for place in places)
    # Stopped, for it removes keys that are not its own.
    vault.inside(f"kill -STOP {agent}; umask 022; {plant}")
    try:
        for user in (*users, "nv20099"):
            stranger = dataclasses.replace(c, user=user, shared=None)
            said = stranger.ssh("id", options=["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=0", "-v"])
            assert said.returncode == 255, user
            assert f"{user}@127.0.0.1: Permission denied (publickey)." in said.stderr
    finally:
        vault.inside(f"rm {' '.join(places)}; kill -CONT {agent}")
    with_password = vault.inside("awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow")
    assert with_password == "", "an account that has a password, or needs none"
    shells = vault.inside("grep -vE ':(/usr/sbin/nologin|/bin/false|/bin/sync)$' /etc/passwd | cut -d: -f1")
    assert set(shells.split()) <= {"root", "nv20001", "nv20002"}


# Each must fail in C's session of sshd, whose gate lets everything through.
FORBIDDEN = {
    "the agent's configuration": "cat /etc/nightvault/agent.json && test -s /etc/nightvault/agent.json",
    "passwords": "cat /etc/shadow",
    "the ssh host key": "cat /etc/ssh/ssh_host_ed25519_key",
    "a mount": "mount -t tmpfs none /mnt/C",
    "root in a namespace": "unshare --user --map-root-user true || unshare --mount true || unshare --net true",
    "a program on its volume": "cp /bin/true /mnt/C/true && chmod 755 /mnt/C/true && /mnt/C/true",
    "modules": "/usr/sbin/modprobe dummy || /usr/sbin/insmod /dev/null",
    "kernel settings": "echo 1 >/proc/sys/kernel/sysrq || echo b >/proc/sysrq-trigger",
    "cgroups": "mkdir /sys/fs/cgroup/c || echo $$ >/sys/fs/cgroup/cgroup.procs",
    "the clock": "date -s 2030-01-01",
    "priority over others": "nice -n -1 true && test $(nice -n -1 nice) -lt 0",
    "to reboot": "reboot -ff || poweroff -ff || systemctl start poweroff.target",
    "another account": "su -c true || su nv20002 -s /bin/sh -c true",
    "disks": "ls /dev/nvme* || ls /dev/vd* || ls /dev/sd*",
    "kernel messages": "dmesg || cat /dev/kmsg",
    "ptrace": "python3 -c 'import ctypes; exit(ctypes.CDLL(None).ptrace(0, 0, 0, 0))'",
    "memory that outlives it": "python3 -c 'import ctypes; exit(ctypes.CDLL(None).shmget(0, 4096, 0o1600) < 0)'",
    "instance metadata by IPv6": f"python3 -c 'import socket; socket.create_connection((\"{IPV6_METADATA}\", 80), 10)'",
}


def test_inside_a_hosts_account(two: Both) -> None:
    """What other tests try of it is in test_image.py::test_a_host_without_its_gate."""
    vault, c, h = two
    # A network without IPv6 refuses to go there; so the address is made one of the machine's own.
    vault.inside(
        f"ip addr replace {IPV6_METADATA}/128 dev lo nodad && systemd-run -q --unit metadata6 "
        f"python3 -m http.server --bind {IPV6_METADATA} 80"
    )
    agent = vault.inside("systemctl show -P MainPID nightvault-agent.service").strip()
    folders = {"state": "/var/lib/nightvault", "keys": "/etc/nightvault/keys"}
    attempts = FORBIDDEN | {each: each.format(c=c.uid, h=h.uid, agent=agent, **folders) for each in OTHERS}
    script = "\n".join(f'if ( {what} ) >/dev/null 2>&1; then echo "{name}"; fi' for name, what in attempts.items())
    asked = FORBIDDEN["instance metadata by IPv6"]
    vault.inside(f"until {asked} 2>/dev/null; do sleep 1; done")  # there it is, for root
    with vault.no_gate():
        allowed = c.ssh(f"{script}\necho done")
    vault.inside("systemctl stop metadata6")
    assert allowed.stdout == "done\n", allowed.stderr


def test_no_place_is_writable_but_its_own(two: Both) -> None:
    vault, c, _h = two
    kept_out = " -o ".join(f"-path {place}" for place in ("/proc", "/sys", "/mnt/C", "/run/nightvault/C"))
    look = f"find / \\( {kept_out} \\) -prune -o -writable ! -type l -print"
    with vault.no_gate():
        found = c.ssh(f"test -w /mnt/C && test -w /run/nightvault/C && {look} 2>/dev/null; :").stdout.splitlines()
    assert "/dev/null" in found
    sockets = set(vault.inside(f"find {' '.join(found)} -type s").splitlines())
    assert {path for path in set(found) - sockets if not path.startswith("/dev/")} == set()


def test_the_agent_writes_where_it_must(two: Both) -> None:
    vault, _c, _h = two
    places = "/ /usr /opt/nightvault /boot /home /root /run /srv /sys /var /var/lib /run/systemd/system"
    inside = f"for place in {places}; do if touch $place/x; then echo $place; fi; done; touch /etc/x && rm /etc/x"
    agent = "$(systemctl show -P MainPID nightvault-agent.service)"
    assert vault.inside(f"nsenter -m -t {agent} sh -c '{inside}' 2>/dev/null") == ""


# Each must fail where C's restore points are checked.
OUT_OF_A_CHECK = {
    "C's files, changed": "touch /mnt/C/x",
    "H's files": "ls /mnt/H",
    "the agent's token": "cat /var/lib/nightvault/token",
    "notes of what is under way": "ls /run/nightvault/C",
    "a place to write": "touch /run/x || touch /opt/nightvault/x || touch /var/lib/x",
    "the network": "python3 -c 'import socket; socket.socket()'",
    "other processes": "ls -d /proc/1",
    "to be root": "su -c true",
}


def test_a_check_may_only_read(two: Both, tmp_path: Path) -> None:
    """As the agent has it started, on what C has pushed."""
    vault, c, _h = two
    run_id = str(uuid.uuid4())
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    manifests.sign(tmp_path, run_id, "C", c.key)
    vaults.back_up(c, tmp_path, run_id)
    agent = vault.inside("systemctl show -P MainPID nightvault-agent.service").strip()
    said = vault.inside(f"tr '\\0' '\\n' </proc/{agent}/environ | sed -n 's/^NIGHTVAULT_DRILL_COMMAND=//p'")
    started = said.strip().replace("@UID@", str(c.uid))
    public = " ".join(c.key.with_suffix(".pub").read_text().split()[:2])
    order = json.dumps({"place": "/mnt/C", "host": "C", "run_id": run_id, "public_keys": [public]})
    check = f"{started} /opt/nightvault/drill.py"
    told = vault.inside(f"mkfifo /run/order; exec 3<>/run/order; echo {quote(order)} >&3; {check} <&3; rm /run/order")
    verdict = json.loads(told.splitlines()[-1])
    assert (verdict["state"], verdict["detail"], verdict["files"]) == ("passed", "", 1)
    attempts = "\n".join(f'if ( {do} ) >/dev/null 2>&1; then echo "{what}"; fi' for what, do in OUT_OF_A_CHECK.items())
    assert vault.inside(f"{started} /bin/sh -c {quote(attempts)}") == ""


# What C does in a session that no gate limits, and what undoes it. H's night goes on meanwhile.
FORKS = """
import os, time
number = 0
try:
    while True:
        if not os.fork():
            time.sleep(3600)
        number += 1
except OSError:
    open("/mnt/C/forks", "w").write(str(number))
time.sleep(3600)
"""
HARM = {
    "fills its volume": (
        "fallocate -l 900M /mnt/C/full; dd if=/dev/zero of=/mnt/C/more bs=1M; echo x >/mnt/C/last",
        "rm -f /mnt/C/full /mnt/C/more /mnt/C/last",
    ),
    "fills the memory for its notes": (
        "head -c 64M /dev/zero >/run/nightvault/C/full; i=0; while : >/run/nightvault/C/$i; do i=$((i+1)); done",
        "find /run/nightvault/C -type f -delete",
    ),
    "starts processes without end": (
        f"setsid python3 -c '{FORKS}' >/dev/null 2>&1 </dev/null & until test -s /mnt/C/forks; do sleep 1; done",
        "pkill -KILL -u nv20001 -f time.sleep; rm /mnt/C/forks",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_whatever_c_does_h_backs_up(two: Both, tmp_path: Path, harm: str) -> None:
    vault, c, h = two
    deed, undo = HARM[harm]
    # H's connection is a new one, as it would be.
    anew = dataclasses.replace(h, shared=None)
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    vault.inside("rm -f /run/nightvault/H/*")  # as after a boot: those of ended commands would leave it room
    with vault.no_gate():
        c.ssh(deed)
    try:
        run_id, seen = str(uuid.uuid4()), len(vault.cloud.reports)
        vaults.back_up(anew, tmp_path, run_id)
        vault.cloud.wait_for(
            lambda report: run_id in [commit["run_id"] for commit in report["commits"]], NIGHT_SECONDS, after=seen
        )
    finally:
        vault.inside(f"{undo}; :")


def test_a_host_that_stays_does_not_keep_the_machine_awake(two: Both, tmp_path: Path) -> None:
    """An idle connection, an idle session of SFTP, and a push whose client is stopped. The last test: it is off."""
    vault, c, h = two
    c = dataclasses.replace(c, shared=None)
    (tmp_path / "big").write_bytes(os.urandom(8_000_000))
    assert c.ssh("begin", str(uuid.uuid4())).returncode == 0
    with contextlib.ExitStack() as stays:
        idle = subprocess.Popen([*c.ssh_command(), "-N", f"{c.user}@127.0.0.1"], stderr=subprocess.DEVNULL)
        stays.callback(idle.wait)
        stays.callback(idle.kill)
        stays.enter_context(session(c))
        push = c.rsync_command("-a", "--inplace", "--bwlimit=200", f"{tmp_path}/", "127.0.0.1:.")
        pushing = subprocess.Popen(push, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        stays.callback(pushing.wait)
        stays.callback(os.killpg, pushing.pid, signal.SIGKILL)
        vault.cloud.wait_for(
            lambda report: any(transfer["host"] == "C" for transfer in report["transfers"]),
            NIGHT_SECONDS,
            after=len(vault.cloud.reports),
        )
        os.killpg(pushing.pid, signal.SIGSTOP)
        assert idle.poll() is None
        vault.cloud.order(c, h, seconds_to_power_off=0)
        closes_at = time.monotonic()
        wait_until(lambda: not vault.machine.on, AWAKE_AFTER_SECONDS)
        print(f"off {time.monotonic() - closes_at:.1f} s after closes_at")
