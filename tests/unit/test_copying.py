"""Copies in another region: made once, looked at until complete, thinned out; whatever goes wrong."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.copying import MOST_HOSTS, missing, superfluous
from chalicelib.facts import CopyDeleted, CopyLost, CopyRefused, PointCopied
from chalicelib.model import Copy, Host, LastBackup, Marks, Outcome, PointState, Policy, RestorePoint
from chalicelib.refusals import DAY
from tests.fakes.cloud import Killed, Snapshot
from tests.fakes.mortal import MortalWorld
from tests.fakes.world import World
from tests.unit.test_retaining import look

ALL = Policy(keep_daily=0, keep_weekly=0, keep_monthly=0, drill_seconds=0)
FEW = Policy(keep_daily=2, keep_weekly=0, keep_monthly=0, drill_seconds=0)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
NIGHT = 0.99 * DAY.total_seconds() + 0.25


def a_world(*names: str, policy: Policy = ALL) -> World:
    world = World(policy, copies=True)
    world.enrol(*(names or ("C",)))
    return world


def night(world: World, number: int, host: str = "C", **how: object) -> str:
    """Most of a day later there is a restore point that counts; gives its snapshot."""
    world.clock.advance(NIGHT)
    now = world.clock.now()
    snapshot_id = f"snap-{host}-{number}"
    point = RestorePoint(
        host=host,
        vault_id="vault-1",
        window_id=f"w-{number}",
        volume_id=f"vol-{host}",
        run_id=f"r-{number}",
        run_started_at=now,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id=snapshot_id,
        state=PointState.COMPLETED,
        made_at=now,
    )
    point = replace(point, **how)
    world.store.put_point(point)
    world.cloud.snapshots[snapshot_id] = Snapshot(snapshot_id, point, PointState.COMPLETED)
    if point.counts:
        last = LastBackup(run_id=point.run_id, window_id="w", snapshot_id=snapshot_id, started_at=now, completed_at=now)
        world.store.move_last_backup(host, last)
    return snapshot_id


def copied(world: World, number: int, host: str = "C") -> str:
    """A night, until its copy is complete."""
    snapshot_id = night(world, number, host)
    look(world)
    world.copier.settle()
    look(world)
    return snapshot_id


def record(world: World, host: str = "C") -> Host:
    found = world.store.host(host)
    assert found
    return found


def complete(world: World, host: str = "C") -> list[str]:
    """Points whose copy is recorded as complete, oldest first; each is there."""
    copies = [copy for copy in record(world, host).copies if copy.complete]
    assert all(world.copier.shots[copy.copy_id].state is PointState.COMPLETED for copy in copies)
    return [copy.point_id for copy in sorted(copies, key=lambda copy: copy.taken_at)]


def asked(world: World) -> list[str]:
    return [call for call in world.copier.calls if call.startswith("copy ")]


def mark(world: World, snapshot_id: str, **changes: object) -> None:
    (point,) = (point for point in world.store.points("C") if point.snapshot_id == snapshot_id)
    assert world.store.mark(point, replace(point.marks, **changes))


def facts(world: World, kind: type[PointCopied | CopyRefused | CopyLost | CopyDeleted]) -> list[str]:
    return [fact.copy.point_id for fact in world.told.facts if isinstance(fact, kind)]


def test_the_newest_point_is_copied_and_looked_at_until_it_is_complete() -> None:
    world = a_world()
    first = night(world, 1)
    look(world)
    (copy,) = record(world).copies
    assert (copy.point_id, copy.state, copy.region) == (first, PointState.PENDING, "eu-west-1")
    look(world, 3)
    assert not facts(world, PointCopied)
    world.copier.settle()
    look(world)
    assert complete(world) == [first] == facts(world, PointCopied)
    assert asked(world) == [f"copy {first}"]


def test_when_all_is_copied_nothing_is_asked() -> None:
    world = a_world()
    copied(world, 1)
    before = len(world.copier.calls)
    look(world, 20)
    assert len(world.copier.calls) == before


def test_a_night_costs_few_calls() -> None:
    world = a_world("A", "B", "C")
    for number in range(1, 5):
        for host in "ABC":
            night(world, number, host)
        look(world)
        world.copier.settle()
        look(world)
    # Of three hosts: a look that asks for three copies, and one that sees them complete and deletes three old ones.
    assert world.copier.calls.count("copies") == 4 * 2
    assert len(world.copier.calls) == 4 * 2 + 4 * 3 + 2 * 3


def test_two_stay_and_the_oldest_goes_only_when_a_newer_one_is_complete() -> None:
    world = a_world()
    one, two = copied(world, 1), copied(world, 2)
    three = night(world, 3)
    look(world, 2)
    assert complete(world) == [one, two]
    world.copier.settle()
    look(world)
    assert complete(world) == [two, three]
    assert facts(world, CopyDeleted) == [one]
    assert len(world.copier.shots) == 2


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_so_many_stay_as_the_stack_says_and_one_at_least(kept: int) -> None:
    world = a_world(policy=replace(ALL, copies_kept=kept))
    nights = [copied(world, number) for number in range(1, 6)]
    assert complete(world) == nights[-max(1, kept) :]


@pytest.mark.parametrize(
    "how",
    [{"complete": False}, {"state": PointState.ERROR}, {"fit": False}],
    ids=["incomplete", "failed", "unfit"],
)
def test_only_what_counts_and_is_not_known_unfit_is_copied(how: dict[str, Any]) -> None:
    world = a_world()
    first = copied(world, 1)
    unfit = how.pop("fit", True) is False
    second = night(world, 2, **how)
    if unfit:
        mark(world, second, fit=False)
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first]
    assert asked(world) == [f"copy {first}"]


def test_when_the_newest_is_unfit_the_newest_sound_one_is_copied() -> None:
    world = a_world()
    first, second = copied(world, 1), night(world, 2)
    third = copied(world, 3)
    mark(world, third, fit=False)
    fourth = night(world, 4)
    mark(world, fourth, fit=False)
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first, second, third]


def test_an_intent_goes_when_its_point_turns_out_unfit() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.forbidden = {"copy"}
    look(world)
    mark(world, first, fit=False)
    look(world, 2)
    assert not record(world).copies


def test_a_copy_of_what_turned_out_unfit_takes_no_sound_ones_place() -> None:
    world = a_world(policy=replace(ALL, copies_kept=1))
    first, second = copied(world, 1), night(world, 2)
    look(world)
    mark(world, second, fit=False)
    world.copier.settle()
    look(world)
    assert complete(world) == [first, second], "the sound one stays"
    third = copied(world, 3)
    assert complete(world) == [third]


def test_a_point_that_is_being_copied_is_spared_by_retention() -> None:
    world = a_world(policy=FEW)
    first = night(world, 1)
    look(world)
    nights = [night(world, number) for number in range(2, 8)]
    look(world, 3)
    assert first in world.cloud.snapshots and nights[0] not in world.cloud.snapshots
    world.copier.settle()
    look(world)
    assert complete(world) == [first]
    world.copier.settle()
    look(world, 1)
    world.clock.advance(DAY.total_seconds())
    look(world, 3)
    assert first not in world.cloud.snapshots
    assert complete(world) == [first, nights[-1]], "a copy outlives its point"


def test_a_failed_copy_is_told_deleted_and_made_again() -> None:
    world = a_world()
    first = night(world, 1)
    for _ in range(3):
        look(world)
        world.copier.settle(PointState.ERROR, "Given key ID is not accessible")
        look(world)
        world.clock.advance(DAY.total_seconds())
    assert facts(world, CopyRefused) == [first] * 3
    ((subject, message),) = world.told.alerts
    assert subject == "nightvault: AWS refuses to make a copy of C"
    assert "Given key ID is not accessible" in message
    world.clock.advance(DAY.total_seconds())
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first]
    assert len(world.copier.shots) == 1, "what failed is gone"
    assert [copy.refusals for copy in record(world).copies] == [0]


def test_a_refusal_is_asked_again_at_growing_intervals() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.forbidden = {"copy"}
    look(world, 90)
    assert 4 <= len(asked(world)) <= 8
    assert world.copier.calls.count("copies") == len(asked(world)), "nor is the region asked in between"
    world.copier.forbidden = set()
    world.clock.advance(DAY.total_seconds())
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first]


def test_a_region_that_cannot_be_asked_is_asked_at_the_next_look() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.refuse_calls = {1}
    look(world)
    assert [name for name, _ in world.told.faults] == ["call_refused"]
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first]


def test_a_lost_answer_makes_no_second_copy() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.lose_answers = {2}
    look(world, 2)
    assert [(copy.copy_id, copy.refused, copy.retry_at) for copy in record(world).copies] == [("copy-1", "", None)]
    world.copier.settle()
    look(world)
    assert complete(world) == [first]
    assert asked(world) == [f"copy {first}"]


def test_a_lost_answer_is_not_asked_again_while_ec2_may_not_list_it_yet() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.lose_answers = {2}
    look(world)
    world.copier.hidden = True
    world.control.sweep()
    world.copier.hidden = False
    look(world, 2)
    assert asked(world) == [f"copy {first}"]


def test_nor_is_one_whose_lambda_died() -> None:
    world = MortalWorld(ALL, copies=True)
    world.enrol("C")
    first = night(world, 1)
    world.fate.effects, world.fate.dies_after = 0, 3  # the look of retention, the intent, the call
    with pytest.raises(Killed):
        look(world)
    assert asked(world) == [f"copy {first}"]
    world.copier.hidden = True
    world.control.sweep()
    world.copier.hidden = False
    look(world)
    assert [copy.copy_id for copy in record(world).copies] == ["copy-1"]
    assert asked(world) == [f"copy {first}"]


def test_what_ec2_does_not_list_yet_is_not_lost() -> None:
    world = a_world()
    night(world, 1)
    look(world)
    world.copier.hidden = True
    world.control.sweep()
    assert [copy.copy_id for copy in record(world).copies] == ["copy-1"]
    assert not facts(world, CopyLost)


def test_a_failed_copy_that_no_record_names_is_cleared_away() -> None:
    world = a_world()
    copied(world, 1)
    shot = world.copier.shots["copy-1"]
    world.copier.shots["copy-x"] = dataclasses.replace(shot, copy_id="copy-x", state=PointState.ERROR)
    copied(world, 2)
    assert set(world.copier.shots) == {"copy-1", "copy-2"}
    assert not facts(world, CopyRefused)


def test_a_tag_from_the_future_does_not_end_the_copying() -> None:
    world = a_world()
    copied(world, 1)
    later = world.clock.now() + timedelta(days=4000)
    shot = world.copier.shots["copy-1"]
    world.copier.shots["copy-x"] = dataclasses.replace(shot, copy_id="copy-x", point_id="snap-x", taken_at=later)
    _, three, four = (copied(world, number) for number in (2, 3, 4))
    assert complete(world) == [three, four]
    assert len(world.copier.shots) == 2


def test_a_clock_that_was_ahead_does_not_put_it_to_sleep() -> None:
    world = a_world()
    first = night(world, 1)
    now, world.clock.instant = world.clock.instant, datetime(2031, 1, 1, tzinfo=UTC)
    world.copier.forbidden = {"copy"}
    look(world)
    world.clock.instant, world.copier.forbidden = now, set()
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first]


def test_a_copy_whose_answer_was_lost_is_adopted_also_when_its_point_is_the_newest_no_more() -> None:
    world = a_world()
    first = night(world, 1)
    world.copier.lose_answers = {2}
    look(world)
    second = night(world, 2)
    look(world)
    world.copier.settle()
    look(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [first, second]
    assert asked(world) == [f"copy {first}", f"copy {second}"]


def test_a_record_that_was_lost_is_found_again_in_ec2() -> None:
    world = a_world()
    one, two = copied(world, 1), copied(world, 2)
    assert world.store.put_copies(record(world), ())
    look(world, 3)
    assert complete(world) == [one, two]
    assert len(asked(world)) == 2


def test_two_looks_at_once_ask_for_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    night(world, 1)
    put = world.store.put_copies
    beaten: list[Host] = []

    def beaten_once(host: Host, copies: tuple[Copy, ...]) -> bool:
        if not beaten:
            beaten.append(host)
            assert put(host, copies), "another Lambda was first"
        return put(host, copies)

    monkeypatch.setattr(world.store, "put_copies", beaten_once)
    look(world)
    assert not asked(world)
    look(world, 2)
    assert len(asked(world)) == 1


def test_no_more_than_twenty_at_once() -> None:
    names = [f"H{number:02}" for number in range(24)]
    world = a_world(*names)
    for name in names:
        night(world, 1, name)
    look(world)
    assert len(asked(world)) == 20
    look(world, 2)
    assert len(asked(world)) == 20
    world.copier.settle()
    look(world, 2)
    assert len(asked(world)) == 24
    assert not world.told.faults


def test_where_fewer_are_allowed_the_others_wait_and_nothing_is_told() -> None:
    world = a_world("A", "B", "C", "D", "E", "F", "G")
    world.copier.limit = 5
    for name in "ABCDEFG":
        night(world, 1, name)
    look(world)
    assert len(asked(world)) == 6, "after the first that was refused no other is asked for"
    for _ in range(2):
        world.copier.settle()
        look(world)
    assert all(complete(world, name) for name in "ABCDEFG")
    assert not facts(world, CopyRefused)


def test_hosts_beyond_a_looks_limit_have_their_turn() -> None:
    names = [f"H{number:02}" for number in range(MOST_HOSTS + 5)]
    world = a_world(*names)
    for name in names:
        night(world, 1, name)
    for _ in range(5):
        look(world)
        world.copier.settle()
    look(world)
    assert all(complete(world, name) for name in names)


def test_what_is_under_way_is_seen_to_before_whoever_waits() -> None:
    late = [f"Z{number:02}" for number in range(20)]
    early = [f"A{number:02}" for number in range(MOST_HOSTS + 10)]
    world = a_world(*late, *early)
    for name in late:
        night(world, 1, name)
    look(world)
    for name in early:
        night(world, 1, name)
    world.copier.settle()
    look(world)
    assert all(complete(world, name) for name in late)


def test_hosts_that_are_always_due_leave_the_others_their_turn() -> None:
    names = [f"A{number:02}" for number in range(MOST_HOSTS)]
    world = a_world(*names, "Z")
    for name in (*names, "Z"):
        night(world, 1, name)
        for point in world.store.points(name):
            world.store.mark(point, Marks(fit=name == "Z"))
    for _ in range(20):  # each time it is left out with a chance of 1 in 51
        look(world)
    assert len(record(world, "Z").copies) == 1


def test_a_copy_that_somebody_deleted_is_told_and_made_again_from_the_newest() -> None:
    world = a_world()
    copied(world, 1)
    second = copied(world, 2)
    world.copier.shots.clear()
    third = night(world, 3)
    look(world)
    assert len(facts(world, CopyLost)) == 2
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: a copy of C is gone"] * 2
    assert second not in complete(world)
    world.copier.settle()
    look(world)
    assert complete(world) == [third]


def test_an_old_copy_that_cannot_be_deleted_keeps_no_new_one_from_being_made() -> None:
    world = a_world()
    one, two = copied(world, 1), copied(world, 2)
    world.copier.undeletable = {"copy-1"}
    three, four = copied(world, 3), copied(world, 4)
    assert complete(world) == [one, three, four]
    night(world, 5)
    before = world.copier.calls.count("delete copy-1")
    look(world, 8)
    assert world.copier.calls.count("delete copy-1") - before <= 2, "it waits though the host is looked at"
    world.copier.settle()
    look(world)
    for _ in range(3):
        world.clock.advance(DAY.total_seconds())
        look(world)
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: AWS refuses to delete a copy of C"]
    world.copier.undeletable.clear()
    world.clock.advance(DAY.total_seconds())
    look(world)
    assert complete(world) == [four, "snap-C-5"]
    assert not {one, two, three} & set(complete(world))


def test_copies_in_a_region_that_was_given_up_are_left_alone() -> None:
    world = a_world()
    first = copied(world, 1)
    old = dict(world.copier.shots)
    world.copier.region = "eu-north-1"
    world.copier.shots.clear()
    second = copied(world, 2)
    copies = {copy.region: copy.point_id for copy in record(world).copies}
    assert copies == {"eu-west-1": first, "eu-north-1": second}
    assert set(old) & {copy.copy_id for copy in record(world).copies}
    assert not facts(world, CopyLost)


def test_switched_off_nothing_is_asked() -> None:
    world = World(ALL)
    world.enrol("C")
    night(world, 1)
    look(world, 3)
    assert not world.copier.calls
    assert not record(world).copies


@pytest.mark.parametrize("dies_after", range(1, 14))
def test_killed_at_any_step_it_ends_the_same(dies_after: int) -> None:
    world = MortalWorld(ALL, copies=True)
    world.enrol("C")
    nights = [copied(world, number) for number in (1, 2)]
    nights.append(night(world, 3))
    world.fate.effects = 0
    world.fate.dies_after = dies_after
    for _ in range(6):
        try:
            look(world)
        except Killed:
            continue
        world.copier.settle()
    assert complete(world) == nights[1:]
    assert len(world.copier.shots) == 2
    assert len(asked(world)) == 3, "none was made twice"
    assert not facts(world, CopyLost)


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("nth", range(1, 6))
def test_whichever_call_goes_wrong_it_ends_the_same(nth: int, lost: bool) -> None:
    world = a_world()
    nights = [copied(world, number) for number in (1, 2)]
    nights.append(night(world, 3))
    wrong = {len(world.copier.calls) + nth}
    world.copier.refuse_calls, world.copier.lose_answers = (set(), wrong) if lost else (wrong, set())
    for _ in range(8):
        look(world)
        world.copier.settle()
    assert complete(world) == nights[1:]
    assert len(world.copier.shots) == 2


def a_copy(night: int, **how: object) -> Copy:
    made = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=night)
    copy = Copy(
        point_id=f"snap-{night}",
        taken_at=made,
        region="r",
        asked_at=made,
        copy_id=f"copy-{night}",
        state=PointState.COMPLETED,
    )
    return replace(copy, **how)


@pytest.mark.parametrize(
    ("copies", "gone"),
    [
        ([], []),
        ([a_copy(1)], []),
        ([a_copy(1), a_copy(2), a_copy(3)], ["copy-1"]),
        ([a_copy(1), a_copy(2), a_copy(3, state=PointState.PENDING)], []),
        ([a_copy(1, fit=False)], []),
        ([a_copy(1, fit=False), a_copy(2)], ["copy-1"]),
        ([a_copy(1), a_copy(2), a_copy(3, fit=False)], []),
        ([a_copy(1), a_copy(2), a_copy(3), a_copy(4, fit=False)], ["copy-1"]),
        ([a_copy(1), a_copy(2), a_copy(2, copy_id="copy-2b")], ["copy-2"]),
        ([a_copy(1), a_copy(2), a_copy(99)], []),
        ([a_copy(1), a_copy(2), a_copy(3), a_copy(99)], ["copy-1"]),
    ],
)
def test_which_may_go(copies: list[Copy], gone: list[str]) -> None:
    for order in (copies, copies[::-1]):
        assert sorted(copy.copy_id for copy in superfluous(order, 2, NOW, None)) == gone


def test_while_a_hosts_history_is_held_so_are_its_copies() -> None:
    """Nights of an intruder's rubbish must not push the good copies out."""
    world = a_world()
    one, two = copied(world, 1), copied(world, 2)
    world.store.save(world.vault, host=replace(record(world), kept_since=world.clock.now()))
    nights = [copied(world, number) for number in (3, 4, 5)]
    assert complete(world) == [one, two, *nights[1:]]
    calls = len(world.copier.calls)
    look(world, 3)
    assert len(world.copier.calls) == calls, "nothing is looked at in vain"
    world.store.save(world.vault, host=replace(record(world), kept_since=None))
    look(world)
    assert complete(world) == nights[1:]


def test_what_is_from_the_future_is_neither_copied_nor_believed() -> None:
    world = a_world()
    one = night(world, 1)
    night(world, 2, made_at=datetime(2031, 1, 1, tzinfo=UTC))
    ahead = a_copy(1, taken_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert [point.snapshot_id for point in missing([ahead], world.store.points("C"), world.clock.now())] == [one]


def test_what_is_about_to_be_deleted_is_not_copied() -> None:
    world = a_world()
    one, two = night(world, 1), night(world, 2)
    mark(world, two, dropped_at=world.clock.now())
    assert [point.snapshot_id for point in missing([], world.store.points("C"), world.clock.now())] == [one]
