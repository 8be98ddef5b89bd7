"""`nightvault restore --local`: out of the archive on the host's own disk, with no vault and no network."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.client import trees
from tests.client.harness import SHELLS, Host, error
from tests.client.test_archive import DRIVERS
from tests.client.test_processes import pushing
from tests.client.test_restore import inside, point
from tests.localcloud.patience import wait_until

OWN = ["rdiff inplace", "mirror inplace", "encfs"]


def refused(host: Host, code: int, said: str, *arguments: str) -> None:
    done = host.run(*arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stdout + done.stderr


def next_second() -> None:
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now + 1)


@pytest.mark.parametrize(
    ("driver", "shell"),
    [pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}") for driver, shell in zip(OWN, SHELLS, strict=True)],
)
def test_everything_and_a_part_come_back(new_host: Host, driver: str, tmp_path: Path) -> None:
    """Of a host that is not even enrolled: nobody is asked."""
    host, keeps = new_host, "all" if driver == "mirror inplace" else "rdiff"
    host.configure(*DRIVERS[driver])
    trees.first_night(host.source)
    host.good("archive")
    expected = trees.describe(host.source, keeps=keeps)
    file = host.source / "folder" / "changed"
    kept = file.read_bytes()
    file.write_text("spoilt since")
    dest = tmp_path / "two words"
    done = host.good("restore", "--local", str(dest))
    assert trees.describe(inside(dest, host.source, driver), keeps=keeps) == expected
    assert "from this host's own archive, as it was at " in done.stdout.splitlines()[-1]

    refused(host, 16, "is not empty", "restore", "--local", "--path", str(file), str(dest))
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "changed").write_text("in the way")
    host.good("restore", "--local", "--force", "--path", str(file), str(tmp_path / "part"))
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "part").iterdir()] == [("changed", kept)]
    refused(host, 15, "not there", "restore", "--local", "--path", str(host.source / "not there"), str(tmp_path / "no"))

    listed = host.good("list", "--local", str(file.parent))
    assert sorted(listed.stdout.splitlines()) == [str(file.parent), str(file), str(file.parent / "hard 2")]
    assert host.good("list", "--local").stdout.count(" here ") == 1
    for damage, said in ((host.state / "password", "recovery sheet"), (host.archive, "leave out --local")):
        if damage == host.archive or not driver.startswith("rdiff"):
            damage.rename(tmp_path / damage.name)
            refused(host, 15 if damage == host.archive else 14, said, "restore", "--local", str(tmp_path / "no"))
    assert host.plane.calls == []


@pytest.mark.parametrize("driver", ["rdiff inplace", "encfs"])
def test_an_older_state_and_the_last_that_had_it(new_host: Host, driver: str, tmp_path: Path) -> None:
    host = new_host
    host.configure(*DRIVERS[driver])
    file = host.source / "a.b" / "letter"
    markers: list[Path] = []
    file.parent.mkdir()
    (host.source / "other").write_text("other")
    for text in ("one", "two", None):
        file.write_text(text) if text else shutil.rmtree(file.parent)
        host.good("archive")
        if driver == "rdiff inplace":
            markers += (host.archive / "repository" / "rdiff-backup-data").glob("current_mirror.*")
            markers[-1] = Path(shutil.copy(markers[-1], tmp_path))
        next_second()
    listed = host.good("list", "--local").stdout.splitlines()[1:]
    newest, middle, oldest = (line.split()[0] for line in listed)
    assert newest > middle > oldest
    refused(host, 15, f"--at {middle}", "restore", "--local", "--path", str(file), str(tmp_path / "gone"))
    for at, text in ((middle, "two"), (oldest, "one")):
        host.good("restore", "--local", "--at", at, "--path", str(file), str(tmp_path / text))
        assert (tmp_path / text / "letter").read_text() == text
    assert str(file) in host.good("list", "--local", "--at", oldest, str(file.parent)).stdout.split()
    refused(host, 15, "nothing here is as old", "restore", "--local", "--at", "2001-01-01", str(tmp_path / "old"))
    refused(host, 2, "takes a date", "restore", "--local", "--at", "snap-0001", str(tmp_path / "old"))
    if driver == "rdiff inplace":  # the last run was cut before its end: what it had done does not count
        shutil.copy(markers[1], host.archive / "repository" / "rdiff-backup-data")
        host.good("restore", "--local", "--path", str(file), str(tmp_path / "after a cut"))
        assert (tmp_path / "after a cut" / "letter").read_text() == "two"
        log = host.archive / "repository" / "rdiff-backup-data" / "restore.log"
        log.unlink()
        log.mkdir()  # it cannot be written, as on a disk that has been mounted read-only since it fails
        host.good("restore", "--local", "--path", str(file.parent), str(tmp_path / "no log"))
        kept = host.archive / "repository" / str(host.source).lstrip("/") / "other"
        kept.write_text("rot")
        refused(host, 14, "other: its content is not what was archived", "restore", "--local", str(tmp_path / "rotten"))
    assert host.plane.calls == []


def test_a_mirror_has_no_history_and_a_cut_run_leaves_it_half_new(new_host: Host, tmp_path: Path) -> None:
    host = new_host
    host.configure("keep = mirror")
    (host.source / "file").write_text("text")
    host.good("archive")
    host.good("restore", "--local", "--at", "2100-01-01", str(tmp_path / "back"))
    refused(host, 15, "no history", "restore", "--local", "--at", "2001-01-01", str(tmp_path / "old"))
    (host.source / "big").write_bytes(b"x" * 50_000_000)
    with host.running("archive") as process:
        wait_until(lambda: str(host.archive / "plain") in Path("/proc/mounts").read_text())
        process.terminate()
        assert process.wait(120) == 143
    refused(host, 14, "half new", "restore", "--local", str(tmp_path / "half"))
    assert (inside(tmp_path / "half", host.source, "mirror") / "file").read_text() == "text"
    assert "half-written" in host.good("list", "--local").stdout
    (host.source / "big").unlink()
    host.good("archive")
    host.good("restore", "--local", str(tmp_path / "whole"))


@pytest.mark.parametrize("driver", ["mirror reverse", "directory"])
def test_no_archive_of_its_own(new_host: Host, driver: str, tmp_path: Path) -> None:
    new_host.configure(*DRIVERS[driver])
    for command in (["restore", "--local", str(tmp_path / "back")], ["list", "--local"]):
        refused(new_host, 2, "leave out --local", *command)
    assert not (tmp_path / "back").exists()


def test_it_is_suggested_before_the_vault_is_woken_and_waits_for_a_run(host: Host, tmp_path: Path) -> None:
    host.configure("keep = rdiff")
    (host.source / "file").write_text("text")
    host.good("backup")
    host.plane.points = [point(1, "2001-01-01T00:00:00Z")]
    back = str(tmp_path / "back")
    for command, suggested in (
        (["restore", back], True),
        (["restore", "--path", str(host.source / "file"), back], True),
        (["restore", "--path", str(host.source / "never there"), back], False),
        (["restore", "--at", "snap-0001", back], False),
        (["restore", "--at", "2002-01-01", back], False),
        (["list", str(host.source)], True),
    ):
        host.plane.scripted["/start"] = [error(403, "Forbidden", "not now")]
        done = host.run(*command)
        assert (done.returncode, "with --local" in done.stderr) == (7, suggested), (command, done.stderr)
    host.configure("keep = rdiff", "bandwidth_kib = 100")
    (host.source / "pack").write_bytes(trees.noise(6_000_000, 7))
    (host.vault.folder / "gate.log").unlink()
    with host.running("backup") as process:
        wait_until(lambda: pushing(host))
        refused(host, 4, "another nightvault is at work", "restore", "--local", str(tmp_path / "busy"))
        process.terminate()
        process.wait()
