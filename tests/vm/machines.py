"""What tests on machines share."""

from tests.demo.player import Player
from tests.e2e import nights
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.vm.machine import VirtualMachine
from tests.localcloud.vm.machines import VirtualMachines

NIGHT_SECONDS = 900  # before a night counts as stuck: an emulated one takes one to four minutes


def hypervisor(cloud: LocalCloud) -> VirtualMachines:
    if not isinstance(cloud.hypervisor, VirtualMachines):
        raise TypeError("this cloud has no machines")
    return cloud.hypervisor


def running(cloud: LocalCloud) -> VirtualMachine:
    """The machine that is on; waits for one."""
    found: list[VirtualMachine] = cloud.wait_until(hypervisor(cloud).running, NIGHT_SECONDS, what="a machine is on")
    return found[0]


def inside(cloud: LocalCloud, command: str, *, seconds: float = NIGHT_SECONDS) -> str:
    """What `command` prints as root on the machine that is on, or will be; it must succeed."""
    ran = running(cloud).peephole.run(command, seconds=seconds)
    assert ran.code == 0, f"{command}: {ran.code}, {ran.stdout}"
    return ran.stdout


def back_up(cloud: LocalCloud, *players: Player) -> None:
    """All of them at once; returns when the vault sleeps and the restore points count."""
    nights.back_up(cloud, *players, seconds=NIGHT_SECONDS)
