"""Whether this machine's KVM starts a guest. A /dev/kvm that is there says little: nested ones may start none."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from .image import cache_folder

_SECONDS = 10.0
KVM = ("-accel", "kvm", "-cpu", "host")
# tb-size: MiB for translated code; a boot filled 128 sixteen times over. Without AVX, which is emulated slowly, a boot
# to the first shell takes 8 s of processor time instead of 14.
EMULATED = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,-avx,-avx2")


def acceleration(kernel: Path) -> tuple[str, ...]:
    """qemu's options for the fastest processor that works here: tried once a boot of this machine, remembered."""
    return KVM if _kvm_works(kernel) else EMULATED


@functools.cache
def _kvm_works(kernel: Path) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    remembered = cache_folder() / "kvm"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not remembered.exists() or remembered.read_text().split()[0] != boot:
        remembered.write_text(f"{boot} {'works' if _starts(kernel) else 'fails'}\n")
    return remembered.read_text().split()[1] == "works"


def _starts(kernel: Path) -> bool:
    """Whether the kernel gets as far as missing its root disk, on which it is told to reboot, which ends qemu."""
    with tempfile.TemporaryDirectory() as folder:
        console = Path(folder, "console")
        command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-m", "256", *KVM]
        command += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", f"file:{console}"]
        try:
            subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return False
        return console.exists() and "Unable to mount root fs" in console.read_text(errors="replace")
