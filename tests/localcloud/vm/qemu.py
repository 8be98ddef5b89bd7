"""What qemu is started with: the hardware of an instance on EC2, as near as qemu comes to it.

The network is qemu's own (user mode): the machine reaches the internet as on EC2, 169.254.169.254 is its metadata
service, and 127.0.0.1 of the machine that runs the tests is ROUTER to it. User mode leads to one service only what
goes to an address of the machine's own network: so that is wide enough to hold the metadata's address and those of a
default VPC, 168.0.0.0 to 175.255.255.255.
"""

import hashlib
import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from .accel import acceleration
from .image import DISK_BYTES, PARTITION, Image

SSH = 22
ROUTER, ADDRESS = "172.31.0.1", "172.31.16.20"
_NETWORK, _RESOLVER = "168.0.0.0/5", "172.31.0.2"
_METADATA = "169.254.169.254:80"
# net.ifnames and nvme_core.io_timeout as in Debian's images for EC2; the shell is tests' peephole. No drivers for what
# qemu has and EC2 has not: they cost seconds.
_KERNEL = (
    f"root=PARTUUID={PARTITION} ro console=ttyS0,115200 net.ifnames=0 nvme_core.io_timeout=4294967295 "
    "systemd.debug_shell=ttyS1 module_blacklist=ata_piix,floppy,i2c_piix4,kvm,kvm_amd,kvm_intel,powernow_k8,psmouse"
)

Device = dict[str, Any]


def command(instance_id: str, *, image: Image, disk: Path, sockets: Path, metadata_port: int, mib: int) -> list[str]:
    """Without volumes. The console is standard output; `sockets` gets `qmp` and `shell`."""
    # Cloud-init knows EC2 by these: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
    identity = uuid.UUID(f"ec2{hashlib.sha256(instance_id.encode()).hexdigest()[:29]}")
    nc = f"{shutil.which('busybox') or 'busybox'} nc 127.0.0.1 {metadata_port}"
    return [
        *("qemu-system-x86_64", "-machine", "pc", *acceleration(image.kernel), "-smp", "2", "-m", str(mib)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-smbios", "type=0,vendor=Amazon EC2,version=1.0"),
        *("-smbios", f"type=1,manufacturer=Amazon EC2,product=t4g.small,serial={identity},uuid={identity}"),
        *("-kernel", str(image.kernel), "-append", _KERNEL),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=shell,path={sockets}/shell,server=on,wait=off", "-serial", "chardev:shell"),
        *("-qmp", f"unix:{sockets}/qmp,server=on,wait=off"),
        "-netdev",
        f"user,id=net,ipv6=off,net={_NETWORK},host={ROUTER},dns={_RESOLVER},dhcpstart={ADDRESS},"
        f"hostfwd=tcp:127.0.0.1:0-:{SSH},guestfwd=tcp:{_METADATA}-cmd:{nc}",
        *("-device", f"virtio-net-pci,netdev=net,mac={mac(instance_id)},romfile="),
        *plugged(_root(disk), {"driver": "nvme", "drive": "root", "serial": "root"}),
    ]


def make_root(disk: Path, image: Image) -> None:
    """An instance's own root disk, over the image that all share."""
    layers = ["-f", "qcow2", "-F", "raw", "-b", str(image.disk)]
    subprocess.run(["qemu-img", "create", "-q", *layers, str(disk), str(DISK_BYTES)], check=True)


def plugged(block: Device, device: Device) -> list[str]:
    """A disk that is there at power-on."""
    return ["-blockdev", json.dumps(block), "-device", json.dumps(device)]


def volume(volume_id: str, file: Path) -> tuple[Device, Device]:
    """An EBS volume: block node, and NVMe device with the volume's id as its serial number.

    https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
    """
    block = {
        "driver": "raw",
        "node-name": volume_id,
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "file": _file(file),
    }
    serial = volume_id.replace("-", "")
    return block, {"driver": "nvme", "id": disk_id(volume_id), "drive": volume_id, "serial": serial}


def disk_id(volume_id: str) -> str:
    return f"disk-{volume_id}"


def mac(instance_id: str) -> str:
    return ":".join(["06", *(f"{byte:02x}" for byte in hashlib.sha256(instance_id.encode()).digest()[:5])])


def _root(disk: Path) -> Device:
    return {"driver": "qcow2", "node-name": "root", "discard": "unmap", "file": _file(disk)}


def _file(path: Path) -> Device:
    # What qemu has written survives qemu, plug pulled or not, in this machine's page cache: no need to flush that.
    return {"driver": "file", "filename": str(path), "cache": {"no-flush": True}}
