"""In each of Lambda's workers (PYTHONPATH leads here): the control plane's clock is one that the test moves.

chalicelib.wiring.SystemClock is the one place where the application takes the time from. Its `now` adds the seconds in
the file NIGHTVAULT_CLOCK; signatures and AWS stay on real time.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType


def now(_clock: object) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=float(Path(os.environ["NIGHTVAULT_CLOCK"]).read_text()))


class _MovedClock(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.SystemClock.now = now


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "chalicelib.wiring":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.origin:
            spec.loader = _MovedClock(name, spec.origin)
        return spec


if "NIGHTVAULT_CLOCK" in os.environ:
    sys.meta_path.insert(0, _Finder)
