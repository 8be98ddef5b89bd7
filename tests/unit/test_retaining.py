"""Retention as the control plane applies it: what goes is written down, and deleted a look later; nothing is lost on
the way, whoever dies, refuses or interferes."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.errors import UnknownPoint
from chalicelib.facts import PointDeleted, PointDropped, PointNotDeleted, PointSpared
from chalicelib.model import Kind, Outcome, PointState, Policy, RestorePoint
from chalicelib.refusals import DAY
from chalicelib.retaining import MOST_DELETED, MOST_DELETED_A_HOST
from tests.fakes.cloud import Killed, Snapshot
from tests.fakes.mortal import MortalWorld
from tests.fakes.world import World

FEW = Policy(keep_daily=2, keep_weekly=0, keep_monthly=0)
QUARTER = 900


def history(world: World, nights: int, host: str = "C", **how: object) -> list[RestorePoint]:
    """Restore points of a host, one a night up to last night, as if they had been made."""
    made = []
    of = "" if host == "C" else f"{host}-"
    for number in range(nights):
        made_at = world.clock.now() - timedelta(days=nights - number)
        point = RestorePoint(
            host=host,
            vault_id="vault-1",
            window_id=f"w-{number}",
            volume_id="vol-C",
            run_id=f"r-{number}",
            run_started_at=made_at,
            outcome=Outcome.COMPLETE,
            complete=True,
            snapshot_id=f"snap-old-{of}{number}",
            state=PointState.COMPLETED,
            made_at=made_at,
        )
        point = replace(point, **how)
        world.store.put_point(point)
        world.cloud.snapshots[f"snap-old-{of}{number}"] = Snapshot(
            f"snap-old-{of}{number}", point, PointState.COMPLETED
        )
        made.append(point)
    return made


def a_world(policy: Policy = FEW) -> World:
    world = World(policy)
    world.enrol("C")
    return world


def look(world: World, times: int = 1) -> None:
    """The sweep's quiet looks: the quarters of the hour."""
    for _ in range(times):
        at = world.clock.instant
        world.clock.instant = at + timedelta(seconds=QUARTER - (at.minute % 15 * 60 + at.second))
        world.control.sweep()


def there(world: World) -> set[str]:
    return {str(point.snapshot_id) for point in world.store.points("C")}


def facts(world: World, kind: type[PointDropped | PointSpared | PointDeleted | PointNotDeleted]) -> list[str]:
    return [str(fact.point.snapshot_id) for fact in world.told.facts if isinstance(fact, kind)]


def test_it_is_written_down_first_and_deleted_a_look_later() -> None:
    world = a_world()
    history(world, 5)
    look(world)
    assert facts(world, PointDropped) == ["snap-old-1", "snap-old-0"]
    assert not world.cloud.deleted_snapshots
    assert {p.marks.dropped_for for p in world.store.points("C") if p.marks.dropped_at} == {"thinned"}
    look(world)
    assert set(world.cloud.deleted_snapshots) == {"snap-old-0", "snap-old-1"} == set(facts(world, PointDeleted))
    assert there(world) == {"snap-old-2", "snap-old-3", "snap-old-4"}
    graves = world.store.buried("C")
    assert [(p.snapshot_id, p.marks.dropped_for) for p in graves] == [
        ("snap-old-0", "thinned"),
        ("snap-old-1", "thinned"),
    ]
    assert all(p.marks.deleted_at == world.clock.now() for p in graves)


def test_two_looks_at_once_delete_nothing_that_one_has_just_written_down() -> None:
    """Who has read the records before that, to restore from the point, must have had the time to say so."""
    world = a_world()
    history(world, 5)
    look(world)
    world.control.sweep()
    world.clock.advance(59)
    world.control.sweep()
    assert len(facts(world, PointDropped)) == 2
    assert not world.cloud.deleted_snapshots


def test_it_looks_once_a_day_and_after_each_new_backup() -> None:
    world = a_world()
    history(world, 5)
    look(world, 3)
    asked = len(world.cloud.calls)
    history(world, 4, snapshot_id="snap-unseen")  # nothing says that there is something new
    look(world, 10)
    assert len(world.cloud.calls) == asked
    world.clock.advance(DAY.total_seconds())
    look(world)
    retained = world.store.host("C")
    assert retained
    assert retained.retention_look
    assert retained.retention_look.at == world.clock.now()


def test_a_night_brings_it_on_by_itself() -> None:
    world = a_world()
    run_ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(6)]
    for run_id in run_ids:
        world.start("C", run_id)
        world.boot()
        world.commit("C", run_id)
        world.finish("C", run_id)
        world.arrive()
        look(world, 2)
        world.clock.advance(DAY.total_seconds() - 4 * 3600)
    assert len(world.cloud.snapshots) == 3
    assert len(world.store.buried("C")) == 3


def test_whoever_needs_it_in_between_has_it_spared() -> None:
    world = a_world()
    history(world, 6)
    look(world)
    points = {str(p.snapshot_id): p for p in world.store.points("C")}
    world.store.mark(points["snap-old-0"], replace(points["snap-old-0"].marks, held_at=world.clock.now()))
    world.cloud.locked.add("snap-old-1")
    look(world)
    assert set(world.cloud.deleted_snapshots) == {"snap-old-2"}
    assert set(facts(world, PointSpared)) == {"snap-old-0", "snap-old-1"}
    assert all(p.marks.dropped_at is None for p in world.store.points("C"))


def test_what_a_restore_has_begun_with_is_spared_until_it_is_over() -> None:
    """It may begin until the first look, which is what makes a point unknown to those who come later."""
    world = a_world()
    history(world, 6)
    run_id = "00000000-0000-4000-8000-000000000001"
    world.start("C", run_id, Kind.RESTORE, point_id="snap-old-0")
    look(world, 3)
    assert "snap-old-0" in there(world) and "snap-old-1" not in there(world)
    world.finish("C", run_id, Outcome.FAILED, 1)
    for _ in range(6):
        world.arrive()
        world.pass_minutes(1)
    world.clock.advance(DAY.total_seconds())
    look(world, 2)
    assert "snap-old-0" not in there(world)


def test_what_is_about_to_go_can_be_restored_no_more() -> None:
    world = a_world()
    history(world, 4)
    look(world)
    with pytest.raises(UnknownPoint):
        world.start("C", "00000000-0000-4000-8000-000000000001", Kind.RESTORE, point_id="snap-old-0")


def test_a_hold_of_the_host_spares_all_up_to_then() -> None:
    world = a_world()
    history(world, 6)
    look(world)
    host = world.store.host("C")
    assert host
    world.store.save(world.vault, host=replace(host, kept_since=world.clock.now()))
    look(world, 3)
    assert not world.cloud.deleted_snapshots
    assert len(facts(world, PointSpared)) == 3


def test_what_aws_refuses_is_told_retried_and_never_forgotten() -> None:
    world = a_world()
    history(world, 4)
    world.cloud.undeletable.add("snap-old-0")
    look(world, 60)
    tries = len(facts(world, PointNotDeleted))
    assert 4 <= tries <= 8, "it is asked again, at growing intervals"
    (alert,) = [subject for subject, _ in world.told.alerts]
    assert alert == "nightvault: an old restore point of C cannot be deleted"
    (left,) = [p for p in world.store.points("C") if p.marks.dropped_at]
    assert left.marks.refusals == tries
    assert "InvalidSnapshot.InUse" in left.marks.refused
    world.cloud.undeletable.clear()
    world.clock.advance(DAY.total_seconds())
    look(world)
    assert there(world) == {"snap-old-1", "snap-old-2", "snap-old-3"}


def test_a_snapshot_that_is_gone_already_is_fine() -> None:
    world = a_world()
    history(world, 4)
    del world.cloud.snapshots["snap-old-0"]
    look(world, 2)
    assert "snap-old-0" not in there(world)
    assert [p.snapshot_id for p in world.store.buried("C")] == ["snap-old-0"]


def test_years_of_history_go_a_few_at_a_time() -> None:
    world = a_world()
    most = MOST_DELETED_A_HOST
    history(world, 3 + 2 * most + 5)
    look(world)
    for expected in (most, 2 * most, 2 * most + 5):
        look(world)
        assert len(world.cloud.deleted_snapshots) == expected


def test_hosts_with_years_of_history_leave_the_others_their_turn() -> None:
    world = a_world()
    names = ["A", "B", "C", "D", "E"]
    world.enrol(*(name for name in names if name != "C"))
    for name in names:
        history(world, 3 + 3 * MOST_DELETED_A_HOST, name)
    look(world, 4)
    gone = Counter(snapshot.point.host for snapshot in world.cloud.deleted_snapshots.values())
    assert set(gone) == set(names), "everybody has had a turn"
    assert sum(gone.values()) == 3 * MOST_DELETED
    assert max(gone.values()) <= 2 * MOST_DELETED_A_HOST


def test_a_host_that_fails_keeps_no_other_from_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    world.enrol("A")
    history(world, 4)
    points = world.store.points
    monkeypatch.setattr(world.store, "points", lambda host: points(host) if host == "C" else 1 / 0)
    with pytest.raises(ExceptionGroup):
        look(world)
    assert facts(world, PointDropped) == ["snap-old-0"]
    assert [name for name, _ in world.told.faults] == ["retention_failed"]


def test_a_retired_host_keeps_its_history() -> None:
    world = a_world()
    history(world, 3)
    host = world.store.host("C")
    assert host
    world.store.save(world.vault, host=replace(host, retired_at=world.clock.now()))
    world.clock.advance(400 * DAY.total_seconds())
    look(world, 4)
    assert len(there(world)) == 3


def test_a_clock_that_was_ahead_does_not_put_it_to_sleep() -> None:
    world = a_world()
    history(world, 3)
    now = world.clock.instant
    world.clock.instant = datetime(2031, 1, 1, tzinfo=UTC)
    look(world)
    world.clock.instant = now
    history(world, 9)
    look(world, 2)
    assert len(world.cloud.deleted_snapshots) == 6


@pytest.mark.parametrize("dies_after", range(1, 12))
def test_killed_at_any_step_it_ends_the_same(dies_after: int) -> None:
    world = MortalWorld(FEW)
    world.enrol("C")
    history(world, 6)
    world.fate.effects = 0
    world.fate.dies_after = dies_after
    for _ in range(4):
        try:
            look(world)
        except Killed:
            continue
    assert there(world) == {"snap-old-3", "snap-old-4", "snap-old-5"} == set(world.cloud.snapshots)
    assert [p.snapshot_id for p in world.store.buried("C")] == ["snap-old-0", "snap-old-1", "snap-old-2"]


@pytest.mark.parametrize("refused", range(1, 4))
def test_whichever_call_is_refused_it_ends_the_same(refused: int) -> None:
    world = a_world()
    history(world, 6)
    look(world)
    world.cloud.refuse_calls = {len(world.cloud.calls) + refused}
    look(world, 4)
    assert there(world) == {"snap-old-3", "snap-old-4", "snap-old-5"} == set(world.cloud.snapshots)
