"""The control plane's clock in the local cloud: real time plus an offset that a test moves."""

import threading
from datetime import UTC, datetime, timedelta


class OffsetClock:
    """`now()` is real time plus whatever `advance` added. State changes and timers stay on real time."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, *, seconds: float) -> None:
        """Moves the control plane's time on. Backwards is refused: no real clock that we rely on does that."""
        if seconds < 0:
            raise ValueError("the clock only goes forward")
        with self._lock:
            self._offset += timedelta(seconds=seconds)
