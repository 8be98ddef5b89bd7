"""Turn the files of this folder into what a stock Debian image needs to become a vault: EC2 user data.

    python3 vault-image/user_data.py > user-data.gz

It is the same for every stack and host: the control plane's URL and the code to enrol with come as the instance's
tags. On an instance's first boot cloud-init runs first_boot.py, which fetches the program from the control plane and
runs its install.sh. On later boots nothing runs but systemd units.
"""

import argparse
import gzip
import hashlib
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html: before base64.
LIMIT_BYTES = 16384
# A command of its own beside cloud-init. One that fails (a mirror of Debian's that does not answer) begins again after
# half a minute; a machine that comes to nothing does not stay awake.
_BESIDE = (
    *("systemd-run", "--no-block", "--unit=nightvault-first-boot", "--description=a vault's first boot"),
    *("--property=Restart=on-failure", "--property=RestartSec=30"),
    *("--property=StartLimitIntervalSec=3600", "--property=StartLimitBurst=20", "--property=StartLimitAction=poweroff"),
)
# What stays here, comes by user data, or is of rootless vaults alone.
_NO_PART_OF_THE_PROGRAM = ("user_data.py", "first_boot.py", "gate_sftp.py")


# Files of the image that others read: where they look for them.
_CONFIGURATION = {
    "apt.conf": "/etc/apt/apt.conf.d/99nightvault",
    "resolved.conf": "/etc/systemd/resolved.conf.d/nightvault.conf",
    "sshd-nightvault.conf": "/etc/systemd/system/ssh.service.d/nightvault.conf",
    "systemd.conf": "/etc/systemd/system.conf.d/nightvault.conf",
}
# What install.sh sees to; of these Debian's EC2 image lacks rsync and xfsprogs.
PACKAGES = ("openssh-server", "rsync", "unattended-upgrades", "xfsprogs")


class TooLarge(Exception):
    """EC2 would refuse the user data."""


def sshd_config(
    *,
    port: int = 22,
    listen: str = "0.0.0.0",  # noqa: S104 # the security group lets in whose run is live
    host_key: str = "/etc/ssh/ssh_host_ed25519_key",
    keys_dir: str = "/etc/nightvault/keys",
    account: str = "",
) -> str:
    """The sshd configuration, by default EC2's.

    `account` is the one that a rootless sshd runs as, and lets in. It is somebody's own, so folders above keys_dir may
    be writable by others (/tmp), and its bash is kept from ~/.bashrc, which it reads for sshd and which may print.
    """
    filled = {
        "PORT": str(port),
        "LISTEN": listen,
        "HOST_KEY": host_key,
        "KEYS_DIR": keys_dir,
        "ALLOW": f"AllowUsers {account}" if account else "AllowGroups nightvault nightvault-read",
        "STRICT_MODES": "no" if account else "yes",
        "ROOT": "forced-commands-only" if account == "root" else "no",
    }
    text = (_HERE / "sshd_config").read_text()
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text + "SetEnv SHLVL=2\n" if account else text  # of a bash that some other one has started


def files() -> dict[str, tuple[int, str]]:
    """Every file that a vault gets, by path: its mode and text."""
    found = {
        "/etc/nightvault/agent.json": (0o600, "{}\n"),
        "/etc/nightvault/sshd_config": (0o644, sshd_config()),
        "/opt/nightvault/install.sh": (0o755, (_HERE / "install.sh").read_text()),
    }
    for name, place in _CONFIGURATION.items():
        found[place] = (0o644, (_HERE / name).read_text())
    for unit in sorted(_HERE.glob("*nightvault*.*")):
        if unit.suffix in (".service", ".timer", ".mount"):
            found[f"/etc/systemd/system/{unit.name}"] = (0o644, unit.read_text())
    for path in sorted(_HERE.glob("*.py")):
        if path.name not in _NO_PART_OF_THE_PROGRAM:
            mode = 0o755 if path.name in ("agent.py", "drill.py", "gate.py") else 0o644
            found[f"/opt/nightvault/{path.name}"] = (mode, path.read_text())
    return found


def program() -> bytes:
    """The program of a vault, which the control plane gives to new machines: a tar.xz of `files()`, as they are.

    The same bytes for the same files.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (mode, text) in sorted(files().items()):
            data = text.encode()
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return lzma.compress(buffer.getvalue())


def cloud_config() -> str:
    """What cloud-init is to do, as JSON, which is YAML."""
    digest = hashlib.sha256(program()).hexdigest()
    first_boot = (_HERE / "first_boot.py").read_text()
    return "#cloud-config\n" + json.dumps(
        {
            "users": [],  # no login but the hosts', and theirs only to the gate
            "disable_root": True,
            "ssh_pwauth": False,
            "ssh_genkeytypes": ["ed25519"],
            # As early as can be. (systemd-run expands $; first_boot.py has none.)
            # And the two stages to come, which would load Python to do nothing, do not begin.
            "bootcmd": [
                [*_BESIDE, "python3", "-c", first_boot, digest],
                ["systemctl", "--no-block", "stop", "cloud-config.service", "cloud-final.service"],
            ],
            # All that a vault needs of cloud-init beside its network: the rest of its modules only take time. Lists in
            # user data take the place of the image's own (cloudinit/helpers.py, ConfigMerger), and come in time for
            # all of these stages. Debian's image grows its root disk without cloud-init.
            "cloud_init_modules": ["bootcmd", "ssh"],
            "cloud_config_modules": [],
            "cloud_final_modules": [],
        },
        indent=1,
    )


def user_data() -> bytes:
    """The user data, before EC2's base64. The same bytes for the same files. Raises TooLarge."""
    data = gzip.compress(cloud_config().encode(), 9, mtime=0)
    if len(data) > LIMIT_BYTES:
        raise TooLarge(f"{len(data)} bytes of user data, {LIMIT_BYTES} allowed; make first_boot.py smaller")
    return data


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Print a vault's EC2 user data (gzip, before base64).")
    parser.add_argument("--plain", action="store_true", help="what cloud-init reads, not compressed")
    chosen = parser.parse_args(arguments)
    try:
        data = cloud_config().encode() if chosen.plain else user_data()
    except TooLarge as error:
        sys.stderr.write(f"user_data: {error}\n")
        return 1
    sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
