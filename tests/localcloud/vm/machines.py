"""The hypervisor whose instances are whole machines, booted by qemu."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.localcloud.hypervisor import Guest
from tests.localcloud.machines import Machines

from .image import Image, image
from .machine import VirtualMachine

MEMORY_MIB = 1024  # t4g.small, the default type, has 2048; less shows sooner what needs too much


class VirtualMachines(Machines):
    """As Machines, and each machine has a `peephole`. `disk_order` says in which order a boot finds its volumes."""

    def __init__(
        self, directory: Path, *, memory_mib: int = MEMORY_MIB, root_image: Callable[[], Image] = image
    ) -> None:
        super().__init__(directory, rooted=True)
        self._root_image = root_image()
        self.memory_mib = memory_mib
        self.disk_order: Callable[[list[str]], list[str]] = list
        self._virtual: dict[str, VirtualMachine] = {}
        self._attached: dict[str, list[str]] = defaultdict(list)  # volumes by instance, running or not

    def machine(self, instance_id: str) -> VirtualMachine:
        """Its latest boot."""
        return self._virtual[instance_id]

    def running(self) -> list[VirtualMachine]:
        return [machine for machine in list(self._virtual.values()) if machine.on]

    def attach(self, instance_id: str, volume_id: str, device: str) -> None:  # noqa: ARG002 - NVMe has no such names
        with self._lock:  # a boot under way has taken its volumes already, or will
            self._attached[instance_id].append(volume_id)
            if machine := self._on(instance_id):
                machine.attach(volume_id, self.disks.volume(volume_id))

    def detach(self, instance_id: str, volume_id: str) -> None:
        with self._lock:
            if volume_id in self._attached[instance_id]:
                self._attached[instance_id].remove(volume_id)
            machine = self._on(instance_id)
        if machine and volume_id in machine.volumes:
            machine.detach(volume_id)

    def scrap(self, instance_id: str) -> None:
        super().scrap(instance_id)
        self._attached.pop(instance_id, None)

    def resize_volume(self, volume_id: str, size_gib: int) -> None:
        super().resize_volume(volume_id, size_gib)
        for machine in self.running():
            if volume_id in machine.volumes:
                machine.resize(volume_id, size_gib * 1024**3)

    def _power_on(self, guest: Guest, on_exit: Callable[[], None]) -> VirtualMachine:
        attached = list(dict.fromkeys([*guest.volumes.values(), *self._attached[guest.instance_id]]))
        self._virtual[guest.instance_id] = machine = VirtualMachine(
            guest,
            on_exit,
            root=self._root(guest.instance_id),
            image=self._root_image,
            volumes={volume_id: self.disks.volume(volume_id) for volume_id in self.disk_order(attached)},
            control_url=self.url,
            cuts=self.cuts,
            memory_mib=self.memory_mib,
        )
        return machine

    def _on(self, instance_id: str) -> VirtualMachine | None:
        machine = self._virtual.get(instance_id)
        return machine if machine and machine.on else None
