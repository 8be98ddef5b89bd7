"""What comes of an unusual push: its host's history is held before anything else, once, whoever dies on the way."""

from datetime import timedelta

import pytest

from chalicelib.facts import PushUnusual
from chalicelib.model import Change, Host, Kind, Outcome, Policy, RestorePoint
from chalicelib.operators.changes import Retire
from chalicelib.operators.checks import Check, Facts, diagnose
from chalicelib.operators.estate import Estate
from chalicelib.operators.keeping import Accept, HostRetention
from chalicelib.unusual import UNCOUNTED
from tests.fakes.cloud import Killed
from tests.fakes.mortal import MortalWorld
from tests.fakes.world import World
from tests.unit.test_retaining import FEW, history, look, there

R = "00000000-0000-4000-8000-{:012d}".format
QUIET = Change(
    files_before=1000,
    files_after=1000,
    files_added=2,
    files_changed=10,
    files_deleted=2,
    bytes_before=10**9,
    bytes_after=10**9,
    bytes_changed=10**7,
)
WIPE = Change(
    files_before=1000,
    files_after=1,
    files_added=1,
    files_changed=0,
    files_deleted=1000,
    bytes_before=10**9,
    bytes_after=100,
    bytes_changed=100,
)
FILLED = Change(
    files_before=1,
    files_after=1000,
    files_added=999,
    files_changed=0,
    files_deleted=0,
    bytes_before=100,
    bytes_after=10**9,
    bytes_changed=10**9,
)
RUBBISH = Change(
    files_before=1,
    files_after=1,
    files_added=0,
    files_changed=1,
    files_deleted=0,
    bytes_before=100,
    bytes_after=100,
    bytes_changed=100,
)
OLD = 9


def lived(policy: Policy = FEW, world: World | None = None) -> World:
    """C has had nine ordinary nights; retention, as it is, would keep the last three."""
    world = world or World(policy)
    world.enrol("C")
    history(world, OLD, change=QUIET)
    return world


def host(world: World, name: str = "C") -> Host:
    found = world.store.host(name)
    assert found
    return found


def newest(world: World) -> RestorePoint:
    return world.store.points("C")[-1]


def told(world: World) -> list[PushUnusual]:
    return [fact for fact in world.told.facts if isinstance(fact, PushUnusual)]


def night(world: World, number: int, change: Change | None) -> None:
    """A night, and a day in which retention looks twice."""
    world.backed_up("C", R(number), change)
    look(world, 3)
    world.clock.advance(timedelta(hours=22).total_seconds())


def test_a_wipe_is_flagged_held_told_and_tagged_and_an_ordinary_night_is_not() -> None:
    world = lived()
    world.backed_up("C", R(1), QUIET)
    assert not told(world)
    assert host(world).kept_since is None
    assert newest(world).change == QUIET
    world.clock.advance(80000)
    before = newest(world)

    world.start("C", R(2))
    world.boot()
    world.commit("C", R(2), WIPE)
    world.finish("C", R(2))
    world.clock.advance(1)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    # Sealed: the snapshot is under way, which after a change of everything may take hours. Nothing waits for it.
    assert host(world).kept_since == world.clock.now()
    (fact,) = told(world)
    assert fact.before == before
    ((subject, message),) = world.told.alerts
    assert subject == "nightvault: C pushed something unusual"
    assert "999 of 1,000 files fewer" in message
    assert f"the newest is {before.snapshot_id}" in message
    assert "`vaultctl accept C`" in message
    assert world.vault.hosts["C"].drill_wanted == "its push was unusual"
    made = list(world.cloud.snapshots.values())[-1]
    assert made.point.marks.unusual == fact.point.marks.unusual, "what the snapshot's tag says"

    world.clock.advance(1)
    world.arrive()
    point = newest(world)
    assert (point.run_id, point.marks.unusual, point.change) == (R(2), fact.point.marks.unusual, WIPE)
    assert [each.unusual for each in world.control.points("C").points] == [True] + [False] * (OLD + 1)
    run = world.vault.find_run(R(2))
    assert run
    assert run.change == WIPE


def test_retention_keeps_what_was_before_however_much_rubbish_follows_and_the_bill_has_an_end() -> None:
    world = lived()
    night(world, 1, WIPE)
    good = {f"snap-old-{number}" for number in range(OLD)}
    assert good < there(world), "of which it would have kept three"
    counted = []
    for number in range(2, 12):
        night(world, number, RUBBISH)
        assert good < there(world)
        counted.append(len(there(world)))
    assert len(set(counted[-4:])) == 1
    assert counted[-1] <= OLD + 1 + 3, "beside what is held, retention's own numbers hold for what came after"


def test_a_second_unusual_push_is_told_and_does_not_move_the_hold() -> None:
    """Else who pushes something unusual each night would have us keep every night, and pay for it."""
    world = lived()
    night(world, 1, WIPE)
    since = host(world).kept_since
    night(world, 2, FILLED)
    night(world, 3, WIPE)
    assert [fact.point.run_id for fact in told(world)] == [R(1), R(3)]
    assert since
    assert host(world).kept_since == since


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.FAILED])
def test_a_small_commit_after_a_wipe_hides_nothing(outcome: Outcome) -> None:
    """Neither does calling the wipe's run a failure."""
    world = lived()
    world.enrol("H")
    world.start("C", R(1))
    world.start("H", R(9))  # keeps the window open in between
    world.boot()
    world.commit("C", R(1), WIPE)
    world.finish("C", R(1), outcome)
    world.start("C", R(2))
    world.commit("C", R(2), RUBBISH)
    world.finish("C", R(2))
    world.finish("H", R(9), Outcome.FAILED, 1)
    world.clock.advance(1)
    world.arrive()
    (fact,) = told(world)
    assert fact.point.change == WIPE.then(RUBBISH)
    assert newest(world).marks.unusual
    night(world, 3, RUBBISH)
    assert newest(world).change == RUBBISH, "and is counted once"


def test_a_wipe_whose_run_failed_is_flagged_although_its_point_does_not_count() -> None:
    world = lived()
    world.start("C", R(1))
    world.boot()
    world.commit("C", R(1), WIPE)
    world.finish("C", R(1), Outcome.FAILED, 12)
    world.clock.advance(1)
    world.arrive()
    assert (newest(world).complete, bool(newest(world).marks.unusual)) == (False, True)
    assert host(world).kept_since


def test_an_operator_accepts_it_as_often_as_it_pleases() -> None:
    world = lived()
    night(world, 1, WIPE)
    since = host(world).kept_since
    dry = Accept(host="C", dry_run=True).answer(world.wired)
    assert (host(world).kept_since, bool(newest(world).marks.unusual)) == (since, True)
    done = Accept(host="C").answer(world.wired)
    assert dry == done
    assert ([each.run_id for each in done.accepted], done.kept_since) == ([R(1)], since)
    assert (host(world).kept_since, newest(world).marks.unusual) == (None, "")
    again = Accept(host="C").answer(world.wired)
    assert (again.accepted, again.kept_since) == ([], None)
    look(world, 3)
    assert len(there(world)) == 3, "retention goes on where it was"


def test_what_is_accepted_while_its_snapshot_is_under_way_comes_without_its_flag() -> None:
    world = lived()
    world.start("C", R(1))
    world.boot()
    world.commit("C", R(1), WIPE)
    world.finish("C", R(1))
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    assert list(doctor(world)) == ["C"]
    assert len(Accept(host="C").answer(world.wired).accepted) == 1
    assert not doctor(world)
    world.arrive()
    assert (newest(world).run_id, newest(world).marks.unusual) == (R(1), "")


def doctor(world: World) -> dict[str | None, Check]:
    """What it says of unusual pushes and holds, by host."""
    nothing = Estate(machines=(), disks=(), shots=(), groups=())
    facts = Facts(
        now=world.clock.now(),
        stack="s",
        table="t",
        policy=world.control.policy,
        vaults=tuple(world.store.vaults()),
        points=tuple(world.store.points("C")),
        estate=nothing,
        hosts=tuple(world.store.hosts()),
    )
    found = [check for check, _ in diagnose(facts) if check.name in ("unusual", "retention") and not check.ok]
    assert len(found) == len({check.resource for check in found}), "a host is named once"
    return {check.resource: check for check in found}


def test_doctor_names_the_host_and_what_to_say() -> None:
    world = lived()
    night(world, 1, WIPE)
    check = doctor(world)["C"]
    assert newest(world).marks.unusual in check.what
    assert "`vaultctl accept C`" in check.remedy
    assert "are kept" in check.what
    HostRetention(host="C", hold=False).answer(world.wired)
    assert "are NOT held" in doctor(world)["C"].what


def test_it_is_drilled_at_once() -> None:
    world = lived()
    world.backed_up("C", R(1), WIPE)
    look(world)
    assert world.vault.window
    (drill,) = world.vault.window.live_runs
    assert (drill.kind, drill.restore and drill.restore.point_id) == (Kind.DRILL, newest(world).snapshot_id)


def test_a_new_key_does_not_end_the_hold() -> None:
    """After a break-in the host is given a new key: then, of all times, its history must stay."""
    world = lived()
    night(world, 1, WIPE)
    since = host(world).kept_since
    world.enrol("C")
    assert since
    assert host(world).kept_since == since


def test_a_host_that_is_retired_in_that_very_window_is_held_too() -> None:
    world = lived()
    world.start("C", R(1))
    world.boot()
    world.commit("C", R(1), WIPE)
    Retire(host="C").answer(world.wired)
    world.clock.advance(1)
    world.arrive()
    assert newest(world).marks.unusual
    assert host(world).kept_since


def test_if_it_cannot_be_judged_the_restore_point_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = lived()

    def broken(host: str) -> list[RestorePoint]:
        raise RuntimeError(host)

    monkeypatch.setattr(world.store, "buried", broken)
    world.backed_up("C", R(1), WIPE)
    assert newest(world).run_id == R(1)
    assert [name for name, _ in world.told.faults] == ["push_not_judged"]


def test_a_first_commit_and_an_agent_of_an_older_version_raise_no_alarm() -> None:
    world = World(FEW)
    world.enrol("C")
    for number in range(3):
        night(world, number, None)
        assert (newest(world).change, newest(world).uncounted) == (None, number > 0)
    assert not told(world)


def test_a_commit_that_could_not_be_counted_is_flagged_where_the_one_before_was() -> None:
    """A wipe between a million empty files; a small commit after it does not hide it, and accepting it ends it."""
    world = lived()
    night(world, 1, QUIET)
    world.enrol("H")
    world.start("C", R(2))
    world.start("H", R(9))
    world.boot()
    world.commit("C", R(2))
    world.finish("C", R(2))
    world.start("C", R(3))
    world.commit("C", R(3), RUBBISH)
    world.finish("C", R(3))
    world.finish("H", R(9), Outcome.FAILED, 1)
    world.clock.advance(1)
    world.arrive()
    assert newest(world).marks.unusual == UNCOUNTED
    assert host(world).kept_since
    world.clock.advance(86000)
    Accept(host="C").answer(world.wired)
    night(world, 4, None)
    assert newest(world).marks.unusual == ""


@pytest.mark.parametrize("refused", [False, True])
def test_whoever_dies_on_the_way_it_is_flagged_in_the_end_and_told_at_most_once(refused: bool) -> None:
    """After each write and each call from the machine's stop on; also when EC2 refuses the snapshot at first."""
    for effect in range(1, 40):
        world = MortalWorld(FEW)
        lived(world=world)
        world.start("C", R(1))
        world.boot()
        world.commit("C", R(1), WIPE)
        world.finish("C", R(1))
        world.fate.effects, world.fate.dies_after = 0, effect
        world.cloud.refuse_calls = {len(world.cloud.calls) + 1} if refused else set()
        for _ in range(20):
            try:
                world.cloud.settle()
                world.control.sweep()
            except Killed:
                pass
            world.clock.advance(60)
        point = newest(world)
        assert (point.run_id, bool(point.marks.unusual)) == (R(1), True)
        assert point.made_at
        since = host(world).kept_since
        assert since
        assert since <= point.made_at
        assert len(told(world)) <= 1
        if world.fate.dies_after is not None:
            break
    else:
        raise AssertionError("it never came to an end")
    assert effect > 5
    assert len(told(world)) == 1
