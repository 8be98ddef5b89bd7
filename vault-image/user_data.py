"""Turn the files of this folder into what a stock Debian image needs to become a vault."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def sshd_config(
    *,
    port: int = 22,
    listen: str = "0.0.0.0",  # noqa: S104 # the security group lets in whose run is live
    host_key: str = "/etc/ssh/ssh_host_ed25519_key",
    keys_dir: str = "/etc/nightvault/keys",
    allow: str = "AllowGroups nightvault",
    strict_modes: bool = True,
    root: bool = False,
) -> str:
    """The sshd configuration, by default EC2's.

    For a rootless sshd: `allow` "AllowUsers NAME" of the one account, `strict_modes` False where a folder
    above keys_dir is writable by others (/tmp), `root` True only where that one account is root.
    """
    filled = {
        "PORT": str(port),
        "LISTEN": listen,
        "HOST_KEY": host_key,
        "KEYS_DIR": keys_dir,
        "ALLOW": allow,
        "STRICT_MODES": "yes" if strict_modes else "no",
        "ROOT": "forced-commands-only" if root else "no",
    }
    text = (_HERE / "sshd_config").read_text()
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text
