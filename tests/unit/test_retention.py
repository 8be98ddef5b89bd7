"""What retention promises (docs/retention.md), over made-up histories and over simulated years of nights.

`NIGHTVAULT_LIVES=5000 pytest tests/unit/test_retention.py` tries so many random years instead of the few.
"""

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from chalicelib.model import Marks, Outcome, PointState, RestorePoint, Retention
from chalicelib.retention import Why, judge

BEGIN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
DEFAULT = Retention()
LAST_THREE = 3
YEARS = int(os.environ.get("NIGHTVAULT_LIVES", "0"))
TIERS: dict[str, Callable[[datetime], object]] = {
    "daily": datetime.date,
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
}


def point(
    made_at: datetime,
    name: str = "",
    *,
    complete: bool = True,
    state: PointState = PointState.COMPLETED,
    **marks: object,
) -> RestorePoint:
    return RestorePoint(
        host="C",
        vault_id="vault-1",
        window_id="w",
        volume_id="vol-1",
        run_id="r",
        run_started_at=made_at - timedelta(minutes=9),
        outcome=Outcome.COMPLETE if complete else Outcome.CUT,
        complete=complete,
        snapshot_id=name or f"snap-{made_at:%Y%m%dT%H%M%S%f}",
        state=state,
        made_at=made_at,
        marks=replace(Marks(), **marks),
    )


def nights(number: int, every: timedelta = timedelta(days=1), begin: datetime = BEGIN) -> list[RestorePoint]:
    return [point(begin + night * every) for night in range(number)]


def names(points: Iterable[RestorePoint]) -> set[str]:
    return {str(each.snapshot_id) for each in points}


def kept(points: Iterable[RestorePoint], retention: Retention, now: datetime, **more: object) -> list[RestorePoint]:
    verdicts = judge(points, retention, now, **more)  # type: ignore[arg-type]
    return [verdict.point for verdict in verdicts if verdict.keep]


def why(points: Iterable[RestorePoint], name: str, now: datetime, **more: object) -> tuple[bool, tuple[Why, ...]]:
    (verdict,) = [v for v in judge(points, DEFAULT, now, **more) if v.point.snapshot_id == name]  # type: ignore[arg-type]
    return verdict.keep, verdict.why


# --- by hand ----------------------------------------------------------------------------------------------


def test_three_years_of_nights_leave_the_newest_of_each_period() -> None:
    history = nights(3 * 365)
    now = history[-1].made_at or BEGIN
    left = kept(history, DEFAULT, now)
    by_hand = {now - timedelta(days=n) for n in range(14)}
    sunday = now - timedelta(days=now.isoweekday() % 7)
    by_hand |= {now} | {sunday - timedelta(weeks=n) for n in range(8 if sunday == now else 7)}
    first_of_months = [datetime(2027 + n // 12, n % 12 + 1, 1, 2, 30, tzinfo=UTC) for n in range(1, 24)]
    by_hand |= {first - timedelta(days=1) for first in first_of_months}
    assert {each.made_at for each in left} == by_hand
    assert len(left) == 42


def test_every_reason_is_said() -> None:
    history = nights(2)
    now = BEGIN + timedelta(days=2)
    assert why(history, str(history[-1].snapshot_id), now)[1] == (Why.DAILY, Why.WEEKLY, Why.MONTHLY, Why.NEWEST)


OLD = BEGIN - timedelta(days=1000)


@pytest.mark.parametrize(
    ("old", "more", "expected"),
    [
        (point(OLD, "x"), {}, (False, (Why.THINNED,))),
        (point(OLD, "x", held_at=OLD), {}, (True, (Why.LOCKED,))),
        (point(OLD, "x", locked_until=BEGIN + timedelta(days=400)), {}, (True, (Why.LOCKED,))),
        (point(OLD, "x", locked_until=BEGIN), {}, (False, (Why.THINNED,))),
        (point(OLD, "x"), {"needed": {"x": Why.RESTORING}}, (True, (Why.RESTORING,))),
        (point(OLD, "x"), {"kept_since": OLD}, (True, (Why.HELD,))),
        (point(OLD, "x"), {"kept_since": OLD - timedelta(seconds=1)}, (False, (Why.THINNED,))),
        (point(OLD, "x", fit=True), {}, (True, (Why.PROVEN,))),
        (point(OLD, "x", fit=False), {}, (True, (Why.UNFIT,))),
        (point(OLD, "x", complete=False), {}, (False, (Why.SUPERSEDED,))),
        (point(OLD, "x", state=PointState.ERROR), {}, (False, (Why.FAILED,))),
        (point(OLD, "x", state=PointState.PENDING), {}, (True, (Why.PENDING,))),
        (point(BEGIN + timedelta(days=999), "x"), {}, (True, (Why.FUTURE,))),
        (point(BEGIN + timedelta(days=20), "x", complete=False), {}, (True, (Why.UNFINISHED,))),
    ],
)
def test_what_protects_a_point_beyond_all_slots(
    old: RestorePoint, more: dict[str, object], expected: tuple[bool, tuple[Why, ...]]
) -> None:
    """After twenty months of two nights each, no slot reaches back to it; it is beside them."""
    history = nights(40, timedelta(days=15), BEGIN - timedelta(days=39 * 15))
    few = Retention(daily=14, weekly=8, monthly=6)
    now = BEGIN + timedelta(days=30)
    (verdict,) = [v for v in judge([*history, old], few, now, **more) if v.point is old]  # type: ignore[arg-type]
    assert (verdict.keep, verdict.why) == expected


def test_an_unfit_point_leaves_when_a_newer_one_has_passed() -> None:
    history = [*nights(60), point(OLD, "bad", fit=False)]
    now = BEGIN + timedelta(days=60)
    few = Retention(daily=3, weekly=0, monthly=0)
    assert "bad" in names(kept(history, few, now))
    history[30] = replace(history[30], marks=Marks(fit=True))
    assert "bad" not in names(kept(history, few, now))
    assert history[30] in kept(history, few, now)


def test_an_unfit_point_stands_for_no_day_that_has_a_better_one() -> None:
    good, bad = point(BEGIN, "good"), point(BEGIN + timedelta(hours=8), "bad", fit=False)
    newer = nights(10, begin=BEGIN + timedelta(days=1))
    now = BEGIN + timedelta(days=11)
    assert Why.DAILY in why([good, bad, *newer], "good", now)[1]
    assert why([good, bad, *newer], "bad", now) == (True, (Why.UNFIT,))


def test_fourteen_bad_nights_do_not_end_fourteen_good_ones() -> None:
    good = nights(14)
    bad = [replace(p, marks=Marks(fit=False)) for p in nights(14, begin=BEGIN + timedelta(days=14))]
    only_days = Retention(daily=14, weekly=0, monthly=0)
    assert names(good) <= names(kept([*good, *bad], only_days, BEGIN + timedelta(days=28)))


def test_nothing_is_kept_for_nothing_is_off() -> None:
    history = [*nights(400), point(OLD, complete=False)]
    off = Retention(daily=0, weekly=0, monthly=0)
    assert len(kept(history, off, BEGIN + timedelta(days=400))) == 401


# --- over any history -------------------------------------------------------------------------------------

some_points = st.builds(
    lambda hours, complete, state, fit, held, number: point(
        BEGIN + timedelta(hours=hours), f"snap-{number}", complete=complete, state=state, fit=fit, held_at=held
    ),
    hours=st.integers(0, 24 * 900),
    complete=st.booleans(),
    state=st.sampled_from([PointState.COMPLETED] * 4 + [PointState.PENDING, PointState.ERROR]),
    fit=st.sampled_from([None, None, True, False]),
    held=st.sampled_from([None, None, BEGIN]),
    number=st.integers(0, 10**9),
)
histories = st.lists(some_points, max_size=60, unique_by=lambda each: each.snapshot_id)
retentions = st.builds(Retention, daily=st.integers(0, 16), weekly=st.integers(0, 10), monthly=st.integers(0, 26))
instants = st.integers(0, 24 * 1000).map(lambda hours: BEGIN + timedelta(hours=hours))


@given(histories, retentions, instants, st.one_of(st.none(), instants), st.randoms())
def test_invariants(
    history: list[RestorePoint], retention: Retention, now: datetime, kept_since: datetime | None, random: object
) -> None:
    verdicts = judge(history, retention, now, kept_since=kept_since)
    assert [v.point for v in verdicts] == sorted(history, key=lambda p: (p.made_at, p.snapshot_id), reverse=True)
    gone = [v.point for v in verdicts if not v.keep]
    stay = [v.point for v in verdicts if v.keep]
    past = [v.point for v in verdicts if v.point.counts and (v.point.made_at or now) <= now]
    assert all(each in stay for each in past[:LAST_THREE]), "one of the last three complete ones went"
    assert not any(each.marks.held_at for each in gone), "a locked one went"
    assert not any(each.state is PointState.PENDING for each in gone), "a pending one went"
    assert not any((each.made_at or now) > now for each in gone), "one from the future went"
    assert not any(kept_since and (each.made_at or now) <= kept_since for each in gone), "a held one went"
    if any(each.marks.fit for each in past):
        assert any(each.marks.fit for each in stay), "the last one that passed a drill went"
    for each in gone:
        newer = [other for other in past if (other.made_at or now) > (each.made_at or now)]
        assert newer, "the newest went"
        assert each.marks.fit is not False or not each.counts or any(other.marks.fit for other in newer), (
            "unfit, too soon"
        )
        assert each.counts or any(other.marks.fit is not False for other in newer), "an unfinished one went too soon"
    # What stays, stays: applied to what it left, it drops nothing more.
    assert names(kept(stay, retention, now, kept_since=kept_since)) == names(stay)
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled, retention, now, kept_since=kept_since) == verdicts


@given(histories, retentions, instants)
def test_each_period_that_is_due_keeps_one_and_a_sound_one_if_it_has_any(
    history: list[RestorePoint], retention: Retention, now: datetime
) -> None:
    left = kept(history, retention, now)
    past = sorted((p for p in history if p.counts and (p.made_at or now) <= now), key=lambda p: str(p.made_at))
    for tier, period in TIERS.items():
        those = list(dict.fromkeys(period(p.made_at) for p in reversed(past) if p.made_at))
        for each in those[: getattr(retention, tier)]:
            had = [p for p in past if p.made_at and period(p.made_at) == each]
            has = [p for p in had if p in left]
            assert has, f"{tier} {each} is empty"
            assert any(p.marks.fit is not False for p in has) or all(p.marks.fit is False for p in had)


@given(histories, retentions, instants, st.integers(0, 24 * 400))
def test_time_alone_drops_nothing(history: list[RestorePoint], retention: Retention, now: datetime, hours: int) -> None:
    """A gap of any length, or a clock that jumped ahead: what was made before is not missed."""
    later = now + timedelta(hours=hours)
    past = [each for each in history if (each.made_at or now) <= now]
    assert names(kept(past, retention, later)) == names(kept(past, retention, now))


gaps = st.lists(st.one_of(st.integers(6, 30), st.integers(24, 24 * 45)), max_size=250)  # hours from night to night


@given(gaps, retentions)
def test_every_night_leaves_what_one_application_would(hours: list[int], retention: Retention) -> None:
    """The classic trap: a short-term slot must not have dropped what a long-term slot needs years later."""
    at, history = BEGIN, list[RestorePoint]()
    left = history
    for gap in hours:
        at += timedelta(hours=gap)
        night = point(at)
        history.append(night)
        left = kept([*left, night], retention, at)
    assert names(left) == names(kept(history, retention, at))
    if not retention.off:
        assert len(left) <= retention.daily + retention.weekly + retention.monthly + LAST_THREE


# --- years of nights --------------------------------------------------------------------------------------


class Years(RuleBasedStateMachine):
    """Nights with all that can befall them, retention applied after each; `ever` forgets nothing, `left` what went."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.numbers = count()
        self.ever: dict[str, RestorePoint] = {}
        self.left: dict[str, RestorePoint] = {}
        self.retention = DEFAULT
        self.least = DEFAULT  # of each tier, the fewest that were ever asked for
        self.kept_since: datetime | None = None
        self.restoring: set[str] = set()

    def put(self, made: RestorePoint) -> None:
        self.ever[str(made.snapshot_id)] = self.left[str(made.snapshot_id)] = made

    def night(self, **how: object) -> None:
        self.put(point(self.now, f"snap-{next(self.numbers)}", **how))  # type: ignore[arg-type]
        self.apply()

    def apply(self) -> None:
        needed = dict.fromkeys(self.restoring, Why.RESTORING)
        before = dict(self.left)
        left = kept(before.values(), self.retention, self.now, needed=needed, kept_since=self.kept_since)
        self.left = {str(each.snapshot_id): each for each in left}
        proven = [each for each in left if each.marks.fit]
        assert proven or not any(each.marks.fit for each in before.values()), "the last that passed a drill went"
        for name, each in before.items():
            if name not in self.left:
                assert name not in self.restoring, "it was being restored"
                assert not each.marks.held_at, "it was locked"
                assert each.state is not PointState.PENDING, "it was pending"

    def one(self, data: st.DataObject) -> RestorePoint:
        return data.draw(st.sampled_from(list(self.left.values())))

    @rule(nights=st.integers(1, 120), hours=st.integers(6, 60))
    def good_nights(self, nights: int, hours: int) -> None:
        for _ in range(nights):
            self.now += timedelta(hours=hours)
            self.night()

    @rule(nights=st.integers(1, 5))
    def cut_nights(self, nights: int) -> None:
        for _ in range(nights):
            self.now += timedelta(days=1)
            self.night(complete=False)

    @rule(state=st.sampled_from([PointState.PENDING, PointState.ERROR]), complete=st.booleans())
    def snapshot_takes_its_time_or_fails(self, state: PointState, complete: bool) -> None:
        self.now += timedelta(days=1)
        self.night(state=state, complete=complete)

    @rule(state=st.sampled_from([PointState.COMPLETED, PointState.ERROR]))
    def pending_ones_settle(self, state: PointState) -> None:
        for each in list(self.left.values()):
            if each.state is PointState.PENDING:
                self.put(replace(each, state=state))
        self.apply()

    @rule(days=st.integers(1, 500))
    def nobody_comes(self, days: int) -> None:
        self.now += timedelta(days=days)
        self.apply()

    @rule(days=st.integers(1, 800), nights=st.integers(0, 3))
    def clock_jumps_and_returns(self, days: int, nights: int) -> None:
        for way in (1, -1):
            self.now += timedelta(days=way * days)
            for _ in range(nights):
                self.now += timedelta(days=1)
                self.night()
            self.apply()

    @precondition(lambda self: self.left)
    @rule(data=st.data(), fit=st.booleans())
    def drill(self, data: st.DataObject, fit: bool) -> None:
        each = self.one(data)
        if each.counts:
            self.put(replace(each, marks=replace(each.marks, fit=fit)))
        self.apply()

    @precondition(lambda self: self.left)
    @rule(data=st.data(), locked=st.booleans())
    def lock_or_unlock(self, data: st.DataObject, locked: bool) -> None:
        each = self.one(data)
        self.put(replace(each, marks=replace(each.marks, held_at=self.now if locked else None)))
        self.apply()

    @precondition(lambda self: self.left)
    @rule(data=st.data(), restoring=st.booleans())
    def restore(self, data: st.DataObject, restoring: bool) -> None:
        self.restoring = {str(self.one(data).snapshot_id)} if restoring else set()
        self.apply()

    @rule(hold=st.booleans())
    def something_is_off(self, hold: bool) -> None:
        self.kept_since = self.now if hold else None
        self.apply()

    @rule(retention=retentions)
    def policy_changes(self, retention: Retention) -> None:
        self.retention = retention
        if not retention.off:
            self.least = Retention(**{tier: min(getattr(self.least, tier), getattr(retention, tier)) for tier in TIERS})
        self.apply()

    @invariant()
    def last_three(self) -> None:
        made = sorted((p.made_at, name) for name, p in self.ever.items() if p.counts and p.made_at)
        assert {name for _, name in made[-LAST_THREE:]} <= set(self.left)

    @invariant()
    def slots(self) -> None:
        """Under the strictest policy that there ever was, no period that is due has lost all its points."""
        newest_first = sorted((p.made_at for p in self.ever.values() if p.counts and p.made_at), reverse=True)
        for tier, period in TIERS.items():
            had = list(dict.fromkeys(map(period, newest_first)))[: getattr(self.least, tier)]
            has = {period(p.made_at) for p in self.left.values() if p.counts and p.made_at}
            assert set(had) <= has, f"{tier}: lost {set(had) - has}"

    @invariant()
    def unfinished_only_until_the_next_complete_one(self) -> None:
        if self.kept_since or self.restoring or self.retention.off:
            return
        sound = [p.made_at for p in self.left.values() if p.counts and p.marks.fit is not False and p.made_at]
        newest = max((at for at in sound if at <= self.now), default=None)
        for each in self.left.values():
            if each.state is PointState.COMPLETED and not each.complete and not each.marks.held_at and each.made_at:
                assert newest is None or each.made_at >= newest


TestYears = Years.TestCase
TestYears.settings = settings(
    max_examples=YEARS or 60, stateful_step_count=50, deadline=None, derandomize=not YEARS, database=None
)
