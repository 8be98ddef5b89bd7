"""A restore's ssh sessions share one connection where that is safe, and never need it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.client import trees
from tests.client.harness import Host, in_every_shell
from tests.localcloud.patience import wait_until


def connections(host: Host) -> int:
    return (host.vault.folder / "sshd.log").read_text().count("Accepted publickey")


def masters(pid: int) -> list[int]:
    """The ssh that holds the connection of the nightvault with this process id."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if b"-fMN" in words and f"run.{pid}/ssh".encode() in words:
            found.append(int(cmdline.parent.name))
    return found


@in_every_shell
def test_one_connection_for_all_of_a_restore(host: Host, tmp_path: Path) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.good("backup")
    for arguments in (
        ["restore", str(tmp_path / "all")],
        ["restore", "--path", "file", str(tmp_path / "part")],
        ["drill"],
    ):
        before = connections(host)
        host.good(*arguments)
        assert connections(host) == before + 1, arguments


@pytest.mark.parametrize("reason", ["windows", "no master"])
def test_each_its_own_where_it_cannot_be_shared(host: Host, tmp_path: Path, reason: str) -> None:
    host.configure("keep = directory")
    (host.source / "file").write_text("text")
    host.good("backup")
    name, says = {"windows": ("uname", "echo MSYS_NT-10.0"), "no master": ("ssh", _SSH_WITHOUT_MASTERS)}[reason]
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    before = connections(host)
    done = host.run("restore", str(tmp_path / "back"), PATH=f"{program.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert connections(host) == before + 3
    assert (tmp_path / "back" / "file").read_text() == "text"


_SSH_WITHOUT_MASTERS = 'for word; do [ "$word" != -fMN ] || exit 255; done; exec /usr/bin/ssh "$@"'


@pytest.mark.parametrize("ending", ["master dies", "session dies", "TERM"])
def test_the_connection_ends_with_the_run_and_a_new_one_follows_one_that_died(
    host: Host, tmp_path: Path, ending: str
) -> None:
    host.configure("keep = directory")
    (host.source / "pack").write_bytes(trees.noise(3_000_000, 7))
    host.good("backup")
    held, go_on = tmp_path / "held", tmp_path / "go on"
    host.vault.hook(f"[ -e {held} ] || {{ : >{held}; until [ -e '{go_on}' ]; do sleep 0.1; done; exit 1; }}")
    with host.running("restore", str(tmp_path / "back")) as process:
        wait_until(held.exists)
        [master] = masters(process.pid)
        if ending == "master dies":
            os.kill(master, signal.SIGKILL)
        if ending == "session dies":
            go_on.touch()
        if ending.endswith("dies"):
            assert process.wait(300) == 0
            assert (tmp_path / "back" / "pack").read_bytes() == (host.source / "pack").read_bytes()
        else:
            process.terminate()
            assert process.wait(300) == 143
        assert masters(process.pid) == []
        go_on.touch()
