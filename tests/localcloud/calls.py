"""What was asked of AWS: every call by kind, with the gist of its parameters and how it ended."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call as the control plane made it (botocore's own retries are not counted: there are none here)."""

    service: str
    operation: str
    gist: Mapping[str, Any]
    ended: str  # "ok", an AWS error code, or "lost": done, but the answer never arrived


class Ledger:
    """All calls so far, oldest first."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def find(self, operation: str | None = None, *, ended: str | None = None, **gist: Any) -> list[Call]:
        """Calls of that operation, with that ending, whose gist holds these values.

        `find("StopInstances", ended="ok")`, `find("CreateSnapshot", VolumeId="vol-1")`.
        """
        with self._lock:
            calls = list(self._calls)
        return [
            call
            for call in calls
            if operation in (None, call.operation)
            and ended in (None, call.ended)
            and all(call.gist.get(name) == value for name, value in gist.items())
        ]

    __call__ = find

    def by_kind(self) -> Counter[str]:
        """How many calls of each kind, as `ec2.StartInstances`."""
        return Counter(f"{call.service}.{call.operation}" for call in self.find())

    def forget(self) -> None:
        with self._lock:
            self._calls.clear()


def gist(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The plain parameters, and tags as one mapping; a DynamoDB item is not kept, its key is."""
    short: dict[str, Any] = {}
    for name, value in parameters.items():
        plain_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if isinstance(value, str | int | bool) or plain_list or name in {"Key", "IpPermissions"}:
            short[name] = value
    for specification in parameters.get("TagSpecifications") or ():
        tags = {tag["Key"]: tag["Value"] for tag in specification.get("Tags", ())}
        short["Tags"] = {**short.get("Tags", {}), **tags}
    return short
