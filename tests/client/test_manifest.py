"""The manifest that is pushed with a tree: anyone can check the tree by it, and a restore does."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client import trees
from tests.client.harness import CODE, SHELLS, Host, in_every_shell
from tests.client.test_archive import DRIVERS
from tests.client.test_restore import POINTS

UNSURE = "-" * 64


def manifest_of(host: Host) -> Path:
    return host.vault.volume / "current" / ".nightvault" / "manifest"


def lines_of(manifest: Path) -> dict[bytes, tuple[str, str]]:
    """PATH: (SIZE, SHA256), unescaped."""
    lines = {}
    for line in manifest.read_bytes().split(b"\n")[1:-1]:
        size, sum_, path = re.fullmatch(rb"(\S+) (\S+)  (.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        if sum_.startswith(b"\\"):
            sum_ = sum_[1:]
            path = re.sub(rb"\\(.)", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), path)
        lines[path] = (size.decode(), sum_.decode())
    return lines


def verify(manifest: Path, public_key: Path, tmp_path: Path) -> str:
    (tmp_path / "signers").write_text(f"C {public_key.read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "C", "-n", "nightvault-manifest"]
    with manifest.open("rb") as read:
        done = subprocess.run(
            [*command, "-s", f"{manifest}.sig"], stdin=read, text=True, capture_output=True, check=False
        )
    return done.stdout


@pytest.mark.parametrize(
    ("driver", "shell"),
    [
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(DRIVERS, [*SHELLS, *SHELLS], strict=True)
    ],
)
def test_a_pulled_tree_is_checked_by_plain_tools(host: Host, driver: str, tmp_path: Path) -> None:
    host.configure(*DRIVERS[driver])
    trees.first_night(host.source)
    trees.write(os.fsencode(host.source) + b"/cr\r \\ and more\n", b"odd")
    host.good("backup")
    trees.second_night(host.source)
    assert host.good("backup").stderr == ""
    pulled = host.pull(tmp_path / "pulled", manifest=True)
    manifest = pulled / ".nightvault" / "manifest"
    assert "Good" in verify(manifest, host.state / "key.pub", tmp_path)
    lines = lines_of(manifest)
    there = {
        os.path.relpath(os.fsencode(path), os.fsencode(pulled)): path.read_bytes()
        for path in pulled.rglob("*")
        if path.is_file() and not path.is_symlink() and path.parent.name != ".nightvault"
    }
    assert lines == {path: (str(len(data)), hashlib.sha256(data).hexdigest()) for path, data in there.items()}
    total = sum(len(data) for data in there.values())
    assert manifest.read_bytes().split(b"\n")[0].decode() == (
        f"nightvault-manifest 1 {host.plane.run_id} C {len(there)} {total}"
    )
    by_hand = "sed 1d .nightvault/manifest | grep -v 'cr.r' | cut -d' ' -f2- | sha256sum -c --quiet --strict"
    subprocess.run(["sh", "-c", by_hand], cwd=pulled, check=True)


def test_what_is_unchanged_is_not_read_again_and_what_looks_so_is_pushed(host: Host) -> None:
    host.configure("keep = directory")
    trees.write(os.fsencode(host.source / "same"), b"same")
    trees.write(os.fsencode(host.source / "other"), b"one")
    # The change time is what counts, and only the clock sets that.
    subprocess.run(["sleep", "2"], check=True)
    host.good("backup")
    checksums = host.state / "checksums"
    checksums.write_text(re.sub(r"^\S{64}", "0" * 64, checksums.read_text(), flags=re.MULTILINE))
    before = (host.source / "other").stat()
    trees.write(os.fsencode(host.source / "other"), b"two")
    os.utime(host.source / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    # What rsync alone would take for unchanged. That it was not sent by a push that was cut is not forgotten.
    host.vault.hook("case $1 in begin*) exit 126 ;; esac")
    assert host.run("backup").returncode == 10
    host.vault.hook("exit 0")
    host.good("backup")
    assert (manifest_of(host).parents[1] / "other").read_text() == "two"
    lines = lines_of(manifest_of(host))
    assert lines[b"same"][1] == "0" * 64
    assert lines[b"other"][1] == hashlib.sha256(b"two").hexdigest()


@in_every_shell
def test_what_changes_while_it_is_pushed_is_told(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    for name in ("same", "changes", "vanishes early", "vanishes late"):
        (host.source / name).write_text(name)
    host.vault.hook(
        f"case $1 in rsync*) cd {host.source}; echo more >>changes; echo new >new; echo temp >temp; "
        "rm -f 'vanishes early' ;; esac"
    )
    rsync = tmp_path / "bin" / "rsync"
    rsync.parent.mkdir()
    gone = f"rm -f {host.source}/temp '{host.source}/vanishes late'"
    rsync.write_text(f'#!/bin/sh\n{shutil.which("rsync")} "$@" || exit\ncase "$*" in *vault:.*) {gone} ;; esac\n')
    rsync.chmod(0o755)
    done = host.run("backup", PATH=f"{rsync.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    lines = lines_of(manifest_of(host))
    assert lines == {
        b"same": ("4", hashlib.sha256(b"same").hexdigest()),
        b"changes": ("12", UNSURE),
        b"new": ("-", UNSURE),
        b"temp": ("-", UNSURE),
        b"vanishes early": ("-", UNSURE),
        b"vanishes late": ("-", UNSURE),
    }
    pushed = {path.name for path in manifest_of(host).parents[1].iterdir()} - {".nightvault"}
    assert pushed == {"same", "changes", "new", "temp", "vanishes late"}
    host.vault.hook("exit 0")
    host.plane.points = POINTS
    host.good("restore", str(tmp_path / "back"))
    assert {path.name for path in (tmp_path / "back").iterdir()} == pushed


@in_every_shell
def test_without_the_tools_a_backup_goes_on_unproven(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.good("backup")
    assert manifest_of(host).exists()
    old = tmp_path / "bin" / "ssh-keygen"
    old.parent.mkdir()
    old.write_text(f'#!/bin/sh\n[ "$1" != -Y ] || exit 1\nexec {shutil.which("ssh-keygen")} "$@"\n')
    old.chmod(0o755)
    path = f"{old.parent}:{os.environ['PATH']}"
    done = host.run("backup", PATH=path)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "ssh-keygen that takes -Y" in done.stderr
    assert not manifest_of(host).exists(), "it would be of another run"
    assert "ssh-keygen that takes -Y" in host.run("doctor", PATH=path).stdout
    assert "cannot be proven" not in host.run("doctor").stdout
    host.good("restore", str(tmp_path / "back"))


def test_a_folder_of_that_name_is_in_the_way(host: Host) -> None:
    host.configure("keep = directory")
    (host.source / ".nightvault").mkdir()
    done = host.run("backup")
    assert done.returncode == 5
    assert f"{host.source}/.nightvault" in done.stderr
    assert host.plane.bodies("/start") == []


def flip(path: Path) -> None:
    """One bit, as a bad disk does: size and time stay."""
    times, good = path.stat(), path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@in_every_shell
def test_a_restore_names_what_is_damaged(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "folder").mkdir()
    for name in ("good", "folder/bad", "lost", "emptied"):
        (host.source / name).write_text(name)
    host.plane.points = POINTS
    host.good("backup")
    tree = manifest_of(host).parents[1]
    flip(tree / "folder" / "bad")
    (tree / "lost").unlink()
    (tree / "planted").write_text("planted")
    (tree / "emptied").write_text("")
    done = host.run("restore", str(tmp_path / "back"))
    assert done.returncode == 14, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "nightvault: restore point snap-0003 of 2026-11-23T03:00:00Z is damaged: 4 of its files"
    )
    for said in (
        "folder/bad: its content is not what the host pushed",
        "lost: missing",
        "planted: the host did not push it",
        "emptied: 0 bytes, not 7",
    ):
        assert said in done.stderr
    assert (tmp_path / "back" / "good").read_text() == "good"
    done = host.run("restore", "--path", "emptied", str(tmp_path / "part"))
    assert done.returncode == 14
    assert "emptied: 0 bytes, not 7" in done.stderr
    assert "lost" not in done.stderr, "it was not asked for"
    host.good("restore", "--path", "good", str(tmp_path / "whole"))


def test_what_was_damaged_on_its_way_is_pulled_once_more(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.plane.points = POINTS
    host.good("backup")
    rsync = tmp_path / "bin" / "rsync"
    rsync.parent.mkdir()
    pulled = host.state / "restore" / "tree" / "file"
    rsync.write_text(
        f'#!/bin/sh\n{shutil.which("rsync")} "$@" || exit\n[ ! -e {pulled} ] || [ -e {tmp_path}/once ] || '
        f"{{ touch -r {pulled} {tmp_path}/once; printf tXxt >{pulled}; touch -r {tmp_path}/once {pulled}; }}\n"
    )
    rsync.chmod(0o755)
    done = host.run("restore", str(tmp_path / "back"), PATH=f"{rsync.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "file: its content is not what the host pushed; they are pulled once more" in done.stderr
    assert (tmp_path / "back" / "file").read_text() == "text"
    assert host.plane.bodies("/start")[-1]["point"] == POINTS[0]["point_id"]


def test_whose_manifest_it_is(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.plane.points = POINTS
    host.good("backup")
    manifest = manifest_of(host)
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b" C 1 4\n", b" C 1 5\n"))
    done = host.run("restore", str(tmp_path / "unsigned"))
    assert done.returncode == 14
    assert ".nightvault/manifest: its signature is wrong" in done.stderr
    manifest.write_bytes(good)
    backed_up, host.plane.pushed_run_id = host.plane.pushed_run_id, "00000000-0000-4000-8000-000000000003"
    done = host.run("restore", str(tmp_path / "older"))
    assert done.returncode == 14
    assert f".nightvault/manifest: it is of run {backed_up} of C, not of this restore point" in done.stderr
    host.plane.pushed_run_id = backed_up
    # A new key: what the old one signed is known by it, on this machine; on another only checksums are left.
    host.good("enroll", "--force", host.plane.url, CODE)
    host.vault.allow((host.state / "key.pub").read_text())
    assert "signed by a key" not in host.good("restore", str(tmp_path / "same machine")).stdout
    (host.state / "former-keys").unlink()
    assert "signed by a key" in host.good("restore", str(tmp_path / "other machine")).stdout


@pytest.mark.parametrize(
    ("driver", "shell"),
    [
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(DRIVERS, reversed([*SHELLS, *SHELLS]), strict=True)
    ],
)
def test_a_drill(host: Host, driver: str, tmp_path: Path) -> None:
    host.configure(*DRIVERS[driver])
    trees.first_night(host.source)
    if driver != "encfs":
        trees.long_names(host.source)
    host.plane.points = POINTS
    host.good("backup")
    done = host.good("drill", "--files", "1000")
    assert re.search(
        r"restore point snap-0003 of 2026-11-23T03:00:00Z: (\d+) of its \d+ files pulled \([0-9.]+ MB\), all as "
        r"this host pushed them \(signature good\), all open; \d+ the same as here, 0 changed and \d+ gone since",
        done.stdout,
    ), done.stdout
    assert host.plane.bodies("/start")[-1]["kind"] == "restore"
    assert host.plane.bodies("/finish")[-1]["outcome"] == "complete"
    assert list((host.state / "restore").glob("sample*")) == []
    assert "2 of its" in host.good("drill", "--files", "2").stdout
    # What the live file says that the point does not, although nothing has touched it by its time.
    big = host.source / "big"
    others = host.archive / "repository" / str(big).lstrip("/")
    for path in (big, others):
        if path.exists():
            flip(path)
    done = host.run("drill", "--files", "1000")
    assert done.returncode == 19, done.stdout + done.stderr
    assert re.search(r"^DIFFERENT .*big$", done.stderr, re.MULTILINE)
    big.write_text("changed since")
    if others.exists():
        others.write_text("changed since")
    assert ", 1 changed and" in host.good("drill", "--files", "1000").stdout
    flip(max(manifest_of(host).parents[1].rglob("*"), key=lambda path: path.lstat().st_size))
    done = host.run("drill", "--files", "1000")
    assert done.returncode == 19
    assert "is damaged: 1 of its files" in done.stderr


def test_a_drill_of_what_cannot_be_drilled(host: Host) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.plane.points = POINTS
    host.good("backup")
    assert host.run("drill", "--files", "0").returncode == 2
    assert host.run("drill", "--at", "snap-9").returncode == 15
    shutil.rmtree(manifest_of(host).parent)
    done = host.run("drill")
    assert done.returncode == 15
    assert "has no manifest" in done.stderr
