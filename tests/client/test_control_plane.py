"""Enrolling, and what the control plane refuses."""

from __future__ import annotations

import stat
import subprocess

from tests.client.harness import CODE, TOKEN, Host, error


def test_enroll(new_host: Host) -> None:
    new_host.good("enroll", new_host.plane.url + "/", CODE)
    assert stat.S_IMODE((new_host.state / "enrolment").stat().st_mode) == 0o600
    assert stat.S_IMODE((new_host.state / "key").stat().st_mode) == 0o600
    [request] = new_host.plane.bodies("/enroll")
    assert request["public_key"] == (new_host.state / "key.pub").read_text().strip()
    assert request["public_key"].startswith("ssh-ed25519 ")
    assert TOKEN in (new_host.state / "enrolment").read_text()
    new_host.good("status")
    assert new_host.plane.tokens[-1] == f"Bearer {TOKEN}"

    before = {path.name: path.read_bytes() for path in new_host.state.iterdir()}
    again = new_host.run("enroll", new_host.plane.url, CODE)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert {path.name: path.read_bytes() for path in new_host.state.iterdir()} == before
    new_host.good("enroll", "--force", new_host.plane.url, CODE)
    assert (new_host.state / "key").read_bytes() != before["key"]


def test_code_on_stdin(new_host: Host) -> None:
    command = new_host.command("enroll", new_host.plane.url, "-")
    subprocess.run(command, input=f"{CODE}\n", text=True, check=True, stdout=subprocess.DEVNULL)
    assert new_host.plane.bodies("/enroll")[0]["code"] == CODE


def test_a_failed_enrolment_leaves_nothing(new_host: Host) -> None:
    refused = new_host.run("enroll", new_host.plane.url, 'wrong "code\\')
    assert refused.returncode == 7
    assert 'CodeRefused: this code is used, "expired" or unknown' in refused.stderr
    assert new_host.plane.bodies("/enroll")[0]["code"] == 'wrong "code\\'
    new_host.plane.scripted["/enroll"] = [error(200, "x", "y")]
    assert new_host.run("enroll", new_host.plane.url, CODE).returncode == 6
    assert new_host.run("enroll", "http://example.com", CODE).returncode == 2
    assert new_host.run("enroll", "http://127.0.0.1:1", CODE).returncode == 6
    assert list(new_host.state.iterdir()) == []
    assert new_host.run("backup").returncode == 3


def test_a_spent_window(host: Host) -> None:
    (host.source / "file").touch()
    host.configure("keep = directory")
    host.plane.scripted["/start"] = [error(429, "WindowSpent", "3.6 h of 3.6 h used", Retry_After="36000")]
    done = host.run("backup")
    assert done.returncode == 8
    assert "again in 10 h 0 min" in done.stderr
    assert "3.6 h of 3.6 h used" in done.stderr
    assert len(host.plane.bodies("/start")) == 1
    assert host.plane.bodies("/finish") == []


def test_refusals_and_silence(host: Host) -> None:
    (host.source / "file").touch()
    host.configure("keep = directory")
    host.plane.scripted["/start"] = [error(403, "Forbidden", "wrong token")]
    done = host.run("backup")
    assert done.returncode == 7
    assert "Forbidden: wrong token" in done.stderr
    assert host.plane.bodies("/finish") == []

    host.plane.scripted["/start"] = [error(500, "Internal", "oops", Retry_After="0")] * 2
    host.plane.scripted["/finish"] = [error(404, "UnknownRun", "no such run")]
    assert host.run("backup").returncode == 6
    assert len(host.plane.bodies("/finish")) == 1  # the run may have begun: its end is told in any case

    host.configure("keep = directory", "url = http://127.0.0.1:1")
    done = host.run("status")
    assert done.returncode == 6
    assert "http://127.0.0.1:1" in done.stderr


def test_a_finish_that_nobody_hears(host: Host) -> None:
    (host.source / "file").touch()
    host.configure("keep = directory")
    host.plane.scripted["/finish"] = [error(500, "Internal", "oops", Retry_After="0")] * 2
    done = host.run("backup")
    assert done.returncode == 6
    assert "committed" in done.stderr
    assert (host.vault.volume / "current").exists()
