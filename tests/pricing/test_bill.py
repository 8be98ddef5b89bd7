"""Bills add up, are never negative, and never shrink when more is used."""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.pricing.bill import Item, bill
from chalicelib.pricing.control_plane import Traffic, counts
from chalicelib.pricing.table import LISTED, Price, Prices
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume
from tests.pricing.usages import BEGIN, END, known, snapshots, traffics, usages, volumes

HOUR = 0.0168 + 0.005
CENT = 1e-9


def item(usage: Usage, name: str, host: str | None) -> Item:
    (found,) = (each for each in bill(usage, LISTED).items if (each.name, each.host) == (name, host))
    return found


# --- by hand ----------------------------------------------------------------------------------------------


def test_awake_time_is_the_instance_and_its_address_by_the_second() -> None:
    assert item(known(), "vault awake", "C").dollars == pytest.approx(2 * HOUR)
    assert item(known(), "vault awake", "C").forecast == pytest.approx(4 * HOUR)
    assert item(known(), "vault awake", "H").dollars == pytest.approx(1 * HOUR)


def test_awake_time_that_is_no_hosts_is_the_stacks() -> None:
    usage = known(host_awake_seconds={"C": 7200.0})
    assert item(usage, "vault awake", None).dollars == pytest.approx(1 * HOUR)


def test_a_volume_is_charged_for_the_days_it_was_there() -> None:
    # https://aws.amazon.com/ebs/pricing/: GB-month times seconds, over the seconds of that month
    assert item(known(), "volumes", "C").dollars == pytest.approx(20 * 0.08 / 2)
    assert item(known(), "volumes", "C").forecast == pytest.approx(20 * 0.08)
    assert item(known(), "volumes", "H").dollars == pytest.approx(50 * 0.08 * 3 / 30)
    assert item(known(), "volumes", "H").forecast == pytest.approx(50 * 0.08 * 18 / 30)
    assert item(known(), "root volumes", None).forecast == pytest.approx(8 * 0.08)


def test_a_volume_that_is_gone_costs_no_more() -> None:
    gone = Volume(
        volume_id="vol-o",
        host="O",
        gib=100,
        type="gp3",
        since=BEGIN - timedelta(days=1),
        until=BEGIN + timedelta(days=3),
    )
    charged = item(known(volumes=(gone,)), "volumes", "O")
    assert charged.dollars == charged.forecast == pytest.approx(100 * 0.08 * 3 / 30)


def test_restore_points_and_the_nights_to_come() -> None:
    points = item(known(), "restore points", "C")
    assert points.dollars == pytest.approx(0.05 * (10 * 0.5 + 2 * 6 / 30))
    # What is kept stays for the other half; 2 GiB in this half come again, on average for a quarter month.
    assert points.forecast == pytest.approx(points.dollars + 0.05 * (12 * 0.5 + 2 * 0.25))
    assert "estimate" in points.how


def test_an_archived_point_has_the_archives_price() -> None:
    archived = Snapshot(snapshot_id="snap-3", host="C", stored_bytes=40 * GIB, since=BEGIN, basis="full", archived=True)
    assert item(known(snapshots=(archived,)), "restore points", "C").dollars == pytest.approx(40 * 0.0125 / 2)


def test_what_other_volume_types_would_save() -> None:
    savings = {each.what: each.dollars for each in bill(known(), LISTED).savings}
    # st1 and sc1 begin at 125 GiB, so a volume of 20 GiB gains nothing, and one of 50 with sc1 only.
    assert savings["sc1 for 1 volume, each of at least 125 GiB"] == pytest.approx(50 * 0.08 - 125 * 0.015)
    assert not any("st1" in what or "gp2" in what for what in savings)
    assert savings["t4g.nano instead of t4g.small"] == pytest.approx(6 * (0.0168 - 0.0042))
    assert "t4g.medium instead of t4g.small" not in savings


def test_free_allowances_are_said_and_not_taken_off() -> None:
    usage = known(counts={"dashboard": 0.5, "alarm": 20 * 0.5, "key": 0.5})
    made = bill(usage, LISTED)
    assert item(usage, "watching", None).forecast == pytest.approx(3 + 2)
    assert {each.what: round(each.dollars, 6) for each in made.free} == {
        "dashboard: 3 a month": 3.0,
        "alarm: 10 a month": 1.0,
    }


def test_a_month_that_is_over_is_what_it_was() -> None:
    made = bill(known(as_of=END), LISTED)
    assert made.so_far == pytest.approx(made.forecast)


def test_the_first_hour_of_a_month_is_no_forecast_of_all_of_it() -> None:
    early = known(as_of=BEGIN + timedelta(hours=1), awake_seconds={"vault-1": 900.0}, host_awake_seconds={"C": 900.0})
    assert item(early, "vault awake", "C").forecast < 31 * 0.25 * HOUR


def test_prices_of_another_region_are_said() -> None:
    assert "eu-central-1" in bill(known(region="eu-central-1"), LISTED).note
    assert bill(known(), LISTED).note == ""


def test_a_price_that_is_not_known_is_named_with_the_remedy() -> None:
    with pytest.raises(KeyError, match=r"x9\.huge.*refresh"):
        bill(known(instance_type="x9.huge"), LISTED)


def test_a_count_that_nothing_bills_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="teapots"):
        bill(known(counts={"teapots": 1.0}), LISTED)


# --- any usage --------------------------------------------------------------------------------------------


@given(usages())
def test_bills_add_up(usage: Usage) -> None:
    made = bill(usage, LISTED)
    by_host, by_item = made.by_host().values(), made.by_item().values()
    for parts in (by_host, by_item):
        assert sum(so_far for so_far, _ in parts) == pytest.approx(made.so_far, abs=CENT)
        assert sum(forecast for _, forecast in parts) == pytest.approx(made.forecast, abs=CENT)


@given(usages())
def test_no_item_is_negative_and_no_forecast_below_what_is_spent(usage: Usage) -> None:
    made = bill(usage, LISTED)
    for each in made.items:
        assert 0 <= each.dollars <= each.forecast + CENT
    assert all(saving.dollars > 0 for saving in (*made.savings, *made.free))


@dataclass(frozen=True)
class More:
    volume: Volume
    snapshot: Snapshot
    seconds: float
    traffic: Traffic


more = st.builds(More, volume=volumes, snapshot=snapshots, seconds=st.floats(0, 10**6), traffic=traffics)


@settings(max_examples=200)
@given(usages(), more, st.sampled_from(["volume", "snapshot", "seconds", "traffic"]))
def test_using_more_never_costs_less(usage: Usage, extra: More, what: str) -> None:
    match what:
        case "volume":
            bigger = replace(usage, volumes=(*usage.volumes, extra.volume))
        case "snapshot":
            bigger = replace(usage, snapshots=(*usage.snapshots, extra.snapshot))
        case "seconds":
            awake = {**usage.awake_seconds, "vault-1": usage.awake_seconds.get("vault-1", 0) + extra.seconds}
            bigger = replace(usage, awake_seconds=awake)
        case _:
            added = counts(extra.traffic)
            bigger = replace(usage, counts={name: usage.counts[name] + added[name] for name in usage.counts})
    before, after = bill(usage, LISTED), bill(bigger, LISTED)
    assert after.so_far >= before.so_far - CENT
    assert after.forecast >= before.forecast - CENT


@given(usages(), st.floats(1, 3))
def test_prices_twice_as_high_make_bills_twice_as_high(usage: Usage, times: float) -> None:
    dear = Prices(
        region=LISTED.region,
        as_of="",
        source="",
        prices={
            name: Price(dollars=price.dollars * times, unit="", source="", seen="")
            for name, price in LISTED.prices.items()
        },
    )
    assert bill(usage, dear).forecast == pytest.approx(bill(usage, LISTED).forecast * times, abs=1e-6)


@given(traffics, traffics)
def test_more_traffic_is_never_counted_less(one: Traffic, other: Traffic) -> None:
    names = Traffic.__struct_fields__
    both = Traffic(**{name: max(getattr(one, name), getattr(other, name)) for name in names})
    assert all(counts(both)[name] >= amount >= 0 for name, amount in counts(one).items())


def test_every_price_has_a_page_and_a_day() -> None:
    for name, price in LISTED.prices.items():
        assert price.source.startswith("https://aws.amazon.com/"), name
        assert price.seen, name
        assert price.dollars >= 0, name
