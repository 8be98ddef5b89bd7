"""What a month used, as counted or estimated: the input of a bill. Pure; gathered by chalicelib/operators/cost.py."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from msgspec import Struct, field

from chalicelib.model import Window

GIB = 2**30


class Volume(Struct, frozen=True, kw_only=True):
    """A volume that is there. `host` None: a vault's own root. `until` None: it still is."""

    volume_id: str
    host: str | None
    gib: int
    type: str
    since: datetime = field(name="from")
    until: datetime | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """`stored_bytes`: what it adds to the ones before it, an estimate of the kind that `basis` says.

    `full`: the size that EC2 says, for the oldest one of a volume. `pushed`: what the run sent, so at least
    that: EBS stores changed blocks of 512 KiB. `size`: nothing better is known than the volume's size, so at most.
    """

    snapshot_id: str
    host: str
    stored_bytes: int
    since: datetime = field(name="from")
    basis: str = "pushed"
    archived: bool = False


class Usage(Struct, frozen=True, kw_only=True):
    """A calendar month (UTC) from `since` (its first instant, or the first enrolment's) to `as_of`.

    `counts`: estimates, by the name of the price, in the price's unit, for the time from `since` to `as_of`.
    """

    month: str
    region: str
    since: datetime
    as_of: datetime
    instance_type: str
    awake_seconds: dict[str, float] = field(default_factory=dict)  # by vault
    host_awake_seconds: dict[str, float] = field(default_factory=dict)  # the hosts' shares of it
    volumes: tuple[Volume, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    copies: tuple[Snapshot, ...] = ()  # in another region
    counts: dict[str, float] = field(default_factory=dict)


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """First instant of a month such as "2026-11", and of the next. Raises ValueError that says what is wrong."""
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"month: {month!r} is no month; write it like 2026-11") from None
    return first, first + timedelta(days=monthrange(first.year, first.month)[1])


def share_awake(window: Window, begin: datetime, end: datetime) -> dict[str, float]:
    """The seconds of a window that lie between `begin` and `end`, by host; "" for a window that had no runs.

    At each moment the hosts whose runs are live share alike; while none is, all the window's hosts do: the
    vault boots, lingers and stops for their sake. The sum is the time awake.
    """
    opened, closed = max(window.opened_at, begin), min(window.stopped_at or end, end)
    if closed <= opened:
        return {}
    runs = list(window.runs.values())
    everyone = sorted({run.host for run in runs}) or [""]
    edges = {opened, closed}
    for run in runs:
        edges |= {edge for edge in (run.started_at, run.ended_at) if edge and opened < edge < closed}
    shares = dict.fromkeys(everyone, 0.0)
    for start, stop in pairwise(sorted(edges)):
        live = sorted({run.host for run in runs if run.started_at <= start and (run.ended_at or closed) >= stop})
        present = live or everyone
        for host in present:
            shares[host] += (stop - start).total_seconds() / len(present)
    return shares
