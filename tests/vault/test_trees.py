"""The trees on a volume, with a crash after every step: in plain folders, no sshd, no root."""

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import gate_changes
import pytest
from gate_trees import NotThisRun, Trees


def run() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def root() -> Iterator[Path]:
    """A volume's root: in memory, for these tests ask hundreds of times for a sync."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def content(tree: Path | None) -> str | None:
    """What the tree's one file says; "" before it was pushed, None without a tree."""
    if tree is None:
        return None
    return (tree / "file").read_text() if (tree / "file").exists() else ""


def night(root: Path, run_id: str, text: str, step: Callable[[str], None] = lambda _name: None) -> None:
    """A run whose push writes one file."""
    trees = Trees(root, step)
    trees.begin(run_id)
    (trees.staging / "file").write_text(text)
    trees.commit(run_id)
    trees.retire()


def steps(root: Path, work: Callable[[Callable[[str], None]], None]) -> list[str]:
    names: list[str] = []
    work(names.append)
    return names


def dies(work: Callable[[Callable[[str], None]], None], at: int) -> bool:
    """Do the work in a process of its own that is gone, as if killed, right after its `at`th step."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    count = 0

    def step(_name: str) -> None:
        nonlocal count
        if count == at:
            os._exit(9)
        count += 1

    try:
        work(step)
    finally:
        os._exit(0)


def test_the_steps_are_all_there(root: Path) -> None:
    night(root, run(), "old")
    seen = steps(root, lambda step: night(root, run(), "new", step))
    assert seen == [
        *("retired", "copied", "marked", "staged"),
        *("synced", "renamed", "linked", "switched", "noted", "unmarked", "durable"),
    ]


@pytest.mark.parametrize("first", [True, False], ids=["nothing-before", "after-an-old-one"])
@pytest.mark.parametrize("again", ["commit", "begin", "begin-another"])
@pytest.mark.parametrize("at", range(11))
def test_a_crash_after_any_step(root: Path, at: int, again: str, first: bool) -> None:
    old = run()
    if not first:
        night(root, old, "old")
    new = run()
    died = dies(lambda step: night(root, new, "new", step), at)
    assert died
    trees = Trees(root)
    was = content(trees.current())
    assert was in ({None, "new"} if first else {"old", "new"})

    # The host comes back, in each way it may.
    if again == "commit":
        try:
            trees.commit(new)
        except NotThisRun:
            # It was told that it must begin again, so nothing of it counts.
            assert content(trees.current()) == was == (None if first else "old")
        else:
            # After step 3 nothing had been pushed yet: what was staged is what the host had committed.
            staged = "" if first else "old"
            assert content(trees.current()) == ("new" if at > 3 else staged)
            assert json.loads((root / "committed.json").read_text())["run_id"] == new
    elif again == "begin":
        night(root, new, "new")
        assert content(trees.current()) == "new"
    else:
        trees.begin(run())
        assert content(trees.current()) == was
        assert content(trees.staging) in ("old", "new") or first

    # And the next night all is as ever, with nothing left of what went before but what is to be removed.
    last = run()
    night(root, last, "last")
    assert content(trees.current()) == "last"
    left = {path.name for path in root.iterdir() if not path.name.startswith("trash.")}
    assert left == {f"tree.{last}", "current", "committed.json"}
    assert json.loads((root / "committed.json").read_text())["run_id"] == last


def test_two_crashes_in_a_row(root: Path) -> None:
    night(root, run(), "old")
    for first in range(11):
        for second in range(first % 2, 11, 2):
            new = run()
            dies(lambda step, new=new: night(root, new, "new", step), first)  # type: ignore[misc]
            dies(lambda step, new=new: night(root, new, "new", step), second)  # type: ignore[misc]
            assert content(Trees(root).current()) in ("old", "new")
            night(root, run(), "old")
            assert content(Trees(root).current()) == "old"
    assert len([path for path in root.iterdir() if path.name.startswith("tree.")]) == 1


def test_a_run_that_commits_twice_commits_what_it_pushed_last(root: Path) -> None:
    same = run()
    night(root, same, "once")
    night(root, same, "twice")
    trees = Trees(root)
    assert content(trees.current()) == "twice"
    trees.commit(same)
    assert content(trees.current()) == "twice"
    night(root, run(), "later")
    assert len([path for path in root.iterdir() if path.name.startswith("tree.")]) == 1


def test_an_older_run_cannot_commit_what_a_newer_one_took_over(root: Path) -> None:
    old, new = run(), run()
    trees = Trees(root)
    assert trees.begin(old) == "fresh"
    (trees.staging / "file").write_text("half")
    assert trees.begin(new) == "resumed"
    assert content(trees.staging) == "half"
    with pytest.raises(NotThisRun):
        trees.commit(old)
    assert trees.current() is None
    trees.commit(new)
    assert content(trees.current()) == "half"


def test_a_copy_that_was_not_finished_is_never_taken_for_staging(root: Path) -> None:
    night(root, run(), "old")
    (root / "staging.half").mkdir()
    (root / "staging.half" / "partial").touch()
    trees = Trees(root)
    assert trees.begin(run()) == "fresh"
    assert sorted(path.name for path in trees.staging.iterdir()) == ["file"]


def test_no_two_names_in_staging_share_a_file(root: Path) -> None:
    """rsync writes in place through a hard link that the host has parted since, and says that all is well."""
    trees, first = Trees(root), run()
    assert trees.begin(first) == "fresh"
    (trees.staging / "a").write_text("one file")
    (trees.staging / "b").hardlink_to(trees.staging / "a")
    assert trees.begin(first) == "resumed", "a cut push that had linked them already"
    assert {path.stat().st_nlink for path in trees.staging.iterdir()} == {1}
    (trees.staging / "b").unlink()
    (trees.staging / "b").hardlink_to(trees.staging / "a")
    trees.commit(first)
    assert trees.begin(run()) == "fresh"
    assert {path.stat().st_nlink for path in trees.staging.iterdir()} == {1}
    assert {path.read_text() for path in trees.staging.iterdir()} == {"one file"}


def noted(root: Path) -> dict[str, int] | None:
    """What the newest commit is said to have changed."""
    told: dict[str, int] | None = json.loads((root / "committed.json").read_text()).get("change")
    return told


def test_what_a_commit_changes(root: Path) -> None:
    trees, first, second = Trees(root), run(), run()
    trees.begin(first)
    (trees.staging / "a/b").mkdir(parents=True)
    for name, size in (("same", 1), ("a/changed", 10), ("a/b/touched", 100), ("a/b/gone", 1000), ("a/b/old", 10000)):
        (trees.staging / name).write_bytes(bytes(size))
    (trees.staging / "becomes a folder").write_bytes(bytes(7))
    (trees.staging / ".nightvault").mkdir()
    (trees.staging / ".nightvault/manifest").write_bytes(bytes(5))
    trees.commit(first)
    assert noted(root) is None
    trees.begin(second)
    (trees.staging / "a/changed").write_bytes(bytes(20))
    os.utime(trees.staging / "a/b/touched", (1, 1))
    (trees.staging / "a/b/gone").unlink()
    (trees.staging / "a/b").rename(trees.staging / "c")  # two of three files are left, each deleted and added
    (trees.staging / "becomes a folder").unlink()
    (trees.staging / "becomes a folder").mkdir()
    (trees.staging / "becomes a folder/.nightvault").symlink_to("/etc/passwd")
    (trees.staging / ".nightvault/manifest").write_bytes(bytes(6))
    trees.commit(second)
    assert noted(root) == {
        "files_before": 6,
        "files_after": 5,
        "files_added": 3,
        "files_changed": 1,
        "files_deleted": 4,
        "bytes_before": 11118,
        "bytes_after": 10132,
        "bytes_changed": 10131,
    }
    trees.commit(second)
    assert noted(root), "told again, it has changed nothing, and what it did is still known"


def test_a_commit_right_after_another_tells_of_both(root: Path) -> None:
    """The agent tells the newest alone: a wipe must not hide behind the commit of nothing that comes in its second."""
    trees = Trees(root)

    def commit(*names: str, gone: tuple[str, ...] = ()) -> tuple[int, ...]:
        new = run()
        trees.begin(new)
        for name in names:
            (trees.staging / name).write_text(name)
        for name in gone:
            (trees.staging / name).unlink()
        trees.commit(new)
        change = noted(root) or {}
        return tuple(change.get(f"files_{each}", -1) for each in ("before", "after", "added", "deleted"))

    def a_minute_later() -> None:
        at = (root / "committed.json").stat().st_mtime - 60
        os.utime(root / "committed.json", (at, at))

    assert commit("a", "b", "c") == (-1,) * 4
    assert commit("d") == (3, 4, 1, 0)
    a_minute_later()
    assert commit(gone=("a", "b", "c")) == (4, 1, 0, 3)
    assert commit() == (4, 1, 0, 3)
    a_minute_later()
    assert commit() == (1, 1, 0, 0)


@pytest.mark.parametrize("trouble", ["killed", "memory", "unreadable", "no process"])
def test_a_commit_that_cannot_be_counted_counts(root: Path, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    night(root, run(), "old")

    def fails(*_: object) -> dict[str, int]:
        if trouble == "killed":
            os.kill(os.getpid(), 9)
        raise MemoryError if trouble == "memory" else PermissionError

    if trouble == "no process":
        monkeypatch.setattr(os, "fork", fails)
    else:
        monkeypatch.setattr(gate_changes, "count", fails)
    new = run()
    night(root, new, "new")
    assert json.loads((root / "committed.json").read_text()) == {"run_id": new}
    assert content(Trees(root).current()) == "new"
