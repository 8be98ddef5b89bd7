"""EventBridge's part: events of EC2 and EBS as AWS words them, delivered at least once, in threads."""

import copy
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .clock import OffsetClock
from .faults import Faults
from .interposer import REGION
from .timeline import Timeline

ACCOUNT = "123456789012"
_SAMPLES = Path(__file__).parent.parent / "events"

Event = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """Events that match `pattern` are taken to `target`."""

    pattern: Mapping[str, Any]
    target: Callable[[Event], object]


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """EventBridge's matching, as far as exact values go: every field is there with one of the values listed.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern.html
    """
    return all(
        matches(wanted, event.get(name) or {}) if isinstance(wanted, Mapping) else event.get(name) in wanted
        for name, wanted in pattern.items()
    )


def _sample(name: str) -> Event:
    event: Event = json.loads((_SAMPLES / f"{name}.json").read_text())
    return event


def _stamp(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def instance_changed(instance_id: str, state: str, now: datetime) -> Event:
    """An "EC2 Instance State-change Notification", after the sample in tests/events/."""
    event = copy.deepcopy(_sample("ec2_instance_state_change"))
    arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance_id}"
    event.update(_envelope(now), resources=[arn])
    event["detail"].update({"instance-id": instance_id, "state": state})
    return event


def snapshot_changed(snapshot_id: str, volume_id: str, result: str, started: datetime, now: datetime) -> Event:
    """An "EBS Snapshot Notification" of createSnapshot: `result` is `succeeded` or `failed`."""
    event = copy.deepcopy(_sample("ebs_create_snapshot"))
    arn = f"arn:aws:ec2:{REGION}::snapshot/{snapshot_id}"
    event.update(_envelope(now), resources=[arn])
    event["detail"].update(
        {
            "result": result,
            "cause": "" if result == "succeeded" else "an internal error, which the test asked for",
            "snapshot_id": arn,
            "source": f"arn:aws:ec2:{REGION}::volume/{volume_id}",
            "startTime": _stamp(started),
            "endTime": _stamp(now),
        }
    )
    return event


def scheduled(now: datetime) -> Event:
    """A "Scheduled Event": https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html"""
    return {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/sweep"],
        "detail": {},
        **_envelope(now),
    }


def _envelope(now: datetime) -> Event:
    return {"id": str(uuid.uuid4()), "account": ACCOUNT, "region": REGION, "time": _stamp(now)}


class EventBus:
    """Takes events to their targets, soon, each in a thread of its own; order is not promised, as on AWS.

    A target that raises is tried twice more, as Lambda does with asynchronous invocations:
    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
    """

    def __init__(
        self,
        timeline: Timeline,
        faults: Faults,
        clock: OffsetClock,
        *,
        delay_seconds: float = 0.0,
        retry_seconds: tuple[float, ...] = (0.3, 0.6),
    ) -> None:
        self.rules: list[Rule] = []
        self.sent: list[Event] = []
        self._timeline = timeline
        self._faults = faults
        self._clock = clock
        self._delay = delay_seconds
        self._retries = retry_seconds

    def instance(self, instance_id: str, state: str) -> None:
        self._send(instance_changed(instance_id, state, self._clock.now()), state)

    def snapshot(self, snapshot_id: str, volume_id: str, result: str, started: datetime) -> None:
        self._send(snapshot_changed(snapshot_id, volume_id, result, started, self._clock.now()), result)

    def _send(self, event: Event, state: str) -> None:
        self.sent.append(event)
        fate, seconds = self._faults.strike("event", state) or ("", 0.0)
        if fate == "lost":
            return
        for rule in self.rules:
            if matches(rule.pattern, event):
                for _ in range(2 if fate == "doubled" else 1):
                    self._deliver(rule, event, self._delay + seconds, self._retries)

    def _deliver(self, rule: Rule, event: Event, after: float, retries: tuple[float, ...]) -> None:
        def invoke() -> None:
            try:
                rule.target(copy.deepcopy(event))
            except Exception:
                if retries:
                    self._deliver(rule, event, retries[0], retries[1:])
                raise

        self._timeline.after(after, f"event {event['detail-type']}", invoke)
