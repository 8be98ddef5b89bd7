"""A host of the demo: its live files, its configuration, and the real client script run on it."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.demo.trees import Tree, size_of

CLIENT = Path(__file__).resolve().parents[2] / "host-client" / "nightvault"


@dataclass
class Player:
    """One host. `folder` holds everything it has; nothing of it is shared with the others."""

    name: str
    tree: Tree
    folder: Path
    url: str
    process: subprocess.Popen[str] | None = None
    output: str = ""
    exit_code: int | None = None
    killed: bool = False
    expected_bytes: int = 0
    shell: list[str] = field(default_factory=list)  # what runs the client; its own first line, if empty
    settings: dict[str, str] = field(default_factory=dict)
    sheet: str = ""  # its recovery sheet, as printed
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.folder / "nightvault.log"

    @property
    def live(self) -> Path:
        return self.folder / "live"

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def password_file(self) -> Path:
        return self.folder / "state" / "password"

    @property
    def client(self) -> Path:
        return self.folder / "nightvault"

    def furnish(self) -> None:
        self.tree.make(self.live)
        self.expected_bytes = size_of(self.live)
        (self.folder / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
        for script in CLIENT.parent.glob("nightvault*"):
            shutil.copy2(script, self.folder)
        self.configure()

    def configure(self, bandwidth_kib: int | None = None) -> None:
        """The host's config file, with its own `settings`; all else is the client's default."""
        if bandwidth_kib is not None:
            self.settings["bandwidth_kib"] = str(bandwidth_kib)
        settings = {
            "url": self.url,
            "source": self.live,
            "state_dir": self.folder / "state",
            "archive_dir": self.archive,
            "password_file": self.password_file,
            **self.settings,
        }
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))

    def enroll(self, code: str) -> None:
        """With that code; then its recovery sheet is printed, or it would not back up."""
        client = [str(self.client), "-c", str(self.config)]
        subprocess.run([*client, "enroll", self.url, "-"], input=code, text=True, check=True, capture_output=True)
        self.sheet = subprocess.run([*client, "key"], text=True, check=True, capture_output=True).stdout

    def work_by_day(self) -> None:
        """The day's changes, and how many bytes they touch at most."""
        before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in self.live.rglob("*") if p.is_file()}
        self.tree.change(self.live)
        after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in self.live.rglob("*") if p.is_file()}
        self.expected_bytes = sum(stat[1] for path, stat in after.items() if before.get(path) != stat)

    def run(self, *command: str) -> None:
        """Start `nightvault COMMAND` on this host; `poll` says when it has ended."""
        self.exit_code, self.killed, self.output = None, False, ""
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*self.shell, self.client, "-c", self.config, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    def poll(self) -> bool:
        """Whether its command has ended; then `exit_code` and `output` say how."""
        if self.process and self.exit_code is None:
            self.exit_code = self.process.poll()
            self.output = self.said()
        return self.exit_code is not None

    def rest(self) -> None:
        """Forget the last command: nothing of this host runs, and nothing of it has ended."""
        self.process, self.exit_code = None, None

    def die(self) -> None:
        """The power cord: every process of this host, at once, without a word."""
        if self.process and self.process.poll() is None:
            self.killed = True
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def leave_nothing(self) -> None:
        """Die, and unmount what the client had no time to: a mount would outlive the test or the demo."""
        self.die()
        mounted = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout.splitlines()
        for line in mounted:
            point = line.partition(" on ")[2].partition(" type ")[0]
            if point.startswith(f"{self.folder}/"):
                subprocess.run([shutil.which("fusermount3") or "fusermount", "-uz", point], check=False)

    def burn(self) -> None:
        """The house: its files, its archive, its keys and its config are no more."""
        self.leave_nothing()
        shutil.rmtree(self.folder)

    def said(self) -> str:
        """What its command has printed so far."""
        return self._log.read_text() if self._log.exists() else ""

    def last_line(self) -> str:
        lines = [line.removeprefix("nightvault: ") for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""
