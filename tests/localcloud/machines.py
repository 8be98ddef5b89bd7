"""The hypervisor that runs real machines: a real sshd and the real agent for each instance that runs."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .disks import Disks, FolderDisks, ImageDisks, clear_leftovers
from .gateway import Connection, Cuts, Gateway
from .hypervisor import Guest
from .machine import BootedMachine, Image, may_root
from .paths import VAULT_IMAGE


class Booted(Protocol):
    """One boot of a machine, of either kind."""

    @property
    def gateway(self) -> Gateway: ...

    def power_button(self) -> None: ...

    def pull_plug(self) -> None: ...


class Machines:
    """Machines and disks below `directory`, which is emptied first. Set `url` before the first boot."""

    def __init__(self, directory: Path, *, rooted: bool | None = None, image: Image | None = None) -> None:
        self.rooted = may_root() if rooted is None else rooted
        self.url = ""
        self.cuts = Cuts()
        self.image = image or Image(VAULT_IMAGE)
        self._directory = directory.resolve()
        self._clear()
        self.disks: Disks = (ImageDisks if self.rooted else FolderDisks)(self._directory)
        self._booted: dict[str, Booted] = {}
        self._history: list[Booted] = []
        self._lock = threading.RLock()
        self._closed = False

    def boot(self, guest: Guest, on_exit: Callable[[], None]) -> None:
        self._root(guest.instance_id).mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._closed:
                return
            machine = self._power_on(guest, on_exit)
            self._booted[guest.instance_id] = machine
            self._history.append(machine)

    def _power_on(self, guest: Guest, on_exit: Callable[[], None]) -> Booted:
        for volume_id in guest.volumes.values():
            self.disks.attach(guest.instance_id, volume_id)
        return BootedMachine(
            guest,
            on_exit,
            root=self._root(guest.instance_id),
            disks=self.disks,
            image=self.image,
            control_url=self.url,
            cuts=self.cuts,
            rooted=self.rooted,
        )

    def power_button(self, instance_id: str) -> None:
        if machine := self._booted.get(instance_id):
            machine.power_button()

    def pull_plug(self, instance_id: str) -> None:
        if machine := self._booted.get(instance_id):
            machine.pull_plug()

    def scrap(self, instance_id: str) -> None:
        shutil.rmtree(self._root(instance_id), ignore_errors=True)
        for link in self.disks.devices(instance_id).iterdir():
            self.disks.detach(instance_id, link.name)

    def create_volume(self, volume_id: str, size_gib: int, snapshot_id: str | None) -> None:
        self.disks.create(volume_id, size_gib, snapshot_id)

    def delete_volume(self, volume_id: str) -> None:
        self.disks.delete(volume_id)

    def resize_volume(self, volume_id: str, size_gib: int) -> None:
        self.disks.resize(volume_id, size_gib)

    def attach(self, instance_id: str, volume_id: str, device: str) -> None:  # noqa: ARG002 - agents go by ids
        self.disks.attach(instance_id, volume_id)

    def detach(self, instance_id: str, volume_id: str) -> None:
        self.disks.detach(instance_id, volume_id)

    def snapshot(self, snapshot_id: str, volume_id: str) -> None:
        self.disks.snapshot(snapshot_id, volume_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self.disks.delete_snapshot(snapshot_id)

    def copy_snapshot(self, snapshot_id: str, copy_id: str, region: str) -> None:
        self.disks.copy_snapshot(snapshot_id, copy_id, region)

    def delete_copy(self, copy_id: str, region: str) -> None:
        self.disks.region(region).delete_snapshot(copy_id)

    def connections(self) -> list[Connection]:
        """Every connection that came to a gate, oldest boot first."""
        with self._lock:
            return [connection for machine in self._history for connection in machine.gateway.connections]

    def published(self, instance_id: str) -> tuple[str, int]:
        """Where the machine's sshd can be reached by whoever is admitted."""
        gateway = self._booted[instance_id].gateway
        return gateway.address, gateway.port

    def console(self, instance_id: str) -> str:
        """What the machine's supervisor, sshd and agent printed, over all boots."""
        logs = sorted((self._root(instance_id) / "logs").glob("*.log"))
        return "".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            machines = list(self._booted.values())
        threads = [threading.Thread(target=machine.pull_plug) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.disks.close()

    def _clear(self) -> None:
        if may_root():
            clear_leftovers(self._directory)
        for name in ("instances", "volumes", "snapshots", "devices", "regions"):
            shutil.rmtree(self._directory / name, ignore_errors=True)

    def _root(self, instance_id: str) -> Path:
        return self._directory / "instances" / instance_id
