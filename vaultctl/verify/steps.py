"""Steps: each has a name, a time, and what came of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class NotSo(Exception):
    """A step found what should not be; the message says what, and where to look."""


class Step(Struct, kw_only=True):
    """`level`: ok, warning or wrong, as in doctor's checks. `seconds`: how long it took us."""

    name: str
    level: str = "ok"
    seconds: float = 0.0
    what: str = ""


class Steps:
    """Those that were taken. `told` hears of each when it ends, `begun` when it begins."""

    def __init__(
        self, told: Callable[[Step], None], begun: Callable[[str], None], *, pause_seconds: float = 2.0
    ) -> None:
        self.taken: list[Step] = []
        self._told = told
        self._begun = begun
        self._pause_seconds = pause_seconds

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times what is done in it. Whatever it raises makes it `wrong`, and goes on."""
        step = Step(name=name)
        self._begun(name)
        since = time.monotonic()
        try:
            yield step
        except BaseException as error:
            step.level = "wrong"
            step.what = " ".join(str(error).split()) or type(error).__name__
            raise
        finally:
            step.seconds = round(time.monotonic() - since, 1)
            self.taken.append(step)
            self._told(step)

    def wait(self, look: Callable[[], T | None], seconds: float, what: str) -> T:
        """The first answer that is not None. AWS tells us nothing by itself, so we ask. Raises NotSo."""
        end = time.monotonic() + seconds
        while (found := look()) is None:
            if time.monotonic() >= end:
                raise NotSo(f"{what}: not within {seconds:.0f} s")
            time.sleep(self._pause_seconds)
        return found

    @property
    def wrong(self) -> list[Step]:
        return [each for each in self.taken if each.level == "wrong"]
