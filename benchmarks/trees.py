"""The tree that is backed up, what a day changes in it, and whether a restored one is the same."""

# ruff: noqa: S311 # nothing here is a secret; it must come out the same for the same seed

import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MIB = 1024 * 1024
_RECORD = bytes(80)  # what a database page or a log line repeats: half of our bytes can be compressed
_DAY_SECONDS = 86400


@dataclass(frozen=True)
class Size:
    """How much there is: `total_bytes` in `files` files, of which a day's edits touch `change_bytes`."""

    seed: int
    total_bytes: int
    files: int
    change_bytes: int
    edit_bytes: tuple[int, int]


def grow(root: Path, size: Size, now: float) -> None:
    """Fill an empty folder, always alike for a seed. Times are days before `now`: rdiff-backup has whole seconds."""
    dice = random.Random(size.seed)
    big = _big_sizes(size)
    small = _small_sizes(dice, size.files - len(big), size.total_bytes - sum(big))
    for number, length in enumerate(big):
        _write(root / "big" / f"image-{number}.raw", dice, length, now - _DAY_SECONDS * (3 + number))
    for number, length in enumerate(small):
        folder = root / f"home-{number % 7}" / f"project-{number // 7 % 40:02}"
        if number % 3:
            folder = folder / f"part-{number % 5}"
        path = folder / f"note-{number:06}.{('txt', 'jpg', 'log', 'bin')[number % 4]}"
        _write(path, dice, length, now - _DAY_SECONDS * (2 + number % 400))
        if number % 200 == 0:
            path.with_suffix(".link").symlink_to(path.name)


def edit(root: Path, size: Size, now: float) -> None:
    """Scattered small edits in big files, where they are: what databases, mailboxes and disk images do."""
    dice = random.Random(size.seed + 1)
    files = sorted((root / "big").iterdir())
    weights = [path.stat().st_size for path in files]
    left = size.change_bytes
    while left > 0:
        # Small edits are as frequent as large ones are heavy: the logarithm of the length is even.
        low, high = size.edit_bytes
        length = min(left, int(low * (high / low) ** dice.random()))
        path = dice.choices(files, weights)[0]
        with path.open("r+b") as file:
            file.seek(dice.randrange(max(1, path.stat().st_size - length)))
            file.write(dice.randbytes(length))
        left -= length
    for path in files:
        os.utime(path, (now - 1000, now - 1000))


def add(root: Path, size: Size, now: float) -> None:
    """Many small new files, `change_bytes` in all, a tenth as many as there are."""
    dice = random.Random(size.seed + 2)
    for number, length in enumerate(_small_sizes(dice, size.files // 10, size.change_bytes)):
        path = root / f"home-{number % 7}" / f"new-{number % 30:02}" / f"letter-{number:06}.txt"
        _write(path, dice, length, now - 2000)


def rename(root: Path, size: Size, now: float) -> None:  # noqa: ARG001, the three changes are called alike
    """One big file gets another name, and so do two folders of small ones."""
    smallest = min((root / "big").iterdir(), key=lambda path: path.stat().st_size)
    smallest.rename(smallest.with_name("renamed.raw"))
    folders = sorted(path for path in (root / "home-3").iterdir())
    for folder in islice(folders, 2):
        folder.rename(folder.with_name("moved-" + folder.name))


Change = Callable[[Path, Size, float], None]
CHANGES: dict[str, Change] = {"edits": edit, "new files": add, "renames": rename}


def described(root: Path) -> str:
    """How many files and bytes are there."""
    sizes = [entry.stat().st_size for entry in _files(root)]
    big = [entry.stat().st_size for entry in _files(root / "big")]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.0f} MB, {len(big)} of them of {sum(big) / 1e6:.0f} MB in all"


def differences(wanted: Path, got: Path) -> list[str]:
    """What is not the same: names, kinds, modes, contents, links, and files' times to the second."""
    found = []
    names = {path.relative_to(wanted) for path in wanted.rglob("*")}
    others = {path.relative_to(got) for path in got.rglob("*")}
    found += [f"missing: {name}" for name in sorted(names - others)]
    found += [f"too much: {name}" for name in sorted(others - names)]
    for name in sorted(names & others):
        left, right = (wanted / name).lstat(), (got / name).lstat()
        if left.st_mode != right.st_mode:
            found.append(f"mode {left.st_mode:o} became {right.st_mode:o}: {name}")
        elif stat.S_ISLNK(left.st_mode):
            if (wanted / name).readlink() != (got / name).readlink():
                found.append(f"another link: {name}")
        elif stat.S_ISREG(left.st_mode):
            if int(left.st_mtime) != int(right.st_mtime):
                found.append(f"another time: {name}")
            if not same_file(wanted / name, got / name):
                found.append(f"another content: {name}")
    return found


def same_file(left: Path, right: Path) -> bool:
    """Are both there, plain files, and of the same bytes?"""
    try:
        lengths = [path.stat().st_size for path in (left, right) if stat.S_ISREG(path.lstat().st_mode)]
        return len(lengths) == 2 and lengths[0] == lengths[1] and _same_bytes(left, right)
    except FileNotFoundError:
        return False


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _big_sizes(size: Size) -> list[int]:
    # Half of the bytes are in six files; the smallest is the one that a rename moves.
    half = size.total_bytes // 2
    return [half * share // 100 for share in (8, 11, 14, 17, 22, 28)]


def _small_sizes(dice: random.Random, count: int, total: int) -> list[int]:
    drawn = [dice.lognormvariate(8, 1.6) for _ in range(count)]
    scale = total / sum(drawn)
    return [max(1, int(value * scale)) for value in drawn]


def _write(path: Path, dice: random.Random, length: int, time: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        # Every second file is random, like photographs; the others compress to about a half.
        if dice.random() < 0.5:
            for start in range(0, length, 8 * MIB):
                file.write(dice.randbytes(min(8 * MIB, length - start)))
        else:
            _write_records(file.write, dice, length)
    os.utime(path, (time, time))


def _write_records(write: Callable[[bytes], int], dice: random.Random, length: int) -> None:
    for start in range(0, length, 8 * MIB):
        wanted = min(8 * MIB, length - start)
        records = -(-wanted // (2 * len(_RECORD)))
        noise = dice.randbytes(records * len(_RECORD))
        parts = (noise[at : at + len(_RECORD)] + _RECORD for at in range(0, len(noise), len(_RECORD)))
        write(b"".join(parts)[:wanted])


def _same_bytes(left: Path, right: Path) -> bool:
    with left.open("rb") as one, right.open("rb") as other:
        while True:
            chunk = one.read(MIB)
            if chunk != other.read(MIB):
                return False
            if not chunk:
                return True
