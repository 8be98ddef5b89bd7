"""The CloudWatch dashboard: who is overdue, the last nights, and what the stack does.

The body's syntax: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
The first three dashboards of an account with up to 50 metrics each are free; this one has fewer (a test counts).
"""

import json
from typing import Any

from chalicelib import metrics
from chalicelib.metrics import Metric
from deploy.alarms import ALARMS
from deploy.policies import FUNCTIONS

Json = dict[str, Any]
Line = list[Any]

WIDTH = 24  # columns of CloudWatch's grid
DAY = 86400
# The timeline's colours, so that an outcome looks the same everywhere (chalicelib/timeline/style.py, light).
COLOURS = {
    "complete": "#0f7a43",
    "failed": "#c4262e",
    "cut": "#a04e00",
    "abandoned": "#7a3ea8",
    "incomplete": "#a04e00",
}


def dashboard() -> Json:
    """A part of the template (deploy/parts.py)."""
    properties = {
        "DashboardName": {"Ref": "AWS::StackName"},
        # Fn::Sub fills in region, stack and ARNs. None of our text has a `${` of its own.
        "DashboardBody": {"Fn::Sub": json.dumps(body(), ensure_ascii=False, separators=(",", ":"))},
    }
    address = (
        "https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}#dashboards/dashboard/"
        "${AWS::StackName}"
    )
    return {
        "Resources": {"Dashboard": {"Type": "AWS::CloudWatch::Dashboard", "Properties": properties}},
        "Outputs": {"DashboardUrl": {"Description": "What people look at", "Value": {"Fn::Sub": address}}},
    }


def body() -> Json:
    """The dashboard, with Fn::Sub's `${…}` in it. Fourteen days, as the timeline."""
    rows: list[tuple[int, list[tuple[int, Json]]]] = [
        (3, [(WIDTH, _alarm_states())]),
        (6, [(9, _custom("Who is overdue", show="overdue")), (5, _overdue()), (10, _ages())]),
        (11, [(WIDTH, _custom("The last 14 nights", show="timeline", days=14))]),
        (6, [(6, _awake()), (6, _pushed()), (6, _runs()), (6, _points())]),
        (6, [(6, _fill()), (6, _waking()), (6, _custom("This month's cost", show="cost")), (6, _faults())]),
        (6, [(8, _functions("Errors")), (8, _functions("Throttles")), (8, _functions("Duration"))]),
    ]
    widgets: list[Json] = []
    y = 0
    for height, row in rows:
        x = 0
        for width, widget in row:
            widgets.append({"x": x, "y": y, "width": width, "height": height, **widget})
            x += width
        y += height
    return {"start": "-P14D", "periodOverride": "inherit", "widgets": widgets}


# --- widgets --------------------------------------------------------------------------------------------


def _alarm_states() -> Json:
    arns = [f"${{{alarm.resource}.Arn}}" for alarm in ALARMS]
    return {"type": "alarm", "properties": {"title": "Alarms", "sortBy": "stateUpdatedTimestamp", "alarms": arns}}


def _custom(title: str, **params: object) -> Json:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard.html"""
    properties = {
        "title": title,
        "endpoint": "${TimelineWidget.Arn}",
        "params": params,
        "updateOn": {"refresh": True, "resize": True, "timeRange": False},
    }
    return {"type": "custom", "properties": properties}


def _overdue() -> Json:
    latest = _ours(metrics.OVERDUE_HOSTS, label="hosts overdue")
    return _graph("Overdue hosts", [latest], stat="Maximum", period=900, view="singleValue", sparkline=True)


def _ages() -> Json:
    lines = [
        _ours(metrics.HOURS_SINCE_LAST_BACKUP, label="oldest", stat="Maximum"),
        _ours(metrics.HOURS_SINCE_LAST_BACKUP, label="half are younger than", stat="p50"),
    ]
    return _graph("Age of last backups that count, hours", lines, period=3600)


def _awake() -> Json:
    return _graph("Seconds awake, a day", [_ours(metrics.SECONDS_AWAKE, label="awake")], stat="Sum", stacked=True)


def _pushed() -> Json:
    return _graph("Bytes pushed, a day", [_ours(metrics.BYTES_PUSHED, label="pushed")], stat="Sum", stacked=True)


def _runs() -> Json:
    outcomes = ("complete", "failed", "cut", "abandoned")
    return _graph("Runs, a day", [_ours(metrics.RUNS, each) for each in outcomes], stat="Sum", stacked=True)


def _points() -> Json:
    labels = [_ours(metrics.RESTORE_POINTS, each) for each in ("complete", "incomplete")]
    lines = [
        *labels,
        _ours(metrics.SNAPSHOT_FAILURES, label="snapshots that failed"),
        _ours(metrics.POINTS_DELETED, label="old ones deleted"),
    ]
    return _graph("Restore points, a day", lines, stat="Sum", stacked=True)


def _fill() -> Json:
    bounds = {"left": {"min": 0, "max": 100}}
    marks = {"horizontal": [{"label": "enlarged", "value": 80}, {"label": "alarm", "value": 90}]}
    lines = [_ours(metrics.VOLUME_FILL, label="fullest volume, %")]
    return _graph("Fullest volume, %", lines, stat="Maximum", period=3600, yAxis=bounds, annotations=marks)


def _waking() -> Json:
    return _graph("Seconds from wake to ready", [_ours(metrics.WAKING_SECONDS, label="slowest")], stat="Maximum")


def _faults() -> Json:
    lines = [
        _ours(metrics.FAULTS, label="faults"),
        _ours(metrics.WAKE_FAULTS, label="failed wakes"),
        _ours(metrics.WAKES_GIVEN_UP, label="wakes given up"),
        _ours(metrics.POINTS_GIVEN_UP, label="restore points given up"),
        _ours(metrics.DELETIONS_REFUSED, label="deletions refused"),
        _ours(metrics.RESTORES_FAILED, label="failed restores"),
        _ours(metrics.DRILLS_FAILED, label="failed drills"),
        _ours(metrics.DRILL_OVERDUE, label="hosts with no proof"),
        _ours(metrics.BUDGETS_SPENT, label="daily budgets spent"),
        _ours(metrics.UNEXPECTED_HOST_KEYS, label="unexpected host keys"),
    ]
    return _graph("What went wrong, an hour", lines, stat="Sum", period=3600)


def _functions(name: str) -> Json:
    """https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html: free, and Lambda's own."""
    lines: list[Line] = []
    for function in FUNCTIONS:
        full = f"${{AWS::StackName}}-{function.suffix}"
        lines.append(["AWS/Lambda", name, "FunctionName", full, {"label": function.suffix}])
    title = {"Duration": "Longest call, milliseconds"}.get(name, f"{name} of each function")
    return _graph(title, lines, stat="Maximum" if name == "Duration" else "Sum", period=3600)


def _ours(metric: Metric, dimension: str | None = None, **options: object) -> Line:
    """One of our metrics; `dimension` is the value of its own, and gives it its colour."""
    line: Line = [metrics.NAMESPACE, metric.name, metrics.STACK, "${AWS::StackName}"]
    if metric.dimension:
        line += [metric.dimension, dimension]
        options = {"label": dimension, "color": COLOURS[str(dimension)], **options}
    return [*line, options]


def _graph(title: str, lines: list[Line], **more: object) -> Json:
    known = {"view": "timeSeries", "stacked": False, "region": "${AWS::Region}", "period": DAY}
    return {"type": "metric", "properties": {"title": title, "metrics": lines, **known, **more}}
