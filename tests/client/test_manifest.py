"""The manifest that is pushed with a tree: anyone can check the tree by it, and a restore does."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.client import manifests, trees
from tests.client.harness import CODE, SHELLS, Host, in_every_shell
from tests.client.test_archive import DRIVERS
from tests.client.test_restore import POINTS
from tests.localcloud.patience import wait_until

BSD_STAT = r"""#!/bin/sh
[ "$1" = -f ] || { echo "usage: stat" >&2; exit 1; }
format=$(printf %s "$2" | sed 's/%n/\n/g; s/%z/%s/; s/%Fm/%.9Y/; s/%Fc/%.9Z/; s/%N/%n/')
shift 2
exec /usr/bin/stat -c "$format" "$@"
"""
LACKING = "#!/bin/sh\nexit 1\n"
BUSYBOX = ("awk", "cut", "find", "grep", "head", "od", "sed", "sha256sum", "sort", "stat", "tr", "wc", "xargs")


@pytest.mark.parametrize(
    ("system", "shell"),
    [("Linux", SHELLS["dash"]), ("busybox", SHELLS["busybox"]), ("macOS", SHELLS["bash"])],
    ids=["Linux", "busybox", "macOS"],
)
def test_odd_names_with_the_tools_of_each_system(
    host: Host, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"openssl": LACKING} if system == "busybox" else {}
    if system == "busybox":
        for name in BUSYBOX:
            (tools / name).symlink_to(shutil.which("busybox") or "")
    if system == "macOS":
        scripts = {"stat": BSD_STAT, "openssl": LACKING, "sha256sum": LACKING}
    for name, script in scripts.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    host.configure("keep = directory")
    for odd in (*trees.ODD_NAMES, b"cr\r \\n and more\n", b"\\", b"#1", b"; 2"):
        trees.write(os.fsencode(host.source) + b"/" + odd, odd)
    host.good("backup")
    host.plane.points = POINTS
    assert "all as this host pushed them (signature good)" in host.good("drill").stdout
    monkeypatch.undo()
    manifests.check(host, host.pull(tmp_path / "pulled", manifest=True))


def test_what_is_unchanged_is_not_read_again_and_what_looks_so_is_pushed(host: Host) -> None:
    host.configure("keep = directory")
    trees.write(os.fsencode(host.source / "same"), b"same")
    trees.write(os.fsencode(host.source / "other"), b"one")
    wait_until(lambda: time.time() > (host.source / "other").stat().st_ctime + 2)  # else it is read again anyway
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
    assert (manifests.manifest_of(host).parents[1] / "other").read_text() == "two"
    lines = manifests.lines(manifests.manifest_of(host))
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
    lines = manifests.lines(manifests.manifest_of(host))
    assert lines == {
        b"same": ("4", hashlib.sha256(b"same").hexdigest()),
        b"changes": ("12", manifests.UNSURE),
        b"new": ("-", manifests.UNSURE),
        b"temp": ("-", manifests.UNSURE),
        b"vanishes early": ("-", manifests.UNSURE),
        b"vanishes late": ("-", manifests.UNSURE),
    }
    pushed = {path.name for path in manifests.manifest_of(host).parents[1].iterdir()} - {".nightvault"}
    assert manifests.verdict_of_the_vault(host) == ("passed", "4 of 6 files changed while they were pushed")
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
    assert manifests.manifest_of(host).exists()
    old = tmp_path / "bin" / "ssh-keygen"
    old.parent.mkdir()
    old.write_text(f'#!/bin/sh\n[ "$1" != -Y ] || exit 1\nexec {shutil.which("ssh-keygen")} "$@"\n')
    old.chmod(0o755)
    path = f"{old.parent}:{os.environ['PATH']}"
    done = host.run("backup", PATH=path)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "ssh-keygen that takes -Y" in done.stderr
    assert not manifests.manifest_of(host).exists(), "it would be of another run"
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
    tree = manifests.manifest_of(host).parents[1]
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
    manifest = manifests.manifest_of(host)
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b" C 1 4\n", b" C 1 5\n"))
    done = host.run("restore", str(tmp_path / "unsigned"))
    assert done.returncode == 14
    assert ".nightvault/manifest: its signature is wrong" in done.stderr
    manifest.write_bytes(good)
    pulled = (host.state / "restore" / "tree.signed" / ".nightvault" / "manifest").stat()
    os.utime(manifest, ns=(pulled.st_atime_ns, pulled.st_mtime_ns))  # as large, and of the same second
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


@pytest.mark.parametrize("driver", ["mirror reverse", "rdiff inplace"])
def test_what_a_drill_finds(host: Host, driver: str) -> None:
    host.configure(*DRIVERS[driver])
    trees.first_night(host.source)
    host.plane.points = POINTS
    host.good("backup")
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
    flip(max(manifests.manifest_of(host).parents[1].rglob("*"), key=lambda path: path.lstat().st_size))
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
    shutil.rmtree(manifests.manifest_of(host).parent)
    done = host.run("drill")
    assert done.returncode == 15
    assert "has no manifest" in done.stderr
