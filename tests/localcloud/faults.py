"""Making the cloud fail on demand. One order is one kind of failure for the next so many occasions."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Parameters = Mapping[str, Any]
EventFate = Literal["lost", "late", "doubled"]

THROTTLED = {
    "ec2": "RequestLimitExceeded",
    "dynamodb": "ProvisionedThroughputExceededException",
    "sns": "Throttled",
    "ssm": "ThrottlingException",
}


@dataclass
class _Order:
    """A failure waiting for its occasion: lets `skip` occasions pass, then strikes `times` times."""

    what: str
    skip: int
    times: int
    matches: Callable[[Any], bool]
    value: Any = None
    struck: int = field(default=0)


class Faults:
    """What is going to go wrong. Orders of a kind are used up in the order they were given.

    A refused or throttled call has no effect; a *lost* response belongs to a call that had its effect.
    What the control plane sees is what botocore shows after its own retries.
    """

    def __init__(self) -> None:
        self._orders: list[_Order] = []
        self._lock = threading.Lock()

    # AWS calls

    def refuse(
        self, operation: str, code: str, *, times: int = 1, skip: int = 0, when: Parameters | None = None
    ) -> None:
        """The next `times` calls of `operation` (with these parameters) fail with `code`, after `skip` good ones."""
        self._order("call", operation, times, skip, when, value=code)

    def throttle(self, operation: str, *, times: int = 1, skip: int = 0) -> None:
        """Fails with the service's own word for too many requests."""
        self._order("call", operation, times, skip, None, value="throttled")

    def no_capacity(self, operation: str = "StartInstances", *, times: int = 1) -> None:
        self.refuse(operation, "InsufficientInstanceCapacity", times=times)

    def lose_response(self, operation: str, *, times: int = 1, skip: int = 0, when: Parameters | None = None) -> None:
        """The call has its effect, then the connection breaks."""
        self._order("response", operation, times, skip, when)

    def slow(self, operation: str, seconds: float, *, times: int = 1, skip: int = 0) -> None:
        """The call takes that much longer before its effect."""
        self._order("slow", operation, times, skip, None, value=seconds)

    # events

    def lose_event(self, state: str, *, times: int = 1) -> None:
        """`state` is an instance state (`stopped`) or a snapshot's result (`succeeded`, `failed`)."""
        self._add("event", times, 0, lambda seen: seen == state, ("lost", 0.0))

    def delay_event(self, state: str, seconds: float, *, times: int = 1) -> None:
        self._add("event", times, 0, lambda seen: seen == state, ("late", seconds))

    def double_event(self, state: str, *, times: int = 1) -> None:
        self._add("event", times, 0, lambda seen: seen == state, ("doubled", 0.0))

    # machines

    def never_boot(self, *, times: int = 1) -> None:
        """The instance runs, as EC2 sees it; nothing on it ever comes up."""
        self._add("boot", times, 0, lambda _: True, "never")

    def relapse(self, *, times: int = 1) -> None:
        """The start is accepted, then the instance falls back: to stopped, or terminated on its first launch."""
        self._add("boot", times, 0, lambda _: True, "relapse")

    def fail_snapshot(self, *, volume_id: str | None = None, times: int = 1, skip: int = 0) -> None:
        """The snapshot ends in `error`, its event says `failed`."""
        self._add("snapshot", times, skip, lambda seen: volume_id in (None, seen), "error")

    def fail_copy(self, why: str, *, times: int = 1) -> None:
        """A copy to another region ends in `error`, and EC2 says why."""
        self._add("copy", times, 0, lambda _: True, why)

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()

    def pending(self) -> int:
        """How many occasions are still to fail; 0 proves that a test's faults really struck."""
        with self._lock:
            return sum(order.times - order.struck for order in self._orders)

    # asked by the parts of the cloud

    def strike(self, what: str, occasion: Any) -> Any:
        """The value of the first order that strikes here, else None."""
        with self._lock:
            for order in self._orders:
                if order.what != what or order.struck >= order.times or not order.matches(occasion):
                    continue
                if order.skip > 0:
                    order.skip -= 1
                    return None
                order.struck += 1
                return order.value
        return None

    def _order(
        self,
        what: str,
        operation: str,
        times: int,
        skip: int,
        when: Parameters | None,
        *,
        value: Any = True,
    ) -> None:
        def matches(occasion: tuple[str, Parameters]) -> bool:
            name, parameters = occasion
            return name == operation and all(parameters.get(k) == v for k, v in (when or {}).items())

        self._add(what, times, skip, matches, value)

    def _add(self, what: str, times: int, skip: int, matches: Callable[[Any], bool], value: Any) -> None:
        with self._lock:
            self._orders.append(_Order(what, skip, times, matches, value))
