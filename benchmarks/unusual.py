"""How often `chalicelib.unusual` cries wolf, and what it misses: `python -m benchmarks.unusual`, half a minute.

Made-up hosts of several kinds live for years, a push a night. Shares of files are log-normal around a median, as the
sizes of people's changes are; the shapes of the kinds are guesses, not measurements of anybody's hosts. A false alarm
is a flag on a night in which nothing but the kind's own life happened; the operator accepts it the next morning.
An intrusion is tried on one night in ten, beside that life, which goes on as if it had not been.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from chalicelib.model import Change, Outcome, PointState, RestorePoint
from chalicelib.unusual import HISTORY, why

GIB = 2**30
BEGIN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
Nights = Iterator[Change]


def change(
    files: int, size: int, changed: float, deleted: float, added: float, *, byte_share: float | None = None
) -> Change:
    """Shares of files; `byte_share` of the bytes are touched, or as many as of the files."""
    c, d, a = (round(files * min(1.0, share)) for share in (changed, deleted, added))
    c, d = min(c, files), min(d, files - min(c, files))
    share = (c + d) / files if byte_share is None else byte_share
    new = round(size * added) if byte_share is None else round(size * share)
    same = round(size * (1 - min(1.0, share)))
    return Change(
        files_before=files,
        files_after=files - d + a,
        files_added=a,
        files_changed=c,
        files_deleted=d,
        bytes_before=size,
        bytes_after=same + new,
        bytes_changed=new,
    )


def _some(dice: random.Random, median: float, spread: float) -> float:
    return median * dice.lognormvariate(0, spread)


def _desktop(dice: random.Random) -> Nights:
    """Off now and then, so that a push holds several days; packages are upgraded once a month."""
    while True:
        days = dice.choice((1,) * 20 + (2, 2, 3, 3, 7, 21))
        upgrade = 0.06 if dice.random() < 1 / 30 else 0.0
        yield change(200_000, 80 * GIB, upgrade + _some(dice, 0.004, 1.0) * days**0.5, _some(dice, 0.001, 1.2), 0.002)


def _developer(dice: random.Random) -> Nights:
    """Builds and branches: much of the tree comes and goes."""
    while True:
        gone = _some(dice, 0.03, 1.0)
        yield change(400_000, 40 * GIB, _some(dice, 0.01, 1.0), gone, gone)


def _server(dice: random.Random) -> Nights:
    """Logs are rotated each week, and a dump is most of the bytes."""
    for night in range(10**6):
        rotated = 0.05 if night % 7 == 0 else 0.002
        yield change(
            30_000, 20 * GIB, 0.01 + _some(dice, 0.002, 0.8), rotated, rotated, byte_share=dice.uniform(0.55, 0.65)
        )


def _photos(dice: random.Random) -> Nights:
    """Hardly anything changes; four times a year some folders are sorted anew."""
    while True:
        moved = dice.uniform(0.02, 0.15) if dice.random() < 4 / 365 else 0.0
        yield change(60_000, 500 * GIB, 0.0005, moved, moved + 0.001)


def _weekly(dice: random.Random) -> Nights:
    """A full each week that touches nearly all of it."""
    for night in range(10**6):
        full = dice.uniform(0.85, 1.0) if night % 7 == 6 else _some(dice, 0.01, 0.8)
        yield change(5_000, 100 * GIB, full, 0.001, 0.01)


def _rdiff(dice: random.Random) -> Nights:
    """rdiff-backup: a mirror of two fifths; what changed 20 nights ago leaves the increments."""
    before = [_some(dice, 0.004, 1.0) for _ in range(20)]
    while True:
        tonight = _some(dice, 0.004, 1.0)
        before.append(tonight)
        yield change(50_000, 10 * GIB, tonight, before.pop(0), tonight)


def _machines(dice: random.Random) -> Nights:
    """Thirty disk images, each used on half of the days."""
    while True:
        used = sum(dice.random() < 0.5 for _ in range(30)) / 30
        yield change(30, 600 * GIB, used, 0, 0)


def _small(dice: random.Random) -> Nights:
    """A folder of notes."""
    while True:
        yield change(120, 40 * 2**20, dice.randrange(12) / 120, dice.randrange(3) / 120, dice.randrange(4) / 120)


def _system(dice: random.Random) -> Nights:
    """A whole system, of which an upgrade twice a year touches half: that is asked about, and rightly."""
    while True:
        upgrade = dice.uniform(0.3, 0.6) if dice.random() < 2 / 365 else 0.0
        yield change(300_000, 15 * GIB, upgrade + _some(dice, 0.003, 1.0), upgrade / 8 + 0.001, upgrade / 6 + 0.001)


KINDS: dict[str, Callable[[random.Random], Nights]] = {
    "desktop": _desktop,
    "developer": _developer,
    "server with a dump": _server,
    "photos": _photos,
    "weekly full": _weekly,
    "rdiff-backup": _rdiff,
    "disk images": _machines,
    "notes": _small,
    "system, upgraded": _system,
}
INTRUSIONS: dict[str, Callable[[Change], Change]] = {
    "wiped": lambda was: change(was.files_before, was.bytes_before, 0, 1, 0),
    "re-encrypted": lambda was: change(was.files_before, was.bytes_before, 1, 0, 0, byte_share=1),
    "a third of it re-encrypted": lambda was: change(was.files_before, was.bytes_before, 1 / 3, 0, 0),
    "a tenth of it re-encrypted": lambda was: change(was.files_before, was.bytes_before, 0.1, 0, 0),
}


def simulated(kind: str, nights: int, seed: int) -> tuple[int, Counter[str], int]:
    """False alarms, intrusions that were seen, and how often each was tried. The first push has no change."""
    dice = random.Random(f"{kind} {seed}")  # noqa: S311 (a simulation)
    earlier: list[RestorePoint] = []
    false_alarms, seen, tried = 0, Counter[str](), 0
    for number, tonight in zip(range(nights), KINDS[kind](dice), strict=False):
        false_alarms += bool(why(tonight, earlier))
        if number > HISTORY and number % 10 == 0:
            tried += 1
            seen.update(name for name, intrude in INTRUSIONS.items() if why(intrude(tonight), earlier))
        made_at = BEGIN + timedelta(days=number)
        point = RestorePoint(
            host="C",
            vault_id="vault-1",
            window_id="w",
            volume_id="vol-1",
            run_id=f"r-{number}",
            run_started_at=made_at,
            outcome=Outcome.COMPLETE,
            complete=True,
            state=PointState.COMPLETED,
            made_at=made_at,
            change=tonight,
        )
        earlier = [point, *earlier[: HISTORY + 5]]
    return false_alarms, seen, tried


def main(hosts: int = 20, years: int = 2) -> None:
    print(f"{hosts} hosts of each kind, {years} years of nights each\n")
    print("| host | false alarms a year | " + " | ".join(f"seen: {name}" for name in INTRUSIONS) + " |")
    print("|---" * (2 + len(INTRUSIONS)) + "|")
    for kind in KINDS:
        lives = [simulated(kind, 365 * years, seed) for seed in range(hosts)]
        alarms = sum(life[0] for life in lives) / hosts / years
        tried = sum(life[2] for life in lives)
        seen = " | ".join(f"{sum(life[1][name] for life in lives) / tried:.0%}" for name in INTRUSIONS)
        print(f"| {kind} | {alarms:.2f} | {seen} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
