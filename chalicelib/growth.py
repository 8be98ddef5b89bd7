"""How full a volume is, and how large it should be. Pure."""

from math import ceil

from chalicelib.model import Mount, Slot

GIB = 2**30
FULL = 0.8  # fuller than this, a volume is enlarged
ROOMY = 0.6  # and then at least so far that it is this full
HALF_MORE = 1.5
# The filesystem is a little smaller than its device: XFS keeps its log and headers.
_NEARLY_ALL = 0.9


def fill(slot: Slot, mount: Mount | None) -> float | None:
    """The part of a volume that is used, 0 to 1; None when it is not known.

    Not known either when the volume was enlarged and its filesystem is not yet: it fills the new size at the next
    waking, and what is then said counts.
    """
    if mount is None or mount.used_bytes is None or mount.volume_id != slot.volume_id:
        return None
    if mount.size_bytes < _NEARLY_ALL * slot.size_gib * GIB:
        return None
    return mount.used_bytes / mount.size_bytes


def target(slot: Slot, filled: float) -> int:
    """The size in GiB that a volume so full should have, at most what the host's settings let it have."""
    wanted = max(ceil(slot.size_gib * HALF_MORE), ceil(slot.size_gib * filled / ROOMY))
    return max(slot.size_gib, min(slot.limit_gib, wanted))
