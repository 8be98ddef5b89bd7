"""Three good nights, the worst day, and the steps of docs/worst-day.md, one after the other."""

import re
import shutil
import sysconfig
from contextlib import ExitStack
from pathlib import Path

from tests.demo.player import Player
from tests.demo.trees import MIB, TREES, Tree, copy
from tests.demo.view import View
from tests.e2e.nights import asleep, back_up, host, points, portrait, small_tree
from tests.localcloud.cloud import LocalCloud
from tests.worst_day.blank import BlankMachine
from tests.worst_day.disasters import delete_the_volume, empty_the_vault, terminate_the_vault

DAY_SECONDS = 86400
NIGHTS = 3


def _furnish(to: Path) -> None:
    """Python's library, and what archivers get wrong."""
    copy([Path(sysconfig.get_path("stdlib"))], to / "library", 20 * MIB)
    small_tree(to / "papers")


TREE = Tree("a library and papers", _furnish, TREES["C"].change)
Portrait = dict[str, tuple[str, ...]]


class Story:
    """Told on `view`; everything is below `folder`, and goes with `stack`."""

    def __init__(self, cloud: LocalCloud, view: View, folder: Path, stack: ExitStack) -> None:
        self._cloud = cloud
        self._view = view
        self._folder = folder
        self._stack = stack
        self._wrong = 0

    def play(self) -> int:
        """How much came out wrong."""
        self._view.say("[bold]nightvault[/]: the worst day; everything is real but AWS; the page is docs/worst-day.md")
        self._title("three good nights")
        c = self._stack.enter_context(host(self._cloud, "C", self._folder, TREE))
        sheet = self._folder / "sheet.txt"
        sheet.write_text(c.sheet)
        self._tell(f"host C keeps {c.expected_bytes / 1e6:.0f} MB; its owner has printed what `nightvault key` shows")
        was = [self._night(c, number) for number in range(1, NIGHTS + 1)]
        good = [each["SnapshotId"] for each in points(self._cloud, "C")]

        self._title("the worst day")
        self._cloud.clock.advance(seconds=DAY_SECONDS)
        intruder = empty_the_vault(self._cloud, c, self._folder)
        *_, emptied = points(self._cloud, "C")
        self._tell(
            "an intruder on C takes its key and token, and with them pushes an empty folder and commits it: the newest"
            f" restore point, {emptied['SnapshotId']}, is {emptied['tags']['nightvault:label']} and holds nothing"
        )
        self._tell(f"the vault, {terminate_the_vault(self._cloud)}, is terminated")
        lost = delete_the_volume(self._cloud, "C")
        self._tell(f"the live volume of C, {lost}, is deleted")
        c.burn()
        self._tell("host C burns: its files, its archive, its key, its password are gone")
        damaged = self._cloud.damage_snapshot(good[2])
        self._tell(f"and in the restore point of the last good night, {good[2]}, a bit of {damaged.name} has flipped")
        self._check("what is left is a sheet of paper and the snapshots", not c.folder.exists())

        self._title("the page, step by step")
        self._cloud.clock.advance(seconds=DAY_SECONDS)
        self._type("vaultctl retention C --hold", "the operator, first of all: nothing of C is deleted from now on")
        self._cloud.operate("retention", host="C", hold=True)
        self._type("vaultctl rotate C --revoke-now", "the operator: the intruder's spoils are worthless; a fresh code")
        code = str(self._cloud.operate("rotate", host="C", revoke_now=True)["code"])
        self._check("the intruder is turned away", intruder.status().status in (401, 403))
        self._recover(sheet, code, c.live, was=was, good=good, emptied=emptied["SnapshotId"], lost=lost)
        asleep(self._cloud)
        self._check("nothing failed behind the scenes", not self._cloud.failures)
        return self._wrong

    def _night(self, c: Player, number: int) -> Portrait:
        if number > 1:
            c.work_by_day()
            self._cloud.clock.advance(seconds=DAY_SECONDS)
        back_up(self._cloud, c, seconds=180)
        if c.exit_code:
            raise RuntimeError(f"night {number}: C could not back up ({c.exit_code}): {c.output}")
        was = portrait(c.live)
        newest = points(self._cloud, "C")[-1]["SnapshotId"]
        self._tell(f"night {number}: {len(was)} files and folders; {c.last_line()}; {newest}")
        return was

    def _recover(
        self, sheet: Path, code: str, live: Path, *, was: list[Portrait], good: list[str], emptied: str, lost: str
    ) -> None:
        machine = BlankMachine(self._folder / "new machine")
        back = self._folder / "back"

        self._type(f"sudo nightvault recover sheet.txt CODE {back}", "on a new machine that has nothing but the client")
        done = machine.run("recover", str(sheet), "-", str(back), typed=code)
        self._quote(done.stdout)
        self._check("it is enrolled as C", "enrolled as C" in done.stdout)
        self._check(
            "the newest restore point is the intruder's: it says that there is nothing in it, and gives nothing",
            done.returncode == 15 and emptied in done.stdout and not _came_back(back, live),
        )

        self._type("sudo nightvault list", "which others there are")
        listed = machine.run("list").stdout
        self._quote(listed)
        named = re.findall(r"snap-\w+", listed)
        self._check("all four are listed, newest first", named == [emptied, *reversed(good)])

        # Drills find a damaged restore point before anyone needs it: the list then says UNFIT, and this step is none.
        self._type(f"sudo nightvault restore --at {good[2]} {back}", "the one before the intruder")
        done = machine.run("restore", "--at", good[2], str(back))
        self._quote(done.stdout)
        came = {name: entry for name, entry in _came_back(back, live).items() if "rdiff-backup.tmp." not in name}
        self._check("it is damaged, and the restore says so and fails", done.returncode == 14)
        right = all(was[2].get(name) == entry for name, entry in came.items() if entry[0] != "d")
        self._check(f"of the {len(came)} files and folders that it had given by then, none is wrong", right)

        again = self._folder / "back again"
        self._type(f"sudo nightvault restore --at {good[1]} {again}", "the one before that, into an empty folder")
        done = machine.run("restore", "--at", good[1], str(again))
        self._quote(done.stdout)
        self._check("it succeeds", done.returncode == 0)
        same = _came_back(again, live) == was[1]
        self._check(f"all {len(was[1])} files and folders of night 2 are back: kinds, modes, and every byte", same)
        self._check("and night 2 is not night 3", was[1] != was[2])

        asleep(self._cloud)
        self._cloud.clock.advance(seconds=DAY_SECONDS)
        self._tell("the next day: the files are back where they belong")
        live.parent.mkdir()
        shutil.move(again / str(live).lstrip("/"), live)
        self._type("sudo nightvault key; sudo nightvault backup", "as C, whose volume is gone")
        machine.run("key")
        done = machine.run("backup")
        self._quote(done.stdout)
        asleep(self._cloud)
        self._check("it succeeds", done.returncode == 0)
        newest = points(self._cloud, "C")[-1]
        self._check(
            f"{newest['SnapshotId']} is complete, and of a new volume",
            newest["tags"]["nightvault:label"] == "complete" and newest["VolumeId"] != lost,
        )

    # how it is told

    def _title(self, text: str) -> None:
        self._view.say(f"[bold]--- {text} ---[/]")

    def _tell(self, text: str) -> None:
        self._view.say(f"  {text}")

    def _type(self, command: str, why: str) -> None:
        self._view.say(f"[bold cyan]$ {command}[/]   [dim]# {why}[/]")

    def _quote(self, said: str) -> None:
        for line in said.splitlines():
            self._view.say(f"    [dim]{line}[/]")

    def _check(self, what: str, held: bool) -> None:
        self._wrong += not held
        self._view.say(f"  {'[green]ok   [/]' if held else '[red]WRONG[/]'} {what}")


def _came_back(folder: Path, live: Path) -> Portrait:
    return portrait(folder / str(live).lstrip("/")) if folder.exists() else {}
