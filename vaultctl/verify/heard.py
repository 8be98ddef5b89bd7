"""Whether EventBridge's events reach the control plane, as far as times can tell.

The sweep would notice the same changes, each minute at much the same second: it starts with a `rate` rule, whose
precision is a minute (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html). So
changes noticed at seconds of the minute that lie well apart cannot all have been noticed by it.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

PERIOD_SECONDS = 60.0
# How far the sweep itself may wander within its minute.
JITTER_SECONDS = 10.0


def spread(noticed: Sequence[datetime]) -> float:
    """The shortest arc of the minute's circle, in seconds, that holds every instant's second."""
    at = sorted(each.timestamp() % PERIOD_SECONDS for each in noticed)
    if not at:
        return 0.0
    gaps = [after - before for before, after in pairwise([*at, at[0] + PERIOD_SECONDS])]
    return PERIOD_SECONDS - max(gaps)


def verdict(noticed: Sequence[datetime]) -> tuple[str, str]:
    """A level and a sentence."""
    seconds = ", ".join(f":{each:%S}" for each in sorted(noticed))
    if spread(noticed) > JITTER_SECONDS:
        return "ok", f"stops and snapshots were noticed at {seconds} of the minute: by events, not by the sweep alone"
    return (
        "warning",
        f"all was noticed at the same second of the minute ({seconds}): it may have been the sweep; if it is so again, "
        "look at the event rules of the stack and their metric FailedInvocations",
    )
