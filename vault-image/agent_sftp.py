"""What hosts see over SFTP: each its own committed tree, read-only, in a root folder that holds nothing else.

    mount_root/.sftp/HOST            where sshd locks in the host's account that reads
    mount_root/.sftp/HOST/archive    the tree: of its restore point while one is mounted, else of its volume

Rootless, there is none of this: the gate itself serves SFTP.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import registry
from agent_accounts import sftp_root
from agent_config import Config
from agent_volumes import mounts_below, run
from gate_trees import Trees

_END_SECONDS = 5.0
_BIND = ("mount", "--bind", "-o", "ro,nosuid,nodev,noexec")
_NEW = ".new"  # below mount_root/.sftp, where no host can look


class Sftp:
    """The trees that are shown, and the sessions that read them."""

    def __init__(self, config: Config) -> None:
        self._root = sftp_root(config).resolve()  # as /proc tells it
        self._system = config.accounts == "system"

    def show(self, host: str, place: Path) -> None:
        """Show what is current at `place`, if anything. A session sees one tree: those of another are ended.

        Raises OSError or SubprocessError.
        """
        tree = Trees(place).current() if self._system else None
        wanted = (place.stat().st_dev, f"/{tree.name}") if tree else None
        if self.shown().get(host) == wanted:
            return
        self.hide(host)
        if tree:
            new, folder = self._root / _NEW, self._root / host / "archive"
            self._root.mkdir(mode=0o700, exist_ok=True)
            new.mkdir(exist_ok=True)
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            # mount follows a symlink, and should the gate ever fail, a host could make one that leads to another
            # host's tree: so what it is gets looked at where the host does not see it yet.
            run(*_BIND, str(tree), str(new))
            try:
                if self._mounted().get(_NEW) != wanted:
                    raise OSError(f"{tree} is no folder of its volume")
                run(*_BIND, str(new), str(folder))
            finally:
                run("umount", str(new))

    def hide(self, host: str) -> None:
        """Show a host nothing, and end its sessions. Raises OSError or SubprocessError."""
        for path in (_NEW, f"{host}/archive"):  # the first if an agent was killed
            while path in self._mounted():
                run("umount", "--lazy", str(self._root / path))  # so that nobody new comes in ...
        for pid in [pid for name, pid, _ in _locked_in(self._root) if name == host]:
            registry.see_end(pid, _END_SECONDS, kill=True)  # ... and now nobody is left.

    def shown(self) -> dict[str, tuple[int, str]]:
        """What each host is shown: a device's number, and the name of the tree on it."""
        mounted = self._mounted().items()
        return {path.removesuffix("/archive"): what for path, what in mounted if path.endswith("/archive")}

    def _mounted(self) -> dict[str, tuple[int, str]]:
        below = mounts_below(self._root) if self._system else ()
        return {path: (device, folder) for path, device, folder in below}

    def sessions(self) -> dict[str, list[registry.Command]]:
        """Each host's sessions, as commands under way. One process of each is the server: the one that sshd's own
        process, which hears the network's keepalives too, has started."""
        found: dict[str, list[registry.Command]] = {}
        processes = list(_locked_in(self._root)) if self._system else []
        for host, pid, parent in processes:
            if any(parent == other for _, other, _ in processes):
                found.setdefault(host, []).append(registry.Command("sftp", pid, pid, Path(f"/proc/{pid}")))
        return found


def _locked_in(root: Path) -> Iterator[tuple[str, int, int]]:
    """Each process whose root is a folder of `root`: that folder's name, its id, its parent's."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            locked = (process / "root").readlink()
            if locked.parent == root:
                status = (process / "stat").read_text().rpartition(")")[2].split()
                yield locked.name, int(process.name), int(status[1])
