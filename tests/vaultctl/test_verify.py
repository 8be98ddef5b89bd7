"""`verify-deployment` on the cloud on one machine: real sshd, agent, client and rsync; and its failures."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.pricing.table import LISTED
from tests.e2e.nights import POLICY
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.interposer import plain_client
from tests.localcloud.paths import REPOSITORY
from tests.vaultctl.helm import Done, OnLocalCloud, vaultctl
from tests.vaultctl.lambda_front import command, lambda_front, run
from vaultctl.failures import Exit
from vaultctl.verify import heard
from vaultctl.verify.estimate import estimate
from vaultctl.verify.pull import compare
from vaultctl.verify.steps import NotSo, Step, Steps

WHOLE = [
    *("enrol", "token", "vault", "wake", "push", "commit", "closing", "snapshot", "counts"),
    *("wake·again", "pull·back", "sleep", "events", "doctor", "clean·up"),
]
FAST = ("verify-deployment", "--yes", "--size-mib", "1", "--poll-seconds", "0.1")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "cloud", policy=POLICY) as made:
        yield made


def verify(cloud: LocalCloud, *more: str) -> tuple[Done, dict[str, Step]]:
    done = vaultctl(*FAST, "--json", *more, invoke=OnLocalCloud(cloud))
    return done, {each["name"].replace(" ", "·"): Step(**each) for each in done.document["steps"]}


def retired(cloud: LocalCloud, name: str) -> dict[str, Any]:
    """The throw-away host, of which nothing lives any more."""
    (host,) = cloud.operate("hosts")["hosts"]
    assert host["name"] == name
    assert host["retired_at"]
    assert host["live_run_id"] is None
    return dict(host)


def hosts_volumes() -> list[str]:
    """Volumes of hosts that EC2 has; roots are not among them."""
    found = plain_client("ec2").describe_volumes()["Volumes"]
    return [each["VolumeId"] for each in found if any(tag["Key"] == "nightvault:host" for tag in each.get("Tags", ()))]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go: a folder of this test's own, which must be empty afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked anew
    return folder


def test_a_whole_night_and_nothing_left(cloud: LocalCloud, temporary: Path) -> None:
    done, steps = verify(cloud)
    assert done.exit_code == 0, done.out + done.err
    assert list(steps) == WHOLE
    levels = {name: step.level for name, step in steps.items() if name not in ("events", "doctor")}
    assert set(levels.values()) == {"ok"}, steps
    assert "paths came back as they were pushed" in steps["pull·back"].what
    assert all(step.seconds >= 0 for step in steps.values())
    retired(cloud, done.document["host"])
    assert hosts_volumes() == []
    assert len(cloud.snapshots()) == 1
    assert cloud.snapshots()[0]["tags"]["nightvault:label"] == "complete"
    assert set(cloud.instances().values()) == {"stopped"}
    assert len(cloud.calls("StopInstances", ended="ok")) == 2, "one waking to push, one to pull"
    assert done.document["left"] == [f"1 restore point of {done.document['host']}, a few MiB"]
    assert list(temporary.iterdir()) == []
    assert not cloud.failures


def test_events_alone_carry_the_night(tmp_path: Path) -> None:
    """No sweep runs before the host is retired: what is noticed, events and the agent's reports have brought."""

    class SweptAtTheEnd(OnLocalCloud):
        def __call__(self, payload: bytes) -> tuple[bytes, str | None]:
            if retirement and json.loads(payload)["action"] == "cost":
                cloud.sweep()  # volumes on their way out are the sweep's
            retirement.extend([payload] if b'"retire"' in payload else [])
            return super().__call__(payload)

    retirement: list[bytes] = []
    with LocalCloud(tmp_path / "cloud", policy=POLICY, sweep_every=None) as cloud:
        done = vaultctl(*FAST, "--no-restore", "--json", invoke=SweptAtTheEnd(cloud))
        steps = {each["name"]: Step(**each) for each in done.document["steps"]}
        assert {steps[name].level for name in ("closing", "snapshot", "counts", "sleep", "clean up")} == {"ok"}


def test_a_snapshot_that_fails_is_said_and_made_again(cloud: LocalCloud) -> None:
    cloud.faults.fail_snapshot()
    done, steps = verify(cloud, "--no-restore")
    assert cloud.faults.pending() == 0
    assert done.exit_code == 0, done.out
    assert steps["snapshot"].level in ("ok", "warning"), "it may be made again between two looks"
    assert len(cloud.calls("CreateSnapshot", ended="ok")) == 2


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's pauses, of which it makes half a minute before it gives a push up, last a tenth of a second."""
    folder = tmp_path / "hurried"
    folder.mkdir()
    (folder / "sleep").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 0.1\n")
    (folder / "sleep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.usefixtures("hurried")
def test_a_push_that_fails_is_found_and_cleaned_up(cloud: LocalCloud, temporary: Path) -> None:
    cloud.cut_connections(100_000, times=50)
    done, steps = verify(cloud)
    assert done.exit_code == Exit.FOUND_WRONG
    assert {name for name, step in steps.items() if step.level == "wrong"} == {"push"}
    assert "ended with 10" in steps["push"].what
    assert "the connection failed" in done.err, "the client's own words"
    assert list(steps)[-2:] == ["push", "clean·up"]
    host = retired(cloud, done.document["host"])
    # No whole restore point holds what was pushed, so the control plane keeps the volume, and we say so.
    assert hosts_volumes() == [host["volume_id"]]
    assert any(f"--volume-id {host['volume_id']}" in each for each in done.document["left"])
    assert set(cloud.instances().values()) == {"stopped"}
    assert list(temporary.iterdir()) == []


def test_a_vault_that_never_comes_up(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud", policy={**POLICY, "wake_timeout_seconds": 1, "retry_seconds": 1}) as cloud:
        cloud.faults.never_boot(times=50)
        done = vaultctl(*FAST, "--patience", "0.1", "--json", invoke=OnLocalCloud(cloud))
        assert done.exit_code == Exit.FOUND_WRONG
        wrong = [each["name"] for each in done.document["steps"] if each["level"] == "wrong"]
        assert wrong == ["wake"]
        retired(cloud, done.document["host"])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminated"])
@pytest.mark.parametrize("after", ["token", "wake"])
def test_interrupted_it_cleans_up_too(cloud: LocalCloud, temporary: Path, sign: signal.Signals, after: str) -> None:
    with lambda_front({"nightvault-operate": OnLocalCloud(cloud)}) as front:
        process = subprocess.Popen(
            command(*FAST, "--size-mib", "100"),
            cwd=REPOSITORY,
            env={**front.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if process.stdout is None:
            raise AssertionError("it was piped")
        seen = ""
        for line in process.stdout:
            seen += line
            if f" {after}: " in line:
                break
        process.send_signal(sign)
        seen += process.stdout.read()
        assert process.wait() == Exit.INTERRUPTED, seen
    assert "clean up: nv-verify-" in seen, seen
    assert "ok" in next(line for line in seen.splitlines() if " clean up: " in line), seen
    (host,) = cloud.operate("hosts")["hosts"]
    retired(cloud, host["name"])
    runs = cloud.operate("host", host=host["name"])["runs"]
    assert all(each["outcome"] for each in runs)
    assert set(cloud.instances().values()) <= {"stopped"}
    assert list(temporary.iterdir()) == []


def test_it_asks_and_says_what_it_costs_first(cloud: LocalCloud) -> None:
    with lambda_front({"nightvault-operate": OnLocalCloud(cloud)}) as front:
        done = run("verify-deployment", environment=front.environment)
        assert done.returncode == Exit.USAGE
        assert "dollars at most" in done.stderr
        assert "add --yes" in done.stderr
        lacking = run("verify-deployment", "--yes", environment={**front.environment, "PATH": "/nonexistent"})
        assert lacking.returncode == Exit.USAGE
        assert "rsync, ssh, ssh-keygen" in lacking.stderr
    assert cloud.operate("hosts")["hosts"] == []


def test_json_is_one_document(cloud: LocalCloud) -> None:
    with lambda_front({"nightvault-operate": OnLocalCloud(cloud)}) as front:
        done = run(*FAST, "--no-restore", "--json", environment=front.environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert document["estimate"]["dollars"] > 0


AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "arc"),
    [([], 0), ([7], 0), ([7, 67, 127], 0), ([58, 62, 120], 4), ([0, 30], 30), ([0, 20, 40], 40), ([10, 35, 71], 25)],
)
def test_how_far_apart_instants_lie_on_the_minutes_circle(seconds: list[float], arc: float) -> None:
    noticed = [AT + timedelta(seconds=each) for each in seconds]
    assert heard.spread(noticed) == pytest.approx(arc)
    assert heard.verdict(noticed)[0] == ("ok" if arc > heard.JITTER_SECONDS else "warning")


def test_the_estimate_is_of_the_price_table() -> None:
    made = estimate(LISTED, new_vault=False)
    assert made.dollars == pytest.approx(0.2 * (0.0168 + 0.005) + 0.08 / 730)
    assert made.kept_dollars == pytest.approx(0.01 * 0.05)
    assert estimate(LISTED, new_vault=True).kept_dollars == pytest.approx(0.01 * 0.05 + 8 * 0.08)


@pytest.mark.parametrize("harm", ["content", "mode", "time", "missing", "more", "link"])
def test_the_comparison_sees_every_difference(tmp_path: Path, harm: str) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "in").mkdir(parents=True)
        (folder / "in" / "file").write_text("same")
        (folder / "link").symlink_to("in/file")
        os.utime(folder / "in" / "file", (1, 1))
    assert compare(tmp_path / "a", tmp_path / "b") == 3
    changed = tmp_path / "b" / "in" / "file"
    if harm == "content":
        changed.write_text("else")
        os.utime(changed, (1, 1))
    elif harm == "mode":
        changed.chmod(0o600)
    elif harm == "time":
        os.utime(changed, (2, 2))
    elif harm == "missing":
        changed.unlink()
    elif harm == "more":
        (tmp_path / "b" / "more").touch()
    else:
        (tmp_path / "b" / "link").unlink()
        (tmp_path / "b" / "link").symlink_to("in")
    with pytest.raises(NotSo, match=r"1 paths differ"):
        compare(tmp_path / "a", tmp_path / "b")


def test_a_step_that_raises_is_wrong_and_timed() -> None:
    told: list[Step] = []
    steps = Steps(told.append, lambda _: None, pause_seconds=0.001)
    with pytest.raises(NotSo), steps.step("look"):
        steps.wait(lambda: None, 0.01, "it happens")
    assert [(each.name, each.level, each.what) for each in told] == [("look", "wrong", "it happens: not within 0 s")]
    assert steps.wrong == told
