"""The agent's configuration: a JSON object whose every key has a default that fits EC2."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

_HERE = Path(__file__).resolve().parent


class BadConfig(Exception):
    """The configuration file can't be used; the message names the key."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What README.md's table says, key by key."""

    control_url: str | None = None
    metadata_url: str = "http://169.254.169.254"
    state_dir: Path = Path("/var/lib/nightvault")
    run_dir: Path = Path("/run/nightvault")
    mount_root: Path = Path("/mnt")
    device_dir: Path | None = None
    accounts: Literal["system", "single"] = "system"
    host_key_files: tuple[Path, ...] = (Path("/etc/ssh/ssh_host_ed25519_key.pub"),)
    keys_dir: Path = Path("/etc/nightvault/keys")
    gate: Path = _HERE / "gate.py"
    rrsync: Path = Path("/usr/bin/rrsync")
    address: str | None = None
    port: int = 22
    power_off_command: tuple[str, ...] = ("systemctl", "poweroff")
    power_off_without_orders_seconds: float = 3600.0
    sftp_idle_seconds: float = 600.0
    boot_id_file: Path = Path("/proc/sys/kernel/random/boot_id")
    sys_dir: Path = Path("/sys")
    dev_dir: Path = Path("/dev")


def load(path: Path) -> Config:
    """Read a configuration file. Raises BadConfig, or OSError if it can't be read."""
    try:
        given = json.loads(path.read_text())
    except ValueError as error:
        raise BadConfig(f"{path}: not JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadConfig(f"{path}: give a JSON object")
    known = {field.name: field.type for field in fields(Config)}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise BadConfig(f"{path}: unknown key {unknown[0]!r}; README.md lists the keys")
    # null means the default, so that a template may name every key.
    config = Config(**{key: _typed(key, value) for key, value in given.items() if value is not None})
    if config.accounts not in ("system", "single"):
        raise BadConfig(f'{path}: accounts must be "system" or "single"')
    return config


def _typed(key: str, value: object) -> Any:
    default = None if key in ("control_url", "address", "device_dir") else getattr(Config, key)
    if isinstance(default, tuple):
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return tuple(type(default[0])(item) for item in value)
    elif isinstance(default, int | float):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return Path(value).absolute() if isinstance(default, Path) or key == "device_dir" else value
    raise BadConfig(f"{key}: wrong type, {json.dumps(value)[:80]}; README.md lists the keys")
