"""The hosts' accounts and keys: who may log in, and that it can only ever run the gate, or read over SFTP."""

import grp
import os
import pwd
import re
import subprocess
from pathlib import Path

from agent_config import BadConfig, Config
from agent_orders import HostOrder
from agent_volumes import run

# Of the accounts that run the gate, and of those that read over SFTP: sshd_config knows both.
GATE, READ = "nightvault", "nightvault-read"
# A host has a handful of notes at a time, of one page each.
_NOTES = "mode=0700,size=256k,nr_inodes=128,nosuid,nodev,noexec"
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

    def group_id(self, name: str = GATE) -> int:
        """A group of hosts' accounts, made if need be; rootless, the agent's own."""
        if self._config.accounts == "single":
            return os.getgid()
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            _run("groupadd", "--system", name)
            return grp.getgrnam(name).gr_gid

    def apply(self, order: HostOrder) -> None:
        """Make a host's accounts, with the ordered number, and its folder of notes. Raises OSError, SubprocessError."""
        notes = self._config.run_dir / order.host
        notes.mkdir(mode=0o700, exist_ok=True)
        if self._config.accounts == "single":
            return
        self._accounts(order)
        if not notes.is_mount():  # memory of its own, so that no host can fill another's
            run("mount", "-t", "tmpfs", "-o", _NOTES, "nightvault-notes", str(notes))
        if notes.stat().st_uid != order.uid:
            os.chown(notes, order.uid, self.group_id())

    def write_keys(self, orders: tuple[HostOrder, ...]) -> bool:
        """Let these hosts in, and nobody else. True if that changed anything."""
        wanted: dict[str, str] = {}
        for order in orders:
            user = pwd.getpwuid(os.geteuid()).pw_name if self._config.accounts == "single" else order.user
            wanted[user] = wanted.get(user, "") + self._line(order)
            if self._config.accounts == "system":
                wanted[reader(order)] = f"restrict {order.public_key}\n"
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

    def _accounts(self, order: HostOrder) -> None:
        gate, read = self.group_id(), self.group_id(READ)
        # The gate's home is not theirs, and its shell must be one, for sshd runs even a forced command by it.
        # The reader's home is what it is locked into; it has the same number, so that it can read what the gate wrote.
        wanted = {
            order.user: (order.uid, gate, "/", "/bin/sh"),
            reader(order): (order.uid, read, str(sftp_root(self._config) / order.host), "/usr/sbin/nologin"),
        }
        there = {entry.pw_name: entry for entry in pwd.getpwall()}
        for name, entry in list(there.items()):
            if name not in wanted and entry.pw_uid != order.uid:
                continue
            if entry.pw_gid not in (gate, read) or entry.pw_uid < 1000:
                raise OSError(f"the account {name}, uid {entry.pw_uid}, is not a host's; order another name or number")
            if wanted.get(name) != (entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell):
                _run("userdel", name)  # of a host that is no longer here, or has another number now
                del there[name]
        for name, (uid, group, home, shell) in wanted.items():
            if name not in there:
                # '*' and not useradd's '!': with UsePAM no, sshd refuses a locked account even its keys.
                _run(
                    *("useradd", "--uid", str(uid), "--non-unique", "--gid", str(group), "--no-user-group"),
                    *("--no-create-home", "--home-dir", home, "--shell", shell, "--password", "*", "--no-log-init"),
                    *("-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", name),
                )


def reader(order: HostOrder) -> str:
    """The name under which a host reads over SFTP."""
    return order.user + "r"


def sftp_root(config: Config) -> Path:
    """The folder of the folders that hosts are locked into over SFTP. Root's alone: what is shown in those has the
    modes of the hosts' own files, without the host's volume above it to keep others out."""
    return config.mount_root / ".sftp"


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]}: {getattr(error, 'stderr', '') or error}") from error
