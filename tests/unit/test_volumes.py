"""A host's volume that comes and goes: lost in EC2, let go for its snapshot, and made again at the next backup."""

import pytest
from msgspec.structs import replace

from chalicelib.amendment import Amendment
from chalicelib.commands import Command, VolumeDeleted
from chalicelib.errors import CloudRefused, VolumeHoldsMore
from chalicelib.facts import VolumeLost
from chalicelib.model import Kind, Marks, Outcome, Phase, Policy, Resting, Slot, Source, Vault
from chalicelib.operators.changes import ChangeHost, Retire
from chalicelib.retaining import needed_by
from chalicelib.retention import Why
from tests.fakes.cloud import Killed
from tests.fakes.world import World

R1, R2, R3, R4, R5 = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))


@pytest.fixture
def world() -> World:
    world = World(Policy(drill_seconds=0))  # what a drill says is said here; that it is made: test_drills.py
    world.enrol("C", "H")
    return world


def slot(world: World) -> Slot:
    return world.vault.hosts["C"]


def drilled(world: World, *, fit: bool = True) -> None:
    newest = world.store.points("C")[-1]
    world.store.mark(newest, replace(newest.marks, fit=fit, drilled_at=world.clock.now()))


def flagged(world: World) -> None:
    """The push of its newest point was unusual, and nobody has accepted it."""
    newest = world.store.points("C")[-1]
    world.store.mark(newest, replace(newest.marks, unusual="9 of 9 files fewer"))


def to_the_next_look(world: World) -> None:
    """The sweep looks at what is asleep each quarter of an hour."""
    world.pass_minutes(15 - world.clock.now().minute % 15)


def cold(world: World) -> str:
    """C after a night, resting as the snapshot of it."""
    point_id = world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)
    world.pass_minutes(20)
    assert (slot(world).volume_id, slot(world).rests_as) == (None, point_id)
    return point_id


def pushed_again(world: World, run_id: str = R2) -> None:
    """Woken, let in as soon as its volume is there, and backed up."""
    world.start("C", run_id)
    world.boot()
    orders = world.report()
    assert world.control.status("C", run_id).ready
    assert [order.blank_ok for order in orders.hosts if order.host == "C"] == [not slot(world).made_of]
    world.commit("C", run_id)
    world.finish("C", run_id)
    world.clock.advance(1)
    world.arrive()


# --- lost ---------------------------------------------------------------------------------------------------


def test_a_volume_that_was_deleted_in_ec2_is_made_again_from_the_newest_point(world: World) -> None:
    newest = world.backed_up("C", R1)
    lost = slot(world).volume_id or ""
    world.cloud.lose_volume(lost)
    world.start("C", R2)
    world.boot()
    world.pass_minutes(3)
    world.report()
    assert world.control.status("C", R2).ready
    made = slot(world).volume_id or ""
    assert made != lost
    assert world.cloud.of_point[made] == newest
    (alert,) = world.told.alerts
    assert lost in alert[1]
    assert newest in alert[1]
    assert [fact.lost for fact in world.told.facts if isinstance(fact, VolumeLost)] == [lost]


def test_it_is_noticed_while_the_vault_sleeps(world: World) -> None:
    newest = world.backed_up("C", R1)
    world.cloud.lose_volume(slot(world).volume_id or "")
    world.pass_minutes(20)
    assert (slot(world).volume_id, slot(world).rests_as) == (None, newest)
    assert len(world.told.alerts) == 1
    world.pass_minutes(40)
    assert slot(world).volume_id is None, "made when it is needed, not before"
    pushed_again(world)
    assert len(world.told.alerts) == 1


def test_one_that_ec2_does_not_know_once_is_there(world: World) -> None:
    """And a lookup that fails says nothing at all."""
    world.backed_up("C", R1)
    volume_id = slot(world).volume_id or ""
    world.cloud.deleted.add(volume_id)
    to_the_next_look(world)
    assert slot(world).missing_since
    world.cloud.deleted.remove(volume_id)
    world.pass_minutes(1)
    assert slot(world).missing_since is None
    world.cloud.deleted.add(volume_id)
    world.cloud.blind = True
    world.pass_minutes(60)
    assert slot(world).volume_id == volume_id
    assert world.told.alerts == []


def test_one_that_was_just_made_is_given_time(world: World) -> None:
    """EC2 may not know for minutes what it has just made."""
    assert slot(world).attached_to is None
    world.cloud.deleted.add("vol-C")
    to_the_next_look(world)
    world.pass_minutes(4)
    assert slot(world).missing_since
    assert slot(world).volume_id == "vol-C"
    world.cloud.deleted.remove("vol-C")
    world.pass_minutes(1)
    assert slot(world).missing_since is None


def test_it_is_not_made_of_a_point_that_failed_its_drill(world: World) -> None:
    good = world.backed_up("C", R1)
    world.backed_up("C", R2)
    drilled(world, fit=False)
    world.cloud.lose_volume(slot(world).volume_id or "")
    world.pass_minutes(20)
    assert slot(world).rests_as == good


@pytest.mark.parametrize(
    ("unusual", "expected"), [({R3}, R2), ({R2, R3}, R1), ({R2}, R1), ({R1, R2, R3}, R3), ({R1}, R3)]
)
def test_it_is_made_of_what_was_there_before_an_unusual_push(world: World, unusual: set[str], expected: str) -> None:
    """Somebody emptied the host, pushed that night by night, and deleted the volume."""
    points = {}
    for run_id in (R1, R2, R3):
        points[run_id] = world.backed_up("C", run_id)
        if run_id in unusual:
            flagged(world)
    world.cloud.lose_volume(slot(world).volume_id or "")
    world.pass_minutes(20)
    assert (slot(world).rests_as, slot(world).committed) == (points[expected], expected)


def test_without_a_restore_point_it_is_made_blank(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.cloud.lose_volume("vol-C")
    world.report()
    world.pass_minutes(3)
    world.report()
    assert world.control.status("C", R1).ready
    assert slot(world).volume_id == "vol-C-1"
    assert "vol-C-1" not in world.cloud.of_point
    assert "blank" in world.told.alerts[0][1]
    assert next(order for order in world.report().hosts if order.host == "C").blank_ok


def test_what_a_run_had_pushed_to_it_counts_no_more(world: World) -> None:
    """Committed, and then the volume is gone before it could be snapshotted, while the run goes on."""
    before = world.backed_up("C", R1)
    world.start("C", R2)
    world.boot()
    world.commit("C", R2)
    assert world.control.status("C", R2).committed
    world.cloud.lose_volume(slot(world).volume_id or "")
    world.report()
    world.pass_minutes(3)
    world.report()
    assert world.cloud.of_point[slot(world).volume_id or ""] == before
    document = world.finish("C", R2)
    assert not document.committed
    world.clock.advance(1)
    world.arrive()
    last = world.control.status("C", R2).last
    assert last
    assert last.snapshot_id == before


def test_a_restore_from_the_volume_takes_the_point_instead(world: World) -> None:
    point_id = world.backed_up("C", R1)
    world.start("C", R2, Kind.RESTORE)
    world.start("H", R3)
    world.boot()
    world.cloud.lose_volume(slot(world).volume_id or "")
    world.report()
    world.pass_minutes(3)
    world.report()
    world.report()
    document = world.control.status("C", R2)
    assert document.ready
    assert document.restore
    assert document.restore.source is Source.POINT
    assert world.cloud.of_point[world.vault.point_volumes["C"].volume_id or ""] == point_id
    assert slot(world).volume_id is None, "a restore needs no volume of the host's own"


def test_a_retired_hosts_lost_volume_is_nobodys_business(world: World) -> None:
    world.backed_up("C", R1)
    Retire(host="C").answer(world.wired)
    world.pass_minutes(20)
    world.cloud.lose_volume("vol-C")
    world.pass_minutes(40)
    assert world.vault.retired["C"].volume_id == "vol-C"
    assert world.told.alerts == []


# --- let go -------------------------------------------------------------------------------------------------


def test_a_host_rests_as_its_proven_snapshot_and_comes_back(world: World) -> None:
    point_id = cold(world)
    assert "vol-C" in world.cloud.deleted
    view = ChangeHost(host="C", every_seconds=3600).answer(world.wired).host
    assert (view.volume_id, view.rests_as, view.resting) == (None, point_id, Resting.SNAPSHOT)
    world.pass_minutes(60)
    assert slot(world).volume_id is None
    pushed_again(world)
    assert world.cloud.of_point["vol-C-1"] == point_id
    assert slot(world).rests_as == ""
    drilled(world)
    world.pass_minutes(20)
    assert "vol-C-1" in world.cloud.deleted
    assert slot(world).rests_as == world.store.points("C")[-1].snapshot_id != point_id
    assert world.told.alerts == []


@pytest.mark.parametrize(
    ("resting", "fit", "outcome"),
    [
        (Resting.SNAPSHOT, None, Outcome.COMPLETE),
        (Resting.SNAPSHOT, False, Outcome.COMPLETE),
        (Resting.VOLUME, True, Outcome.COMPLETE),
        (Resting.SNAPSHOT, True, Outcome.FAILED),
    ],
)
def test_nothing_goes_that_is_not_proven_or_wanted(
    world: World, resting: Resting, fit: bool | None, outcome: Outcome
) -> None:
    """Never drilled; failed its drill; a host that wants its volume; a night after the proven one that was cut."""
    world.backed_up("C", R1)
    ChangeHost(host="C", resting=resting).answer(world.wired)
    point = world.store.points("C")[-1]
    world.store.mark(point, replace(point.marks, fit=fit))
    if outcome is Outcome.FAILED:
        world.start("C", R2)
        world.boot()
        world.report(transfers={"C": 7})
        world.finish("C", R2, outcome, exit_code=12)
        world.clock.advance(1)
        world.arrive()
    world.pass_minutes(40)
    assert slot(world).volume_id == "vol-C"
    assert slot(world).attached_to
    assert world.cloud.deleted == set()


def test_a_snapshot_that_somebody_deleted_keeps_the_volume(world: World) -> None:
    """Before it was decided, and between that and the deletion."""
    point_id = world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)
    to_the_next_look(world)
    assert slot(world).rests_as == point_id, "it is on its way out"
    world.cloud.lose_snapshot(point_id)
    world.pass_minutes(40)
    assert slot(world).volume_id == "vol-C"
    assert slot(world).rests_as == ""
    assert world.cloud.deleted == set()
    pushed_again(world)


@pytest.mark.parametrize("detached", [False, True])
def test_a_start_keeps_a_volume_that_was_on_its_way_out(world: World, detached: bool) -> None:
    world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)
    to_the_next_look(world)
    if detached:
        # And the call that would delete it is refused.
        world.cloud.refuse_calls = set(range(len(world.cloud.calls) + 1, len(world.cloud.calls) + 9))
        world.pass_minutes(2)
        assert slot(world).attached_to is None
        world.cloud.refuse_calls = set()
    assert slot(world).rests_as
    pushed_again(world)
    assert (slot(world).volume_id, slot(world).rests_as) == ("vol-C", "")
    assert world.cloud.deleted == set()


def test_a_deletion_whose_answer_was_lost_before_its_host_started_is_no_loss(world: World) -> None:
    point_id = world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)
    real, say = world.control.apply, ["lost"]

    def apply(vault_id: str, command: Command, amend: Amendment | None = None) -> Vault:
        if isinstance(command, VolumeDeleted) and say:
            say.clear()
            raise Killed
        return real(vault_id, command, amend)

    world.control.apply = apply  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.pass_minutes(20)
    assert "vol-C" in world.cloud.deleted
    assert slot(world).volume_id == "vol-C"
    world.start("C", R2)
    world.pass_minutes(1)
    world.boot()
    world.report()
    world.pass_minutes(1)
    world.report()
    assert world.control.status("C", R2).ready
    assert world.cloud.of_point[slot(world).volume_id or ""] == point_id
    assert world.told.alerts == []


def test_a_volume_that_was_deleted_while_its_host_started_is_made_again(world: World) -> None:
    """The Lambda that deletes it has looked a moment before the start, and says so a moment after."""
    world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)

    def start(_: str) -> None:
        world.start("C", R2)

    world.cloud.before_delete = start
    world.pass_minutes(20)
    assert world.vault.phase is not Phase.ASLEEP
    assert slot(world).volume_id == "vol-C-1"
    world.boot()
    world.report()
    assert world.control.status("C", R2).ready
    assert world.told.alerts == []


def test_a_cold_host_restores_from_its_point_and_gets_no_volume(world: World) -> None:
    point_id = cold(world)
    world.start("C", R2, Kind.RESTORE)
    world.start("H", R3)
    world.boot()
    world.report()
    document = world.control.status("C", R2)
    assert document.ready
    assert document.restore
    assert (document.restore.point_id, document.restore.source) == (point_id, Source.POINT)
    world.pass_minutes(2)
    assert slot(world).volume_id is None


def test_a_volume_that_was_made_for_a_run_that_never_came_rests_again(world: World) -> None:
    """It holds what its snapshot does, so that may be restored from it, and it may go again: the proof holds."""
    point_id = cold(world)
    world.cloud.refuse_calls = set(range(len(world.cloud.calls) + 1, len(world.cloud.calls) + 3))
    world.start("C", R2)
    world.finish("C", R2, Outcome.FAILED, exit_code=9)
    world.clock.advance(1)
    world.arrive()
    world.pass_minutes(1)
    assert slot(world).made_of == point_id, "made, whatever became of the run: nobody else would find it"
    world.pass_minutes(40)
    assert (slot(world).volume_id, slot(world).rests_as) == (None, point_id)


def test_the_snapshot_that_a_host_rests_as_is_lost_too(world: World) -> None:
    first = world.backed_up("C", R1)
    second = world.backed_up("C", R2)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    drilled(world)
    world.pass_minutes(20)
    assert slot(world).rests_as == second
    world.cloud.lose_snapshot(second)
    pushed_again(world, R3)
    assert world.cloud.of_point[slot(world).volume_id or ""] == first
    (alert,) = world.told.alerts
    assert second in alert[1]
    assert first in alert[1]


@pytest.mark.parametrize("unusual", [False, True])
def test_a_snapshot_that_ec2_lists_after_all_is_asked_for_again(world: World, *, unusual: bool) -> None:
    """Also if it is not what a new volume would be made of: all that the host's own held is in it."""
    if unusual:
        world.backed_up("C", R3)
    point_id = cold(world)
    if unusual:
        flagged(world)
    refused, make = [True], world.cloud.make_volume

    def make_volume(vault_id: str, host: str, slot: Slot) -> str:
        if host == "C" and refused.pop():
            raise CloudRefused("CreateVolume", "InvalidSnapshot.NotFound", "not known here yet")
        return make(vault_id, host, slot)

    world.cloud.make_volume = make_volume  # type: ignore[method-assign]
    world.start("C", R2)
    assert slot(world).rests_as == point_id
    refused.append(False)
    world.boot()
    world.pass_minutes(1)
    assert world.cloud.of_point[slot(world).volume_id or ""] == point_id
    assert world.told.alerts == []


def test_retention_keeps_what_a_host_rests_as_and_so_does_retirement(world: World) -> None:
    point_id = cold(world)
    host = world.store.host("C")
    assert host
    record = replace(host, last_backup=None)
    assert needed_by(world.vault, record) == {point_id: Why.RESTING}
    answer = Retire(host="C", delete_volume=True).answer(world.wired)
    assert (answer.kept.volume_id, answer.deleted) == (None, None)
    assert needed_by(world.vault, record) == {point_id: Why.RESTING}
    world.enrol("C")
    pushed_again(world)
    assert world.cloud.of_point[slot(world).volume_id or ""] == point_id


def test_a_point_that_retention_is_about_to_delete_proves_nothing(world: World) -> None:
    world.backed_up("C", R1)
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    point = world.store.points("C")[-1]
    world.store.mark(point, Marks(fit=True, dropped_at=world.clock.now()))
    world.pass_minutes(14)
    assert slot(world).volume_id == "vol-C"


def test_a_volume_made_of_a_point_is_retired_with_it(world: World) -> None:
    """The point is of the volume before, and holds all that this one does: until it may have been pushed to."""
    cold(world)
    world.start("C", R2)
    world.finish("C", R2, Outcome.FAILED, exit_code=9)
    world.clock.advance(1)
    world.arrive()
    ChangeHost(host="C", resting=Resting.VOLUME).answer(world.wired)
    made = slot(world).volume_id
    assert made
    answer = Retire(host="C", delete_volume=True).answer(world.wired)
    assert answer.deleted
    assert answer.deleted.volume_id == made
    world.enrol("H")
    world.start("H", R4)
    world.boot()
    world.report(transfers={"H": 7})
    with pytest.raises(VolumeHoldsMore):
        Retire(host="H", delete_volume=True).answer(world.wired)
