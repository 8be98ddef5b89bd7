"""What is pushed comes back, byte for byte, whatever keeps the archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import manifests, trees
from tests.client.harness import SHELLS, Host
from tests.localcloud.patience import wait_until

DRIVERS = {
    "rdiff inplace": ["keep = rdiff", "encrypt = inplace"],
    "rdiff reverse": ["keep = rdiff", "encrypt = reverse"],
    "mirror inplace": ["keep = mirror", "encrypt = inplace"],
    "mirror reverse": ["keep = mirror", "encrypt = reverse"],
    "encfs": ["keep = encfs"],
    "directory": ["keep = directory"],
}


@contextmanager
def mounted(command: list[str | Path], point: Path, password: Path) -> Iterator[Path]:
    point.mkdir(parents=True)
    with password.open() as stdin:
        subprocess.run([*command, point], check=True, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield point
    finally:
        subprocess.run(["fusermount", "-u", point], check=True)


@contextmanager
def opened(driver: str, pulled: Path, password: Path, source: Path) -> Iterator[Path]:
    """The pulled ciphertext, opened with the password alone: where the source's files are."""
    point = pulled.with_name(pulled.name + ".plain")
    restored = pulled.with_name(pulled.name + ".restored")
    inside = Path(str(source).lstrip("/"))
    gocryptfs: list[str | Path] = ["gocryptfs", "-q", "-nosyslog", "-passfile", password]
    match driver:
        case "directory":
            yield pulled
            return
        case "encfs":
            command: list[str | Path] = ["encfs", "--stdinpass", pulled]
        case "rdiff inplace" | "mirror inplace":
            command = [*gocryptfs, pulled]
        case _:
            folder = next(path for path in pulled.iterdir() if path.is_dir())
            command = [*gocryptfs, "-config", pulled / "gocryptfs.conf", folder]
    with mounted(command, point, password) as plain:
        if driver == "mirror reverse":
            yield plain
        elif driver == "mirror inplace":
            yield plain / inside
        else:
            subprocess.run(["rdiff-backup", "--new", "restore", plain, restored], check=True, stdout=subprocess.DEVNULL)
            yield restored / inside


@pytest.mark.parametrize(
    ("driver", "shell"),
    [  # each shell has two of the six
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(DRIVERS, [*SHELLS, *SHELLS], strict=True)
    ],
)
def test_two_nights_come_back(host: Host, driver: str, tmp_path: Path) -> None:
    # rdiff-backup keeps whole seconds, no times of symlinks, and extended attributes only with python3-pyxattr;
    # gocryptfs's reverse view has no extended attributes.
    keeps = {"mirror inplace": "all", "directory": "all", "mirror reverse": "no xattrs"}.get(driver, "rdiff")
    host.configure(*DRIVERS[driver], "exclude = *.tmp", f"exclude = {host.source}/not this")
    trees.first_night(host.source)
    trees.long_names(host.source)  # rdiff-backup keeps what encfs is too narrow for under names of its own
    if driver != "directory":
        (host.source / "folder" / "x.tmp").write_text("left out")
        (host.source / "not this").mkdir()
        (host.source / "not this" / "file").write_text("left out")
    for number, night in enumerate((lambda _: None, trees.second_night)):
        night(host.source)
        host.plane.outcome = None
        host.good("backup")
        expected, links = trees.describe(host.source, keeps=keeps)
        if driver != "directory":
            for left_out in (b"folder/x.tmp", b"not this", b"not this/file"):
                expected.pop(left_out)
        pulled = host.pull(tmp_path / f"pulled {number}", manifest=True)
        manifests.check(host, pulled)
        shutil.rmtree(pulled / ".nightvault")
        with opened(driver, pulled, host.state / "password", host.source) as plain:
            got, got_links = trees.describe(plain, keeps=keeps)
        assert sorted(got) == sorted(expected)
        different = [
            f"{path!r}: {entry}, not {expected[path]}" for path, entry in got.items() if entry != expected[path]
        ]
        assert different == []
        assert got_links == links


@pytest.mark.parametrize("driver", ["mirror inplace", "directory"])
def test_a_change_within_a_second_of_the_last_backup(host: Host, driver: str, tmp_path: Path) -> None:
    """Of the same size, so that only the nanoseconds of its time tell; rsync by itself looks at whole seconds."""
    host.configure(*DRIVERS[driver])
    file = host.source / "file"
    for text, nanoseconds in (("before", 100), ("after!", 900)):
        file.write_text(text)
        os.utime(file, ns=(10**18, 10**18 + nanoseconds))
        host.plane.outcome = None
        host.good("backup")
    with opened(driver, host.pull(tmp_path / "pulled"), host.state / "password", host.source) as plain:
        assert (plain / "file").read_text() == "after!"


@pytest.mark.parametrize(("theirs", "cost"), [(None, 2**10), ("correct horse\n", 2**16)])
def test_guesses_are_slow_where_somebody_chose_the_password(host: Host, theirs: str | None, cost: int) -> None:
    """Of 32 random bytes nobody guesses one, so no start of gocryptfs needs to take its half of a second."""
    host.configure("keep = mirror")
    if theirs:
        host.state.mkdir(exist_ok=True)
        (host.state / "password").write_text(theirs)
    host.good("backup")
    kept = json.loads((host.vault.volume / "current" / "gocryptfs.conf").read_text())
    assert kept["ScryptObject"]["N"] == cost


def test_scattered_edits_in_a_big_file_stay_small(host: Host, tmp_path: Path) -> None:
    """The encrypted folder is changed in place, so its push is about as small as plain rsync's would be."""
    host.configure("keep = mirror")
    big, copy = host.source / "big", tmp_path / "plain copy"
    big.write_bytes(trees.noise(24_000_000))
    shutil.copy2(big, copy)
    os.utime(big, (1e9, 1e9))
    host.good("backup")
    with big.open("r+b") as file:
        for at in range(200_000, 24_000_000, 2_400_000):
            file.seek(at)
            file.write(trees.noise(40_000, at))
    host.plane.outcome = None
    host.good("backup")
    plain = subprocess.run(
        ["rsync", "-a", "--inplace", "--no-whole-file", "--stats", big, copy],
        check=True,
        capture_output=True,
        text=True,
    )
    [limit] = [int(line.split()[2].replace(",", "")) for line in plain.stdout.splitlines() if "Literal data" in line]
    assert host.plane.bodies("/finish")[-1]["stats"]["bytes_literal"] < 1.5 * limit


def test_the_recovery_sheet_alone_opens_what_was_pushed(host: Host, tmp_path: Path) -> None:
    host.configure("keep = mirror")
    (host.source / "file").write_text("come back")
    sheet = host.good("key").stdout
    done = host.good("backup")
    secrets = dict(line.split(": ", 1) for line in sheet.splitlines() if ": " in line)
    password = host.state / "password"
    assert secrets["password"].replace(" ", "") == password.read_text()  # opens it: see test_two_nights_come_back
    assert password.read_text() not in done.stdout + done.stderr
    assert secrets["master key"] not in done.stdout + done.stderr
    pulled = host.pull(tmp_path / "pulled")
    with mounted(
        ["gocryptfs", "-q", "-nosyslog", "-masterkey", secrets["master key"], pulled],
        tmp_path / "by key",
        password,
    ) as plain:
        assert (plain / str(host.source).lstrip("/") / "file").read_text() == "come back"


def test_several_sources_and_one_taken_away(host: Host, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("one", "two words", "three")]
    for source in sources:
        source.mkdir()
        (source / "file").write_text(source.name)
    sources.append(tmp_path / "single file")
    sources[-1].write_text("alone")
    for number, (keep, now) in enumerate([("mirror", sources), ("mirror", sources[1:]), ("rdiff", sources[1:])]):
        host.configure(f"keep = {keep}", sources=now)
        host.plane.outcome = None
        host.good("archive")
        pulled = host.archive / "cipher"
        driver = f"{keep} inplace"
        at = tmp_path / f"pulled {number}"
        at.symlink_to(pulled)
        with opened(driver, at, host.state / "password", tmp_path) as plain:
            assert sorted(path.name for path in plain.iterdir()) == sorted(source.name for source in now)
            assert (plain / "two words" / "file").read_text() == "two words"
            assert (plain / "single file").read_text() == "alone"


def test_several_sources_in_reverse(host: Host, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("one", "two words")]
    for source in sources:
        source.mkdir()
        (source / "file").write_text(source.name)
    host.configure("keep = mirror", "encrypt = reverse", sources=sources)
    host.good("backup")
    pulled = host.pull(tmp_path / "pulled")
    found = set()
    for number, folder in enumerate(path for path in pulled.iterdir() if path.is_dir()):
        command: list[str | Path] = ["gocryptfs", "-q", "-nosyslog", "-passfile", host.state / "password"]
        with mounted(
            [*command, "-config", pulled / "gocryptfs.conf", folder], tmp_path / f"p{number}", tmp_path / "one/file"
        ) as p:
            found.add((p / "file").read_text())
    assert found == {"one", "two words"}


def test_a_killed_archive_is_mended_and_increments_are_kept_as_configured(host: Host, tmp_path: Path) -> None:
    """kill -9 in the middle of rdiff-backup: the next run ends the orphan, undoes its half, and archives."""
    host.configure("keep = rdiff", "increments = 1")
    for name in range(300):
        (host.source / str(name)).write_text("one")
    host.good("archive")
    for name in range(300):
        (host.source / str(name)).write_text("two")
    mirrors = host.archive / "repository" / "rdiff-backup-data"
    with host.running("archive") as process:
        wait_until(lambda: len(list(mirrors.glob("current_mirror.*"))) == 2)
        process.kill()
    done = host.good("archive")
    assert "interrupted" in done.stderr
    assert len(list(mirrors.glob("current_mirror.*"))) == 1
    subprocess.run(["rdiff-backup", "--new", "restore", host.archive / "repository", tmp_path / "back"], check=True)
    restored = tmp_path / "back" / str(host.source).lstrip("/")
    assert {path.read_text() for path in restored.iterdir()} == {"two"}
    host.good("archive")
    listed = subprocess.run(
        ["rdiff-backup", "--new", "list", "increments", host.archive / "repository"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Found 1 increments" in listed.stdout


def test_a_failed_archive_wakes_no_vault(host: Host, tmp_path: Path) -> None:
    for lines, sources in (
        (["keep = mirror"], [tmp_path / "not there"]),
        (["keep = directory"], [host.source]),  # empty: most likely a disk that is not mounted
    ):
        host.configure(*lines, sources=sources)
        assert host.run("backup").returncode == 5
    host.configure("keep = mirror")
    (host.source / "file").touch()
    host.good("archive")
    (host.state / "password").unlink()
    done = host.run("backup")
    assert done.returncode == 5
    assert "put it back" in done.stderr
    assert host.plane.bodies("/start") == []
