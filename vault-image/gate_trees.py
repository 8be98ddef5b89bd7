"""A host's volume: the tree that is current, the one being pushed, and how the one becomes the other.

    tree.<run_id>    a committed tree (tree.<run_id>.N should that run have been committed before)
    current          symlink to the tree that counts; replacing it is the moment of a commit
    staging          the push under way, or cut; staging.run says whose
    committed.json   the newest commit, and what it changed, for the agent
    trash.*          what nothing leads to any more; removed at leisure

Whatever the moment of a crash or power cut, `current` leads to a whole tree, and the next begin or commit
puts the rest in order. Nothing but the gate writes in the volume's root, so its names can be trusted.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gate_changes import change

RUN_ID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TOLD_WITHIN = 5.0  # seconds, in which the agent has told of a commit
_TREE = re.compile(rf"tree\.({RUN_ID})(?:\.[0-9]+)?")


class NotThisRun(Exception):
    """The staging tree isn't the run's that wants to commit it, or there is none."""


class Trees:
    """The trees on one volume. One process at a time may use it (registry.alone).

    `step` is told the name of each step just done: tests stop there.
    """

    def __init__(self, root: Path, step: Callable[[str], None] = lambda _name: None) -> None:
        self.staging = root / "staging"
        self._root = root
        self._step = step
        self._change: dict[str, int] | None = None  # what the commit under way does to what is current

    def current(self) -> Path | None:
        """The tree that counts, or None before the first commit."""
        try:
            name = (self._root / "current").readlink().name
        except FileNotFoundError:
            return None
        tree = self._root / name
        return tree if _TREE.fullmatch(name) and tree.is_dir() else None

    def free_bytes(self) -> int:
        """What the host may still write, in bytes."""
        room = os.statvfs(self._root)
        return room.f_bavail * room.f_frsize

    def begin(self, run_id: str, keep_open: tuple[int, ...] = ()) -> str:
        """Make staging ready for a run: "resumed" if a cut push left one, else "fresh", a copy of current.

        `keep_open`: descriptors the copying child holds too, so that the host's lock outlives a killed parent.
        Raises OSError or CalledProcessError (no space, most likely); current is as it was then.
        """
        self._repair()
        if self.staging.is_dir():
            self._part_hard_links(keep_open)
            self._step("parted")
            self._write("staging.run", run_id)
            self._step("marked")
            return "resumed"
        half = self._root / "staging.half"
        current = self.current()
        if current:
            # Every name a file of its own: rsync -H links them again, but in place it would write through a
            # link that the host has parted since.
            self._copy(["--no-preserve=links", "--", current, half], keep_open)
        else:
            half.mkdir(mode=0o700)
        self._step("copied")
        self._write("staging.run", run_id)
        self._step("marked")
        half.rename(self.staging)
        self._step("staged")
        return "fresh"

    def _copy(self, arguments: list[str | Path], keep_open: tuple[int, ...]) -> None:
        """Copy by reference. xattrs hold owners and modes (--fake-super), so losing one is an error."""
        command = ["cp", "-a", "--reflink=auto", "--preserve=xattr", *arguments]
        subprocess.run(command, check=True, pass_fds=keep_open, stdin=subprocess.DEVNULL)

    def _part_hard_links(self, keep_open: tuple[int, ...]) -> None:
        """No two names in staging share one file: a cut push may have linked some."""
        half = self._root / "parted.half"
        for folder, _, names in os.walk(self.staging):
            for name in names:
                path = Path(folder, name)
                if path.lstat().st_nlink > 1:
                    half.unlink(missing_ok=True)
                    self._copy(["--", path, half], keep_open)
                    half.rename(path)

    def commit(self, run_id: str) -> None:
        """Make staging, if it is the run's, current; durable when this returns. Again for the same run: nothing.

        Raises NotThisRun.
        """
        self._settle()
        marked = self._read("staging.run")
        tree = self._unswitched(run_id) if marked == run_id else None
        if marked == run_id and self.staging.is_dir():
            tree = self._free_name(run_id)
            self._sync()
            self._step("synced")
            self.staging.rename(tree)
            self._step("renamed")
        if tree:
            before = self.current()
            self._change = change(before, tree) if before else None
            link = self._root / "current.half"
            link.unlink(missing_ok=True)
            link.symlink_to(tree.name)
            self._step("linked")
            link.rename(self._root / "current")
            self._step("switched")
            self._settle()
        elif self._committed() != run_id:
            raise NotThisRun
        self._sync()
        self._step("durable")

    def retire(self) -> list[Path]:
        """Move what nothing leads to any more out of the way; gives all there is to remove."""
        kept = {self.current()}
        if not self.staging.is_dir():
            kept.add(self._unswitched(self._read("staging.run")))
        for path in self._root.iterdir():
            if path not in kept and (_TREE.fullmatch(path.name) or path.name == "staging.half"):
                path.rename(self._root / f"trash.{path.name}.{os.urandom(4).hex()}")
        return sorted(self._root.glob("trash.*"))

    def _repair(self) -> None:
        self._settle()
        tree = self._unswitched(self._read("staging.run"))
        if tree and not self.staging.is_dir():
            tree.rename(self.staging)  # cut between its rename and its switch: it is staging still
            self._step("unrenamed")
        self.retire()
        self._step("retired")
        for name in ("current.half", "parted.half", "staging.run.half", "committed.json.half"):
            (self._root / name).unlink(missing_ok=True)

    def _settle(self) -> None:
        """Note what a commit that got as far as its switch may not have noted: the tree's name has its run."""
        current = self.current()
        run_id = current and _run_id(current)
        if run_id and self._committed() != run_id:
            told = self._change and self._with_untold(self._change)
            note = {"run_id": run_id} | ({"change": told} if told else {})
            self._write("committed.json", json.dumps(note, separators=(",", ":")))
            self._step("noted")
        if run_id and run_id == self._read("staging.run") and not self.staging.is_dir():
            (self._root / "staging.run").unlink(missing_ok=True)
            self._step("unmarked")

    def _with_untold(self, change: dict[str, int]) -> dict[str, int]:
        """With what the commit before did, if that is so fresh that the agent may not have told of it.

        Two commits in a second must not hide what the first one did; what is told twice is only counted twice.
        """
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = self._root / "committed.json"
            if abs(time.time() - note.stat().st_mtime) < _TOLD_WITHIN:
                fresh: dict[str, int] = json.loads(note.read_text())["change"]
                added_up = {each: fresh[each] + change[each] for each in change}
                before = {each: fresh[each] for each in change if each.endswith("_before")}
                return added_up | before | {each: change[each] for each in change if each.endswith("_after")}
        return change

    def _unswitched(self, run_id: str | None) -> Path | None:
        current = self.current()
        for path in sorted(self._root.glob("tree.*")):
            if run_id and path != current and _run_id(path) == run_id:
                return path
        return None

    def _free_name(self, run_id: str) -> Path:
        tree, number = self._root / f"tree.{run_id}", 0
        while tree.exists():
            number += 1
            tree = self._root / f"tree.{run_id}.{number}"
        return tree

    def _committed(self) -> str | None:
        try:
            return str(json.loads(self._read("committed.json") or "")["run_id"])
        except (ValueError, KeyError, TypeError):
            return None

    def _read(self, name: str) -> str | None:
        with suppress(FileNotFoundError):
            return (self._root / name).read_text().strip()
        return None

    def _write(self, name: str, text: str) -> None:
        half = self._root / f"{name}.half"
        with half.open("w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        half.rename(self._root / name)

    def _sync(self) -> None:
        # syncfs(2) on this volume alone: sync(2) would wait for the pushes of all the other hosts.
        subprocess.run(["sync", "-f", self._root], check=True, stdin=subprocess.DEVNULL)


def _run_id(tree: Path) -> str | None:
    match = _TREE.fullmatch(tree.name)
    return match[1] if match else None
