"""Starts ministack, in its own environment, with what it lacks. Everything here leans on private names of 1.5.33;
tests/stack/test_emulator.py says what must hold, so that another version is noticed.

- EventBridge takes events from `aws.*`, as AWS's own services send them.
- CloudFormation makes alarms on metric math. ministack evaluates no alarm by itself, so it is kept as one on the first
  of its metrics.
- DescribeLaunchTemplateVersions says which KMS key a volume gets, too.
- It ends with whoever started it, workers and all: standard input is its power.
- Lambda's workers get the variables of NIGHTVAULT_WORKERS (JSON) in their environment, under those of the template.
"""

import functools
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.services import ec2, eventbridge
from ministack.services.cloudformation import provisioners

Json = dict[str, Any]


def math_as_metric(properties: Json) -> Json:
    """An alarm's properties without Metrics: those of the first metric that goes into it."""
    if not properties.get("Metrics"):
        return properties
    first = next(each["MetricStat"] for each in properties["Metrics"] if "MetricStat" in each)
    plain = {name: value for name, value in properties.items() if name != "Metrics"}
    return {**plain, **first["Metric"], "Statistic": first["Stat"], "Period": first["Period"]}


def on_plain_metrics(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler` of a resource type, given alarms without metric math."""

    @functools.wraps(handler)
    def translated(*arguments: Any, **named: Any) -> Any:
        plain = [math_as_metric(each) if isinstance(each, dict) else each for each in arguments]
        return handler(*plain, **named)

    return translated


def with_keys(describe: Callable[[Json], str]) -> Callable[[Json], str]:
    """`describe` of a launch template's data, with the key of each volume, which it leaves out."""

    @functools.wraps(describe)
    def whole(data: Json) -> str:
        before, *volumes = describe(data).split("<ebs>")
        keys = [each["Ebs"].get("KmsKeyId") for each in data.get("BlockDeviceMappings", ()) if "Ebs" in each]
        named = (f"<kmsKeyId>{key}</kmsKeyId>" if key else "" for key in keys)
        return before + "".join(f"<ebs>{key}{volume}" for key, volume in zip(named, volumes, strict=True))

    return whole


def end_with_our_parent() -> None:
    """Standard input ends when the test process does, however that died."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    threading.Thread(target=end_with_our_parent, daemon=True).start()
    ec2._lt_data_xml = with_keys(ec2._lt_data_xml)
    eventbridge._put_events = functools.partial(eventbridge._put_events, allow_aws_source=True)
    alarm = provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"]
    alarm |= {does: on_plain_metrics(alarm[does]) for does in ("create", "update", "delete")}
    os.environ.update(json.loads(os.environ.pop("NIGHTVAULT_WORKERS", "{}")))
    app.main()


if __name__ == "__main__":
    main()
