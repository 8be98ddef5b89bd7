"""What a machine is given is what EC2 gives: disks by serial number, instance metadata, a plug that can be pulled."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localcloud.paths import REPOSITORY
from tests.localcloud.patience import wait_until
from tests.localcloud.vm.alone import Alone
from tests.localcloud.vm.machine import VirtualMachine

FIRST, SECOND, LATER = "vol-0123456789abcdef0", "vol-0fedcba9876543210", "vol-00000000000000001"
NO_USER_DATA = b"#cloud-config\n{}\n"
IMDS = "http://169.254.169.254/latest"
TOKEN = f"curl -sfX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 600' {IMDS}/api/token >/run/token"
ASK = f"curl -s -o /dev/null -w '%{{http_code}}' {IMDS}/meta-data/instance-id"
# Boots a machine in the folder argv[1], says which process it is, and waits to be killed.
HOLDER = """
import pathlib, sys, threading
from tests.localcloud.vm.alone import Alone
with Alone(pathlib.Path(sys.argv[1]), user_data=b"") as one:
    print(one.boot().pid, flush=True)
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with Alone(tmp_path_factory.mktemp("alone"), user_data=NO_USER_DATA, volumes={FIRST: 1, SECOND: 1}) as one:
        yield one


@pytest.fixture(scope="module")
def machine(alone: Alone) -> VirtualMachine:
    return alone.boot()


def serials(machine: VirtualMachine) -> list[str]:
    """Of its volumes, in the order in which the machine has found them."""
    told = machine.peephole.run("cat /sys/class/nvme/*/serial", seconds=300).stdout.split()
    return [each for each in told if each.startswith("vol")]


def serial(volume_id: str) -> str:
    return volume_id.replace("-", "")


def test_disks_come_and_go_while_it_runs(alone: Alone, machine: VirtualMachine) -> None:
    assert sorted(serials(machine)) == sorted([serial(FIRST), serial(SECOND)])
    alone.hypervisor.create_volume(LATER, 1, None)
    alone.hypervisor.attach(alone.instance_id, LATER, "/dev/sdx")
    wait_until(lambda: serial(LATER) in serials(machine), 60, what="the disk has come")
    alone.hypervisor.detach(alone.instance_id, LATER)
    wait_until(lambda: serial(LATER) not in serials(machine), 60, what="the disk has gone")


def test_metadata_wants_a_token(machine: VirtualMachine) -> None:
    run = machine.peephole.run
    wait_until(lambda: run(TOKEN, seconds=300).code == 0, 300, what="the machine has a network")
    assert run(ASK).stdout == "401"
    assert run(f'{ASK} -H "X-aws-ec2-metadata-token: $(cat /run/token)"').stdout == "200"


def test_the_plug_loses_what_had_not_reached_the_disk(tmp_path: Path) -> None:
    with Alone(tmp_path, user_data=NO_USER_DATA, volumes={FIRST: 1}) as one:
        machine = one.boot()
        # A disk that is held open is written to when the kernel sees fit; one that is flushed, at once.
        script = """
            disk=/dev/$(grep -l ^vol /sys/class/nvme/nvme*/serial | sed 's,/serial,n1,; s,.*/,,')
            echo kept | dd of=$disk conv=fsync
            (exec 3<>$disk; echo 'lost' >&3; sleep 600) >/dev/null 2>&1 &
            until head -c 4 $disk | grep -q lost; do sleep 0.1; done
        """
        assert machine.peephole.run(script, seconds=300).code == 0
        machine.pull_plug()
        with one.hypervisor.disks.volume(FIRST).open("rb") as image:
            assert image.read(4) == b"kept"


def test_a_machine_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as holder:
        if holder.stdout is None:
            raise AssertionError("it was started with a pipe")
        qemu = Path("/proc", holder.stdout.readline().strip())
        assert b"qemu" in (qemu / "cmdline").read_bytes()
        holder.send_signal(signal.SIGKILL)
        wait_until(lambda: not qemu.exists() or not (qemu / "cmdline").read_bytes(), 10, what="qemu has gone")
