"""`nightvault restore`: everything and parts of it, then and now, on and on, and never over what is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client import trees
from tests.client.harness import CLIENT, SHELLS, ControlPlane, Host, Vault, in_every_shell
from tests.client.test_archive import DRIVERS
from tests.localcloud.patience import wait_until


def point(number: int, taken_at: str, **more: Any) -> dict[str, Any]:
    return {
        "point_id": f"snap-{number:04}",
        "taken_at": taken_at,
        "point_run_id": f"00000000-0000-4000-8000-{number:012}",
        "point_complete": True,
        "point_state": "completed",
        "fit": None,
        "locked": False,
        "unusual": False,
        **more,
    }


POINTS = [point(3, "2026-11-23T03:00:00Z"), point(1, "2026-11-21T03:00:00Z")]


def inside(dest: Path, source: Path, driver: str) -> Path:
    return dest if driver == "directory" else dest / str(source).lstrip("/")


PARTS = {
    "rdiff inplace": ["folder", "quo'te\"s", os.fsdecode(b"x" * 255)],
    "rdiff reverse": ["big"],
    "mirror inplace": ["folder", "big", "quo'te\"s", "link", os.fsdecode(b"x" * 255)],
    "mirror reverse": ["folder/changed", "big"],
    "encfs": [],
    "directory": ["folder", "link"],
}


@pytest.mark.parametrize(
    ("driver", "shell"),
    [  # each shell has two of the six
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(DRIVERS, [*SHELLS, *SHELLS], strict=True)
    ],
)
def test_everything_and_a_part_come_back(host: Host, driver: str, tmp_path: Path) -> None:
    keeps = {"mirror inplace": "all", "directory": "all", "mirror reverse": "no xattrs"}.get(driver, "rdiff")
    host.configure(*DRIVERS[driver])
    host.plane.points = POINTS
    trees.first_night(host.source)
    trees.long_names(host.source)
    host.good("backup")
    expected = trees.describe(host.source, keeps=keeps)
    dest = tmp_path / "dest"
    done = host.good("restore", str(dest))
    assert trees.describe(inside(dest, host.source, driver), keeps=keeps) == expected
    assert "from restore point snap-0003 of 2026-11-23T03:00:00Z" in done.stdout.splitlines()[-1]
    assert host.plane.bodies("/start")[-1] == {"run_id": host.plane.run_id, "kind": "restore"}
    assert host.plane.bodies("/finish")[-1]["outcome"] == "complete"
    assert list((host.state / "restore").glob("tree*")) == []

    done = host.good("drill", "--files", "1000")
    told = (
        r"snap-0003 of 2026-11-23T03:00:00Z: \d+ of its \d+ files pulled \([0-9.]+ MB\), all as this host pushed them "
    )
    told += r"\(signature good\), all open; \d+ the same as here, 0 changed and \d+ gone since"
    assert re.search(told, done.stdout), done.stdout
    assert host.plane.bodies("/start")[-1]["kind"] == "restore"
    assert host.plane.bodies("/finish")[-1]["outcome"] == "complete"
    assert list((host.state / "restore").glob("sample*")) == []

    for number, name in enumerate(PARTS[driver]):
        part = tmp_path / f"part {number}"
        done = host.good("restore", "--path", str(host.source / name), str(part))
        [came] = part.iterdir()
        wanted = host.source / name
        assert came.name == wanted.name
        if wanted.is_symlink():
            assert came.readlink() == wanted.readlink()
        elif wanted.is_file():
            assert came.read_bytes() == wanted.read_bytes()
        else:
            assert trees.describe(came, keeps=keeps)[0] == trees.describe(wanted, keeps=keeps)[0]
    if driver != "encfs":
        base = "" if driver == "directory" else str(host.source)
        listed = host.good("list", "--at", "snap-0003", f"{base}/folder").stdout.splitlines()
        assert sorted(listed) == [f"{base}/folder", f"{base}/folder/changed", f"{base}/folder/hard 2"]
    nothing = host.run("restore", "--path", str(host.source / "not there"), str(tmp_path / "nothing"))
    assert nothing.returncode == 15, nothing.stdout + nothing.stderr
    assert "not there" in nothing.stderr
    assert host.plane.outcome is not None


def test_when(host: Host, tmp_path: Path) -> None:
    """Which restore point a date means."""
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.good("backup")
    host.plane.points = [
        point(6, "2026-11-26T03:00:00Z", point_state="pending"),
        point(5, "2026-11-25T03:00:00Z", point_complete=False),
        point(4, "2026-11-24T03:00:00Z", fit=False, unusual=True),
        *POINTS,
    ]
    for number, (at, wanted) in enumerate(
        [
            ("2026-11-23", "snap-0003"),
            ("2026-11-22", "snap-0001"),
            ("2026-11-23 02:59", "snap-0001"),
            ("2026-11-23 03:00:00", "snap-0003"),
            ("2026-11-23T04:00:00.5+01:00", "snap-0003"),
            ("2026-11-23T03:59:59+01:00", "snap-0001"),
            ("2026-11-22T21:30:00-05:30", "snap-0003"),
            ("2030-01-01T00:00:00Z", "snap-0003"),
            ("snap-0001", "snap-0001"),
        ]
    ):
        done = host.run("restore", "--at", at, str(tmp_path / f"{number}"), TZ="UTC")
        assert done.returncode == 0, done.stderr
        assert host.plane.bodies("/start")[-1].get("point") == wanted, at
        assert wanted in done.stdout
    woken = len(host.plane.bodies("/start"))
    for at, code in (("2026-11-20", 15), ("yesterday", 2), ("2026-13-01", 2), ("2026-11-23 25:00", 2), ("", 2)):
        assert host.run("restore", "--at", at, str(tmp_path / "none")).returncode == code, at
    assert len(host.plane.bodies("/start")) == woken, "none of these wakes the vault"
    assert host.run("restore", "--at", "snap-9", str(tmp_path / "none")).returncode == 15
    listed = host.good("list").stdout.splitlines()
    assert len(listed) == 1 + len(host.plane.points)
    assert "UNFIT" in listed[3]
    assert ["UNUSUAL" in line for line in listed[1:5]] == [False, False, True, False]
    assert "incomplete" in listed[2]
    assert host.good("list", "--json").stdout.startswith('{"host":"C","points":[{"point_id":"snap-0006"')


def test_an_increment_inside(host: Host, tmp_path: Path) -> None:
    """A state of which there is no restore point any more is in the next one, as rdiff-backup's increment."""
    host.configure("keep = rdiff")
    file, times = host.source / "file", []
    for text in ("one", "two", "three"):
        file.write_text(text)
        host.good("backup")
        times.append(int(time.time()))
        wait_until(lambda: int(time.time()) > times[-1] + 1)
    host.plane.points = [point(3, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(times[-1] + 1)))]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(times[1]))
    done = host.good("restore", "--at", at, "--path", str(file), str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_text() == "two"
    assert "as it was at " in done.stdout
    assert host.good("list", "--at", at, str(host.source)).stdout.split() == [str(host.source), str(file)]
    old = host.run("restore", "--at", "2001-01-01", str(tmp_path / "old"))
    assert old.returncode == 15
    assert "the oldest state there is of" in old.stderr
    assert host.good("list").stdout.count("\n") == 2 + 2 + 3
    # Without the local repository only what was pulled can tell; it does.
    shutil.rmtree(host.archive / "repository")
    host.good("restore", "--at", at, str(tmp_path / "again"))
    assert (tmp_path / "again" / str(file).lstrip("/")).read_text() == "two"


@in_every_shell
def test_nothing_is_overwritten(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("from the vault")
    (host.source / "other").write_text("other")
    host.good("backup")
    dest = tmp_path / "two words"
    dest.mkdir()
    (dest / "file").write_text("mine")
    (dest / "mine alone").write_text("mine")
    refused = host.run("restore", str(dest))
    assert refused.returncode == 16
    assert str(dest) in refused.stderr
    assert "file" in refused.stderr or "mine alone" in refused.stderr
    assert len(host.plane.bodies("/start")) == 1, "the vault was not woken"
    assert (dest / "file").read_text() == "mine"
    assert host.run("restore", str(dest / "file")).returncode == 16
    host.good("restore", "--force", str(dest))
    assert {path.name: path.read_text() for path in dest.iterdir()} == {
        "file": "from the vault",
        "other": "other",
        "mine alone": "mine",
    }


@pytest.mark.parametrize("keep", ["mirror", "rdiff"])
def test_force_overwrites_what_has_the_same_name_and_deletes_nothing(host: Host, tmp_path: Path, keep: str) -> None:
    host.configure(f"keep = {keep}")
    (host.source / "folder").mkdir()
    (host.source / "folder" / "file").write_text("from the vault")
    host.good("backup")
    dest = tmp_path / "dest"
    (dest / "folder").mkdir(parents=True)
    (dest / "folder" / "file").write_text("mine")
    (dest / "folder" / "mine alone").write_text("mine")
    host.good("restore", "--force", "--path", f"{host.source}/folder", str(dest))
    assert (dest / "folder" / "file").read_text() == "from the vault"
    assert (dest / "folder" / "mine alone").read_text() == "mine"
    assert [path.name for path in dest.iterdir()] == ["folder"]


@pytest.mark.skipif(os.geteuid() != 0, reason="else every test here is one of an ordinary user")
def test_an_ordinary_user(vault: Vault, plane: ControlPlane) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(CLIENT.parent, folder / "client")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"HOME={folder}", "sh"]
        host = Host(folder / "host", vault, plane, nobody, client=folder / "client" / "nightvault")
        host.configure("keep = directory")
        (host.source / "read-only").mkdir()
        (host.source / "read-only" / "file").write_text("text")
        (host.source / "read-only" / "file").chmod(0o400)
        (host.source / "read-only").chmod(0o500)
        subprocess.run(["chown", "-R", "65534:65534", host.folder], check=True)
        host.enroll()
        host.good("backup")
        dest = host.folder / "dest"
        host.good("restore", "--path", "read-only", str(dest))
        assert trees.describe(dest / "read-only")[0] == trees.describe(host.source / "read-only")[0]
        assert list((host.state / "restore").glob("part*")) == []


def test_a_cut_pull_goes_on_where_it_was(host: Host, tmp_path: Path) -> None:
    """The line goes down after 6 of 16 MB, and the host with it; the same command brings the rest."""
    host.configure("keep = mirror")
    for number in range(4):
        (host.source / f"big {number}").write_bytes(trees.noise(4_000_000, number))
    host.plane.points = POINTS
    host.good("backup")
    bad_line = tmp_path / "bin" / "ssh"
    bad_line.parent.mkdir()
    went_down = tmp_path / "went down"
    bad_line.write_text(
        f"""#!{sys.executable}
import os, subprocess, sys
os.set_blocking(1, True)  # rsync made it what a slow reader breaks
command = ["{shutil.which("ssh")}", *sys.argv[1:]]
with subprocess.Popen(command, stdout=subprocess.PIPE) as ssh:
    passed = 0
    while data := os.read(ssh.stdout.fileno(), 65536):
        passed += os.write(1, data)
        if passed > 6_000_000:
            open("{went_down}", "w").close()
            ssh.kill()
            break
sys.exit(ssh.returncode if ssh.returncode >= 0 else 255)
"""
    )
    bad_line.chmod(0o755)
    dest = tmp_path / "dest"
    with host.running("restore", str(dest), PATH=f"{bad_line.parent}:{os.environ['PATH']}") as process:
        assert process.stdout is not None
        while (said := process.stdout.readline()) and not ("once more in" in said and went_down.exists()):
            pass
        process.terminate()
        assert process.wait() == 143
    assert host.plane.bodies("/finish")[-1]["outcome"] == "failed"
    assert list(dest.iterdir()) == []
    done = host.good("restore", str(dest))
    assert trees.describe(inside(dest, host.source, "mirror"))[0] == trees.describe(host.source)[0]
    [pulled] = re.findall(r"([0-9.]+) MB pulled", done.stdout)
    assert 9 < float(pulled) < 12


def test_the_window_cuts_a_pull(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.good("backup")
    host.plane.seconds_left = 10  # less than the client ends itself before
    done = host.run("restore", str(tmp_path / "dest"))
    assert done.returncode == 9
    assert "the same command goes on from there" in done.stderr
    assert host.plane.bodies("/finish")[-1]["outcome"] == "cut"
    host.plane.seconds_left = 12000
    host.good("restore", str(tmp_path / "dest"))


@pytest.mark.parametrize("driver", ["mirror inplace", "rdiff inplace"])
def test_a_damaged_point_fails_and_the_one_before_is_whole(host: Host, driver: str, tmp_path: Path) -> None:
    """Also where the damaged file looks the same in both: what was pulled of it is not kept for the older point."""
    host.configure(*DRIVERS[driver])
    for number in range(4):
        (host.source / f"file {number}").write_bytes(trees.noise(300_000, number))
    host.plane.points = POINTS
    host.good("backup")
    ciphertext = max((host.vault.volume / "current").rglob("*"), key=lambda path: path.lstat().st_size)
    times, good = ciphertext.stat(), ciphertext.read_bytes()
    ciphertext.write_bytes(good[:150_000] + bytes([good[150_000] ^ 1]) + good[150_001:])
    os.utime(ciphertext, ns=(times.st_atime_ns, times.st_mtime_ns))
    damaged = host.run("restore", str(tmp_path / "damaged"))
    assert damaged.returncode == 14, damaged.stdout + damaged.stderr
    for path in (tmp_path / "damaged").rglob("file *"):
        assert path.read_bytes() == (host.source / path.name).read_bytes(), "wrong, and given as if right"

    ciphertext.write_bytes(good)
    os.utime(ciphertext, ns=(times.st_atime_ns, times.st_mtime_ns))
    host.good("restore", "--at", POINTS[1]["point_id"], str(tmp_path / "back"))
    back = inside(tmp_path / "back", host.source, driver)
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in host.source.iterdir()
    }


@pytest.mark.parametrize("driver", ["rdiff inplace", "mirror reverse", "directory"])
def test_an_emptied_point_is_not_given_as_if_it_were_all(host: Host, driver: str, tmp_path: Path) -> None:
    """Somebody with the host's key has pushed nothing, and committed that."""
    host.configure(*DRIVERS[driver])
    (host.source / "file").write_text("text")
    host.plane.points = POINTS
    host.good("backup")
    for path in (host.vault.volume / "current").resolve().iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    emptied = host.run("restore", str(tmp_path / "back"))
    assert emptied.returncode == 15, emptied.stdout + emptied.stderr
    assert POINTS[0]["point_id"] in emptied.stderr
    assert "nightvault list" in emptied.stderr
    assert list((tmp_path / "back").iterdir()) == []
    assert list((host.state / "restore").glob("tree*")) == []


def test_too_little_room_is_said_before_anything_is_pulled(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    df = tmp_path / "bin" / "df"
    df.parent.mkdir()
    df.write_text("#!/bin/sh\necho; echo dev 1000 500 500 50% /\n")
    df.chmod(0o755)
    (host.source / "file").write_bytes(trees.noise(600_000))
    host.good("backup")
    done = host.run("restore", str(tmp_path / "dest"), PATH=f"{df.parent}:{os.environ['PATH']}")
    assert done.returncode == 16
    assert "to pull: 0.6 MB of 0.6 MB, free in" in done.stdout
    assert "restore_dir" in done.stderr
    assert host.plane.bodies("/finish")[-1]["outcome"] == "failed"


MOUNTED = ["mirror inplace", "mirror reverse", "directory"]


@pytest.mark.skipif(shutil.which("sshfs") is None, reason="sshfs is not installed")
@pytest.mark.parametrize(
    ("driver", "shell"),
    [
        pytest.param(driver, SHELLS[shell], id=f"{driver}-{shell}")
        for driver, shell in zip(MOUNTED, SHELLS, strict=True)
    ],
)
def test_browsing(host: Host, driver: str, tmp_path: Path) -> None:
    host.configure(*DRIVERS[driver])
    (host.source / "folder").mkdir()
    (host.source / "folder" / "file").write_text("in the folder")
    host.good("backup")
    folder = tmp_path / "two words"
    whole = driver in ("mirror reverse", "directory")
    file = (folder if whole else folder / str(host.source).lstrip("/")) / "folder" / "file"
    with host.running("mount", str(folder)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"nightvault umount {folder}" in line, line + process.stdout.read()
        assert file.read_text() == "in the folder"
        with pytest.raises(OSError, match="Read-only"):
            file.write_text("mine")
        if driver == "mirror inplace":  # ended from elsewhere
            host.good("umount", str(folder))
        elif driver == "mirror reverse":  # by a backup, which takes the run away
            host.plane.outcome, host.plane.reason = "abandoned", "a newer run"
        else:  # by Ctrl-C or its like
            process.terminate()
        code = process.wait(60)
    assert code == {"mirror inplace": 0, "mirror reverse": 14}.get(driver, 143)
    assert not folder.is_mount()
    assert list(folder.iterdir()) == []
    if driver != "mirror reverse":
        assert host.plane.bodies("/finish")[-1]["outcome"] == "complete"
    assert host.run("umount", str(folder)).returncode == 16


def test_open_to_sftp(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("ciphertext")
    host.plane.points = POINTS
    host.good("backup")
    with host.running("open", "--at", "snap-0001") as process:
        assert process.stdout is not None
        assert "snap-0001" in process.stdout.readline()
        told = dict(process.stdout.readline().strip().split("  ", 1) for _ in range(5))
        assert told["user name"].endswith("r")  # the stand-in has one account only
        known = tmp_path / "known"
        known.write_text(f"[{told['host name'].strip()}]:{told['port'].strip()} {told['host key'].strip()}\n")
        options = ["-i", told["key file"].strip(), "-o", f"UserKnownHostsFile={known}", "-P", told["port"].strip()]
        where = f"{told['user name'].strip()[:-1]}@{told['host name'].strip()}:file"
        subprocess.run(["sftp", "-q", *options, where, tmp_path / "got"], check=True, capture_output=True)
        process.terminate()
        assert process.wait() == 143
    assert (tmp_path / "got").read_text() == "ciphertext"
    assert host.plane.bodies("/finish")[-1]["outcome"] == "complete"
