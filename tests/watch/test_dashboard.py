"""The dashboard's body by CloudWatch's syntax, and every metric that it or an alarm names held to what is emitted."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib import metrics
from chalicelib.errors import CloudRefused
from chalicelib.model import DrillState, Kind, Outcome, Policy
from chalicelib.operators.changes import ChangeHost
from chalicelib.pricing import control_plane
from deploy import alarms, parts
from deploy.alarms import ALARMS
from deploy.dashboard import dashboard
from deploy.policies import FUNCTIONS
from tests.unit.test_unusual_nights import WIPE
from tests.watch.cloudwatch import Key, key, resolve
from tests.watch.nights import NAMES, R, Watched, drill, opened, report

ROOT = Path(__file__).resolve().parents[2]
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:nightvault-test-timeline-widget"
ALARM_ARN = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:{}".format
FILLED = {
    **NAMES,
    "AWS::Region": "eu-central-1",
    "TimelineWidget.Arn": ARN,
    **{f"{alarm.resource}.Arn": ALARM_ARN(alarm.name) for alarm in ALARMS},
}
BODY: dict[str, Any] = json.loads(resolve(dashboard()["Resources"]["Dashboard"]["Properties"]["DashboardBody"], FILLED))
WIDGETS: list[dict[str, Any]] = BODY["widgets"]
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
PROPERTIES = {
    "metric": {
        "accountId", "annotations", "end", "legend", "liveData", "metrics", "period", "region", "setPeriodToTimeRange",
        "singleValueFullPrecision", "sparkline", "stacked", "start", "stat", "table", "timezone", "title", "trend",
        "view", "yAxis",
    },
    "custom": {"endpoint", "params", "title", "updateOn"},
    "alarm": {"alarms", "sortBy", "states", "title"},
}  # fmt: skip
REQUIRED = {"metric": {"metrics", "region"}, "custom": {"endpoint"}, "alarm": {"alarms"}}
LINE_OPTIONS = {"accountId", "color", "expression", "id", "label", "period", "region", "stat", "visible", "yAxis"}
STATISTIC = re.compile(r"SampleCount|Average|Sum|Minimum|Maximum|IQM|p\d{1,2}(\.\d+)?")
MOST_FREE_METRICS = 50  # of a dashboard that is free: https://aws.amazon.com/cloudwatch/pricing/


def test_the_body_is_what_cloudwatch_takes() -> None:
    assert set(BODY) <= {"start", "end", "periodOverride", "variables", "widgets"}
    assert re.fullmatch(r"-P\d+D", BODY["start"])
    assert BODY["periodOverride"] in ("auto", "inherit")
    assert 0 < len(WIDGETS) <= 500
    for widget in WIDGETS:
        assert set(widget) == {"type", "x", "y", "width", "height", "properties"}
        assert set(widget["properties"]) <= PROPERTIES[widget["type"]]
        assert set(widget["properties"]) >= REQUIRED[widget["type"]] | {"title"}


@pytest.mark.parametrize(
    "widget", [w for w in WIDGETS if w["type"] == "metric"], ids=lambda w: w["properties"]["title"]
)
def test_a_graph_is_well_formed(widget: dict[str, Any]) -> None:
    properties = widget["properties"]
    assert properties["view"] in ("timeSeries", "singleValue", "gauge", "bar", "pie", "table")
    assert properties["period"] % 60 == 0
    for line in properties["metrics"]:
        *names, options = line
        assert isinstance(options, dict)
        assert set(options) <= LINE_OPTIONS
        assert len(names) % 2 == 0, "namespace, name, then names and values of dimensions"
        assert all(isinstance(name, str) and name for name in names)
        assert STATISTIC.fullmatch(options.get("stat") or properties["stat"])
        assert re.fullmatch(r"#[0-9a-f]{6}", options.get("color", "#000000"))


def test_nothing_lies_over_anything_and_all_is_on_the_grid() -> None:
    def cells(widget: dict[str, Any]) -> set[tuple[int, int]]:
        return {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }

    for widget in WIDGETS:
        assert widget["x"] + widget["width"] <= 24
    for one, other in combinations(WIDGETS, 2):
        assert not cells(one) & cells(other)


def test_moto_takes_it() -> None:
    with mock_aws():
        client = boto3.client("cloudwatch", region_name="eu-central-1")
        answer = client.put_dashboard(DashboardName="nightvault", DashboardBody=json.dumps(BODY))
        assert not answer.get("DashboardValidationMessages")


def test_custom_widgets_call_the_widget_with_what_it_knows() -> None:
    custom = [widget["properties"] for widget in WIDGETS if widget["type"] == "custom"]
    assert {properties["endpoint"] for properties in custom} == {ARN}
    assert [properties["params"]["show"] for properties in custom] == ["overdue", "timeline", "cost"]


def test_every_alarm_is_on_it() -> None:
    (states,) = [widget["properties"]["alarms"] for widget in WIDGETS if widget["type"] == "alarm"]
    assert states == [ALARM_ARN(alarm.name) for alarm in ALARMS]
    assert len(states) <= 100


def test_every_function_is_on_it() -> None:
    for name in ("Errors", "Throttles"):
        watched = {dict(dimensions)["FunctionName"] for _, metric, dimensions in graphed() if metric == name}
        assert watched == {f"nightvault-test-{function.suffix}" for function in FUNCTIONS}


def test_it_is_one_of_the_free_dashboards() -> None:
    assert len(graphed()) <= MOST_FREE_METRICS


# --- names ----------------------------------------------------------------------------------------------


def graphed() -> set[Key]:
    lines = [line for w in WIDGETS if w["type"] == "metric" for line in w["properties"]["metrics"]]
    return {key(line[0], line[1], dict(zip(line[2:-1:2], line[3:-1:2], strict=True))) for line in lines}


def restores(stack: Watched) -> None:
    """One that is ready, and one whose restore point is deleted as it begins."""
    world = stack.world
    older = next(i for i, snapshot in world.cloud.snapshots.items() if snapshot.point.complete)
    world.backed_up("C", R(40))
    world.start("C", R(41), Kind.RESTORE)
    world.boot()
    real = world.cloud.host_snapshots
    states = real("C")
    world.cloud.lose_snapshot(older)
    world.cloud.host_snapshots = lambda host: states  # type: ignore[method-assign]  # noqa: ARG005
    world.start("C", R(42), Kind.RESTORE, point_id=older)
    world.cloud.host_snapshots = real  # type: ignore[method-assign]
    stack.minute()
    world.arrive()
    stack.minutes(3)


def everything_happens(stack: Watched) -> None:
    """Nights in which each metric is sent, with each value of its dimension that is drawn."""
    world = stack.world
    world.enrol("C", "H", "O", "L")
    for name in ("snap-gone", "snap-kept"):  # of nights before, not complete: they go when C's next one counts
        stack.old_point("C", name)
    world.cloud.undeletable.add("snap-kept")
    stack.night(0, "C")
    restores(stack)
    for state in (DrillState.PASSED, DrillState.FAILED):
        drill(stack, "C", state)
    opened(stack, "C", "H", "O", "L", first=50)
    report(stack, host_key="ssh-ed25519 " + "B" * 68, used=0.5)
    world.report(transfers={"H": 7})
    world.commit("H", R(51), WIPE)
    world.finish("H", R(51), Outcome.FAILED, 5)  # pushed, and failed: an incomplete restore point
    while world.vault.window and world.clock.now() < world.vault.window.closes_at:
        report(stack, used=0.5)  # C alone is seen alive: O and L are abandoned, C is cut by the window
        stack.minute()
    ChangeHost(host="H", max_size_gib=5).answer(world.wired)
    world.used_gib = {"C": 5, "H": 5}  # C's volume is full and grows, H's may not
    world.report()
    world.report("stopping")
    stack.minutes(5)  # EC2 takes its time to stop it: awake past its window
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    for _ in range(10):
        for snapshot_id, snapshot in list(world.cloud.snapshots.items()):
            if snapshot.point.host == "C":
                world.cloud.fail_snapshot(snapshot_id)
            else:
                world.cloud.settle()
        stack.minute()

    def refuse(instance_id: str) -> None:
        raise CloudRefused("StartInstances", "InsufficientInstanceCapacity", "none left")

    world.clock.advance(31 * 86400)  # and no drill of it since
    stack.minutes(15)
    world.cloud.start = refuse  # type: ignore[method-assign]
    world.cloud.launch = refuse  # type: ignore[method-assign, assignment]
    world.start("C", R(90))
    stack.minutes(20)


def test_what_is_named_is_sent_and_what_is_sent_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    stack = Watched(capsys, 2)
    everything_happens(stack)
    sent = {k for k in stack.metrics.keys if k[0] == metrics.NAMESPACE}
    watched = {k for watch in stack.watches.values() for k in watch.keys}
    named = {k for k in watched | graphed() if k[0] == metrics.NAMESPACE}
    assert named - sent == set(), "an alarm or a graph names what nobody sends"
    assert {name for _, name, _ in sent} == {metric.name for metric in metrics.ALL}
    dimensions = {metric.name: {metrics.STACK, metric.dimension} - {None} for metric in metrics.ALL}
    assert all({name for name, _ in found} == dimensions[metric] for _, metric, found in sent)
    others = {(space, name) for space, name, _ in (watched | graphed()) if space != metrics.NAMESPACE}
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    assert others == {("AWS/Lambda", name) for name in ("Duration", "Errors", "Invocations", "Throttles")}


# --- alarms and their pages -----------------------------------------------------------------------------

HEADINGS = ["What it means", "How urgent", "What happens by itself", "What to look at", "What to do"]


def test_every_alarm_has_a_runbook_and_every_runbook_an_alarm() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {alarm.name for alarm in ALARMS}


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_an_alarm_says_what_it_means_what_to_do_first_and_where_its_page_is(alarm: alarms.Alarm) -> None:
    properties = resolve(alarms.alarms()["Resources"][alarm.resource]["Properties"], NAMES)
    text = properties["AlarmDescription"]
    assert text.startswith(f"{alarm.what} First: {alarm.first}")
    assert text.endswith(f"https://example.org/runbooks/{alarm.name}.md")
    assert len(text) <= alarms.LONGEST_DESCRIPTION - 100  # room for a longer address
    assert properties["AlarmActions"] == ["arn:topic"]
    page = (ROOT / "docs" / "runbooks" / f"{alarm.name}.md").read_text()
    assert page.startswith(f"# {alarm.name}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    (row,) = [line for line in index.splitlines() if line.startswith(f"| [{alarm.name}]({alarm.name}.md) |")]
    assert row.endswith("| yes |" if alarm.resolved else "| no |")


def test_links_between_runbooks_lead_somewhere() -> None:
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_an_alarm_keeps_cloudwatchs_limits(alarm: alarms.Alarm) -> None:
    assert alarm.watched <= alarms.MOST_METRICS
    assert alarm.period % 60 == 0
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    assert alarm.period * alarm.periods <= 86400
    assert not isinstance(alarm.metric, metrics.Metric) or alarm.metric.dimension is None, "on an aggregate only"
    if alarm.missing in ("missing", "ignore"):
        assert alarm.periods == 1


def test_the_bill_counts_what_is_watched() -> None:
    assert sum(alarm.watched for alarm in ALARMS) == control_plane.ALARM_METRICS
    around_the_clock = {metrics.OVERDUE_HOSTS, metrics.HOURS_SINCE_LAST_BACKUP}
    assert len(around_the_clock) == control_plane.ALWAYS_SENT


def test_the_window_is_over_before_an_alarm_says_so() -> None:
    """The machine itself is given its time first: docs/runbooks/vault-awake-past-window.md."""
    (alarm,) = [alarm for alarm in ALARMS if alarm.name == "vault-awake-past-window"]
    assert alarm.threshold > Policy().power_off_grace_seconds


def test_alarms_and_dashboard_are_parts_of_the_template() -> None:
    whole = parts.merged()
    assert {alarm.resource for alarm in ALARMS} | {"Dashboard"} <= set(whole["Resources"])
    runbooks = whole["Parameters"]["Runbooks"]
    assert runbooks["Default"] == alarms.RUNBOOKS
    assert (ROOT / alarms.RUNBOOKS).is_dir(), "in the checkout, which needs no web"
    for good in (alarms.RUNBOOKS, "https://example.org/runbooks"):
        assert re.fullmatch(runbooks["AllowedPattern"], good)
    assert not re.fullmatch(runbooks["AllowedPattern"], "https://example.org/runbooks/")
