"""Sizes, ages and instants as people read them."""

from datetime import datetime, tzinfo

GIB = 2**30
NONE = "-"


def gib(count: float | None) -> str:
    """Bytes of a volume in the units that volumes are ordered in: `3.1 GiB`, `120 MiB`."""
    if count is None:
        return NONE
    sign, value = ("-" if count < 0 else ""), abs(float(count))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{sign}{value:.{0 if unit == 'B' or value >= 100 else 1}f} {unit}"
        value /= 1024
    return f"{sign}{value:.1f} TiB"


def growth(per_day: float | None) -> str:
    """`+120 MiB`."""
    if per_day is None:
        return NONE
    return f"{'+' if per_day >= 0 else ''}{gib(per_day)}"


def sent(count: int | None) -> str:
    """Bytes on the wire, in rsync's own decimal units."""
    if count is None:
        return NONE
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' or value >= 100 else 1}f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def span(seconds: float | None) -> str:
    """`42 s`, `12 min`, `17 h`, `2.1 d`."""
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        hours = seconds / 3600
        return f"{hours:.{0 if hours >= 10 else 1}f} h"
    return f"{seconds / 86400:.1f} d"


def when(instant: datetime | None, zone: tzinfo | None) -> str:
    """To the minute, in the operator's own time zone (`zone` None: the machine's)."""
    return NONE if instant is None else f"{instant.astimezone(zone):%Y-%m-%d %H:%M}"


def dollars(amount: float) -> str:
    """To the cent, and a hint of what is less."""
    if 0 < amount < 0.005:
        return "<0.01"
    return f"{amount:,.2f}"
