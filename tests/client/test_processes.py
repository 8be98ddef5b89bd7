"""Locks, signals and secrets: what a run leaves behind and what it shows meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.client.harness import CLIENT, CODE, SHELLS, TOKEN, Host, in_every_shell
from tests.client.trees import noise
from tests.localcloud.patience import wait_until


@pytest.fixture
def slow(host: Host) -> Host:
    """A host whose push takes a minute."""
    host.configure("keep = directory", "bandwidth_kib = 100")
    (host.source / "pack").write_bytes(noise(6_000_000, 7))
    return host


def pushing(host: Host) -> bool:
    return any(line.startswith("rsync") for line in host.vault.gate_log())


@pytest.mark.parametrize(
    ("shell", "ending"),
    [
        pytest.param(SHELLS["dash"], signal.SIGTERM, id="dash-TERM"),
        pytest.param(SHELLS["bash"], signal.SIGHUP, id="bash-HUP"),
        pytest.param(SHELLS["busybox"], signal.SIGINT, id="busybox-INT"),
    ],
)
def test_a_signal_sends_finish(slow: Host, ending: signal.Signals) -> None:
    with slow.running("backup") as process:
        wait_until(lambda: pushing(slow))
        process.send_signal(ending)
        assert process.wait(20) == 128 + ending
    [finish] = slow.plane.bodies("/finish")
    assert (finish["outcome"], finish["exit_code"]) == ("failed", 128 + ending)
    assert not (slow.state / "lock").exists()
    assert list(slow.state.glob("run.*")) == []


def test_a_signal_while_archiving_undoes_the_mount_and_wakes_nobody(host: Host) -> None:
    host.configure("keep = mirror")
    (host.source / "big").write_bytes(b"x" * 50_000_000)
    with host.running("backup") as process:
        wait_until(lambda: str(host.archive / "plain") in Path("/proc/mounts").read_text())
        process.terminate()
        assert process.wait(20) == 143
    assert str(host.archive) not in Path("/proc/mounts").read_text()
    assert host.plane.bodies("/start") == []
    assert host.plane.bodies("/finish") == []


def test_a_dead_holder_never_blocks_tomorrow(slow: Host) -> None:
    with slow.running("backup") as process:
        wait_until(lambda: pushing(slow))
        assert slow.run("backup").returncode == 4
        process.kill()
        process.wait()
    assert (slow.state / "lock").exists()
    slow.configure("keep = directory")
    slow.plane.outcome = None
    done = slow.good("backup")
    assert "interrupted" in done.stderr
    assert not (slow.state / "lock").exists()


def test_neither_a_reused_pid_nor_half_a_lock_blocks(slow: Host) -> None:
    slow.configure("keep = directory")
    lock = slow.state / "lock"
    for holder in (f"{os.getpid()}\nanother boot 12345\n", None):
        lock.mkdir()
        if holder:
            (lock / "holder").write_text(holder)
            (lock / "child").write_text(holder)  # must not be killed: it is this test
        slow.good("archive")


def test_a_stale_mount_is_healed(host: Host) -> None:
    host.configure("keep = mirror")
    (host.source / "big").write_bytes(b"x" * 50_000_000)
    with host.running("archive") as process:
        wait_until(lambda: str(host.archive / "plain") in Path("/proc/mounts").read_text())
        process.kill()
    host.good("archive")
    assert str(host.archive) not in Path("/proc/mounts").read_text()


def test_no_secret_is_ever_visible(new_host: Host) -> None:
    """Samples all processes while enrolling and backing up: argv, environment; and reads all output."""
    host = new_host
    host.configure("keep = mirror", "bandwidth_kib = 500")
    (host.source / "pack").write_bytes(noise(500_000, 7))
    password = host.state / "password"
    seen: list[str] = []
    samples = 0
    stop = threading.Event()

    def look() -> None:
        nonlocal samples
        while not stop.is_set():
            secrets = [TOKEN.encode(), *([password.read_bytes()] if password.exists() else [])]
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        shown = (process / name).read_bytes()
                    except OSError:
                        continue
                    samples += 1
                    seen.extend(f"{name} of {shown!r}" for secret in secrets if secret and secret in shown)
                    if name == "cmdline" and CODE.encode() in shown and b"enroll\0" not in shown:
                        seen.append(f"{shown!r}")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        texts = [host.run("enroll", host.plane.url, CODE)]
        host.vault.allow((host.state / "key.pub").read_text())
        texts += [host.run("backup"), host.run("status"), host.run("doctor")]
    finally:
        stop.set()
        watcher.join()
    assert [text.returncode for text in texts] == [0, 0, 0, 0], texts
    assert samples > 100
    assert seen == []
    for text in texts:
        for secret in (TOKEN, CODE, password.read_text()):
            assert secret not in text.stdout + text.stderr
    for path in [host.state, *host.state.rglob("*")]:
        if "archive" not in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path


@in_every_shell
def test_an_upgrade_replaces_the_script_of_a_running_client(host: Host, tmp_path: Path) -> None:
    """sh reads a script as it goes: what stands behind the old end in the new file must never be run."""
    script = tmp_path / "nightvault"
    shutil.copy(CLIENT, script)

    def upgrade(_: str) -> None:
        script.write_text("exit 99\n" * 20_000)  # in place, as cp does

    host.plane.on_call = upgrade
    command = [*host.shell, str(script), "-c", str(host.config_file), "status"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "last backup" in done.stdout


@in_every_shell
def test_tracing_is_switched_off(host: Host) -> None:
    host.shell = [*host.shell, "-x"]
    done = host.run("status")
    assert done.returncode == 0
    assert TOKEN not in done.stderr
    assert done.stderr.count("\n") < 5


@in_every_shell
def test_a_command_that_ends_at_once_is_not_waited_for_until_the_deadline(shell: list[str], tmp_path: Path) -> None:
    """A vault that refuses ssh, say. The watchdog must end with it, however new it is; 200 tries find a lost signal."""
    functions = CLIENT.read_text().replace('\nmain "$@"; exit', "\n")
    script = f"""{functions}
trap 'exit 143' TERM
trap 'exit 129' HUP
run={tmp_path} deadline=$(($(now) + 3600)) n=0
while [ $n -lt 200 ]; do until_deadline true; n=$((n + 1)); done
"""
    subprocess.run([*shell, "-c", script], check=True, timeout=120)
