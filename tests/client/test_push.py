"""A push that is cut, refused or unlucky: what is current stays whole, and the next one goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client import trees
from tests.client.harness import Host, error, in_every_shell
from tests.localcloud.patience import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(host: Host) -> Host:
    """The cheapest archive: an encrypted folder that is pushed as it is."""
    host.configure("keep = directory")
    (host.source / "pack").write_bytes(trees.noise(4_000_000, 7))
    (host.source / "index").write_text("one")
    return host


@in_every_shell
def test_a_night(directory: Host) -> None:
    directory.plane.polls_until_ready = 4
    done = directory.good("backup")
    assert done.stdout.startswith("nightvault: complete: 4.0 MB sent of 4.0 MB in ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    [start], [finish] = directory.plane.bodies("/start"), directory.plane.bodies("/finish")
    assert start["kind"] == "backup"
    assert finish["run_id"] == start["run_id"]
    assert (finish["outcome"], finish["exit_code"]) == ("complete", 0)
    assert finish["stats"]["files_total"] == 3
    assert finish["stats"]["files_sent"] == 2
    assert finish["stats"]["bytes_total"] == 4_000_003
    assert finish["stats"]["bytes_literal"] == 4_000_003
    verbs = [line.split()[0] for line in directory.vault.gate_log()]
    assert verbs == ["begin", "rsync", "rsync", "commit"], "the tree, and its manifest"
    assert len(directory.plane.bodies("/status")) == 4  # /start showed the document once
    assert {body["run_id"] for body in directory.plane.bodies("/status")} == {directory.plane.run_id}


@pytest.mark.parametrize("verify", [False, True])
def test_a_byte_that_flipped_on_the_vault_is_mended_when_a_drill_has_found_it(directory: Host, *, verify: bool) -> None:
    directory.good("backup")
    stored = directory.vault.volume / "current" / "pack"
    good, times = stored.read_bytes(), stored.stat()
    with stored.open("r+b") as file:
        file.write(bytes([good[0] ^ 1]))
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))
    directory.plane.verify = verify
    directory.good("backup")
    assert (stored.read_bytes() == good) is verify, "without it, size and time are all that rsync looks at"


def test_the_faster_cipher_where_the_processor_has_instructions_for_it(directory: Host) -> None:
    has_aes = re.search(r"\baes\b", Path("/proc/cpuinfo").read_text())
    directory.good("backup")
    agreed = re.findall(r"kex: client->server cipher: (\S+)", (directory.vault.folder / "sshd.log").read_text())
    assert len(agreed) == 4  # begin, tree, manifest, commit
    assert set(agreed) == {"aes128-gcm@openssh.com" if has_aes else "chacha20-poly1305@openssh.com"}


def test_window_end_cuts_and_the_next_run_resumes(directory: Host, tmp_path: Path) -> None:
    directory.configure("keep = directory", "bandwidth_kib = 400")
    directory.plane.seconds_left = 38  # 30 of them are the margin; the push would take ten
    done = directory.run("backup")
    assert done.returncode == 9, done.stderr
    assert "cut" in done.stderr
    [finish] = directory.plane.bodies("/finish")
    assert (finish["outcome"], finish["exit_code"]) == ("cut", 9)
    assert not (directory.vault.volume / "current").exists()

    directory.configure("keep = directory")
    directory.plane.seconds_left, directory.plane.outcome = 12000, None
    directory.good("backup")
    assert directory.plane.bodies("/finish")[-1]["stats"]["bytes_literal"] < 3_900_000
    pulled = directory.pull(tmp_path / "pulled")
    assert trees.describe(pulled) == trees.describe(directory.source)


def test_window_that_is_over_before_the_vault_is_ready(directory: Host) -> None:
    directory.plane.polls_until_ready = 99
    directory.plane.seconds_left = 20
    assert directory.run("backup").returncode == 9
    assert directory.plane.bodies("/finish")[0]["outcome"] == "cut"


def test_lost_connections_are_tried_again(directory: Host) -> None:
    count = directory.vault.folder / "count"
    directory.vault.hook(f'case $1 in rsync*) echo x >>{count}; [ "$(wc -l <{count})" -gt 1 ] || kill -9 $PPID ;; esac')
    done = directory.good("backup")
    assert "once more" in done.stderr
    verbs = [line.split()[0] for line in directory.vault.gate_log()]
    assert verbs == ["begin", "rsync", "begin", "rsync", "rsync", "commit"]
    assert len(directory.plane.bodies("/status")) >= 2  # asked before the second try whether the run still lives


def test_a_run_that_ended_meanwhile_is_not_pushed_again(directory: Host) -> None:
    directory.vault.hook("case $1 in rsync*) kill -9 $PPID ;; esac")
    directory.plane.on_call = lambda route: (
        setattr(directory.plane, "outcome", "abandoned")
        if route == "/status" and any(line.startswith("rsync") for line in directory.vault.gate_log())
        else None
    )
    done = directory.run("backup")
    assert done.returncode == 10
    assert "abandoned" in done.stderr
    assert directory.plane.bodies("/finish") == []
    assert len([line for line in directory.vault.gate_log() if line.startswith("rsync")]) == 1


def test_a_refusal_is_not_tried_again(directory: Host) -> None:
    directory.vault.hook("case $1 in begin*) exit 126 ;; esac")
    assert directory.run("backup").returncode == 10
    assert directory.plane.bodies("/finish")[0]["outcome"] == "failed"
    assert len(directory.vault.gate_log()) == 1


def test_a_vault_that_does_not_commit(directory: Host) -> None:
    directory.vault.hook("case $1 in commit*) exit 3 ;; esac")
    assert directory.run("backup").returncode == 11
    assert (directory.plane.bodies("/finish")[0]["outcome"], directory.plane.bodies("/finish")[0]["exit_code"]) == (
        "failed",
        11,
    )


def test_a_lost_commit_answer_is_asked_for_again(directory: Host) -> None:
    count = directory.vault.folder / "count"
    directory.vault.hook(f'case $1 in commit*) echo x >>{count}; [ "$(wc -l <{count})" -gt 1 ] || exit 255 ;; esac')
    directory.good("backup")
    verbs = [line.split()[0] for line in directory.vault.gate_log()]
    assert verbs == ["begin", "rsync", "rsync", "commit", "commit"]


def test_files_that_vanish_do_not_fail_the_push(directory: Host, tmp_path: Path) -> None:
    rsync = tmp_path / "bin" / "rsync"
    rsync.parent.mkdir()
    rsync.write_text('#!/bin/sh\n/usr/bin/rsync "$@" || exit\ncase "$*" in *"/ vault:.") exit 24 ;; esac\n')
    rsync.chmod(0o755)
    done = directory.run("backup", PATH=f"{rsync.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert done.returncode == 0
    assert "vanished" in done.stderr


def test_wrong_host_key_gets_nothing(directory: Host, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    directory.plane.vault["host_keys"] = [" ".join((tmp_path / "other.pub").read_text().split()[:2])]
    directory.vault.hook("exit 126")
    # Five tries with pauses of 2 to 16 seconds: one is enough here.
    with directory.running("backup") as process:
        assert process.stdout is not None
        text = ""
        while "once more" not in text:
            line = process.stdout.readline()
            assert line
            text += line
        process.terminate()
        text += process.stdout.read()
    assert "Host key verification failed" in text
    assert directory.vault.gate_log() == []
    wait_until(lambda: directory.plane.bodies("/finish"))
    assert directory.plane.bodies("/finish")[0]["outcome"] == "failed"


def test_without_the_gates_word_on_hard_links_nothing_is_written_in_place(directory: Host) -> None:
    (directory.vault.volume / "says-nothing-of-hard-links").touch()
    directory.good("backup")
    assert "--inplace" not in "".join(directory.vault.gate_log())


@pytest.mark.skipif(not (ROOT / "vault-image" / "gate.py").exists(), reason="the vault's gate is not here yet")
def test_with_the_real_gate(host: Host, tmp_path: Path) -> None:
    """Two nights through vault-image/gate.py, in place, hard links parted on the second; and a push that was cut."""
    mounts, notes = tmp_path / "mnt", tmp_path / "notes"
    mounts.mkdir()
    (notes / "C").mkdir(parents=True)
    (mounts / "C").symlink_to(host.vault.volume)  # its rootless mode
    gate = f"{sys.executable} {ROOT}/vault-image/gate.py C --mount-root {mounts} --run-dir {notes}"
    logged = tmp_path / "gate.sh"
    logged.write_text(f'echo "$SSH_ORIGINAL_COMMAND" >>{host.vault.folder}/gate.log\nexec {gate}\n')
    host.vault.keys.write_text(f'restrict,command="sh {logged}" {(host.state / "key.pub").read_text()}')
    host.configure("keep = directory")
    trees.first_night(host.source)
    host.good("backup")
    trees.second_night(host.source)
    (host.source / "more").write_bytes(trees.noise(4_000_000, 8))
    host.plane.outcome, host.plane.seconds_left = None, 36  # 30 of them are the margin; the push would take eight
    host.configure("keep = directory", "bandwidth_kib = 500")
    assert host.run("backup").returncode == 9
    host.plane.outcome, host.plane.seconds_left = None, 12000
    host.configure("keep = directory")
    host.good("backup")
    committed = json.loads((host.vault.volume / "committed.json").read_text())
    assert committed["run_id"] == host.plane.run_id
    pushes = [line for line in host.vault.gate_log() if line.startswith("rsync --server") and "--sender" not in line]
    assert ["--inplace" in push for push in pushes] == [True, False, True, True, False], "never the manifest"
    assert trees.describe(host.pull(tmp_path / "pulled")) == trees.describe(host.source)


def test_server_errors_are_asked_again(directory: Host) -> None:
    directory.plane.scripted = {
        "/start": [error(503, "Unavailable", "later", Retry_After="0")],
        "/status": [error(500, "Internal", "oops", Retry_After="0")],
        "/finish": [error(429, "TooManyRequests", "slow down", Retry_After="0")],
    }
    directory.good("backup")
    starts = directory.plane.bodies("/start")
    assert len(starts) == 2
    assert starts[0] == starts[1]
