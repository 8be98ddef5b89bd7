"""The hosts' accounts and keys: who may log in, and that it can only ever run the gate."""

import grp
import os
import pwd
import re
import subprocess

from agent_config import BadConfig, Config
from agent_orders import HostOrder

GROUP = "nightvault"
# These paths stand unquoted in a line that sshd gives to a shell.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")


class Accounts:
    """The accounts and key files of exactly the hosts that are ordered."""

    def __init__(self, config: Config) -> None:
        self._config = config
        paths = (config.gate, config.mount_root, config.run_dir, config.rrsync)
        odd = next((path for path in paths if not _PLAIN.fullmatch(str(path))), None)
        if odd:
            raise BadConfig(f"{str(odd)!r}: a path in a key file may hold only letters, digits and /._+-")

    def group_id(self) -> int:
        """The hosts' group, made if need be; rootless, the agent's own."""
        if self._config.accounts == "single":
            return os.getgid()
        try:
            return grp.getgrnam(GROUP).gr_gid
        except KeyError:
            _run("groupadd", "--system", GROUP)
            return grp.getgrnam(GROUP).gr_gid

    def apply(self, order: HostOrder) -> None:
        """Make a host's account, with the ordered number, and its folder of notes. Raises OSError."""
        notes = self._config.run_dir / order.host
        notes.mkdir(mode=0o700, exist_ok=True)
        if self._config.accounts == "single":
            return
        group = self.group_id()
        self._account(order, group)
        if notes.stat().st_uid != order.uid:
            os.chown(notes, order.uid, group)

    def write_keys(self, orders: tuple[HostOrder, ...]) -> bool:
        """Let these hosts in, and nobody else. True if that changed anything."""
        wanted: dict[str, str] = {}
        for order in orders:
            user = pwd.getpwuid(os.geteuid()).pw_name if self._config.accounts == "single" else order.user
            wanted[user] = wanted.get(user, "") + self._line(order)
        folder = self._config.keys_dir
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        changed = False
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink()
                changed = True
        for user, lines in wanted.items():
            path = folder / user
            if not path.is_file() or path.read_text() != lines:
                new = folder / ".new"
                new.unlink(missing_ok=True)
                new.touch(mode=0o644)
                new.chmod(0o644)  # whatever the umask: sshd reads it as the host's account
                new.write_text(lines)
                new.rename(path)
                changed = True
        return changed

    def _line(self, order: HostOrder) -> str:
        config = self._config
        gate = f"exec {config.gate} {order.host} --mount-root {config.mount_root} --run-dir {config.run_dir}"
        # exec, so that the gate is the session's leader and nothing stands between it and sshd.
        return f'restrict,command="{gate} --rrsync {config.rrsync}" {order.public_key}\n'

    def _account(self, order: HostOrder, group: int) -> None:
        try:
            found = pwd.getpwnam(order.user)
        except KeyError:
            pass
        else:
            if found.pw_gid != group or found.pw_uid < 1000:
                raise OSError(f"the account {order.user} is not a host's; order another name")
            if found.pw_uid == order.uid:
                return
            _run("userdel", order.user)
        try:
            other = pwd.getpwuid(order.uid)
        except KeyError:
            pass
        else:
            if other.pw_gid != group:
                raise OSError(f"uid {order.uid} belongs to {other.pw_name}; order another number")
            _run("userdel", other.pw_name)  # of a host that is no longer here
        # '*' and not useradd's '!': with UsePAM no, sshd refuses a locked account even its keys. The home
        # exists and is not theirs; a shell there must be, for sshd runs even a forced command by it.
        _run(
            *("useradd", "--uid", str(order.uid), "--gid", GROUP, "--no-user-group", "--no-create-home"),
            *("--home-dir", "/", "--shell", "/bin/sh", "--password", "*", "--no-log-init"),
            *("-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", order.user),
        )


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]}: {getattr(error, 'stderr', '') or error}") from error
