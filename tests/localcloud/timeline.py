"""Things that happen later, beside whatever else goes on: state changes, events, sweeps."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class _Entry:
    due: float
    number: int
    name: str = field(compare=False)
    action: Callable[[], object] = field(compare=False)


class Timeline:
    """Runs each action in a thread of its own when it is due, as Lambda and EC2 would: none waits for another.

    An action that raises lands in `errors`; nothing runs once `close` has begun.
    """

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self._entries: list[_Entry] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._running: set[threading.Thread] = set()
        self._closed = False
        self._keeper = threading.Thread(target=self._keep, name="timeline", daemon=True)
        self._keeper.start()

    def after(self, seconds: float, name: str, action: Callable[[], object]) -> None:
        """Runs `action` in `seconds`; silently never, if the timeline closes before."""
        with self._changed:
            if self._closed:
                return
            entry = _Entry(time.monotonic() + max(0.0, seconds), next(self._numbers), name, action)
            heapq.heappush(self._entries, entry)
            self._changed.notify_all()

    def idle(self) -> bool:
        """Nothing is under way and nothing is to come."""
        with self._changed:
            return not self._entries and not self._running

    def close(self, *, patience_seconds: float = 10.0) -> None:
        """Drops what is to come and waits for what is under way."""
        with self._changed:
            self._closed = True
            self._entries.clear()
            self._changed.notify_all()
            running = list(self._running)
        deadline = time.monotonic() + patience_seconds
        for thread in (self._keeper, *running):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _keep(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                if not self._entries:
                    self._changed.wait()
                    continue
                wait = self._entries[0].due - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                entry = heapq.heappop(self._entries)
                thread = threading.Thread(target=self._run, args=(entry,), name=entry.name, daemon=True)
                self._running.add(thread)
            thread.start()

    def _run(self, entry: _Entry) -> None:
        try:
            entry.action()
        except BaseException as error:
            self.errors.append((entry.name, error))
        finally:
            with self._changed:
                self._running.discard(threading.current_thread())
                self._changed.notify_all()
