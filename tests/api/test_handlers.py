"""The Lambdas behind the routes: the schedule, the events, the operator's function; and what importing app costs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app
from chalicelib.model import InstanceState, Phase
from tests.api.conftest import R1, Api
from tests.localcloud.front import lambda_context

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "tests" / "events"
# One rule of app.on_cw_event each, and the sample of what it is to match.
HANDLERS = ("sweep", "instance_changed", "snapshot_changed", "operate", "bearer", "app")


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event


def invoke(handler: Any, event: dict[str, Any]) -> Any:
    return handler(event, lambda_context("test"))


def schedule_event() -> dict[str, Any]:
    return {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-11-23T01:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:events:eu-central-1:123456789012:rule/sweep"],
        "detail": {},
    }


def rule(handler: str) -> dict[str, Any]:
    sources: list[Any] = app.app.event_sources
    found: dict[str, Any] = next(each.event_pattern for each in sources if each.handler_string == f"app.{handler}")
    return found


def test_the_handlers_have_their_names() -> None:
    assert [name for name in HANDLERS if not callable(getattr(app, name, None))] == []


def test_a_night_by_events(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.report(commits=[{"host": "C", "run_id": R1}])
    api.finish("C", R1)
    api.world.cloud.settle()
    event = sample("ec2_instance_state_change")
    event["detail"] = {"instance-id": api.world.vault.instance_id, "state": "stopped"}
    invoke(app.instance_changed, event)
    assert api.world.vault.phase is Phase.ASLEEP
    (snapshot_id,) = api.world.vault.pending_points
    api.world.cloud.settle()
    event = sample("ebs_create_snapshot")
    event["detail"]["snapshot_id"] = f"arn:aws:ec2:us-west-2::snapshot/{snapshot_id}"
    invoke(app.snapshot_changed, event)
    assert api.world.vault.pending_points == {}
    assert api.status("C").json["last"]["snapshot_id"] == snapshot_id


def test_events_of_things_that_are_not_ours_change_nothing(api: Api) -> None:
    before = api.everything()
    invoke(app.instance_changed, sample("ec2_instance_state_change"))
    invoke(app.snapshot_changed, sample("ebs_create_snapshot"))
    assert api.everything() == before


def test_the_rules_match_the_samples() -> None:
    """EventBridge's rules: each member of the pattern lists what it may be."""
    event = sample("ebs_create_snapshot")
    pattern = rule("snapshot_changed")
    assert event["source"] in pattern["source"]
    assert event["detail-type"] in pattern["detail-type"]
    assert event["detail"]["event"] in pattern["detail"]["event"]
    event = sample("ec2_instance_state_change")
    pattern = rule("instance_changed")
    assert event["source"] in pattern["source"]
    assert event["detail-type"] in pattern["detail-type"]
    assert set(pattern["detail"]["state"]) <= {state.value for state in InstanceState}


def test_the_sweep(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.world.clock.advance(12960)
    invoke(app.sweep, schedule_event())
    assert api.world.vault.phase is Phase.CLOSING


def test_operators_see_no_secret(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    invited = app.operate({"action": "invite", "host": "N", "size_gib": 5}, None)
    assert set(invited) == {"host", "code", "url", "expires_at"}
    for action in ({"action": "hosts"}, {"action": "vaults"}, {"action": "windows"}, {"action": "host", "host": "C"}):
        told = json.dumps(app.operate(action, None))
        for vault in api.world.store.vaults():
            assert vault.agent
            assert vault.agent.token_hash not in told
        for host in api.world.store.hosts():
            assert host.token_hash not in told
        for code in api.codes:
            assert code not in told


def test_operators_see_what_there_is(api: Api) -> None:
    assert [host["name"] for host in app.operate({"action": "hosts"}, None)["hosts"]] == ["C", "H"]
    assert app.operate({"action": "vaults"}, None)["vaults"][0]["phase"] == "asleep"
    assert app.operate({"action": "windows"}, None) == {"windows": [], "hosts": ["C", "H"]}
    assert app.operate({"action": "restore_points", "host": "C"}, None) == {"restore_points": [], "copies": []}


IMPORT = """
import sys
sys.path.insert(0, {root!r})
made = []
import botocore.session, botocore.client
def forbidden(*a, **k):
    made.append(a)
    raise AssertionError("a client was made by importing app")
botocore.session.Session.create_client = forbidden
botocore.client.ClientCreator.create_client = forbidden
import app
assert not made
assert "boto3.session" not in sys.modules or not sys.modules["boto3"].DEFAULT_SESSION
print(sorted(name for name in sys.modules if name in ("boto3", "chalicelib.cloud", "chalicelib.notifier")))
"""


@pytest.mark.parametrize("handler", HANDLERS)
def test_app_imports_in_an_empty_environment_and_makes_no_client(handler: str) -> None:
    script = IMPORT.format(root=str(ROOT)) + f"assert callable(app.{handler})\n"
    done = subprocess.run(  # an empty environment: not even a region
        [sys.executable, "-c", script],
        env={"PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", "")},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "chalicelib.cloud" not in done.stdout


def test_a_missing_variable_is_named_when_it_is_needed_and_not_before() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import app\n"
        "try:\n    app.wiring.wired()\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "NIGHTVAULT_STACK is not set; the stack's template sets it\n"
