"""What restore points add up to, and when the archive is cheaper: by hand, by AWS's own rules, and always."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.model import Retention
from chalicelib.pricing.history import (
    ARCHIVE_MONTHS,
    archive_saves,
    kept,
    may_be_archived,
    monthlies,
    older_gib,
    own_bytes,
)
from chalicelib.pricing.scenarios import GROWN, NIGHTS, report
from chalicelib.pricing.table import LISTED
from chalicelib.pricing.usage import GIB
from chalicelib.retention import Verdict, Why
from tests.unit.test_retention import point

DEFAULT = Retention()


def test_what_is_kept_is_what_retention_keeps() -> None:
    assert kept(14, DEFAULT) == list(range(14))
    assert kept(30, DEFAULT) == [*range(14), 15, 22, 29]
    assert len(kept(GROWN, DEFAULT)) == 42
    assert kept(GROWN, DEFAULT) == kept(GROWN + 365, DEFAULT), "after two years it grows no more"
    assert kept(90, Retention(daily=0, weekly=0, monthly=0)) == list(range(90))


def test_what_the_older_ones_add() -> None:
    assert older_gib([0, 1, 2, 9], 5, 1.0) == 1 + 1 + 5, "a week changes all of five GiB, and no more"
    assert older_gib([0], 5, 1.0) == 0


def test_scenarios_say_what_the_bill_grows_to() -> None:
    first, grown = report("article"), report("article", nights=GROWN)
    assert first.scenario.points == len(kept(NIGHTS, DEFAULT))
    assert grown.scenario.older_gib == 4 * older_gib(kept(GROWN, DEFAULT), 5, 1.0)
    assert grown.older_dollars > first.older_dollars


def test_the_archive_at_the_listed_prices() -> None:
    """A quarter of the price for the whole: worth it where more than a quarter of a snapshot is its own."""
    assert archive_saves(100 * GIB, 100 * GIB, 12, LISTED) == pytest.approx(100 * (0.05 - 0.0125))
    assert archive_saves(100 * GIB, 25 * GIB, 12, LISTED) == pytest.approx(0)
    assert archive_saves(100 * GIB, 10 * GIB, 12, LISTED) == pytest.approx(0.5 - 1.25)


def test_who_leaves_within_ninety_days_pays_for_them_all_the_same() -> None:
    assert archive_saves(GIB, GIB, 1, LISTED) == pytest.approx(0.05 - 3 * 0.0125)
    assert archive_saves(GIB, GIB, ARCHIVE_MONTHS, LISTED) == archive_saves(GIB, GIB, 24, LISTED)


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.floats(0.1, 48), st.floats(0.1, 48))
def test_the_longer_it_stays_the_more_it_saves_and_never_more_than_its_own(
    full: int, own: int, months: float, more: float
) -> None:
    saved = archive_saves(full, own, months, LISTED)
    assert saved <= archive_saves(full, own, months + more, LISTED)
    assert saved <= own / GIB * LISTED["snapshot"]


def test_only_what_its_month_alone_keeps_may_be_archived() -> None:
    assert may_be_archived((Why.MONTHLY,))
    assert not may_be_archived((Why.WEEKLY, Why.MONTHLY))
    assert not may_be_archived((Why.MONTHLY, Why.LOCKED))
    assert not may_be_archived((Why.THINNED,))


def test_what_is_its_own_is_bounded_by_what_came_and_by_what_went() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    nights = [begin + timedelta(days=30 * number) for number in range(4)]
    verdicts = [Verdict(point=point(at), keep=True, why=(Why.MONTHLY,)) for at in reversed(nights)]
    runs = [verdict.point.run_started_at for verdict in reversed(verdicts)]
    sent = list(zip(runs, (9, 5, 3, 7), strict=True))
    assert own_bytes(verdicts, 2, sent, runs[0]) == 3, "5 came, of which 3 at most went"
    assert own_bytes(verdicts, 1, sent, runs[0]) == 3
    assert own_bytes(verdicts, 0, sent, runs[0]) is None, "the newest: nothing of it has gone yet"
    assert own_bytes(verdicts, 3, sent, runs[0]) is None, "the oldest holds what all share"
    assert own_bytes(verdicts, 2, sent, runs[1]) is None, "not all that was sent is known"


def test_each_monthly_is_said_whether_the_archive_saves_and_by_what() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    nights = [begin + timedelta(days=30 * number) for number in range(6)]
    only_monthly = (Why.MONTHLY,)
    whys = [only_monthly, only_monthly, only_monthly, (Why.MONTHLY, Why.LOCKED), only_monthly, (Why.DAILY, Why.MONTHLY)]
    verdicts = [Verdict(point=point(at), keep=True, why=why) for at, why in zip(nights, whys, strict=True)][::-1]
    ids = [str(verdict.point.snapshot_id) for verdict in verdicts][::-1]
    runs = [verdict.point.run_started_at for verdict in verdicts][::-1]
    sent = [(at, amount * GIB) for at, amount in zip(runs, (9, 4, 4, 1, 1, 9), strict=True)]
    found = monthlies(
        verdicts, 24, LISTED, sent=sent, since=runs[0], whole={ids[1]: 8 * GIB, ids[2]: 8 * GIB}, archived={ids[4]}
    )[::-1]
    assert [each.why_not for each in found] == [
        "the oldest: it holds what the others share",
        "",
        "",
        "kept at hand: locked",
        "is in the archive",
        "kept at hand: daily",
    ]
    first, second = found[1:3]
    assert (first.own_bytes, second.own_bytes) == (4 * GIB, 1 * GIB)
    assert first.dollars == pytest.approx(4 * 0.05 - 8 * 0.0125), "a half of it is its own"
    assert second.dollars == pytest.approx(1 * 0.05 - 8 * 0.0125), "an eighth is not enough: it would cost more"
    assert (second.before, second.after, second.months) == (ids[1], ids[3], 21)
