"""Each command against the real application on the local cloud: what it asks for happens, and is shown."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost
from tests.vaultctl.helm import Done, OnLocalCloud, vaultctl
from vaultctl.failures import Exit

R1 = "00000000-0000-4000-8000-000000000001"


POLICY = {"linger_seconds": 0, "minimum_window_seconds": 1, "report_seconds": 1, "claim_seconds": 20}


@pytest.fixture
def policy() -> dict[str, int]:
    return POLICY


@pytest.fixture
def cloud(tmp_path: Path, policy: dict[str, int]) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "cloud", machines=False, policy=policy) as made:
        yield made


def run(cloud: LocalCloud, *arguments: str) -> Done:
    return vaultctl(*arguments, invoke=OnLocalCloud(cloud), now=cloud.clock.now, width=200)


def host_of(cloud: LocalCloud, name: str) -> dict[str, Any]:
    return dict(cloud.operate("host", host=name)["host"])


def phase(cloud: LocalCloud) -> str:
    return str(cloud.operate("vaults")["vaults"][0]["phase"])


def back_up(cloud: LocalCloud, host: FakeHost, run_id: str = R1, change: dict[str, int] | None = None) -> None:
    """A whole night of a host that the test plays."""
    assert host.start(run_id).status == 202
    cloud.wait_until(lambda: host.status(run_id).document["ready"], 20, what="the vault is ready")
    cloud.vaults.commit(host.name, run_id, change)
    cloud.wait_until(lambda: host.status(run_id).document["committed"], 20, what="the commit is seen")
    assert host.finish(run_id, bytes_sent=27_300_000, bytes_total=1_000_000_000).status == 200
    cloud.wait_until(lambda: host_of(cloud, host.name)["last"], 20, what="the backup counts")
    cloud.wait_until(lambda: phase(cloud) == "asleep", 20, what="the vault sleeps")


def test_before_there_is_anything(cloud: LocalCloud) -> None:
    for command, hint in (("hosts", "vaultctl enroll HOST"), ("vaults", "vaultctl enroll HOST")):
        done = run(cloud, command)
        assert (done.exit_code, done.out, hint in done.err) == (0, "", True)
    assert run(cloud, "windows").out == "no window in the last 14 days\n"
    assert run(cloud, "hosts", "--check").out == "OK 0 hosts, none overdue\n"
    assert "there is no vault yet" in run(cloud, "wake").err
    assert run(cloud, "doctor", "--json").document["checks"]


def test_a_night_is_seen_everywhere(cloud: LocalCloud) -> None:
    back_up(cloud, cloud.enroll("C"))
    hosts = run(cloud, "hosts")
    assert "ok" in hosts.out.splitlines()[1].split()
    shown = run(cloud, "host", "C").out
    assert "27.3 MB" in shown
    assert "complete" in run(cloud, "restore-points", "C").out
    assert "C complete" in run(cloud, "windows").out
    assert "27.3 MB" in run(cloud, "windows", "--vault", "vault-1").out
    assert "asleep" in run(cloud, "vaults").out
    assert "1 host, none overdue." in run(cloud, "windows", "--plot").out
    assert "in all" in run(cloud, "cost").out
    assert "nightvault" in run(cloud, "about").out


def test_an_overdue_host_is_found_by_monitoring(cloud: LocalCloud) -> None:
    back_up(cloud, cloud.enroll("C"))
    assert run(cloud, "hosts", "--check").exit_code == 0
    cloud.clock.advance(seconds=3 * 86400)
    late = run(cloud, "hosts", "--check")
    assert (late.exit_code, late.out) == (Exit.FOUND_WRONG, "OVERDUE 1 of 1: C (3.0 d)\n")
    assert run(cloud, "hosts").exit_code == 0, "without --check it is only shown"
    assert "OVERDUE" in run(cloud, "hosts").out
    assert run(cloud, "hosts", "--check", "--json").exit_code == Exit.FOUND_WRONG


def test_change(cloud: LocalCloud) -> None:
    cloud.enroll("C")
    done = run(cloud, "change", "C", "--every", "12h", "--max-size-gib", "50", "--ping-url", "https://hc-ping.com/x")
    assert done.out == "C: every 12h, volume up to 50 GiB, ping https://hc-ping.com/x, rests as its volume\n"
    host = host_of(cloud, "C")
    assert (host["every_seconds"], host["max_size_gib"], host["ping_url"]) == (43200, 50, "https://hc-ping.com/x")
    assert "ping nobody" in run(cloud, "change", "C", "--ping-url", "").out
    assert "rests as its snapshot" in run(cloud, "change", "C", "--resting", "snapshot").out
    assert "until its snapshot is proven" in run(cloud, "host", "C").out
    host = host_of(cloud, "C")
    assert (host["every_seconds"], host["resting"], host["rests_as"]) == (43200, "snapshot", None)
    refused = run(cloud, "change", "C", "--ping-url", "http://insecure.example")
    assert (refused.exit_code, "ping_url: " in refused.err) == (Exit.REFUSED, True)


def test_rotate(cloud: LocalCloud) -> None:
    host = cloud.enroll("C")
    done = run(cloud, "rotate", "C")
    assert done.exit_code == 0
    assert " enroll --force http://127.0.0.1" in done.out
    assert host.status().status == 200, "the old token serves until the code is used"
    code = done.out.split()[1]
    again = FakeHost.enrolled(cloud.url, "C", code)
    assert again.status().status == 200
    assert host.status().status == 403
    assert run(cloud, "rotate", "C", "--revoke-now", "--json").document["line"].startswith("echo ")
    assert again.status().status == 403, "at once"


def test_retire(cloud: LocalCloud) -> None:
    host = cloud.enroll("C")
    back_up(cloud, host)
    volume = host_of(cloud, "C")["volume_id"]
    done = run(cloud, "retire", "C", "--yes")
    assert done.exit_code == 0
    assert re.search(rf"Kept: 1 restore points \(.+ stored\), volume {volume} \(1 GiB\)\.", done.out), done.out
    assert host.status().status == 403
    assert "retired" in run(cloud, "hosts").out
    assert run(cloud, "hosts", "--check").exit_code == 0
    gone = run(cloud, "retire", "C", "--yes", "--delete-volume")
    assert f"Deleted, once its vault is at rest: volume {volume}." in gone.out
    assert gone.out.splitlines()[0].endswith(", no volume.")


def test_a_volume_that_holds_more_is_not_deleted(cloud: LocalCloud) -> None:
    host = cloud.enroll("C")
    back_up(cloud, host)
    cloud.faults.fail_snapshot(times=50)
    later = R1.replace("1", "2")
    assert host.start(later).status == 202
    cloud.wait_until(lambda: host.status(later).document["ready"], 20, what="ready")
    cloud.vaults.transfer("C", 1000)
    cloud.wait_until(lambda: host.status(later).document["progress"], 20, what="the transfer is seen")
    cloud.vaults.hang_up("C")
    assert host.finish(later, "failed", 10).status == 200
    cloud.wait_until(lambda: phase(cloud) == "asleep", 20, what="the vault sleeps")
    refused = run(cloud, "retire", "C", "--yes", "--delete-volume")
    assert refused.exit_code == Exit.REFUSED
    assert refused.err.count("\n") == 1
    assert host_of(cloud, "C")["retired_at"] is None, "nothing has changed"


def test_wake_and_sleep(cloud: LocalCloud) -> None:
    cloud.enroll("C")
    woken = run(cloud, "wake", "--for", "30m")
    assert woken.exit_code == 0
    assert "waking" in woken.out
    held = cloud.operate("vaults")["vaults"][0]["held_until"]
    assert held
    cloud.wait_until(lambda: phase(cloud) == "open", 20, what="the vault is open")
    busy = run(cloud, "rebuild-vault", "--yes")
    assert (busy.exit_code, busy.err.count("\n")) == (Exit.REFUSED, 1)
    assert run(cloud, "sleep", "vault-1", "--json").document["vault"]["held_until"] is None
    cloud.wait_until(lambda: phase(cloud) == "asleep", 20, what="the vault sleeps")
    instance = cloud.operate("vaults")["vaults"][0]["instance_id"]
    rebuilt = run(cloud, "rebuild-vault", "--yes")
    assert rebuilt.exit_code == 0
    cloud.wait_until(lambda: cloud.instances()[instance] == "terminated", 20, what="the old machine is given up")


def test_what_the_control_plane_refuses_is_one_line(cloud: LocalCloud) -> None:
    cloud.enroll("C")
    for arguments, words in (
        (["host", "X"], "there is no host 'X'"),
        (["enroll", "a b"], "host: 'a b' must be"),
        (["enroll", "D", "--size-gib", "99999"], "size_gib"),
        (["wake", "vault-9"], "vault-9"),
        (["wake", "--for", "9d"], "minutes"),
        (["cost", "--month", "2026-13"], "month: '2026-13'"),
        (["change", "X", "--every", "1d"], "'X'"),
        (["rotate", "X"], "'X'"),
        (["retire", "X", "--yes"], "'X'"),
        (["sleep", "vault-9"], "vault-9"),
    ):
        done = run(cloud, *arguments)
        assert (done.exit_code, done.out, done.err.count("\n")) == (Exit.REFUSED, "", 1), done
        assert words in done.err


@pytest.mark.parametrize("policy", [{**POLICY, "drill_seconds": 600}])
def test_a_drill_is_begun_watched_and_shown(cloud: LocalCloud) -> None:
    back_up(cloud, cloud.enroll("C"))
    begun = run(cloud, "drill", "C")
    point_id = host_of(cloud, "C")["last"]["snapshot_id"]
    assert begun.out.startswith(f"{point_id} is being checked, as run ")
    assert "vaultctl host C" in begun.err
    cloud.wait_until(lambda: host_of(cloud, "C")["drill"], 30, what="the drill is recorded")
    shown = run(cloud, "host", "C").out
    assert re.search(rf"^last drill +passed .* ago \({point_id}\): ", shown, re.MULTILINE)
    assert re.search(r" drill +complete ", shown)
    assert "complete, proven" in run(cloud, "restore-points", "C").out
    cloud.wait_until(lambda: phase(cloud) == "asleep", 20, what="the vault sleeps")
    assert "C checked" in run(cloud, "windows").out
    refused = run(cloud, "drill", "C", "--point", "snap-0")
    assert (refused.exit_code, "snap-0" in refused.err) == (Exit.REFUSED, True)


def test_a_function_that_raises_is_told_with_its_log(cloud: LocalCloud) -> None:
    cloud.faults.refuse("Query", "InternalServerError", times=50)
    cloud.faults.refuse("Scan", "InternalServerError", times=50)
    done = run(cloud, "hosts")
    assert done.exit_code == Exit.UNFORESEEN
    assert "nightvault-operate failed (InternalServerError: " in done.err
    assert "aws logs tail /aws/lambda/nightvault-operate" in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_cost_of_scenarios_is_that_of_the_cost_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "costs.md").read_text()
    for name, hosts in (("article", "4"), ("10", "10"), ("100", "100"), ("1000", "1,000")):
        done = vaultctl("cost", "--scenario", name)
        assert done.exit_code == 0
        (sums,) = (line for line in done.out.splitlines() if line.startswith("in all"))
        assert f"**{sums.split()[2]}**" in page
        assert done.out.startswith(f"{hosts} hosts of 5 GiB")
        for peer in ("rsync.net", "BorgBase", "Tarsnap", "AWS Backup"):
            assert f"{peer}: " in done.out
        assert done.out.count("https://") >= 5
        assert vaultctl("cost", "--scenario", name, "--json").document["scenario"]["name"] == name
