"""A month's bill from what was used and what it costs: so far, at the month's end, by host and by item. Pure.

Free tiers are not taken off: they belong to the account, whose other things may use them up. What they would
take off at most is said beside it (`free`).
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from chalicelib.pricing.table import ALWAYS_FREE, VOLUME_SIZES, Prices
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume, month_bounds

# A forecast from less than this would be noise: one night in the first hour of a month is not 700 of them.
LEAST_SECONDS = 86400.0

# Prices of one item, and the words for their amounts.
_ITEMS: dict[str, dict[str, str]] = {
    "requests": {
        "lambda_request": "{:,.0f} Lambda requests",
        "lambda_gb_second": "{:,.0f} GB-seconds",
        "api_request": "{:,.0f} API requests",
    },
    "table": {
        "table_write": "{:,.0f} units written",
        "table_read": "{:,.0f} read",
        "table_storage": "{:.4f} GB-months",
        "table_recovery": "",
    },
    "watching": {
        "metric": "{:.1f} metric-months",
        "alarm": "{:.1f} alarm-months",
        "dashboard": "{:.1f} dashboard-months",
        "log_ingest": "{:.2f} GB of logs",
        "log_storage": "",
        "mail": "",
    },
    "key": {"key": "{:.2f} customer key-months", "key_request": "{:,.0f} requests"},
    "transfer": {"out": "{:.1f} GB out", "between_regions": "{:.1f} GB to another region"},
}


class Item(Struct, frozen=True, kw_only=True):
    """`dollars` so far, `forecast` at the month's end. `host` None: of the whole stack."""

    name: str
    host: str | None
    how: str
    dollars: float
    forecast: float


class Saving(Struct, frozen=True, kw_only=True):
    """What a month would cost less, by the forecast."""

    what: str
    dollars: float


class Bill(Struct, frozen=True, kw_only=True):
    """Dollars, before tax. `note` says when the prices are another region's."""

    month: str
    as_of: datetime
    prices_as_of: str
    items: tuple[Item, ...]
    so_far: float
    forecast: float
    savings: tuple[Saving, ...]
    free: tuple[Saving, ...]
    note: str = ""

    def by_host(self) -> dict[str | None, tuple[float, float]]:
        """So far and forecast, by host; None: of the whole stack."""
        found: dict[str | None, list[Item]] = defaultdict(list)
        for item in self.items:
            found[item.host].append(item)
        return {host: _sums(items) for host, items in found.items()}

    def by_item(self) -> dict[str, tuple[float, float]]:
        """So far and forecast, by the item's name."""
        found: dict[str, list[Item]] = defaultdict(list)
        for item in self.items:
            found[item.name].append(item)
        return {name: _sums(items) for name, items in found.items()}


def bill(usage: Usage, prices: Prices) -> Bill:
    """Raises KeyError that names the price which is not known."""
    period = _Period(usage)
    parts = (_awake, _volumes, _points, _copies, _counted)
    items = tuple(item for part in parts for item in part(usage, prices, period))
    so_far, forecast = _sums(list(items))
    other = prices.region != usage.region
    return Bill(
        month=usage.month,
        as_of=usage.as_of,
        prices_as_of=prices.as_of,
        items=items,
        so_far=so_far,
        forecast=forecast,
        savings=tuple(_savings(usage, prices, period)),
        free=tuple(_free(usage, prices, period)),
        note=f"prices are those of {prices.region}: refresh them for {usage.region}" if other else "",
    )


class _Period:
    """The part of a month that a usage is of, and what is left of it."""

    def __init__(self, usage: Usage) -> None:
        begin, self.end = month_bounds(usage.month)
        self.since, self.as_of = max(begin, usage.since), min(self.end, usage.as_of)
        self.month = (self.end - begin).total_seconds()
        self.left = max(0.0, (self.end - self.as_of).total_seconds())
        elapsed = max(0.0, (self.as_of - self.since).total_seconds())
        self.elapsed = max(elapsed, LEAST_SECONDS)
        self.growth = 1 + self.left / self.elapsed

    def months(self, since: datetime, until: datetime | None = None) -> float:
        """How much of the month something was there, until `as_of` at most."""
        begin, end = max(self.since, since), min(self.as_of, until or self.as_of)
        return max(0.0, (end - begin).total_seconds()) / self.month


def _sums(items: list[Item]) -> tuple[float, float]:
    return math.fsum(item.dollars for item in items), math.fsum(item.forecast for item in items)


def _awake(usage: Usage, prices: Prices, period: _Period) -> Iterator[Item]:
    hour = prices[usage.instance_type] + prices["address"]
    shared = math.fsum(usage.host_awake_seconds.values())
    rest = max(0.0, math.fsum(usage.awake_seconds.values()) - shared)
    shares: list[tuple[str | None, float]] = [*sorted(usage.host_awake_seconds.items())]
    if rest >= 1:
        shares.append((None, rest))
    for host, seconds in shares:
        dollars = seconds / 3600 * hour
        how = f"{seconds / 3600:.2f} h of {usage.instance_type} and its address"
        yield Item(name="vault awake", host=host, how=how, dollars=dollars, forecast=dollars * period.growth)


def _volumes(usage: Usage, prices: Prices, period: _Period) -> Iterator[Item]:
    groups: dict[tuple[str | None, str], list[Volume]] = defaultdict(list)
    for volume in usage.volumes:
        groups[volume.host, volume.type].append(volume)
    for (host, kind), volumes in sorted(groups.items(), key=lambda group: (group[0][0] or "", group[0][1])):
        price = prices[kind]
        dollars = math.fsum(v.gib * period.months(v.since, v.until) * price for v in volumes)
        gib = sum(v.gib for v in volumes if v.until is None)
        forecast = dollars + gib * period.left / period.month * price
        name = "volumes" if host else "root volumes"
        yield Item(name=name, host=host, how=f"{gib} GiB of {kind}", dollars=dollars, forecast=forecast)


def _points(usage: Usage, prices: Prices, period: _Period) -> Iterator[Item]:
    groups: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in usage.snapshots:
        groups[snapshot.host].append(snapshot)
    for host, snapshots in sorted(groups.items()):
        spent, kept = [], []
        for each in snapshots:
            price = prices["snapshot_archive" if each.archived else "snapshot"]
            spent.append(each.stored_bytes / GIB * period.months(each.since) * price)
            kept.append(each.stored_bytes / GIB * price)
        dollars = math.fsum(spent)
        # Nights to come add what nights add; the first one of a volume brought all that was there.
        new = sum(s.stored_bytes for s in snapshots if s.basis == "pushed" and s.since >= period.since)
        coming = new / GIB * prices["snapshot"] * period.left / period.elapsed / 2
        forecast = dollars + (math.fsum(kept) + coming) * period.left / period.month
        gib = sum(s.stored_bytes for s in snapshots) / GIB
        how = f"{len(snapshots)} snapshots, about {gib:.2f} GiB (estimate)"
        yield Item(name="restore points", host=host, how=how, dollars=dollars, forecast=forecast)


def _copies(usage: Usage, prices: Prices, period: _Period) -> Iterator[Item]:
    """As many stay as there are; at our own region's price, which is the one that is known."""
    for host in sorted({copy.host for copy in usage.copies}):
        mine = [copy for copy in usage.copies if copy.host == host]
        month = sum(copy.stored_bytes for copy in mine) / GIB * prices["snapshot"]
        dollars = month * period.months(min(copy.since for copy in mine))
        how = f"{len(mine)} in another region, about {sum(copy.stored_bytes for copy in mine) / GIB:.2f} GiB (estimate)"
        yield Item(
            name="copies", host=host, how=how, dollars=dollars, forecast=dollars + month * period.left / period.month
        )


def _counted(usage: Usage, prices: Prices, period: _Period) -> Iterator[Item]:
    unknown = set(usage.counts) - {name for group in _ITEMS.values() for name in group}
    if unknown:
        raise AssertionError(f"counts that no item bills: {sorted(unknown)}")
    for item, names in _ITEMS.items():
        present = {name: usage.counts[name] for name in names if name in usage.counts}
        if not present:
            continue
        dollars = math.fsum(amount * prices[name] for name, amount in present.items())
        how = ", ".join(names[name].format(amount) for name, amount in present.items() if names[name])
        yield Item(name=item, host=None, how=f"{how} (estimate)", dollars=dollars, forecast=dollars * period.growth)


def _savings(usage: Usage, prices: Prices, period: _Period) -> Iterator[Saving]:
    family = usage.instance_type.split(".", maxsplit=1)[0]
    hours = math.fsum(usage.awake_seconds.values()) / 3600 * period.growth
    for kind in sorted(prices.prices):
        if kind.startswith(f"{family}.") and (saved := hours * (prices[usage.instance_type] - prices[kind])) > 0:
            yield Saving(what=f"{kind} instead of {usage.instance_type}", dollars=saved)
    hosts = [volume for volume in usage.volumes if volume.host and volume.until is None]
    for kind, (least, most) in VOLUME_SIZES.items():
        better = [
            (volume, volume.gib * prices[volume.type] - max(least, volume.gib) * prices[kind])
            for volume in hosts
            if volume.type != kind and volume.gib <= most
        ]
        worth = [saved for _, saved in better if saved > 0]
        if worth:
            grown = f", each of at least {least} GiB" if least > 1 else ""
            volumes = f"{len(worth)} volume{'s' if len(worth) > 1 else ''}"
            yield Saving(what=f"{kind} for {volumes}{grown}", dollars=math.fsum(worth))


def _free(usage: Usage, prices: Prices, period: _Period) -> Iterator[Saving]:
    for name, allowance in ALWAYS_FREE.items():
        amount = usage.counts.get(name, 0.0) * period.growth
        saved = min(amount, allowance) * prices[name]
        if saved >= 0.005:
            yield Saving(what=f"{name}: {allowance:,.0f} a month", dollars=saved)
