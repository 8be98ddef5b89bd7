"""The image that machines boot: a Debian 12 like the one that EC2 offers, from Debian's own packages.

    python -m tests.localcloud.vm.image        # builds it if it is not there yet, and prints where it is

As in Debian's cloud images, a GPT with one ext4 partition of 8 GiB, no host keys, no machine id. What they have and
this one has not: a boot loader and an initrd (qemu loads the kernel, whose ext4 and NVMe drivers are built in),
documentation, translations, awscli and ssh-import-id. What it has and they have not: what vault-image/install.sh would
install on the first boot, since under emulation apt takes minutes for that.

Packages come from where this machine's own apt gets Debian 12. Needs root.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
# https://salsa.debian.org/cloud-team/debian-cloud-images, config_space/bookworm/package_config: SYSTEM_BOOT, CLOUD, EC2
# fmt: off
PACKAGES = (
    "amazon-ec2-utils", "apparmor", "apt-utils", "chrony", "cloud-guest-utils", "cloud-init", "init", "iptables",
    "iputils-ping", "less", "libnss-myhostname", "libpam-systemd", "linux-image-cloud-amd64", "nano", "netbase",
    "netplan.io", "openssh-server", "polkitd", "sudo", "systemd-resolved", "unattended-upgrades", "vim-tiny",
    "whiptail", "zstd",
)
# fmt: on
INSTALLED_LATER = ("rsync", "xfsprogs")
PARTITION = "6e767661-756c-4172-8000-000000000001"  # its PARTUUID, for the kernel's command line
DISK_BYTES = 8 * 1024**3
_START = 1024**2  # of the partition; as much is left behind it for the second partition table
_UNUSED_SECONDS = 14 * 86400

# What Debian's images have in /etc beside the packages' own. Sources stay those that the image was built from.
_FILES = {
    "etc/fstab": f"PARTUUID={PARTITION} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n",
    "etc/cloud/cloud.cfg.d/01_debian_cloud.cfg": "apt: {preserve_sources_list: true}\nmanage_etc_hosts: true\n",
    "etc/apt/apt.conf.d/20auto-upgrades": (
        'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'
    ),
    # An initrd would have loaded the network's driver, long before cloud-init looks for an interface.
    "etc/modules-load.d/network.conf": "virtio_net\n",
    "etc/systemd/system/cloud-init-local.service.d/network.conf": "[Unit]\nAfter=systemd-modules-load.service\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/hostname": "",
    "etc/machine-id": "",
}
_EMPTIED = ("tmp", "run", "var/tmp", "var/cache/apt", "var/lib/apt/lists")
_REMOVED = ("etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "var/log/apt", "var/log/*.log")


@dataclass(frozen=True)
class Image:
    """Both files are shared by all machines, and never written."""

    disk: Path  # raw
    kernel: Path


class NoImage(Exception):
    """The image can't be built here; the message says what is missing."""


def image() -> Image:
    """The image of today's packages, built if it is not in the cache; a minute then. Raises NoImage."""
    packages = [*PACKAGES, *INSTALLED_LATER]
    key = hashlib.sha256("\n".join([Path(__file__).read_text(), *_versions(packages)]).encode()).hexdigest()[:16]
    cache = cache_folder()
    found = Image(cache / key / "disk.raw", cache / key / "vmlinuz")
    with _alone(cache / "lock"):
        if not found.disk.exists():
            _build(found.disk.parent, packages)
        found.disk.parent.touch()
        _forget_unused(cache)
    return found


def cache_folder() -> Path:
    """Outside every checkout: worktrees share images."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "nightvault" / "vm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _versions(packages: list[str]) -> list[str]:
    """`package version` as apt knows them now."""
    text = _output(["apt-cache", "policy", *packages])
    names = [line.rstrip(":") for line in text.splitlines() if line and not line.startswith(" ")]
    candidates = [line.split()[1] for line in text.splitlines() if line.startswith("  Candidate:")]
    known = dict(zip(names, candidates, strict=True))
    missing = [name for name in packages if known.get(name, "(none)") == "(none)"]
    if missing:
        raise NoImage(f"apt knows no {' '.join(missing)}: it needs Debian 12 among its sources, and `apt-get update`")
    return [f"{name} {known[name]}" for name in packages]


def _sources() -> list[str]:
    """This machine's own sources of Debian 12, as lines of a sources.list."""
    form = "$(ORIGIN) $(CODENAME) deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    text = _output(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    found = {line.split(" ", 2)[2] for line in text.splitlines() if line.startswith(f"Debian {SUITE}")}
    if not found:
        raise NoImage("apt's lists hold no Debian 12: run `apt-get update`")
    return sorted(found)


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
        ).stdout
    except FileNotFoundError as error:
        raise NoImage(f"{command[0]} is missing: images are built on Debian and its kin") from error


def _build(target: Path, packages: list[str]) -> None:
    if os.geteuid() != 0:
        raise NoImage("building the image needs root: sudo -E python -m tests.localcloud.vm.image")
    for tool in ("mmdebstrap", "mke2fs", "sfdisk"):
        if not shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            raise NoImage(f"{tool} is missing: tools/prepare vm")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as scratch:
        tree, disk = Path(scratch, "tree"), Path(scratch, "image", "disk.raw")
        Path(scratch).chmod(0o755)  # apt reads below it as its own user
        disk.parent.mkdir()
        _debootstrap(tree, packages, Path(scratch, "log"))
        _customise(tree)
        (kernel,) = tree.glob("boot/vmlinuz-*")
        shutil.copyfile(kernel, disk.with_name("vmlinuz"))
        _make_disk(disk, tree)
        disk.parent.rename(target)


def _debootstrap(tree: Path, packages: list[str], log: Path) -> None:
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--logfile={log}"]
    command += [f"--include={','.join(packages)}", '--aptopt=Acquire::Languages "none"']
    command += [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale", "info")]
    command += ["--dpkgopt=path-include=/usr/share/locale/locale.alias"]  # locale-gen reads it
    services = "systemd-networkd.service systemd-resolved.service"
    command += [f'--customize-hook=chroot "$1" systemctl --quiet enable {services}']
    # initramfs-tools' hook heeds it; nothing here would load an initrd.
    environment = {**os.environ, "INITRD": "No", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*command, SUITE, str(tree), *_sources()], check=False, env=environment)
    if done.returncode:
        raise NoImage(f"mmdebstrap failed: {log.read_text(errors='replace')[-2000:]}")


def _customise(tree: Path) -> None:
    for name in _EMPTIED:
        for path in (tree / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for pattern in _REMOVED:
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in _FILES.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").symlink_to("/run/systemd/resolve/resolv.conf")


def _make_disk(disk: Path, tree: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    size = f"{(DISK_BYTES - 2 * _START) // 1024}k"
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), "-E", f"offset={_START}", str(disk), size]
    subprocess.run(command, check=True, env=environment)
    table = f"label: gpt\nstart={_START // 512}, size={size.rstrip('k')}KiB, type=linux, uuid={PARTITION}\n"
    command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", str(disk)]
    subprocess.run(command, input=table, text=True, check=True, env=environment, capture_output=True)
    disk.chmod(0o444)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_unused(cache: Path) -> None:
    for folder in cache.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - _UNUSED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    began = time.monotonic()
    try:
        found = image()
    except NoImage as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    used = found.disk.stat().st_blocks * 512 / 1e6
    print(f"{found.disk}: {used:.0f} MB, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
