"""What tests on machines share."""

import random
import uuid
from pathlib import Path
from typing import Any

from tests.demo.player import Player
from tests.demo.trees import MIB, Tree
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


def one_file(mib: int) -> Tree:
    """A tree of one file, wholly new each day: a machine that is emulated receives some MiB a second at best."""

    def write(to: Path, day: int) -> None:
        to.mkdir(parents=True, exist_ok=True)
        (to / "file").write_bytes(random.Random(day).randbytes(mib * MIB))  # noqa: S311 (content, not a secret)

    return Tree(f"a file of {mib} MiB", lambda to: write(to, 1), lambda to: write(to, 2))


def cut_off(cloud: LocalCloud, player: Player, at_least: int, kib_a_second: int) -> None:
    """In the middle of a push the host has gone, the window is over, and the plug is pulled: nobody wakes the vault."""
    half_pushed(cloud, player, at_least, kib_a_second)
    player.die()
    instance_id = nights.vault(cloud)["instance_id"]
    cloud.clock.advance(seconds=12 * 3600)
    cloud.pull_plug(instance_id)
    nights.asleep(cloud, NIGHT_SECONDS)


def half_pushed(cloud: LocalCloud, player: Player, at_least: int, kib_a_second: int) -> None:
    """A day's work, of which at least so many bytes are pushed; it goes on, at that rate."""
    player.work_by_day()
    player.configure(bandwidth_kib=kib_a_second)
    player.run("backup")
    what = f"{player.name} has pushed {at_least}; it says: {player.said()}"
    cloud.wait_until(lambda: nights.pushed(cloud, player.name, at_least), NIGHT_SECONDS, what=what)


def ended(cloud: LocalCloud, player: Player, code: int = 0) -> None:
    """Its command has, with this exit code."""
    cloud.wait_until(player.poll, NIGHT_SECONDS, what=f"{player.name} has ended; it says: {player.said()}")
    assert player.exit_code == code, player.output


class Holder:
    """A host that pushes nothing, and keeps the window open."""

    def __init__(self, cloud: LocalCloud, name: str) -> None:
        self._cloud = cloud
        self.host = cloud.enroll(name)
        self._run_id = ""

    def wake(self) -> None:
        self._run_id = str(uuid.uuid4())
        reply = self.host.start(self._run_id)
        assert reply.status == 202, reply

    def status(self) -> dict[str, Any]:
        return self.host.status(self._run_id).document

    def let_go(self) -> None:
        self.host.finish(self._run_id, "failed", 1)
        nights.asleep(self._cloud, NIGHT_SECONDS)
