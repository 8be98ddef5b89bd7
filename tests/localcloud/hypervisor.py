"""What must happen on this machine when the emulated EC2 decides something."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Guest:
    """What a machine may know of itself when it boots; `metadata` is what its metadata service answers."""

    instance_id: str
    metadata: Callable[[], Mapping[str, str]]
    volumes: Mapping[str, str] = field(default_factory=dict)  # device name -> volume id
    admits: Callable[[str, int], bool] = lambda _address, _port: False  # the security groups' answer
    user_data: bytes | None = None


class Hypervisor(Protocol):
    """Machines and disks. Every method may be called from any thread, and blocks until it is done."""

    def boot(self, guest: Guest, on_exit: Callable[[], None]) -> None:
        """Starts the machine; `on_exit` is called once, whenever and however it ends."""

    def power_button(self, instance_id: str) -> None:
        """Clean shutdown; returns when the machine is off. Nothing if it is off already."""

    def pull_plug(self, instance_id: str) -> None:
        """The machine is gone in the middle of whatever it did; its disks stay as they are."""

    def scrap(self, instance_id: str) -> None:
        """The instance is terminated: its root disk goes too."""

    def create_volume(self, volume_id: str, size_gib: int, snapshot_id: str | None) -> None: ...

    def delete_volume(self, volume_id: str) -> None: ...

    def resize_volume(self, volume_id: str, size_gib: int) -> None:
        """The device is larger; the filesystem on it is its machine's business."""

    def attach(self, instance_id: str, volume_id: str, device: str) -> None: ...

    def detach(self, instance_id: str, volume_id: str) -> None: ...

    def snapshot(self, snapshot_id: str, volume_id: str) -> None:
        """Freezes a copy of the volume as it is now."""

    def delete_snapshot(self, snapshot_id: str) -> None: ...

    def copy_snapshot(self, snapshot_id: str, copy_id: str, region: str) -> None:
        """To the disks of another region."""

    def delete_copy(self, copy_id: str, region: str) -> None: ...

    def close(self) -> None:
        """Everything that was started is gone."""
