"""Pulls back, read-only, what a host pushed, and compares."""

import hashlib
import stat
import subprocess
import uuid
from pathlib import Path
from typing import Any

from vaultctl.verify.house import House
from vaultctl.verify.steps import NotSo, Steps


class Pull:
    """A run of kind `restore`: started, awaited, pulled, finished. `finish` may be called at any time."""

    def __init__(self, house: House, steps: Steps) -> None:
        self.run_id = str(uuid.uuid4())
        self._house = house
        self._steps = steps
        self._api = house.api()
        self._started = False

    def start(self) -> None:
        self._started = True
        self._api.call("POST", "/start", {"run_id": self.run_id, "kind": "restore"})

    def ready(self, seconds: float) -> dict[str, Any]:
        """The run document once the vault may be pulled from. Raises NotSo."""

        def look() -> dict[str, Any] | None:
            document = self._api.call("GET", f"/status?run_id={self.run_id}")
            if document["outcome"]:
                self._started = False
                raise NotSo(f"the control plane ended the restore as {document['outcome']}: {document['reason']}")
            return document if document["ready"] else None

        return self._steps.wait(look, seconds, "the vault lets us pull")

    def fetch(self, document: dict[str, Any], to: Path) -> None:
        """rsync over ssh with the host's own key; the vault's key is pinned to what the control plane told. NotSo."""
        vault = document["vault"]
        state = self._house.state
        (state / "pull_hosts").write_text("".join(f"vault {key}\n" for key in vault["host_keys"]))
        options = {
            "HostName": vault["address"],
            "Port": vault["port"],
            "User": vault["user"],
            "IdentityFile": "key",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "HostKeyAlias": "vault",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": "pull_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "ConnectTimeout": 15,
        }
        # No blanks in values and paths relative to `state`: rsync splits this itself.
        ssh = " ".join(["ssh -F /dev/null", *(f"-o {name}={value}" for name, value in options.items())])
        to.mkdir()
        done = subprocess.run(
            ["rsync", "-aH", "--numeric-ids", "--timeout=300", "-e", ssh, "vault:/", f"{to}/"],
            cwd=state,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            raise NotSo(f"the pull failed ({done.returncode}): {' '.join(done.stderr.split())[-300:]}")

    def finish(self, outcome: str = "failed", exit_code: int = 1) -> None:
        """Ends the run, once."""
        if self._started:
            self._started = False
            self._api.call("POST", "/finish", {"run_id": self.run_id, "outcome": outcome, "exit_code": exit_code})


MANIFEST = ".nightvault"  # what the client pushes beside the tree: docs/protocol.md


def portrait(folder: Path) -> dict[str, tuple[str, ...]]:
    """Every path with kind, mode, time in seconds and content: equal portraits are equal trees."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] == MANIFEST:
            continue
        status = path.lstat()
        kind = stat.filemode(status.st_mode)[0]
        if kind == "l":
            found[str(path.relative_to(folder))] = (kind, str(path.readlink()))
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "-" else ""
        time = str(int(status.st_mtime)) if kind == "-" else ""
        found[str(path.relative_to(folder))] = (kind, oct(stat.S_IMODE(status.st_mode)), time, content)
    return found


def compare(pushed: Path, pulled: Path) -> int:
    """How many paths were compared. Raises NotSo that names the first ones that differ."""
    wanted, got = portrait(pushed), portrait(pulled)
    if wanted != got:
        paths = sorted(path for path in wanted.keys() | got.keys() if wanted.get(path) != got.get(path))
        raise NotSo(f"{len(paths)} paths differ from what was pushed: {', '.join(map(repr, paths[:5]))}")
    return len(wanted)
