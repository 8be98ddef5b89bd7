"""The alarms: what is watched, when it is wrong, and which runbook says what to do.

Rules they keep, each held by tests/watch:
- an alarm is on an aggregate, never on a host or a fault's name: its price and number do not grow with the hosts.
- what is counted only when it happens is `notBreaching` where there is no data; what is sent around the clock is
  `missing` (and its absence is told) or, where its absence is the very fault, `breaching`; what is sent during
  nights alone keeps its state between them (`ignore`).
- CloudWatch looks at more periods than an alarm asks for before it fills in what is missing, so an alarm on absence
  comes some periods late, and a single count keeps an alarm up for some more:
  https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
- each tells the topic when it is raised; when it is over too, if that is more than that nothing new was counted.
"""

from dataclasses import dataclass
from typing import Any, Literal

from chalicelib import metrics
from chalicelib.metrics import Metric
from deploy.policies import FUNCTIONS

Json = dict[str, Any]

# Where the runbooks are: in the checkout that was deployed, unless the stack's parameter names an address.
RUNBOOKS = "docs/runbooks"
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
LONGEST_DESCRIPTION = 1024
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
MOST_METRICS = 10

Missing = Literal["breaching", "notBreaching", "ignore", "missing"]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """`name` is also its runbook's, and `first` the first of what that says to do.

    `metric`: one of ours, or the name of one of AWS/Lambda of `functions`.
    In alarm when `datapoints` (all, by default) of the last `periods` periods of `period` seconds are breaching.
    `resolved`: tell the topic when it is over. Several functions are added up, where a function that was not called
    counts as 0.
    """

    name: str
    what: str
    first: str
    metric: Metric | str
    statistic: Literal["Sum", "Maximum"]
    comparison: Literal["GreaterThanOrEqualToThreshold", "LessThanThreshold"] = "GreaterThanOrEqualToThreshold"
    threshold: float = 1
    period: int = 300
    periods: int = 1
    missing: Missing = "notBreaching"
    resolved: bool = False
    functions: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        """Its logical id."""
        return "".join(word.title() for word in self.name.split("-")) + "Alarm"

    @property
    def watched(self) -> int:
        """How many metrics CloudWatch charges for: $0.10 a month each."""
        return max(1, len(self.functions))


_EVERY = tuple(function.suffix for function in FUNCTIONS)

ALARMS = (
    Alarm(
        name="host-overdue",
        what="No backup of a host that counts for twice its interval.",
        first="`vaultctl hosts` says who; on that host, `nightvault status` and `nightvault doctor`.",
        metric=metrics.OVERDUE_HOSTS,
        statistic="Maximum",
        period=900,  # as often as it is sent
        missing="missing",
        resolved=True,
    ),
    Alarm(
        name="vault-awake-past-window",
        what="A vault is awake 15 minutes past its window: neither the sweep nor the machine itself has stopped it.",
        first="`vaultctl windows --days 1` says which vault; stop its instance in the EC2 console.",
        metric=metrics.SECONDS_PAST_WINDOW,
        statistic="Maximum",
        threshold=900,  # ten minutes after its window the machine powers itself off
        resolved=True,
    ),
    Alarm(
        name="wake-failed",
        what="A vault did not wake after its last attempt. The hosts of that window were not backed up.",
        first="read nightvault's own mail and `vaultctl doctor`; mend, then `vaultctl wake VAULT`.",
        metric=metrics.WAKES_GIVEN_UP,
        statistic="Sum",
    ),
    Alarm(
        name="snapshot-failed",
        what="A volume's snapshot failed for good. There is no restore point of that night.",
        first="read nightvault's own mail; `nightvault backup` on the host makes a restore point.",
        metric=metrics.POINTS_GIVEN_UP,
        statistic="Sum",
    ),
    Alarm(
        name="function-errors",
        what="A Lambda ended in an error or ran out of time.",
        first="the dashboard's graph of errors says which Lambda, its log why.",
        metric="Errors",
        statistic="Sum",
        functions=_EVERY,
    ),
    Alarm(
        name="function-throttles",
        what="A Lambda was throttled: the account's concurrency is used up.",
        first="if it goes on, compare ConcurrentExecutions with the account's quota (`vaultctl doctor`).",
        metric="Throttles",
        statistic="Sum",
        functions=_EVERY,
    ),
    Alarm(
        name="sweep-not-running",
        what="The sweep has not run for ten minutes. Nothing enforces windows or repairs anything.",
        first="in EventBridge, is the rule of the sweep enabled? If it is gone, `make deploy`.",
        metric="Invocations",
        statistic="Sum",
        comparison="LessThanThreshold",
        periods=2,
        missing="breaching",
        resolved=True,
        functions=("sweep",),
    ),
    Alarm(
        name="daily-budget-spent",
        what="A vault has used all its awake time of the day. Whoever was pushing was cut.",
        first="`vaultctl windows --plot` says who pushed; `vaultctl rotate HOST` if the host did not.",
        metric=metrics.BUDGETS_SPENT,
        statistic="Sum",
    ),
    Alarm(
        name="volume-nearly-full",
        what="A host's volume is over 90 % full.",
        first="`vaultctl hosts` says whose; `vaultctl change HOST --max-size-gib N` lets it grow.",
        metric=metrics.VOLUME_FILL,
        statistic="Maximum",
        threshold=90,  # at 80 it should have been enlarged
        period=900,
        missing="ignore",
        resolved=True,
    ),
    Alarm(
        name="unusual-push",
        what="A host pushed what changed or deleted far more than it usually does. Its history is held.",
        first="read nightvault's own mail; once somebody knows why, `vaultctl accept HOST`.",
        metric=metrics.UNUSUAL_PUSHES,
        statistic="Sum",
    ),
    Alarm(
        name="drill-failed",
        what="A restore point is not what its host pushed, or came without the manifest that earlier ones had.",
        first="read nightvault's own mail, which says which; `vaultctl restore-points HOST` shows the sound ones.",
        metric=metrics.DRILLS_FAILED,
        statistic="Sum",
    ),
    Alarm(
        name="drill-overdue",
        what="For 30 days no drill has said of a host's restore points whether they are good.",
        first="`vaultctl doctor` says whose and why; `vaultctl drill HOST` begins one.",
        metric=metrics.DRILL_OVERDUE,
        statistic="Maximum",
        period=900,  # as often as it is sent
        resolved=True,
    ),
    Alarm(
        name="unexpected-host-key",
        what="A vault showed another ssh host key than the one it enrolled with.",
        first="unless you know who changed the machine, stop its instance, and do not terminate it.",
        metric=metrics.UNEXPECTED_HOST_KEYS,
        statistic="Sum",
    ),
    Alarm(
        name="faults",
        what="Calls to AWS, or alerts, have been failing for a quarter of an hour.",
        first="the sweep's log says which call; AccessDenied or UnauthorizedOperation: `make deploy`.",
        metric=metrics.FAULTS,
        statistic="Sum",
        periods=3,  # one refused call is ordinary: the next sweep repairs it
        resolved=True,
    ),
)


def alarms() -> Json:
    """A part of the template (deploy/parts.py)."""
    runbooks = {
        "Type": "String",
        "Default": RUNBOOKS,
        "AllowedPattern": "\\S*[^/\\s]",
        "ConstraintDescription": "a folder or an address, without a slash at its end",
        "Description": "Where the runbooks are: a folder of the checkout, or an address; every alarm names its own",
    }
    resources = {
        alarm.resource: {"Type": "AWS::CloudWatch::Alarm", "Properties": _properties(alarm)} for alarm in ALARMS
    }
    return {"Parameters": {"Runbooks": runbooks}, "Resources": resources}


def table() -> str:
    """What is watched, as lines."""
    lines = [
        f"{alarm.name:24} {alarm.watched:2} metric{'s' if alarm.watched > 1 else ' '}  {alarm.what}" for alarm in ALARMS
    ]
    watched = sum(alarm.watched for alarm in ALARMS)
    return (
        "\n".join([*lines, f"{watched} metrics in alarms, $0.10 a month each; the first ten of an account are free"])
        + "\n"
    )


def _properties(alarm: Alarm) -> Json:
    topic = [{"Ref": "Topic"}]
    told: Json = {"AlarmActions": topic}
    if alarm.resolved:
        told["OKActions"] = topic
    if alarm.missing == "missing":
        told["InsufficientDataActions"] = topic  # what is sent around the clock has stopped coming
    return {
        "AlarmName": {"Fn::Sub": f"${{AWS::StackName}}-{alarm.name}"},
        "AlarmDescription": {"Fn::Sub": f"{alarm.what} First: {alarm.first} More: ${{Runbooks}}/{alarm.name}.md"},
        "ComparisonOperator": alarm.comparison,
        "Threshold": alarm.threshold,
        "EvaluationPeriods": alarm.periods,
        "DatapointsToAlarm": alarm.periods,
        "TreatMissingData": alarm.missing,
        **told,
        **_data(alarm),
    }


def _data(alarm: Alarm) -> Json:
    if isinstance(alarm.metric, Metric):
        return {
            "Namespace": metrics.NAMESPACE,
            "MetricName": alarm.metric.name,
            "Dimensions": [{"Name": metrics.STACK, "Value": {"Ref": "AWS::StackName"}}],
            "Statistic": alarm.statistic,
            "Period": alarm.period,
        }
    if len(alarm.functions) == 1:
        return {**_lambda(alarm.metric, alarm.functions[0]), "Statistic": alarm.statistic, "Period": alarm.period}
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html: a function that was not
    # called has no data, and would leave the sum without any.
    whole: Json = {"Id": "all", "Expression": "SUM(FILL(METRICS(), 0))", "Label": alarm.metric, "ReturnData": True}
    parts = [
        {
            "Id": f"m{number}",
            "ReturnData": False,
            "MetricStat": {
                "Metric": _lambda(alarm.metric, suffix),
                "Period": alarm.period,
                "Stat": alarm.statistic,
            },
        }
        for number, suffix in enumerate(alarm.functions)
    ]
    return {"Metrics": [whole, *parts]}


def _lambda(metric: str, suffix: str) -> Json:
    """https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html"""
    name = {"Fn::Sub": f"${{AWS::StackName}}-{suffix}"}
    return {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": [{"Name": "FunctionName", "Value": name}]}
