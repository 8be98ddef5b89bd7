"""How soon it is back: seconds from the command to the first file and to the last, against rsync, restic and borg.

    python -m benchmarks.restore                        --size 64 (MB), three rounds: under five minutes
    python -m benchmarks.restore --size 8 --rounds 1    in small, to see that all of it works

Each contender pushes the tree, then its scattered edits, through the same sshd. In each round they take turns to get
back the whole host, a small file, a big one, and that as it was before the edits. docs/measurements.md says more.
"""

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import trees
from benchmarks.peers import Contender, PeerFailed, contenders, missing, versions
from benchmarks.report import FIRST, LIMIT_NAME
from benchmarks.stage import (
    NotTheSame,
    Stage,
    code,
    disks_of,
    live_disk,
    machine,
    mounts_of_its_own,
    stage,
    tell,
)

_CHANGE = "edits"
_SMALL, _BIG = "home-0/project-00/note-000000.txt", "big/image-5.raw"
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Wanted:
    """What is to come back: a file of the tree or (empty) all of it, as it was pushed last or first."""

    title: str
    path: str = ""
    older: bool = False


WANTED = (
    Wanted("the whole host"),
    Wanted("a small file", _SMALL),
    Wanted("a big file", _BIG),
    Wanted("the big file before the edits", _BIG, older=True),
)


@dataclass(frozen=True)
class Restored:
    """One restore, in seconds from its command on, and what came over the wire for it."""

    round: int
    wanted: Wanted
    contender: str
    first_seconds: float
    last_seconds: float
    received_bytes: int


class FirstFile:
    """Looks, until one of the files of `live` is whole in `place`: there, as long, and the same bytes.

    Presence and length would not do: restic makes a file as long as it will be before it fills it. A look takes a
    moment, longer in a tree with many folders; between two it waits at least 5 ms, and as long as the last one took.
    """

    def __init__(self, live: Path, place: Path) -> None:
        self.at: float | None = None
        self._live, self._place = live, place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The command has ended: a last look is taken if there was none that found one."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            over, began = self._over.is_set(), time.monotonic()
            if self._found():
                self.at = time.monotonic()
            if self.at or over:
                return
            self._over.wait(max(_LOOK_SECONDS, time.monotonic() - began))

    def _found(self) -> bool:
        if self._live.is_file():
            return trees.same_file(self._live, self._place)
        return any(
            trees.same_file(self._live / Path(folder, name).relative_to(self._place), Path(folder, name))
            for folder, _, names in os.walk(self._place)
            for name in names
        )


class Bench:
    """Every contender with two pushes behind it, and the restores of them."""

    def __init__(self, staged: Stage) -> None:
        self._stage, self._site = staged, staged.site
        self._before = staged.site.host.with_name("before")

    def prepare(self, everyone: Iterable[Contender]) -> None:
        """The tree, all that is pushed of it, and a volume of each first push. Raises PeerFailed."""
        self._stage.grow([_CHANGE])
        with self._stage.mounted(live_disk(FIRST), self._site.live, read_only=True):
            shutil.copy(self._site.live / _BIG, self._before)
        with self._stage.mounted(live_disk(_CHANGE), self._site.live, read_only=True):
            if trees.same_file(self._site.live / _BIG, self._before):
                raise PeerFailed(f"the edits left {_BIG} as it was: another --seed")
        for contender in everyone:
            host, volume = disks_of(contender, "base")
            for disk in (host, volume):
                self._stage.disks.make(disk)
            self._push(contender, FIRST)
            self._stage.disks.clone(volume, disks_of(contender, "point")[1])
            self._push(contender, _CHANGE)
            tell(f"pushed twice: {contender.name}")

    def restore(self, contender: Contender, wanted: Wanted, number: int) -> Restored:
        """With cold caches, where they are the disk's. Raises PeerFailed, NotTheSame."""
        mounted, site = self._stage.mounted, self._site
        host, volume = disks_of(contender, "base")
        with (
            mounted(live_disk(_CHANGE), site.live, read_only=True),
            mounted(host, site.host),
            mounted(volume, site.volume),
            mounted(disks_of(contender, "point")[1], site.point, read_only=True),
        ):
            target = site.host / "restored"
            target.mkdir()
            live = self._before if wanted.older else site.live / wanted.path
            place = contender.restored(site, target, wanted.path)
            site.vault.wire.reset()
            watch, began = FirstFile(live, place), time.monotonic()
            try:
                contender.restore(site, target, wanted.path, older=wanted.older)
            finally:
                last = time.monotonic()
                watch.end()
            received = site.vault.wire.counted()[1]
            found = [] if wanted.path else trees.differences(live, place)
            if watch.at is None or found:
                raise NotTheSame(f"{contender.name} did not restore {wanted.title}\n  " + "\n  ".join(found[:10]))
            shutil.rmtree(target)
        return Restored(number, wanted, contender.name, watch.at - began, last - began, received)

    def _push(self, contender: Contender, change: str) -> None:
        mounted, site = self._stage.mounted, self._site
        host, volume = disks_of(contender, "base")
        with (
            mounted(live_disk(change), site.live, read_only=True),
            mounted(host, site.host),
            mounted(volume, site.volume),
        ):
            if change == FIRST:
                contender.prepare(site)
            contender.push(site)
            site.vault.settled()


def main() -> int:
    chosen = _arguments()
    everyone = [c for c in contenders() if c.name in chosen.only]
    lacking = missing(everyone)
    if lacking:
        tell(f"not installed: {' '.join(lacking)}: tools/prepare bench")
        return 2
    mounts_of_its_own("benchmarks.restore")
    mb = 1_000_000
    size = trees.Size(
        chosen.seed, chosen.size * mb, chosen.files or chosen.size * 20, chosen.size * mb // 40, (4096, 256 * 1024)
    )
    facts = {"machine": machine(), "versions": versions(everyone), "code": code()}
    restores: list[Restored] = []
    failed, began = 0, time.monotonic()
    with stage("restore", size, chosen.work) as staged:
        try:
            _measure(staged, everyone, chosen.rounds, restores)
        except (NotTheSame, PeerFailed, OSError) as error:
            tell(f"FAILED: {error}")
            failed = 1
        except KeyboardInterrupt:
            failed = 130
        facts |= {"tree": staged.tree, "disks": staged.disks.kind}
    facts |= {"rounds": str(chosen.rounds), "took": f"{time.monotonic() - began:.0f} s"}
    for key, value in facts.items():
        print(f"{key}: {value}")
    print(table(restores))
    return failed


def table(restores: Sequence[Restored]) -> str:
    """Medians over the rounds, in Markdown; ratios are the medians of those in the same round."""
    text = []
    for wanted in dict.fromkeys(each.wanted for each in restores):
        of = [each for each in restores if each.wanted == wanted]
        text.append(f"\n### {wanted.title[0].upper()}{wanted.title[1:]}\n")
        text.append("| contender | first file s | last s | from the vault MB | last, ÷ restic | ÷ borg |")
        text.append("|---|---:|---:|---:|---:|---:|")
        for name in dict.fromkeys(each.contender for each in of):
            mine = [each for each in of if each.contender == name]
            cells = [
                f"{median(each.first_seconds for each in mine):.2f}",
                f"{median(each.last_seconds for each in mine):.2f}",
            ]
            cells.append(f"{median(each.received_bytes for each in mine) / 1e6:.1f}")
            for peer in ("restic", "borg"):
                theirs = {each.round: each.last_seconds for each in of if each.contender == peer}
                ratios = [each.last_seconds / theirs[each.round] for each in mine if each.round in theirs]
                cells.append(f"{median(ratios):.2f}" if ratios else "")
            text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def _measure(staged: Stage, everyone: Sequence[Contender], rounds: int, restores: list[Restored]) -> None:
    bench = Bench(staged)
    bench.prepare(everyone)
    for number in range(rounds):
        for wanted in WANTED:
            # Another order each time: no one is always the neighbour of whoever leaves the disk busy.
            turn = number % len(everyone)
            for contender in [*everyone[turn:], *everyone[:turn]]:
                if wanted.older and not contender.history:
                    continue
                restored = bench.restore(contender, wanted, number)
                restores.append(restored)
                tell(
                    f"round {number}, {wanted.title}, {contender.name}: first file {restored.first_seconds:.2f} s, "
                    f"last {restored.last_seconds:.2f} s"
                )


def _arguments() -> argparse.Namespace:
    names, usual = (
        [contender.name for contender in contenders()],
        [LIMIT_NAME, "rdiff+inplace", "mirror+inplace", "restic", "borg"],
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="of the tree in MB; 64 by default; 2.5 %% of it edited")
    parser.add_argument("--files", type=int, help="in the tree; 20 a MB by default")
    parser.add_argument("--rounds", type=int, default=3, help="of every restore; 3 by default")
    parser.add_argument("--only", nargs="+", choices=names, default=usual, help=f"these; {', '.join(usual)} by default")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--work", type=Path, help="folder for the disks (about 20 times the tree)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
