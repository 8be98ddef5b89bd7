"""The agent: enrolment, reports, and every rule by which it powers the machine off. Rootless, with plain folders."""

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path

import agent
import agent_transfers
import gate_changes
import pytest

from tests.localcloud.patience import wait_until
from tests.vault import vaults
from tests.vault.vaults import CODE, TOKEN, Rootless


def off(vault: vaults.Vault) -> bool:
    return (vault.base / "powered-off").exists()


def events(vault: Rootless) -> list[str]:
    return [json.loads(line)["event"] for line in vault.log.read_text().splitlines()]


def test_when_the_power_goes_off() -> None:
    """On a clock that the test moves."""
    rule = agent.PowerRule(off_at=3600.0)
    assert rule.over(3599.9) is None
    assert rule.over(3600.0) == "no orders ever came"
    rule.ordered(asked_at=100.0, seconds=50.0)
    assert rule.over(149.9) is None
    assert rule.over(150.0) == "the window is over"
    rule.ordered(asked_at=149.0, seconds=50.0)  # newer orders count
    assert rule.over(198.0) is None


def test_enrols_once_and_reports(rootless: Rootless) -> None:
    host = rootless.host("C")
    rootless.attach(host.volume_id)
    rootless.cloud.order(host)
    rootless.start_agent()
    report = rootless.cloud.wait_mounted(host)
    first = rootless.cloud.reports[0]
    assert (first["state"], first["mounts"], first["transfers"], first["commits"]) == ("starting", [], [], [])
    assert (report["instance_id"], report["address"], report["port"]) == (
        "i-0123456789abcdef0",
        "127.0.0.1",
        rootless.port,
    )
    key = rootless.host_key.with_suffix(".pub").read_text().strip()
    assert report["host_keys"] == [key]
    assert report["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    [mount] = report["mounts"]
    assert set(mount) == {"host", "volume_id", "state", "detail", "size_bytes", "free_bytes"}
    assert 0 < mount["free_bytes"] <= mount["size_bytes"]
    assert rootless.cloud.enrolled == [{"code": CODE, "public_key": key}]
    token = rootless.base / "state" / "token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == (TOKEN + "\n", 0o600)
    # Another boot: the same token, no code.
    assert rootless.stop_agent() == 0
    seen = len(rootless.cloud.reports)
    rootless.start_agent()
    rootless.cloud.wait_mounted(host, after=seen)
    assert len(rootless.cloud.enrolled) == 1


def test_told_by_its_tags_where_the_control_plane_is(rootless: Rootless) -> None:
    rootless.start_agent(control_url=None)
    wait_until(lambda: rootless.log.exists() and "tag nightvault-url" in rootless.log.read_text(), 20)
    rootless.cloud.metadata["tags/instance/nightvault-url"] = rootless.cloud.url + "/"
    rootless.cloud.wait_for(lambda report: report["state"] == "ready")


def test_a_rejected_token_and_a_new_code(rootless: Rootless) -> None:
    rootless.start_agent()
    rootless.cloud.wait_for(lambda report: report["state"] == "ready")
    # The vault was given to another instance, and back: an operator put a new code in the tag.
    rootless.cloud.token = "nv1.@vault-1.YW5vdGhlcg"
    rootless.cloud.codes.add("another-code")
    rootless.cloud.metadata["tags/instance/nightvault-code"] = "another-code"
    seen = len(rootless.cloud.reports)
    rootless.poke()
    rootless.cloud.wait_for(lambda report: report["state"] == "ready", after=seen)
    assert (rootless.base / "state" / "token").read_text() == rootless.cloud.token + "\n"


def test_a_code_that_is_refused_is_not_tried_for_ever(rootless: Rootless) -> None:
    rootless.cloud.codes.clear()
    rootless.start_agent()
    wait_until(lambda: rootless.log.exists() and "no fresh code" in rootless.log.read_text(), 20)
    assert len(rootless.cloud.enrolled) == 1
    assert rootless.stop_agent() == 0


@pytest.mark.parametrize("answer", [(500, ""), (429, "SlowDown"), (503, "Busy"), (409, "Conflict"), (400, "BadField")])
def test_goes_on_after_failures(rootless: Rootless, answer: tuple[int, str]) -> None:
    rootless.cloud.refusals = [answer]
    rootless.start_agent()
    rootless.cloud.wait_for(lambda report: report["state"] == "ready")
    assert "report_failed" in events(rootless)
    assert not off(rootless)


def test_goes_on_after_answers_that_are_no_orders(rootless: Rootless) -> None:
    good = rootless.cloud.orders
    rootless.cloud.orders = {"hosts": "none"}
    rootless.start_agent()
    wait_until(lambda: "report_failed" in (rootless.log.read_text() if rootless.log.exists() else ""))
    rootless.cloud.orders = good
    rootless.cloud.wait_for(lambda report: report["state"] == "ready")


def test_ordered_to_power_off(rootless: Rootless) -> None:
    [host] = vaults.mounted(rootless, "C")
    run_id = str(uuid.uuid4())
    host.ssh("begin", run_id)
    host.ssh("commit", run_id)
    seen = rootless.cloud.order(host, power_off=True)
    rootless.poke()
    assert rootless.wait_agent() == 0
    assert off(rootless)
    last = rootless.cloud.wait_for(lambda report: report["state"] == "stopping", after=seen)
    assert last["commits"] == [{"host": "C", "run_id": run_id}]
    assert not (rootless.base / "mnt" / "C").is_symlink()
    assert not list((rootless.base / "keys").iterdir())


def test_a_stale_vault_powers_off(rootless: Rootless) -> None:
    rootless.cloud.refusals = [(409, "StaleVault")]
    rootless.start_agent()
    assert rootless.wait_agent() == 0
    assert off(rootless)
    assert rootless.cloud.reports == []  # told once, it does not ask again


def test_powers_off_when_its_time_is_over_and_nobody_answers(rootless: Rootless) -> None:
    rootless.cloud.order(seconds_to_power_off=1, report_every_seconds=60)
    rootless.start_agent()
    rootless.cloud.wait_for(lambda report: report["state"] == "starting")
    rootless.cloud.refusals = [(500, "")] * 100
    assert rootless.wait_agent() == 0
    assert off(rootless)
    assert "power_off" in events(rootless)


def test_powers_off_when_no_orders_ever_come(rootless: Rootless) -> None:
    rootless.cloud.refusals = [(500, "")] * 100
    rootless.start_agent(power_off_without_orders_seconds=1)
    assert rootless.wait_agent() == 0
    assert off(rootless)


def test_newer_orders_put_it_off(rootless: Rootless) -> None:
    rootless.cloud.order(seconds_to_power_off=2, report_every_seconds=1)
    rootless.start_agent()
    wait_until(lambda: len(rootless.cloud.reports) >= 6, 20)  # one a second: past the first order's end
    assert not off(rootless)
    assert rootless.stop_agent() == 0
    assert not off(rootless)


def test_power_off_is_tried_again(rootless: Rootless, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, so that the ten seconds between need not pass."""
    monkeypatch.setattr(agent, "_POWER_OFF_AGAIN_SECONDS", 0.01)
    script = rootless.base / "off"
    script.write_text(f"#!/bin/sh\necho x >> {rootless.base}/tries\n[ $(wc -l < {rootless.base}/tries) -ge 3 ]\n")
    script.chmod(0o755)
    rootless.cloud.order(power_off=True)
    config = rootless.write_config(power_off_command=[str(script)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert agent.main(["--config", str(config)]) == 0
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (rootless.base / "tries").read_text() == "x\n" * 3


def test_sigterm_in_the_middle_of_a_push(vault: vaults.Machine | Rootless, tmp_path: Path) -> None:
    [host] = vaults.mounted(vault, "C")
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    host.ssh("begin", str(uuid.uuid4()))
    with subprocess.Popen(
        host.rsync_command("--inplace", "--bwlimit=2000", f"{tmp_path}/big", "127.0.0.1:."), stderr=subprocess.DEVNULL
    ) as client:
        report = vault.cloud.wait_for(lambda report: report["transfers"])
        assert report["transfers"][0]["host"] == "C"
        # It tells how far it is, not only that it runs.
        vault.cloud.wait_for(lambda r: r["transfers"] and r["transfers"][0]["transfer_bytes"] > 1_000_000)
        seen = len(vault.cloud.reports)
        assert vault.stop_agent() == 0
        assert client.wait(10) != 0
    last = vault.cloud.wait_for(lambda report: report["state"] == "stopping", after=seen)
    assert (last["transfers"], last["mounts"]) == ([], [])
    if isinstance(vault, vaults.Machine):
        assert "/mnt/C" not in vault.run("cat", "/proc/mounts").stdout
    assert not off(vault)


def test_an_agent_that_was_killed_and_started_again(vault: vaults.Machine | Rootless, tmp_path: Path) -> None:
    """It finds what it left: mounts, and the push that went on without it."""
    [host] = vaults.mounted(vault, "C")
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    host.ssh("begin", str(uuid.uuid4()))
    with subprocess.Popen(
        host.rsync_command("--inplace", "--bwlimit=2000", f"{tmp_path}/big", "127.0.0.1:."), stderr=subprocess.DEVNULL
    ) as client:
        vault.cloud.wait_for(lambda report: report["transfers"])
        assert vault.stop_agent(signal.SIGKILL) == -signal.SIGKILL
        seen = len(vault.cloud.reports)
        vault.start_agent()
        vault.cloud.wait_for(
            lambda r: r["state"] == "ready" and r["mounts"][0]["state"] == "mounted" and r["transfers"], after=seen
        )
        assert client.poll() is None
        client.kill()


def test_the_last_report_does_not_hold_up_the_end(rootless: Rootless) -> None:
    rootless.start_agent()
    rootless.cloud.wait_for(lambda report: report["state"] == "ready")
    rootless.cloud.close()  # nobody listens any more
    assert rootless.stop_agent() == 0


def test_the_token_is_never_shown(rootless: Rootless) -> None:
    [host] = vaults.mounted(rootless, "C")
    rootless.cloud.refusals = [(500, ""), (403, "TokenRefused")]
    host.ssh("begin", str(uuid.uuid4()))
    rootless.poke()
    wait_until(lambda: "report_failed" in events(rootless))
    shown = rootless.log.read_text()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            shown += (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue
    assert TOKEN.rsplit(".", 1)[1] not in shown
    assert CODE not in shown


def test_what_commits_change_is_told_to_who_takes_it(rootless: Rootless) -> None:
    """A control plane that is older than the vault refuses what it does not know, and must not lose the rest."""
    [host] = vaults.mounted(rootless, "C")
    commit = {"run_id": str(uuid.uuid4()), "change": dict.fromkeys(gate_changes.CHANGE, 7)}
    (rootless.volume(host) / "committed.json").write_text(json.dumps(commit))
    rootless.poke()
    rootless.cloud.wait_for(lambda report: report["commits"] == [{"host": "C", **commit}])
    rootless.cloud.refusals.append((400, "BadRequest"))
    rootless.cloud.wait_for(lambda report: report["commits"] == [{"host": "C", "run_id": commit["run_id"]}])


def test_commits_are_read_with_suspicion(tmp_path: Path) -> None:
    run_id = str(uuid.uuid4())
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"run_id": run_id}))
    place = tmp_path / "C"
    place.mkdir()
    file = place / "committed.json"
    assert agent_transfers.commit_of(place) is None
    for text in (
        "",
        "[]",
        "null",
        '{"run_id":5}',
        '{"run_id":"../../x"}',
        '{"run_id":"' + run_id + '\\n"}',
        "x" * 9999,
    ):
        file.write_text(text)
        assert agent_transfers.commit_of(place) is None
    file.unlink()
    file.symlink_to(secret)
    assert agent_transfers.commit_of(place) is None
    file.unlink()
    os.mkfifo(file)
    assert agent_transfers.commit_of(place) is None
    file.unlink()
    file.write_text(secret.read_text())
    assert agent_transfers.commit_of(place) == {"run_id": run_id}
    change = dict.fromkeys(gate_changes.CHANGE, 7)
    odd = ({"files_after": -1}, {"files_after": True}, {"bytes_after": 2**53 + 1}, {"bytes_after": 1.5}, {"more": 1})
    for told in (change, *({**change, **each} for each in odd), {"files_after": 1}, 5, []):
        file.write_text(json.dumps({"run_id": run_id, "change": told}))
        expected = {"run_id": run_id} | ({"change": told} if told is change else {})
        assert agent_transfers.commit_of(place) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"control_url":1}', "control_url"),
        ('{"control_url":"http://x","prot":22}', "prot"),
        ('{"control_url":"http://x","port":"22"}', "port"),
        ('{"control_url":"http://x","accounts":"many"}', "accounts"),
        ('{"control_url":"http://x","host_key_files":[]}', "host_key_files"),
        ('{"control_url":"http://x","gate":"/a b/gate.py"}', "path"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    tmp_path: Path, config: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.json").write_text(config)
    assert agent.main(["--config", str(tmp_path / "agent.json")]) == 2
    assert said in capsys.readouterr().err
