"""The contenders: what each of them runs to push a tree, and to get it back."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.wire import Vault, restore_point

_PASSWORD = "only for a benchmark"  # noqa: S105, what it opens is removed at the end
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


class PeerFailed(Exception):
    """A contender's program did not do its work; the message holds the end of what it said."""


@dataclass(frozen=True)
class Site:
    """Where things are: the live tree, the host's own disk, the vault's volume, and the way there; and where the volume
    is that is made from a restore point of before."""

    live: Path
    host: Path
    volume: Path
    point: Path
    vault: Vault
    client: Path


@dataclass(frozen=True)
class Pushed:
    """Seconds on the host alone, and seconds for which the vault must be awake."""

    archive_seconds: float
    push_seconds: float
    stats: dict[str, int]


@dataclass(frozen=True)
class Noted:
    """What a contender calls one of its pushes, and the second (RFC 3339, UTC) in which that ended."""

    name: str
    at: str


class Contender(Protocol):
    """One way to back a tree up. Its state is on the host's disk and on the volume, and nowhere else."""

    name: str
    how: str
    tools: tuple[str, ...]
    history: str
    """Where older states are: `own` in what is pushed, in restore `points` of the volume, or nowhere."""

    def prepare(self, site: Site) -> None:
        """Once, on empty disks; not measured."""

    def push(self, site: Site) -> Pushed:
        """Back the live tree up. Raises PeerFailed."""

    def restore(self, site: Site, target: Path, path: str = "", *, older: bool = False) -> None:
        """Get the tree, or a file of it, back into an empty folder on the host's disk, as it was pushed last, or else
        first. Raises PeerFailed.
        """

    def restored(self, site: Site, target: Path, path: str = "") -> Path:
        """Where in that folder it comes back."""


class Rsync:
    """The limit: nothing is encrypted, and no history is kept."""

    name = "plain rsync"
    how = "rsync -aH --numeric-ids --delete --inplace over ssh; no encryption, no history"
    tools: tuple[str, ...] = ("rsync",)
    history = ""
    _options = ("-aH", "--numeric-ids")

    def prepare(self, site: Site) -> None:
        (site.volume / "tree").mkdir()

    def push(self, site: Site) -> Pushed:
        flags = (*self._options, "--delete", "--inplace", "-e", _ssh(site))
        return _timed("rsync", *flags, f"{site.live}/", f"vault:{site.volume}/tree/")

    def restore(self, site: Site, target: Path, path: str = "", *, older: bool = False) -> None:  # noqa: ARG002
        _run("rsync", *self._options, "-e", _ssh(site), f"vault:{site.volume}/tree/{path}", f"{target}/")

    def restored(self, site: Site, target: Path, path: str = "") -> Path:  # noqa: ARG002
        return target / Path(path).name


class Restic:
    """restic through sftp, its defaults."""

    name = "restic"
    how = "restic backup over sftp, defaults (encrypts, compresses, keeps history)"
    tools: tuple[str, ...] = ("restic",)
    history = "own"

    def prepare(self, site: Site) -> None:
        (site.host / "password").write_text(_PASSWORD)
        self._restic(site, "init")

    def push(self, site: Site) -> Pushed:
        name = str(time.time_ns())
        began = time.monotonic()
        self._restic(site, "backup", "--quiet", "--tag", name, str(site.live))
        pushed = Pushed(0, time.monotonic() - began, {})
        _note(site, name)
        return pushed

    def restore(self, site: Site, target: Path, path: str = "", *, older: bool = False) -> None:
        part = ("--include", str(site.live / path)) if path else ()
        self._restic(site, "restore", "latest", "--tag", _noted(site, older=older).name, "--target", str(target), *part)

    def restored(self, site: Site, target: Path, path: str = "") -> Path:
        return target / site.live.relative_to("/") / path

    def _restic(self, site: Site, *arguments: str) -> None:
        server = next((path for path in _SFTP_SERVERS if Path(path).exists()), "sftp-server")
        _run(
            *("restic", "-r", f"sftp:vault:{site.volume}/restic", "-o", f"sftp.command={_ssh(site)} vault {server}"),
            *("--password-file", str(site.host / "password"), "--cache-dir", str(site.host / "cache"), *arguments),
        )


class Borg:
    """borg through ssh, its defaults, encrypted."""

    name = "borg"
    how = "borg create over ssh, encryption repokey, defaults (compresses with lz4, keeps history)"
    tools: tuple[str, ...] = ("borg",)
    history = "own"

    def prepare(self, site: Site) -> None:
        self._borg(site, "init", "--encryption", "repokey", self._repository(site))

    def push(self, site: Site) -> Pushed:
        name = str(time.time_ns())
        began = time.monotonic()
        self._borg(site, "create", f"{self._repository(site)}::{name}", str(site.live))
        pushed = Pushed(0, time.monotonic() - began, {})
        _note(site, name)
        return pushed

    def restore(self, site: Site, target: Path, path: str = "", *, older: bool = False) -> None:
        archive = f"{self._repository(site)}::{_noted(site, older=older).name}"
        part = (str((site.live / path).relative_to("/")),) if path else ()
        self._borg(site, "extract", "--numeric-ids", archive, *part, cwd=target)

    def restored(self, site: Site, target: Path, path: str = "") -> Path:
        return target / site.live.relative_to("/") / path

    def _repository(self, site: Site) -> str:
        return f"ssh://vault{site.volume}/borg"

    def _borg(self, site: Site, *arguments: str, cwd: Path | None = None) -> None:
        more = {"BORG_RSH": _ssh(site), "BORG_BASE_DIR": str(site.host), "BORG_PASSPHRASE": _PASSWORD}
        _run("borg", *arguments, cwd=cwd, more=more)


class Nightvault:
    """Our client, whole: it archives, asks the control plane, pushes through the gate, commits and finishes."""

    def __init__(self, keep: str, encrypt: str = "") -> None:
        self.name = "encfs" if keep == "encfs" else f"{keep}+{encrypt}"
        self.how = f"nightvault, keep = {keep}" + (f", encrypt = {encrypt}" if encrypt else ", the article's way")
        archiver = ("rdiff-backup",) if keep in ("rdiff", "encfs") else ()
        self.tools = ("rsync", "encfs" if keep == "encfs" else "gocryptfs", *archiver)
        self.history = "own" if archiver else "points"
        self._keep, self._encrypt = keep, encrypt

    def prepare(self, site: Site) -> None:
        lines = [f"source = {site.live}", f"state_dir = {site.host}/state", f"keep = {self._keep}"]
        lines.append("key_escrowed = yes")
        lines += [f"encrypt = {self._encrypt}"] if self._encrypt else []
        (site.host / "config").write_text("\n".join([*lines, ""]))
        self._client(site, "enroll", site.vault.plane.url, "a-code")

    def push(self, site: Site) -> Pushed:
        told = site.vault.plane.forget()
        began = time.monotonic()
        self._client(site, "backup")
        if told.outcome != "complete":
            raise PeerFailed(f"{self.name}: the client exited with 0, and told the control plane {told.outcome!r}")
        _note(site, told.run_id)
        return Pushed(told.at["/start"] - began, told.at["/finish"] - told.at["/start"], told.stats)

    def restore(self, site: Site, target: Path, path: str = "", *, older: bool = False) -> None:
        plane, wanted, by_point = site.vault.plane, _noted(site, older=older), self.history == "points"
        # Where rdiff-backup keeps what was before, it is an increment in the restore point of what was pushed last.
        point = wanted if by_point else _noted(site, older=False)
        plane.point = restore_point(point.name, point.at)
        when = ("--at", plane.point["point_id"] if by_point else wanted.at) if older else ()
        part = ("--path", str(site.live / path)) if path else ()
        with site.vault.lent(site.point if older and by_point else None):
            told = plane.forget()
            self._client(site, "restore", *when, *part, str(target))
        if told.outcome != "complete":
            raise PeerFailed(f"{self.name}: the client restored, and told the control plane {told.outcome!r}")

    def restored(self, site: Site, target: Path, path: str = "") -> Path:
        return target / Path(path).name if path else target / site.live.relative_to("/")

    def _client(self, site: Site, *arguments: str) -> None:
        _run("sh", str(site.client), "-c", str(site.host / "config"), *arguments, more={"NIGHTVAULT_TRIES": "2"})


def contenders() -> list[Contender]:
    """Everyone, the limit first."""
    ours = [Nightvault(keep, encrypt) for keep in ("rdiff", "mirror") for encrypt in ("inplace", "reverse")]
    return [Rsync(), *ours, Nightvault("encfs"), Restic(), Borg()]


def missing(chosen: Sequence[Contender]) -> list[str]:
    """The programs that are not installed."""
    wanted = {tool for contender in chosen for tool in contender.tools} | {"ssh", "ssh-keygen", "curl"}
    return sorted(tool for tool in wanted if not shutil.which(tool))


def versions(chosen: Sequence[Contender]) -> dict[str, str]:
    """What each program calls itself."""
    found = {}
    for tool in sorted({tool for contender in chosen for tool in contender.tools}):
        asked = [tool, "version"] if tool == "restic" else [tool, "--version"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
        found[tool] = " ".join((done.stdout or done.stderr).splitlines()[0].split(";")[0].split())
    ssh = subprocess.run(["ssh", "-V"], check=False, capture_output=True, text=True).stderr
    return found | {"ssh": ssh.split(",")[0]}


def _note(site: Site, name: str) -> None:
    with (site.host / "pushes").open("a") as file:
        file.write(f"{name} {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n")


def _noted(site: Site, *, older: bool) -> Noted:
    """The first of its pushes, or the last."""
    lines = (site.host / "pushes").read_text().splitlines()
    return Noted(*lines[0 if older else -1].split())


def _ssh(site: Site, key: Path | None = None) -> str:
    return f"ssh -F {site.vault.ssh_config} -i {key or site.vault.peer_key}"


def _timed(*command: str) -> Pushed:
    began = time.monotonic()
    _run(*command)
    return Pushed(0, time.monotonic() - began, {})


def _run(
    *command: str, cwd: Path | None = None, stdin: Path | None = None, more: Mapping[str, str] | None = None
) -> str:
    # A file, not a pipe: gocryptfs stays behind as a daemon that holds its output open.
    with (stdin or Path(os.devnull)).open() as given, tempfile.TemporaryFile("w+", errors="replace") as said:
        environment = os.environ | (more or {})
        code = subprocess.run(
            command, check=False, stdin=given, stdout=said, stderr=subprocess.STDOUT, cwd=cwd, env=environment
        ).returncode
        said.seek(0)
        text = said.read()
    if code:
        raise PeerFailed("\n".join([" ".join(command), f"exited with {code}:", *text.splitlines()[-15:]]))
    return text
