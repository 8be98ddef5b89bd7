"""What the four hosts keep: real files, copied from this machine, and real changes to them."""

import os
import random
import shutil
import sqlite3
import subprocess
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Tree:
    """A host's live files: how they come to be, and what happens to them by day."""

    title: str
    make: Callable[[Path], None]
    change: Callable[[Path], None]


def size_of(folder: Path) -> int:
    """Bytes in the regular files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def copy(sources: Iterable[Path], to: Path, limit_bytes: int) -> None:
    """Copy whole folders' files until the limit is reached; symlinks stay symlinks."""
    used = 0
    for source in sources:
        for path in sorted(source.rglob("*")):
            if used >= limit_bytes:
                return
            if path.is_symlink() or not path.is_file() or "__pycache__" in path.parts or not os.access(path, os.R_OK):
                continue
            target = to / source.name / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            used += path.stat().st_size


def _python_library(to: Path) -> None:
    copy([Path(sysconfig.get_path("stdlib"))], to, 60 * MIB)


def _share(to: Path) -> None:
    copy([Path("/usr/share") / name for name in ("perl", "doc", "man", "zoneinfo", "mime", "vim")], to, 60 * MIB)


def _edit(to: Path) -> None:
    """A working day: some files edited, some new, some renamed, some deleted."""
    files = sorted(path for path in to.rglob("*") if path.is_file() and path.stat().st_size > 200)
    for path in files[::40]:
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"edited by day")
    for path in files[7::160]:
        path.rename(path.with_name(path.name + ".renamed"))
    for path in files[11::200]:
        path.unlink()
    fresh = to / "new today"
    fresh.mkdir(exist_ok=True)
    for number in range(50):
        (fresh / f"note {number}.txt").write_text(f"written on the second day, {number}\n" * 200)


def _git(to: Path, *arguments: str) -> None:
    who = ["-c", "user.name=O", "-c", "user.email=o@nightvault.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(to), *who, *arguments], check=True, capture_output=True)


def _repository(to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    _git(to, "init", "--quiet")
    copy([Path(sysconfig.get_path("stdlib"))], to / "first", 20 * MIB)
    _git(to, "add", "--all")
    _git(to, "commit", "--quiet", "--message", "first")


def _work_in_repository(to: Path) -> None:
    """A day of commits with large binaries, and git's own housekeeping, which writes every pack anew."""
    noise = random.Random(2)  # noqa: S311 (content, not a secret)
    (to / "assets").mkdir(exist_ok=True)
    for number in range(4):
        (to / "assets" / f"take {number}.raw").write_bytes(noise.randbytes(12 * MIB))
    _git(to, "add", "--all")
    _git(to, "commit", "--quiet", "--message", "the day's work")
    _git(to, "repack", "-a", "-d", "--quiet")


def _database(to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    noise = random.Random(1)  # noqa: S311 (content, not a secret)
    with sqlite3.connect(to / "orders.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, body BLOB)")
        rows = ((n, f"customer {n % 997}", noise.randbytes(4000)) for n in range(16_000))
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    database.close()


def _orders_come_in(to: Path) -> None:
    """Rows changed all over the file, and new ones at its end."""
    noise = random.Random(3)  # noqa: S311 (content, not a secret)
    with sqlite3.connect(to / "orders.sqlite") as database:
        for n in noise.sample(range(16_000), 2_500):
            database.execute("UPDATE orders SET body = ? WHERE id = ?", (noise.randbytes(4000), n))
        rows = ((n, "a new customer", noise.randbytes(4000)) for n in range(16_000, 18_000))
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    database.close()


TREES = {
    "C": Tree("Python's library", _python_library, _edit),
    "H": Tree("/usr/share", _share, _edit),
    "O": Tree("a git repository", _repository, _work_in_repository),
    "L": Tree("a database", _database, _orders_come_in),
}
