"""The cloud on one machine. `LocalCloud` is all that tests and the demo need; README.md says how it works."""

from .cloud import LocalCloud
from .faults import Faults
from .hosts import FakeHost
from .states import Delays

__all__ = ["Delays", "FakeHost", "Faults", "LocalCloud"]
