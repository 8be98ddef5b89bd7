"""A machine without a cloud around it, to look at a boot: its user data, its metadata, and the peephole.

    python -m tests.localcloud.vm.alone                                  # this checkout's user data: where time goes
    python -m tests.localcloud.vm.alone --user-data FILE 'COMMAND' ...   # another; what the commands print

It has no tag nightvault-url, so the agent reports to nobody.
"""

import argparse
import base64
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.localcloud.aws import user_data_in_template
from tests.localcloud.hypervisor import Guest

from .image import Image, image
from .machine import VirtualMachine
from .machines import MEMORY_MIB, VirtualMachines

_INSTANCE = "i-00000000000000001"
_METADATA = {
    "dynamic/instance-identity/document": f'{{"instanceId": "{_INSTANCE}"}}',
    "meta-data/ami-id": "ami-00000000000000001",
    "meta-data/hostname": "ip-172-31-16-20.eu-central-1.compute.internal",
    "meta-data/instance-id": _INSTANCE,
    "meta-data/instance-type": "t4g.small",
    "meta-data/local-hostname": "ip-172-31-16-20.eu-central-1.compute.internal",
    "meta-data/placement/availability-zone": "eu-central-1a",
    "meta-data/placement/region": "eu-central-1",
}
_LOOK = (
    "cloud-init status --wait --long",
    "systemctl is-system-running --wait; systemctl --failed --no-legend",
    "systemd-analyze; systemd-analyze blame --no-pager | head -n 25; systemd-analyze critical-chain --no-pager",
    "cloud-init analyze blame | head -n 20; journalctl -b -o short-monotonic --no-pager -u nightvault-agent -u ssh",
)


class Alone:
    """One instance, off at first. `volumes`: sizes in GiB by id. Everybody is let in to its sshd.

    `user_data`: by default what the launch template carries in this checkout.
    """

    instance_id = _INSTANCE

    def __init__(
        self,
        folder: Path,
        *,
        user_data: bytes | None = None,
        tags: Mapping[str, str] | None = None,
        volumes: Mapping[str, int] | None = None,
        memory_mib: int = MEMORY_MIB,
        root_image: Callable[[], Image] = image,
    ) -> None:
        self.hypervisor = VirtualMachines(folder, memory_mib=memory_mib, root_image=root_image)
        for volume_id, size_gib in (volumes or {}).items():
            self.hypervisor.create_volume(volume_id, size_gib, None)
        metadata = _METADATA | {f"meta-data/tags/instance/{key}": value for key, value in (tags or {}).items()}
        self._guest = Guest(
            _INSTANCE,
            metadata=lambda: metadata,
            volumes={f"/dev/sd{number}": volume_id for number, volume_id in enumerate(volumes or {})},
            admits=lambda _address, _port: True,
            user_data=base64.b64decode(user_data_in_template()) if user_data is None else user_data,
        )

    def boot(self) -> VirtualMachine:
        """Power on; the first time with a new root disk. `.peephole.run(command)` waits for a shell."""
        self.hypervisor.boot(self._guest, lambda: None)
        return self.hypervisor.machine(_INSTANCE)

    def console(self) -> str:
        return self.hypervisor.console(_INSTANCE)

    def __enter__(self) -> "Alone":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hypervisor.close()


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(prog="tests.localcloud.vm.alone", description="Boot a machine, and look at it.")
    options.add_argument("--user-data", type=Path, help="as EC2 would get it, before base64; may be gzip")
    options.add_argument("--keep", type=Path, help="work in this folder and leave it behind")
    options.add_argument("--boots", type=int, default=1, help="how many times, each ended by the power button")
    options.add_argument("commands", nargs="*", help="run as root, after each boot; by default what shows its times")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nightvault-alone-") as scratch:
        data = chosen.user_data.read_bytes() if chosen.user_data else None
        with Alone(chosen.keep or Path(scratch), user_data=data) as machine:
            for _ in range(chosen.boots):
                began = time.monotonic()
                booted = machine.boot()
                for command in chosen.commands or _LOOK:
                    ran = booted.peephole.run(command, seconds=600)
                    print(f"# {command} ({ran.code}, at {time.monotonic() - began:.1f} s)\n{ran.stdout}", flush=True)
                pressed = time.monotonic()
                booted.power_button()
                print(f"# off {time.monotonic() - pressed:.1f} s after the button", flush=True)
            if chosen.keep:
                print(machine.console())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
