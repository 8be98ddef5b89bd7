"""What CloudWatch does with metrics and alarms, as its documentation says, on a clock of ours.

It works on the template's own resources, not on the table that they are made from. No emulator evaluates alarms
over time: moto not at all, ministack only at PutMetricData.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Json = dict[str, Any]
Key = tuple[str, str, frozenset[tuple[str, str]]]
EPOCH = datetime.fromisoformat("2026-01-01T00:00:00Z")


def resolve(value: Any, names: dict[str, str]) -> Any:
    """Ref and Fn::Sub, by `names`."""
    if isinstance(value, dict):
        if "Ref" in value:
            return names[value["Ref"]]
        if "Fn::Sub" in value:
            text = value["Fn::Sub"]
            for name, what in names.items():
                text = text.replace(f"${{{name}}}", what)
            assert "${" not in text.replace("${!", ""), text
            return text.replace("${!", "${")
        return {key: resolve(each, names) for key, each in value.items()}
    return [resolve(each, names) for each in value] if isinstance(value, list) else value


def key(namespace: str, name: str, dimensions: dict[str, str]) -> Key:
    return namespace, name, frozenset(dimensions.items())


class Metrics:
    """Values by metric and minute. A metric is its name *and* its exact set of dimensions."""

    def __init__(self) -> None:
        self._values: dict[Key, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    @property
    def keys(self) -> set[Key]:
        return set(self._values)

    def put(self, metric: Key, at: datetime, *values: float) -> None:
        self._values[metric][_minute(at)] += values

    def put_emf(self, text: str, at: datetime) -> None:
        """Log lines; those in the embedded metric format count, as CloudWatch Logs would take them.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
        """
        for raw in text.splitlines():
            line = json.loads(raw) if raw.startswith("{") else {}
            for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
                for names in directive["Dimensions"]:
                    dimensions = {name: str(line[name]) for name in names}
                    for metric in directive["Metrics"]:
                        values = line[metric["Name"]]
                        many = values if isinstance(values, list) else [values]
                        assert len(many) <= 100, "EMF takes a hundred values at most"
                        self.put(key(directive["Namespace"], metric["Name"], dimensions), at, *many)

    def datum(self, metric: Key, begin: datetime, seconds: int, statistic: str) -> float | None:
        minutes = self._values.get(metric, {})
        first = _minute(begin)
        values = [v for minute in range(first, first + seconds // 60) for v in minutes.get(minute, ())]
        if not values:
            return None
        return sum(values) if statistic == "Sum" else {"Maximum": max}[statistic](values)


def _minute(at: datetime) -> int:
    return int((at - EPOCH).total_seconds()) // 60


@dataclass
class Watch:
    """An AWS::CloudWatch::Alarm, resolved. `extra`: how many more periods than it asks for CloudWatch looks at.

    That number is not documented but for the examples, where it is 2 for 3; nothing here may depend on it.
    """

    properties: Json
    metrics: Metrics
    extra: int = 2
    state: str = "INSUFFICIENT_DATA"  # where every alarm begins
    history: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.properties["AlarmName"])

    @property
    def keys(self) -> list[Key]:
        """Of the metrics that it watches."""
        if "MetricName" in self.properties:
            return [_key(self.properties)]
        return [_key(part["MetricStat"]["Metric"]) for part in self.properties["Metrics"] if "MetricStat" in part]

    @property
    def period(self) -> int:
        if "Period" in self.properties:
            return int(self.properties["Period"])
        (period,) = {part["MetricStat"]["Period"] for part in self.properties["Metrics"] if "MetricStat" in part}
        return int(period)

    def evaluate(self, now: datetime) -> None:
        new = self.verdict([self._datum(now, n) for n in range(self.properties["EvaluationPeriods"] + self.extra)])
        if new != self.state:
            self.state = new
            self.history.append((now, new))

    def verdict(self, newest_first: list[float | None]) -> str:
        """By "How alarm state is evaluated when data is missing" of the page above."""
        periods = self.properties["EvaluationPeriods"]
        assert self.properties["DatapointsToAlarm"] == periods, "M of N has more rules than are written here"
        real = [self._breaching(value) for value in newest_first if value is not None]
        if len(real) >= periods:
            considered = real[:periods]
        else:
            missing = self.properties["TreatMissingData"]
            if missing in ("missing", "ignore"):
                assert periods == 1, "with more than one period there are more rules than are written here"
                return "INSUFFICIENT_DATA" if missing == "missing" else self.state
            considered = real + [missing == "breaching"] * (periods - len(real))
        return "ALARM" if all(considered) else "OK"

    def _breaching(self, value: float) -> bool:
        threshold = float(self.properties["Threshold"])
        return {
            "GreaterThanOrEqualToThreshold": value >= threshold,
            "LessThanThreshold": value < threshold,
        }[self.properties["ComparisonOperator"]]

    def _datum(self, now: datetime, periods_ago: int) -> float | None:
        begin = now - timedelta(seconds=self.period * (periods_ago + 1))
        if "MetricName" in self.properties:
            return self.metrics.datum(_key(self.properties), begin, self.period, self.properties["Statistic"])
        (whole,) = [part for part in self.properties["Metrics"] if part["ReturnData"]]
        assert whole["Expression"] == "SUM(FILL(METRICS(), 0))", "another expression needs another reading here"
        parts = [part["MetricStat"] for part in self.properties["Metrics"] if "MetricStat" in part]
        data = [self.metrics.datum(_key(p["Metric"]), begin, self.period, p["Stat"]) for p in parts]
        return sum(value or 0.0 for value in data)


def _key(metric: Json) -> Key:
    return key(metric["Namespace"], metric["MetricName"], {d["Name"]: d["Value"] for d in metric["Dimensions"]})
