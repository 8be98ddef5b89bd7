"""What the client needs of the gate (docs/protocol.md), on one folder and one account, for tests.

Forced command: `python gate_stand_in.py FOLDER`. The real gate is vault-image/gate.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def part_hard_links(tree: Path) -> None:
    """No two names of the tree share a file afterwards: rsync --inplace would write through both."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.lstat().st_nlink > 1:
                copy = path.with_name(".parted")
                subprocess.run(["cp", "-a", "--reflink=auto", "--", path, copy], check=True)
                copy.rename(path)


def begin(root: Path, run_id: str) -> int:
    staging = root / "staging"
    word = "resumed" if staging.exists() else "fresh"
    if word == "fresh":
        staging.mkdir()
        if (root / "current").exists():
            subprocess.run(["cp", "-a", "--reflink=auto", f"{root}/current/.", staging], check=True)
    part_hard_links(staging)
    (root / "staging.run").write_text(run_id)
    print(f"{word}\nfree_bytes {shutil.disk_usage(root).free}")
    if not (root / "says-nothing-of-hard-links").exists():
        print("hard_links 0")
    return 0


def commit(root: Path, run_id: str) -> int:
    committed = root / "committed.json"
    if committed.exists() and json.loads(committed.read_text())["run_id"] == run_id:
        print("committed")
        return 0
    if not (root / "staging").exists() or (root / "staging.run").read_text() != run_id:
        return 3
    old = (root / "current").resolve()
    (root / "staging").rename(root / f"tree.{run_id}")
    (root / "next").symlink_to(f"tree.{run_id}")
    (root / "next").rename(root / "current")
    committed.write_text(json.dumps({"run_id": run_id}))
    if old.name.startswith("tree."):
        shutil.rmtree(old)
    print("committed")
    return 0


def transfer(root: Path, command: str) -> int:
    reads = "--sender" in command.split()
    flag = "--server --sender" if reads else "--server"
    command = command.replace(" -@-1 ", " --modify-window=-1 ", 1)  # which is how rrsync takes it
    os.environ["SSH_ORIGINAL_COMMAND"] = command.replace(flag, f"{flag} --fake-super", 1)
    os.execvp("rrsync", ["rrsync", "-ro" if reads else "-wo", f"{root}/{'current' if reads else 'staging'}"])  # noqa: S606, sshd waits for rsync itself


def main() -> int:
    root = Path(sys.argv[1])
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    with (root.parent / "gate.log").open("a") as log:
        log.write(command + "\n")
    hook = root.parent / "hook"  # a test's way to stand in the way: runs with the command, decides with its exit code
    if hook.exists() and (code := subprocess.run([hook, command], check=False).returncode):
        return code
    match command.split():
        case ["begin", run_id]:
            return begin(root, run_id)
        case ["commit", run_id]:
            return commit(root, run_id)
        case ["rsync", "--server", *_]:
            return transfer(root, command)
        case ["internal-sftp"]:
            os.execv("/usr/lib/openssh/sftp-server", ["sftp-server", "-R", "-d", str((root / "current").resolve())])  # noqa: S606
    print("nightvault: refused", file=sys.stderr)
    return 126


if __name__ == "__main__":
    sys.exit(main())
