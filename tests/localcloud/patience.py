"""Waiting for what happens in other threads and processes."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.01


def wait_until(
    predicate: Callable[[], T], seconds: float = 20.0, *, what: str = "it", poll_seconds: float = _POLL_SECONDS
) -> T:
    """The first true value of `predicate`, asked every `poll_seconds`; TimeoutError if none comes in time.

    It is asked once more after the time is over: a machine that stood still has had none.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        over = time.monotonic() >= deadline
        if value := predicate():
            return value
        if over:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        pause.wait(poll_seconds)
