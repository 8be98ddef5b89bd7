"""`make demo`. Exit code 0 only if both nights and the restores came out as they should."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from tests.demo.checks import SLACK_SECONDS, WHOLE, nights, restored
from tests.demo.night import LONGEST_SECONDS, archive_all, play
from tests.demo.player import Player
from tests.demo.summary import show
from tests.demo.trees import TREES
from tests.demo.view import View
from tests.localcloud.cloud import LocalCloud

# A day's 3.6 hours, compressed; everything that waits for something in proportion.
POLICY = {
    "window_seconds": 90,
    "minimum_window_seconds": 5,
    "linger_seconds": 20,
    "lease_seconds": 12,
    "wake_timeout_seconds": 60,
    "claim_seconds": 10,
    "retry_seconds": 5,
    "report_seconds": 1,
    "power_off_grace_seconds": 60,
}


@dataclass(frozen=True)
class Pace:
    """How long a night takes here: the policy's durations, the slow lines of the second night, our patience."""

    policy: Mapping[str, int]
    slow_line_kib: int
    slower_line_kib: int
    longest_seconds: int = LONGEST_SECONDS
    slack_seconds: int = SLACK_SECONDS


PACES = {
    "process": Pace(POLICY, slow_line_kib=600, slower_line_kib=1500),
    # An emulated machine boots in one to three minutes, and the window is open by then.
    "vm": Pace(
        {**POLICY, "window_seconds": 360, "linger_seconds": 60, "lease_seconds": 30, "wake_timeout_seconds": 300},
        slow_line_kib=100,
        slower_line_kib=500,
        longest_seconds=900,
        slack_seconds=60,
    ),
}


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(prog="make demo", description=__doc__)
    options.add_argument("--keep", type=Path, help="work in this folder and leave it behind, to look at")
    options.add_argument("--rootless", action="store_true", help="plain folders instead of filesystems, though root")
    options.add_argument("--vault", choices=PACES, default="process", help="vm: a machine booted by qemu")
    chosen = options.parse_args(arguments)
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 120)
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="nightvault-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The application's log lines and metrics go to stdout, as on Lambda; here to a file beside the rest.
        with (folder / "control-plane.log").open("w") as log, redirect_stdout(log):
            return _demo(folder, View(console), console, chosen.vault, rooted=False if chosen.rootless else None)
    finally:
        if chosen.keep:
            console.print(f"left behind in {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _demo(folder: Path, view: View, console: Console, vault: Literal["process", "vm"], *, rooted: bool | None) -> int:
    pace = PACES[vault]
    view.say("[bold]nightvault[/]: two nights of four hosts on this machine; everything is real but AWS")
    with LocalCloud(folder / "cloud", policy=pace.policy, rooted=rooted, vault=vault) as cloud:
        players = [Player(name, tree, folder / "hosts" / name, cloud.url) for name, tree in TREES.items()]
        try:
            for player in players:
                player.furnish()
                player.enroll(cloud.invite(player.name))
                view.say(f"host {player.name}: {player.expected_bytes / 1e6:.0f} MB, {player.tree.title}; enrolled")
            view.say("the first archives, made by day: they take longest, and no vault is awake for them")
            head_start = archive_all(players)
            evening = cloud.clock.now()
            first = play(cloud, view, players, number=1, head_start=head_start, longest_seconds=pace.longest_seconds)
            view.say("the day goes by: files are edited, renamed, deleted; O commits large files; L takes orders")
            was = {player.name: _sample(player, folder / "yesterday") for player in players}
            for player in players:
                player.work_by_day()
            cloud.clock.advance(seconds=86400 - (cloud.clock.now() - evening).total_seconds())
            host_o, host_l = players[2], players[3]
            host_o.configure(bandwidth_kib=pace.slow_line_kib)
            host_l.configure(bandwidth_kib=pace.slower_line_kib)
            view.say("tonight O is on a slow line and will be cut by the window, and L loses power in its push")
            second = play(
                cloud,
                view,
                players,
                number=2,
                head_start=head_start,
                longest_seconds=pace.longest_seconds,
                dies=host_l,
            )
            view.say("restoring a file of each host out of its last good restore point")
            checks = nights(cloud, first, second, pace.policy["window_seconds"], pace.slack_seconds)
            for player in players:
                night = second if player.name in WHOLE else first
                path, yesterday = was[player.name]
                wanted = path if night is second else yesterday
                checks.append(restored(cloud, night, player, path, wanted))
        finally:
            for player in players:
                player.leave_nothing()
    return show(console, (first, second), players, checks, pace.policy["window_seconds"])


def _sample(player: Player, to: Path) -> tuple[Path, Path]:
    """A live file that changes by day, and a copy of it as it is now."""
    candidates = sorted(p for p in player.live.rglob("*") if p.is_file() and p.stat().st_size > 200)
    path = next((p for p in candidates if p.suffix in (".sqlite", ".pack")), candidates[0])
    copy = to / player.name
    to.mkdir(exist_ok=True)
    shutil.copy2(path, copy)
    return path, copy


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
