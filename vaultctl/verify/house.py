"""The throw-away host: a folder of its own, a tiny tree, and the real client."""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from vaultctl.verify.api import Api
from vaultctl.verify.steps import NotSo

MIB = 2**20
TOOLS = ("sh", "curl", "rsync", "ssh", "ssh-keygen", "awk", "od")


@dataclass
class House:
    """`folder` is empty at first; nothing outside of it is touched. `client`: the script host-client/nightvault."""

    folder: Path
    client: Path
    url: str
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def log(self) -> Path:
        return self.folder / "nightvault.log"

    def furnish(self, mib: int) -> int:
        """Makes the tree: noise, so that nothing of yours leaves this machine. Gives its bytes.

        `keep = directory` pushes it as it is: neither gocryptfs nor rdiff-backup is needed for this.
        """
        noise = random.Random(self.folder.name)  # noqa: S311 (content, not a secret)
        self.tree.mkdir()
        self.state.mkdir(mode=0o700)
        (self.tree / "big").write_bytes(noise.randbytes(mib * MIB))
        for number in range(50):
            path = self.tree / f"folder {number % 5}" / f"file {number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(noise.randbytes(noise.randrange(5000)))
        (self.tree / "odd\nname \u00e9\u4e16").write_text("a line break and letters of two alphabets")
        (self.tree / "link").symlink_to("folder 1/file 1")
        (self.tree / "private").write_text("mine")
        (self.tree / "private").chmod(0o600)
        (self.tree / "holes").touch()
        os.truncate(self.tree / "holes", MIB)
        self.config.write_text(
            f"url = {self.url}\nsource = {self.tree}\nkeep = directory\nstate_dir = {self.state}\n"
            f"archive_dir = {self.folder / 'archive'}\n"
        )
        return sum(path.lstat().st_size for path in self.tree.rglob("*"))

    def enroll(self, code: str) -> None:
        """Raises NotSo with the client's own words."""
        self._run("enroll", self.url, "-", stdin=code)

    def doctor(self) -> None:
        """The client's own checks; the last of them is that the control plane takes its token. Raises NotSo."""
        self._run("doctor")

    def api(self) -> Api:
        """What enrolment gave: the token never leaves this process but to the control plane."""
        enrolment = dict(line.split(" ", 1) for line in (self.state / "enrolment").read_text().splitlines())
        return Api(self.url, enrolment["token"])

    def begin_backup(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("backup"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interruption is ours to pass on
            )

    def backup_ended(self) -> bool | None:
        """True when it has ended well, None while it runs. Raises NotSo when it failed."""
        if self._process is None:
            raise AssertionError("no backup was begun")
        code = self._process.poll()
        if code:
            raise NotSo(f"the client ended with {code}: {self.last_line()}")
        return None if code is None else True

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        said = [line.removeprefix("nightvault: ") for line in lines if line.strip()]
        return said[-1] if said else "it said nothing"

    def stop(self) -> None:
        """Ends a backup that runs: politely, so that the client still says `finish`; else the vault would wait."""
        if self._process is None or self._process.poll() is not None:
            return
        for sign, patience in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)):
            os.killpg(self._process.pid, sign)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            return

    def _command(self, *arguments: str) -> list[str]:
        return ["sh", str(self.client), "-c", str(self.config), *arguments]

    def _run(self, *arguments: str, stdin: str = "") -> None:
        since = time.monotonic()
        done = subprocess.run(
            self._command(*arguments), input=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        with self.log.open("a") as log:
            log.write(f"$ nightvault {arguments[0]} ({time.monotonic() - since:.1f} s)\n{done.stdout}{done.stderr}")
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[-300:]
            raise NotSo(f"nightvault {arguments[0]} ended with {done.returncode}: {said}")
