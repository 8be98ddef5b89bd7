"""What a night leaves on stdout: structured log lines and EMF metrics, and never a secret."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib.control import Control
from chalicelib.enrolment import Enrolment
from chalicelib.model import Policy
from chalicelib.telemetry import PowertoolsTelemetry
from tests.api.conftest import HOST_KEY, R1, R2, Api, install

# What issue 2 asks for, as metrics with the dimensions beside `Stack`.
METRICS = {
    "Runs": "Outcome",
    "SecondsAwake": None,
    "BytesPushed": None,
    "HoursSinceLastBackup": "Host",
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
    hours = {each["Host"]: each["HoursSinceLastBackup"][0] for each in seen.metrics("HoursSinceLastBackup")}
    assert set(hours) == {"C", "H", "N"}
    assert hours["C"] == pytest.approx(72, abs=1)


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
