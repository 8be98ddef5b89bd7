"""The hypervisor that runs real machines: see machine.py, disks.py, gateway.py and metadata.py."""

from pathlib import Path
from typing import Any

from .no_machines import NoMachines


class Machines(NoMachines):
    """To come."""

    def __init__(self, directory: Path, *, rooted: bool | None) -> None:
        raise NotImplementedError

    url: str
    disks: Any
