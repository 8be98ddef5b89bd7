"""What a night leaves on stdout: structured log lines and EMF metrics, and never a secret."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.control import Control
from chalicelib.enrolment import Enrolment
from chalicelib.model import Agent, Ceiling, Host, Kind, Mount, Policy, Vault, Window
from chalicelib.telemetry import FRESH, PowertoolsTelemetry
from tests.api.conftest import HOST_KEY, R1, R2, Api, install
from tests.fakes import told as fakes

# What issue 2 asks for, as metrics with the dimensions beside `Stack`.
METRICS = {
    "Runs": "Outcome",
    "SecondsAwake": None,
    "BytesPushed": None,
    "HoursSinceLastBackup": None,  # all hosts in one line: a metric a host would cost more than its backups
    "OverdueHosts": None,
    "WakingSeconds": None,
}


@dataclass
class Told:
    """Everything that was written."""

    text: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.strip()]

    def logs(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("message") == message]

    def metrics(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if "_aws" in line and name in line]


@pytest.fixture
def telling(api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The same world, told through Powertools."""
    stream = io.StringIO()
    telemetry = PowertoolsTelemetry("test-stack")
    for handler in telemetry._logger.handlers:
        monkeypatch.setattr(handler, "stream", stream)
    world = api.world
    world.told = telemetry  # type: ignore[assignment]
    world.control = Control(
        store=world.store,
        cloud=world.cloud,
        notifier=_Silent(),
        telemetry=telemetry,
        clock=world.clock,
        policy=Policy(),
        pause=lambda _: None,
        pinger=fakes.Told(),
    )
    world.enrolment = Enrolment(world.control)
    install(world)
    api.logged = stream  # type: ignore[attr-defined]
    capsys.readouterr()
    yield api


class _Silent:
    def notify(self, subject: str, message: str) -> None: ...


def night(api: Api) -> None:
    """C completes; H fails; one start is refused; then days without a backup."""
    api.enrol("N")
    api.start("C", R1)
    api.start("H", R2)
    api.world.clock.advance(42)
    api.boot()
    api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 7}])
    api.report(commits=[{"host": "C", "run_id": R1}])
    api.finish("H", R2, "failed", exit_code=5)
    api.finish("C", R1, stats={"bytes_sent": 4711})
    api.world.arrive()
    api.call("GET", "/status", token="nv1.C." + "x" * 43)
    api.call("POST", "/enroll", {"code": "not-a-code-of-ours", "public_key": HOST_KEY})
    api.world.clock.advance(3 * 86400)
    api.world.clock.instant = api.world.clock.instant.replace(minute=15)
    api.world.control.sweep()


def told(api: Api, capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys.readouterr().out + api.logged.getvalue())  # type: ignore[attr-defined]


def test_the_metrics_of_a_night(telling: Api, capsys: pytest.CaptureFixture[str]) -> None:
    night(telling)
    seen = told(telling, capsys)
    for name, dimension in METRICS.items():
        found = seen.metrics(name)
        assert found, f"no metric {name}"
        for each in found:
            (declared,) = each["_aws"]["CloudWatchMetrics"]
            assert declared["Namespace"] == "nightvault"
            assert each["Stack"] == "test-stack"
            assert set(declared["Dimensions"][0]) == {"Stack"} | ({dimension} if dimension else set())
    assert sorted(each["Outcome"] for each in seen.metrics("Runs")) == ["complete", "failed"]
    assert [each["WakingSeconds"] for each in seen.metrics("WakingSeconds")] == [[42.0]]
    assert [each["BytesPushed"] for each in seen.metrics("BytesPushed")] == [[4711.0]]
    assert [each["OverdueHosts"] for each in seen.metrics("OverdueHosts")][-1] == [3.0]
    (awake,) = seen.metrics("SecondsAwake")
    assert awake["SecondsAwake"][0] >= 42
    hours = seen.metrics("HoursSinceLastBackup")[-1]["HoursSinceLastBackup"]
    assert hours == [pytest.approx(72, abs=1)] * 3
    assert seen.metrics("OverdueHosts")[-1]["hosts"] == ["C", "H", "N"]


def test_two_hundred_hosts_are_no_more_metrics_than_two(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    host = Host(name="h", vault_id="vault-1", token_hash="", uid=1, size_gib=5, every_seconds=86400, enrolled_at=now)
    capsys.readouterr()
    hosts = [replace(host, name=f"h{n}", enrolled_at=now - timedelta(hours=n)) for n in range(200)]
    PowertoolsTelemetry("test-stack").gauges(hosts, [], now)
    lines = Told(capsys.readouterr().out).metrics("HoursSinceLastBackup")
    assert sorted(hour for line in lines for hour in line["HoursSinceLastBackup"]) == list(range(200))
    assert all(len(line["HoursSinceLastBackup"]) <= 100 for line in lines), "EMF takes no more in a line"
    assert {tuple(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) for line in lines} == {("Stack",)}


def test_a_vault_past_its_window_and_full_volumes_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    ceiling = Ceiling(since=now, closes_at=now - timedelta(minutes=20))
    window = Window(window_id="w", vault_id="vault-1", opened_at=now, ceilings={Kind.BACKUP: ceiling})
    mounts = {
        "C": Mount(volume_id="vol-1", mounted=True, size_bytes=1000, free_bytes=50),
        "H": Mount(volume_id="vol-2", mounted=False),
    }
    agent = Agent(token_hash="", host_key="", reported_at=now, mounts=mounts)
    vault = Vault(vault_id="vault-1", window=window, agent=agent)
    asleep, silent = replace(vault, window=None), replace(vault, agent=replace(agent, reported_at=now - FRESH * 2))
    telemetry = PowertoolsTelemetry("test-stack")
    capsys.readouterr()
    for each in (vault, asleep, silent):
        telemetry.past_window([each], now)
        telemetry.gauges([], [each], now)
    seen = Told(capsys.readouterr().out)
    assert [line["SecondsPastWindow"] for line in seen.metrics("SecondsPastWindow")] == [[1200.0], [1200.0]]
    assert [line["VolumeFill"] for line in seen.metrics("VolumeFill")] == [[pytest.approx(95)]] * 2


def test_the_log_of_a_night(telling: Api, capsys: pytest.CaptureFixture[str]) -> None:
    night(telling)
    seen = told(telling, capsys)
    (ended,) = [line for line in seen.logs("run_ended") if line["host"] == "C"]
    assert (ended["run_id"], ended["outcome"], ended["exit_code"]) == (R1, "complete", 0)
    decided = seen.logs("decided")
    assert {"vault_id", "command", "phase", "reason"} <= set(decided[0])
    assert {line["phase"] for line in decided} >= {"waking", "open", "closing", "asleep"}
    assert [line["code"] for line in seen.logs("refused")] == ["CodeRefused"]
    for line in seen.lines:
        if "_aws" not in line:
            assert line["service"] == "nightvault"
            assert line["level"] in ("INFO", "ERROR")


def test_each_line_is_written_once(telling: Api, capsys: pytest.CaptureFixture[str]) -> None:
    night(telling)
    assert len(told(telling, capsys).logs("vault_ready")) == 1


def test_no_secret_is_ever_told(telling: Api, capsys: pytest.CaptureFixture[str]) -> None:
    night(telling)
    text = told(telling, capsys).text
    assert text
    secrets = [token.rsplit(".", 1)[1] for token in telling.tokens.values()] + telling.codes + ["not-a-code-of-ours"]
    for secret in secrets:
        assert secret not in text
    for word in ("Bearer", "nv1.", "authorization", "Authorization"):
        assert word not in text
