"""Getting it back, for real: every driver's archive, an older point, a part, and a machine that has only the sheet."""

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.demo.player import CLIENT, Player
from tests.demo.trees import MIB
from tests.e2e.nights import ONE_BIG_FILE, POLICY, asleep, back_up, host, last_backups, points, portrait, pushed
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.machine import may_root

DRIVERS = {  # a host of each
    "C": ("rdiff", "inplace"),
    "D": ("rdiff", "reverse"),
    "H": ("mirror", "inplace"),
    "L": ("mirror", "reverse"),
    "M": ("encfs", "inplace"),
    "O": ("directory", "inplace"),
}


def restore(cloud: LocalCloud, wanted: dict[str, list[str]], hosts: dict[str, Player], to: Path) -> None:
    """All of these hosts at once, each with its arguments, into a folder of its name."""
    for name, arguments in wanted.items():
        hosts[name].run("restore", *arguments, str(to / name))
    for name in wanted:
        player = hosts[name]
        cloud.wait_until(player.poll, 180, what=f"{name} has restored; it says: {player.said()}")
        assert player.exit_code == 0, f"{name}: {player.output}"


def came_back(player: Player, to: Path) -> Path:
    """Where its files are: under their full paths, but for a folder that is restored as it is."""
    return to if player.settings["keep"] == "directory" else to / str(player.live).lstrip("/")


def test_every_archive_comes_back_of_tonight_and_of_the_night_before(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud", policy={**POLICY, "linger_seconds": 5}) as cloud, ExitStack() as stack:
        hosts = {
            name: stack.enter_context(host(cloud, name, tmp_path, keep=keep, encrypt=encrypt))
            for name, (keep, encrypt) in DRIVERS.items()
        }
        back_up(cloud, *hosts.values(), seconds=180)
        before = {name: portrait(player.live) for name, player in hosts.items()}
        for player in hosts.values():
            player.work_by_day()
        cloud.clock.advance(seconds=86400)
        back_up(cloud, *hosts.values(), seconds=180)
        assert [player.exit_code for player in hosts.values()] == [0] * 6

        restore(cloud, {name: [] for name in hosts}, hosts, tmp_path / "tonight")
        for name, player in hosts.items():
            assert portrait(came_back(player, tmp_path / "tonight" / name)) == portrait(player.live), name
            assert last_backups(cloud)[name] in player.last_line()
        for player in hosts.values():
            player.run("drill", "--files", "5")
        for name, player in hosts.items():
            cloud.wait_until(player.poll, 120, what=f"{name} has drilled; it says: {player.said()}")
            assert player.exit_code == 0, f"{name}: {player.output}"
            assert "all as this host pushed them (signature good)" in player.last_line(), name

        # The first night's, of three: a point by its name, and a part of it; and by its date.
        first = {name: points(cloud, name)[0] for name in hosts}
        older = {
            "C": ["--at", first["C"]["SnapshotId"]],
            "H": ["--at", first["H"]["SnapshotId"], "--path", f"{hosts['H'].live}/folder 3"],
            "O": ["--at", first["O"]["SnapshotId"]],
        }
        browsed = tmp_path / "browsed"
        hosts["D"].run("mount", str(browsed))
        restore(cloud, older, hosts, tmp_path / "before")
        cloud.wait_until(lambda: "nightvault umount" in hosts["D"].said(), 60, what="D browses")
        where = browsed / str(hosts["D"].live / "folder 3" / "file 12").lstrip("/")
        assert where.read_bytes() == (hosts["D"].live / "folder 3" / "file 12").read_bytes()
        subprocess.run([hosts["D"].client, "-c", hosts["D"].config, "umount", browsed], check=True)
        cloud.wait_until(hosts["D"].poll, 60, what="D has ended")
        assert hosts["D"].exit_code == 0, hosts["D"].output
        for name in ("C", "O"):
            assert portrait(came_back(hosts[name], tmp_path / "before" / name)) == before[name], name
        folder = {
            path.removeprefix("folder 3/"): entry for path, entry in before["H"].items() if path.startswith("folder 3/")
        }
        assert portrait(tmp_path / "before" / "H" / "folder 3") == folder
        assert "file 3" in folder, "which is gone since"
        asleep(cloud)
        assert not cloud.failures


@pytest.mark.skipif(not may_root(), reason="needs root and namespaces: the old machine's folders are hidden")
def test_a_new_machine_gets_back_what_was_whole_before_a_push_was_cut(tmp_path: Path) -> None:
    """The window ends in the middle of the second push, then the machine burns. The sheet and a code are left."""
    with (
        LocalCloud(tmp_path / "cloud", policy=POLICY) as cloud,
        host(cloud, "C", tmp_path, ONE_BIG_FILE, keep="mirror") as c,
    ):
        back_up(cloud, c)
        assert c.exit_code == 0, c.output
        good = portrait(c.live)
        c.work_by_day()
        c.configure(bandwidth_kib=4000)
        cloud.clock.advance(seconds=86400)
        c.run("backup")
        cloud.wait_until(lambda: pushed(cloud, "C", 8 * MIB), 60, what="C has pushed 8 MiB")
        cloud.clock.advance(seconds=POLICY["window_seconds"])
        cloud.wait_until(c.poll, 60, what=f"C has ended; it says: {c.said()}")
        assert c.exit_code == 9, c.output
        asleep(cloud)
        c.leave_nothing()

        sheet = tmp_path / "sheet"
        sheet.write_text(c.sheet)
        shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        for script in CLIENT.parent.glob("nightvault*"):
            shutil.copy2(script, bin_folder)
        # A machine of its own, as far as the client can see: nothing of the old host is there.
        stage = (
            f"set -e; mount -t tmpfs tmpfs {c.folder}; mount -t tmpfs tmpfs /var/lib; "
            f"mount --bind {tmp_path}/etc /etc; mount --bind {bin_folder} /usr/local/bin; "
            f'[ ! -e /etc/nightvault ] && [ -z "$(ls -A {c.folder})" ]; '
            f"nightvault recover {sheet} - {tmp_path}/back; mkdir -p {c.live}; touch {c.live}/file; "
            "nightvault backup || echo backup: $?"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", stage],
            input=cloud.invite("C"),
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert portrait(tmp_path / "back" / str(c.live).lstrip("/")) == good
        assert last_backups(cloud)["C"] in done.stdout
        assert done.stdout.endswith("backup: 17\n"), "it wants its own sheet printed"
        asleep(cloud)
        assert not cloud.failures
