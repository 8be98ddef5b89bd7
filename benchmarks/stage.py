"""Where contenders meet: the disks, the vault, and the live tree with each kind of change in it."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import trees
from benchmarks.disks import Disks, Folders, Images
from benchmarks.peers import Contender, Site
from benchmarks.report import FIRST
from benchmarks.wire import Vault

_ROOT = Path(__file__).resolve().parents[1]
_INSIDE = "NIGHTVAULT_BENCHMARK_INSIDE"


class NotTheSame(Exception):
    """A restored tree is not the one that was backed up."""


class Stage:
    """The disks, the vault and the live tree of one benchmark."""

    def __init__(self, folder: Path, size: trees.Size, disks: Disks, vault: Vault) -> None:
        client = folder / "nightvault"
        for script in (_ROOT / "host-client").glob("nightvault*"):
            shutil.copy(script, folder)
        self.site = Site(folder / "live", folder / "host", folder / "volume", folder / "point", vault, client)
        self.disks, self.vault = disks, vault
        self.empty_bytes = 0
        self.tree = ""
        self._size = size

    def grow(self, changes: Sequence[str]) -> None:
        """Make the live tree, and for each kind of change the same disk with that change in it."""
        now = time.time()
        self.disks.make(live_disk(FIRST))
        with self.mounted(live_disk(FIRST), self.site.live):
            self.empty_bytes = self.disks.used_bytes(self.site.live)
            trees.grow(self.site.live, self._size, now)
            self.tree = trees.described(self.site.live)
        for change in changes:
            self.disks.clone(live_disk(FIRST), live_disk(change))
            with self.mounted(live_disk(change), self.site.live):
                trees.CHANGES[change](self.site.live, self._size, now)
        tell(f"the tree: {self.tree}")

    @contextmanager
    def mounted(self, disk: str, at: Path, *, read_only: bool = False) -> Iterator[None]:
        self.disks.mount(disk, at, read_only=read_only)
        yield
        # Not after a failure: it would be hidden by that of unmounting what is still in use. The end cleans up.
        self.disks.unmount(at)


def live_disk(change: str) -> str:
    """The disk of the live tree with that change in it."""
    return f"live-{change.replace(' ', '-')}"


def disks_of(contender: Contender, when: str) -> tuple[str, str]:
    """Its host's disk and its volume."""
    name = contender.name.replace(" ", "-")
    return f"{name}-host-{when}", f"{name}-volume-{when}"


@contextmanager
def stage(name: str, size: trees.Size, work: Path | None) -> Iterator[Stage]:
    """All of it, in a temporary folder below `work`, and nothing of it when it ends."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"nightvault-{name}-", dir=work))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disks = _disks(folder, size)
        stack.callback(disks.close)
        stack.callback(_unmount_fuse, folder)
        vault = Vault(folder, _ROOT / "vault-image", folder / "volume")
        stack.callback(vault.close)
        yield Stage(folder, size, disks, vault)


def mounts_of_its_own(module: str) -> None:
    """As root, begin `module` again in a mount namespace: whatever ends us, the kernel takes every mount of ours away.
    SIGTERM ends us like Ctrl-C.
    """
    if os.geteuid() == 0 and _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", module, *sys.argv[1:]])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def machine() -> str:
    """What the figures are of."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} x {model}, {memory:.0f} GB, {platform.system()} {platform.release()}; load before: {load}"


def code() -> str:
    """Which commit is measured."""
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def tell(text: str) -> None:
    """How far it is, on stderr."""
    print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def _disks(folder: Path, size: trees.Size) -> Disks:
    if os.geteuid() != 0:
        return Folders(folder)
    # mkfs.xfs wants 300 MB; a host's disk holds archive, ciphertext, and then the pulled and the restored tree.
    disk = 2**30 + 8 * size.total_bytes
    return Images(folder, disk, 40 * disk)


def _unmount_fuse(folder: Path) -> None:
    # What a failed contender left mounted would keep its disk busy.
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        at, kind = line.split()[1:3]
        if at.startswith(f"{folder}/") and kind.startswith("fuse"):
            subprocess.run(["fusermount", "-u", "-z", at], check=False, capture_output=True)
