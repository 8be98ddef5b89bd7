"""What end-to-end nights share: a small tree, a host that runs the real client, and a vault to wait for."""

import hashlib
import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.demo.player import Player
from tests.demo.trees import MIB, Tree
from tests.localcloud.cloud import LocalCloud

POLICY = {
    "window_seconds": 600,
    "minimum_window_seconds": 1,
    "linger_seconds": 0,
    "lease_seconds": 60,
    "claim_seconds": 20,
    "retry_seconds": 2,
    "report_seconds": 1,
    "power_off_grace_seconds": 60,
}


def small_tree(to: Path) -> None:
    """A few hundred files, one big one, and what archivers get wrong: links, holes, odd names, empty folders."""
    noise = random.Random(7)  # noqa: S311 (content, not a secret)
    for number in range(200):
        path = to / f"folder {number % 9}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(noise.randrange(5_000)))
    (to / "big").write_bytes(noise.randbytes(8 * MIB))
    (to / "empty").mkdir()
    (to / "link").symlink_to("folder 1/file 1")
    (to / "dangling").symlink_to("/nowhere/at all")
    os.link(to / "big", to / "big again")
    with (to / "holes").open("wb") as file:
        file.seek(4 * MIB)
        file.write(b"after the hole")
    (to / "odd\nname \u00e9\u4e16").write_text("a line break and letters of two alphabets")
    (to / "private").write_text("mine")
    (to / "private").chmod(0o600)
    (to / "tool").write_text("#!/bin/sh\n")
    (to / "tool").chmod(0o755)


def change_tree(to: Path) -> None:
    """A day's work: scattered edits in the big file, new files, deletions, a rename."""
    noise = random.Random(8)  # noqa: S311 (content, not a secret)
    with (to / "big").open("r+b") as file:
        for _ in range(20):
            file.seek(noise.randrange(8 * MIB - 1000))
            file.write(noise.randbytes(1000))
    for number in range(20):
        (to / f"new {number}").write_bytes(noise.randbytes(2_000))
    (to / "folder 3" / "file 3").unlink()
    (to / "folder 4" / "file 4").rename(to / "folder 4" / "renamed")


BIG = 40 * MIB
SMALL = Tree("a small tree", small_tree, change_tree)


def _make_big(to: Path) -> None:
    to.mkdir(parents=True)
    (to / "big").write_bytes(random.Random(1).randbytes(BIG))  # noqa: S311 (content, not a secret)


def _replace_big(to: Path) -> None:
    (to / "big").write_bytes(random.Random(2).randbytes(BIG))  # noqa: S311 (content, not a secret)


ONE_BIG_FILE = Tree("one big file", _make_big, _replace_big)


@contextmanager
def host(cloud: LocalCloud, name: str, folder: Path, tree: Tree = SMALL, **settings: str) -> Iterator[Player]:
    """An enrolled host with its files; `settings` are lines of its config."""
    player = Player(name, tree, folder / name, cloud.url, settings=settings)
    player.furnish()
    try:
        player.enroll(cloud.invite(name))
        yield player
    finally:
        player.leave_nothing()


def back_up(cloud: LocalCloud, *players: Player, seconds: float = 90) -> None:
    """All of them at once; returns when the vault sleeps and the restore points count."""
    for player in players:
        player.run("backup")
    for player in players:
        cloud.wait_until(player.poll, seconds, what=f"{player.name} has ended; it says: {player.said()}")
    asleep(cloud, seconds)


def vault(cloud: LocalCloud) -> dict[str, Any]:
    found: dict[str, Any] = cloud.operate("vaults")["vaults"][0]
    return found


def asleep(cloud: LocalCloud, seconds: float = 60) -> None:
    def look() -> bool:
        found = vault(cloud)
        return found["phase"] == "asleep" and not found["pending_points"]

    cloud.wait_until(look, seconds, what="the vault sleeps, and its restore points have settled")


def windows(cloud: LocalCloud) -> list[dict[str, Any]]:
    """Archived ones, oldest first."""
    found: list[dict[str, Any]] = cloud.operate("windows", vault_id="vault-1")["windows"]
    return [each for each in found[::-1] if each["sealed_at"]]


def last_backups(cloud: LocalCloud) -> dict[str, str]:
    """Of each host, the snapshot that is its last backup."""
    hosts = cloud.operate("hosts")["hosts"]
    return {each["name"]: each["last"]["snapshot_id"] for each in hosts if each["last"]}


def points(cloud: LocalCloud, host_name: str) -> list[dict[str, Any]]:
    """Its snapshots, oldest first."""
    mine = [each for each in cloud.snapshots() if each["tags"]["nightvault:host"] == host_name]
    return sorted(mine, key=lambda each: str(each["tags"]["nightvault:window"]))


def portrait(folder: Path) -> dict[str, tuple[str, ...]]:
    """Every path below a folder with kind, mode and content: equal portraits are equal trees."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        mode = "" if path.is_symlink() else oct(stat.S_IMODE(status.st_mode))
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode)[0], mode, content)
    return found


def run_of(cloud: LocalCloud, name: str) -> dict[str, Any] | None:
    """The newest run of a host, in the window under way."""
    runs = [run for run in (vault(cloud)["window"] or {"runs": []})["runs"] if run["host"] == name]
    return max(runs, key=lambda run: str(run["started_at"]), default=None)


def pushed(cloud: LocalCloud, name: str, at_least: int) -> bool:
    run = run_of(cloud, name)
    return bool(run and run["progress"] and run["progress"]["transfer_bytes"] >= at_least)


def cipher(player: Player) -> dict[str, tuple[str, ...]]:
    """The ciphertext on the host, which is what the vault must hold (modes are in its xattrs)."""
    return {name: (kind, content) for name, (kind, _, content) in portrait(player.archive / "cipher").items()}


def on_the_vault(snapshot: Path) -> dict[str, tuple[str, ...]]:
    tree = (snapshot / "current").resolve()
    there = {name: (kind, content) for name, (kind, _, content) in portrait(tree).items()}
    return {name: entry for name, entry in there.items() if not name.startswith(".nightvault")}
