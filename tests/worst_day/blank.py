"""A machine that has nothing but the client, as far as the client can see."""

import shutil
import subprocess
from pathlib import Path

from tests.demo.player import CLIENT
from tests.localcloud.machine import may_root


class BlankMachine:
    """With root, an /etc and a /var/lib of its own; without, a config that says to use folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for script in CLIENT.parent.glob("nightvault*"):
            shutil.copy2(script, folder)
        self._command = [str(folder / CLIENT.name)]
        if may_root():
            shutil.copytree("/etc", folder / "etc", symlinks=True, ignore=shutil.ignore_patterns("nightvault"))
            (folder / "lib").mkdir()
            stage = 'mount --bind "$0/etc" /etc && mount --bind "$0/lib" /var/lib && exec "$@"'
            self._command = ["unshare", "--mount", "sh", "-c", stage, str(folder), *self._command]
        else:
            (folder / "config").write_text(f"state_dir = {folder}/state\n")
            self._command += ["-c", str(folder / "config")]

    def run(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """`nightvault ARGUMENT…` there; what it says, on whichever stream, is in `stdout`."""
        return subprocess.run(
            [*self._command, *arguments],
            input=typed,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
