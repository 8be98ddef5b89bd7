"""status in plain words; doctor finds what is missing, and says how to mend it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.client.harness import Host, error, in_every_shell

TOOLS = [
    *("sh", "awk", "cat", "chmod", "cksum", "cut", "date", "df", "find", "grep", "head", "id", "ls", "mkdir", "mount"),
    *(
        "mv",
        "od",
        "ps",
        "rm",
        "rmdir",
        "sed",
        "sleep",
        "sort",
        "tee",
        "touch",
        "tr",
        "wc",
        "env",
        "fusermount",
        "fusermount3",
    ),
    *(
        "stat",
        "xargs",
        "openssl",
        "curl",
        "rsync",
        "ssh",
        "ssh-keygen",
        "gocryptfs",
        "gocryptfs-xray",
        "rdiff-backup",
        "encfs",
        "python3",
    ),
]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH of its own, from which a test takes something away."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def test_status(host: Host) -> None:
    none = host.good("status")
    assert "last backup: none yet" in none.stdout
    assert host.run("status", "--max-age", "26").returncode == 12
    host.plane.last = {
        "backup_run_id": "r0",
        "backup_window_id": "w0",
        "snapshot_id": "snap-1",
        "completed_at": "2026-01-01T03:00:00Z",
        "age_seconds": 90000,
    }
    host.plane.run_id, host.plane.outcome, host.plane.reason = "r1", "failed", 'it said "no"'
    shown = host.good("status", "--max-age", "26").stdout
    assert "last backup: 25 h 0 min ago (2026-01-01T03:00:00Z)" in shown
    assert "vault: waking, its window ends in 3 h 20 min" in shown
    assert 'latest run: r1, failed, 1.0 MB pushed (it said "no")' in shown
    old = host.run("status", "--max-age", "24")
    assert old.returncode == 12
    assert "older than 24 h" in old.stderr


@in_every_shell
def test_doctor_finds_nothing_wrong(host: Host) -> None:
    shown = host.good("doctor").stdout
    assert "all is well" in shown
    assert "WRONG" not in shown
    for word in ("curl is installed", "gocryptfs is installed", "FUSE is there", "MiB free", "is yours alone"):
        assert word in shown
    assert "accepts our token" in shown


@pytest.mark.parametrize("tool", ["curl", "rsync", "gocryptfs"])
def test_doctor_on_a_missing_tool(host: Host, tools: Path, tool: str) -> None:
    host.shell = [shutil.which(host.shell[0]) or "sh", *host.shell[1:]]
    (tools / tool).unlink()
    # Only what is linked there counts; the script itself adds folders, which hold none of these here.
    if any(shutil.which(tool, path=folder) for folder in ("/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin", "/sbin")):
        pytest.skip(f"{tool} is in a folder that the client always looks into")
    done = host.run("doctor", PATH=str(tools))
    assert done.returncode == 13, done.stdout + done.stderr
    assert f"WRONG {tool} is not installed" in done.stdout
    assert "apt install" in done.stdout
    assert "brew install" in done.stdout
    assert "pacman -S" in done.stdout
    backup = host.run("backup", PATH=str(tools))
    assert backup.returncode == 3
    assert f"not installed: {tool}" in backup.stderr


def test_doctor_on_what_is_wrong_with_the_host(host: Host) -> None:
    host.configure("keep = encfs", sources=[host.folder / "gone"])
    for path in (host.state / "enrolment", host.state / "key"):
        path.chmod(0o644)
    host.state.chmod(0o755)
    host.plane.scripted["/status"] = [error(403, "Forbidden", "wrong token")]
    done = host.run("doctor")
    assert done.returncode == 13
    for words in (
        "others may read enrolment",
        "others may read key",
        f"others may read {host.state}",
        "issue 604",
        "gone is not there",
        "wrong token",
    ):
        assert words in done.stdout, words
    host.configure("keep = rdiff", "url = http://127.0.0.1:1")
    assert "look at the network" in host.run("doctor").stdout


def test_doctor_before_enrolment(new_host: Host) -> None:
    done = new_host.run("doctor")
    assert done.returncode == 13
    assert "nightvault enroll URL CODE" in done.stdout


def test_an_rsync_that_takes_less(host: Host, tools: Path, tmp_path: Path) -> None:
    """As macOS's does: what it does not take is left out, and the backup is whole all the same."""
    (tools / "rsync").unlink()
    (tools / "rsync").write_text(
        "#!/bin/sh\nfor option; do\n"
        "case $option in --inplace | --sparse | --delete-delay | --info=* | -A | -X) exit 1 ;; esac\n"
        "case $option in -c | -I | --files-from=* | --ignore-missing-args | --log-file=*) exit 1 ;; esac\ndone\n"
        'exec /usr/bin/rsync "$@"\n'
    )
    (tools / "rsync").chmod(0o755)
    (host.source / "file").write_text("x")
    host.shell = [shutil.which(host.shell[0]) or "sh", *host.shell[1:]]
    host.configure("keep = mirror")
    done = host.run("backup", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    rsync = next(line for line in host.vault.gate_log() if line.startswith("rsync"))
    assert "--inplace" not in rsync
    assert "--delete-after" in rsync
    assert "rsync does not take --inplace" in host.run("doctor", PATH=str(tools)).stdout
