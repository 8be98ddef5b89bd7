"""Each alarm is raised by its fault, by nothing else, and by no good night."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import CloudRefused
from chalicelib.model import DrillState, Phase
from deploy.alarms import ALARMS
from deploy.policies import FUNCTIONS
from tests.unit.test_unusual_nights import QUIET, WIPE
from tests.watch.cloudwatch import Metrics, Watch
from tests.watch.nights import R, Watched, drill, opened, report


@pytest.fixture(params=[0, 2, 5])
def stack(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Watched:
    """With each number of periods that CloudWatch might look at beyond what an alarm asks for."""
    stack = Watched(capsys, request.param)
    stack.world.enrol("C", "H")
    stack.minutes(20)
    # Where missing data is breaching, a new alarm is up until its first data come; docs/runbooks say so.
    assert stack.raised <= {"sweep-not-running"}
    assert stack.up == set(), "an alarm is up before anything has happened"
    for watch in stack.watches.values():
        watch.history.clear()
    return stack


def test_good_nights_raise_nothing(stack: Watched) -> None:
    for number in range(3):
        stack.night(number, "C", "H")
    assert stack.raised == set()
    assert {watch.state for watch in stack.watches.values()} == {"OK"} | (
        {"INSUFFICIENT_DATA"} if stack.watches["volume-nearly-full"].state == "INSUFFICIENT_DATA" else set()
    )


def test_a_window_that_is_used_to_its_end_spends_the_daily_budget(stack: Watched) -> None:
    opened(stack, "C")
    while stack.world.vault.window:
        if stack.world.vault.phase is Phase.OPEN:
            stack.world.report(transfers={"C": 5})
        stack.minute()
        stack.world.cloud.settle()
    stack.minutes(2)
    assert stack.up == {"daily-budget-spent"}
    stack.minutes(60)
    assert stack.raised == {"daily-budget-spent"}


def test_a_host_overdue(stack: Watched) -> None:
    stack.night(0, "C")
    stack.minutes(22 * 60)
    assert stack.raised == set()
    stack.minutes(2 * 60)  # two days since H was enrolled
    assert stack.up == {"host-overdue"}
    stack.night(3, "C", "H")
    assert stack.up == set()
    assert stack.raised == {"host-overdue"}


def test_a_vault_awake_past_its_window(stack: Watched) -> None:
    opened(stack, "C")
    ends = stack.world.vault.window.closes_at if stack.world.vault.window else None
    assert ends
    while stack.world.clock.now() < ends + timedelta(minutes=14):
        stack.world.report(transfers={"C": 5}) if stack.world.clock.now() < ends else None
        stack.minute()  # EC2 takes the stop, and the machine goes on
    assert stack.raised == set()
    stack.minutes(8)
    assert stack.up == {"vault-awake-past-window"}
    stack.world.cloud.settle()
    stack.minutes(45)
    assert stack.up == set()


def test_a_wake_that_failed(stack: Watched) -> None:
    def refuse(vault: Any) -> str:
        raise CloudRefused("RunInstances", "InsufficientInstanceCapacity", "none left")

    stack.world.cloud.launch = refuse  # type: ignore[method-assign]
    stack.world.start("C", R(1))
    stack.minutes(30)
    assert stack.raised == {"wake-failed"}


def test_a_wake_that_failed_once_and_then_did_not(stack: Watched) -> None:
    stack.world.cloud.refuse_calls = {len(stack.world.cloud.calls) + n for n in (1, 2, 3)}
    stack.world.start("C", R(1))
    stack.minutes(3)
    stack.world.boot()
    stack.minutes(5)
    stack.world.finish("C", R(1))
    stack.minutes(2)
    stack.world.arrive()
    stack.minutes(30)
    assert stack.raised == set()


def test_a_snapshot_that_failed_for_good(stack: Watched) -> None:
    opened(stack)
    for n, host in enumerate(("C", "H")):
        stack.world.commit(host, R(n))
        stack.world.finish(host, R(n))
    stack.world.cloud.settle()
    stack.world.control.instance_changed(stack.world.vault.instance_id or "")
    for _ in range(30):
        for snapshot_id, snapshot in list(stack.world.cloud.snapshots.items()):
            if snapshot.point.host == "C":
                stack.world.cloud.fail_snapshot(snapshot_id)
        stack.minute()
    assert stack.raised == {"snapshot-failed"}


def test_a_drill_that_failed_and_one_that_passed(stack: Watched) -> None:
    stack.night(0, "C")
    drill(stack, "C", DrillState.PASSED)
    stack.minutes(30)
    assert stack.raised == set()
    drill(stack, "C", DrillState.FAILED)
    stack.minutes(30)
    assert stack.raised == {"drill-failed"}


def test_a_month_without_a_drill(stack: Watched) -> None:
    stack.night(0, "C", "H")
    stack.world.clock.advance(30 * 86400)
    stack.night(1, "C", "H")
    assert "drill-overdue" in stack.up
    for host in ("C", "H"):
        assert "drill-overdue" in stack.up
        drill(stack, host, DrillState.PASSED)
    stack.minutes(120)
    assert "drill-overdue" not in stack.up


def test_a_host_that_never_could_sign_holds_no_alarm_up(stack: Watched) -> None:
    """Its OpenSSH is too old, say: it is told once, and it is drilled each month all the same."""
    stack.night(0, "C")
    for _ in range(2):
        drill(stack, "C", DrillState.UNPROVEN)
        stack.world.clock.advance(29 * 86400)
        stack.minutes(30)
    assert stack.raised & {"drill-overdue", "drill-failed"} == set()
    assert len(stack.world.told.alerts) == 1
    stack.world.clock.advance(2 * 86400)
    stack.minutes(30)
    assert "drill-overdue" in stack.up, "nobody has looked at its points for a month"


def test_a_host_that_signs_no_more(stack: Watched) -> None:
    stack.night(0, "C", "H")
    drill(stack, "C", DrillState.PASSED)
    stack.night(1, "C", "H")
    drill(stack, "C", DrillState.UNPROVEN)
    stack.minutes(30)
    assert stack.raised == {"drill-failed"}
    assert "no manifest any more" in stack.world.told.alerts[-1][0]
    stack.world.clock.advance(29 * 86400)
    drill(stack, "C", DrillState.UNPROVEN)
    stack.minutes(30)
    assert "drill-overdue" in stack.up


def test_a_snapshot_that_failed_once(stack: Watched) -> None:
    opened(stack, "C")
    stack.world.commit("C", R(0))
    stack.world.finish("C", R(0))
    stack.world.cloud.settle()
    stack.world.control.instance_changed(stack.world.vault.instance_id or "")
    (first,) = stack.world.cloud.snapshots
    stack.world.cloud.fail_snapshot(first)
    stack.minutes(3)
    stack.world.cloud.settle()
    stack.minutes(30)
    (again,) = stack.world.cloud.snapshots  # retention has removed the one that failed
    assert again != first
    assert stack.raised == set()


@pytest.mark.parametrize("function", [function.suffix for function in FUNCTIONS])
@pytest.mark.parametrize(("name", "alarm"), [("Errors", "function-errors"), ("Throttles", "function-throttles")])
def test_an_error_or_a_throttle_of_any_function(stack: Watched, function: str, name: str, alarm: str) -> None:
    stack.count(function, name, 1)
    stack.minutes(7)
    assert stack.raised == {alarm}
    stack.minutes(60)
    assert stack.up == set()


def test_a_sweep_that_ends_in_errors(stack: Watched) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    stack.world.control.sweep = broken  # type: ignore[method-assign]
    stack.minutes(60)
    assert "function-errors" in stack.up
    assert "sweep-not-running" not in stack.raised, "it runs; what it does is another alarm's"


def test_a_sweep_that_is_not_called(stack: Watched) -> None:
    stack.sweeping = False
    stack.minutes(9)
    assert stack.raised == set()
    stack.minutes(5 * (2 + stack.watches["sweep-not-running"].extra))
    assert stack.raised == {"sweep-not-running"}
    stack.minutes(15 * 7)
    # What the sweep sends around the clock is missing now, and that is told as well.
    assert stack.watches["host-overdue"].state == "INSUFFICIENT_DATA"
    assert stack.watches["host-overdue"].properties["InsufficientDataActions"] == ["arn:topic"]
    stack.sweeping = True
    stack.minutes(30)
    assert stack.up == set()


def test_a_volume_nearly_full_stays_told_until_it_is_not(stack: Watched) -> None:
    opened(stack, "C")
    for _ in range(20):
        report(stack, used=0.89)
        stack.minute()
    assert stack.raised == set()
    for _ in range(20):
        report(stack, used=0.95)
        stack.minute()
    assert stack.up == {"volume-nearly-full"}
    stack.world.finish("C", R(0))
    stack.world.arrive()
    stack.minutes(12 * 60)
    assert stack.up == {"volume-nearly-full"}, "no report in between means neither good nor bad"
    opened(stack, "H", first=7)
    for _ in range(40):
        report(stack, used=0.6)
        stack.minute()
    assert stack.up == set()


def test_an_unusual_push(stack: Watched) -> None:
    stack.night(0, "C", "H", change=QUIET)
    assert stack.raised == set()
    stack.night(1, "C", "H", change=WIPE)
    assert stack.raised == {"unusual-push"}
    assert stack.up == set(), "a day later nothing new has been counted"


def test_an_unexpected_host_key(stack: Watched) -> None:
    opened(stack, "C")
    for _ in range(10):
        report(stack, host_key="ssh-ed25519 " + "B" * 68)
        stack.minute()
    assert stack.raised == {"unexpected-host-key"}


def test_faults_that_do_not_end(stack: Watched) -> None:
    opened(stack, "C")
    stack.world.cloud.blind = True
    for _ in range(25):
        report(stack)
        stack.minute()
    assert stack.raised == {"faults"}
    stack.world.cloud.blind = False
    for _ in range(60):
        report(stack)
        stack.minute()
    assert stack.up == set()


def test_a_fault_that_the_next_sweep_repairs(stack: Watched) -> None:
    opened(stack, "C")
    stack.world.cloud.blind = True
    report(stack)
    stack.minutes(2)
    stack.world.cloud.blind = False
    for _ in range(60):
        report(stack)
        stack.minute()
    assert stack.raised == set()


def test_every_alarm_has_its_night_here() -> None:
    """A new alarm without a test of its own that raises it fails here."""
    source = Path(__file__).read_text()
    assert [alarm.name for alarm in ALARMS if f'"{alarm.name}"' not in source] == []


# --- the evaluator itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "breaching", "not_breaching"),
    [
        # Oldest first, as in the table of AWS's page; 0 is within the threshold, X breaches, - is missing.
        ("0-X-X", "OK", "OK"),
        ("0----", "OK", "OK"),
        ("-----", "ALARM", "OK"),
        ("0XX-X", "ALARM", "ALARM"),
        ("--X--", "ALARM", "OK"),
    ],
)
def test_missing_data_is_treated_as_documented(data: str, breaching: str, not_breaching: str) -> None:
    newest_first = [{"0": 0.0, "X": math.inf, "-": None}[each] for each in reversed(data)]
    for missing, expected in (("breaching", breaching), ("notBreaching", not_breaching)):
        properties = {
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 3,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": missing,
        }
        assert Watch(properties, Metrics()).verdict(newest_first) == expected
