"""Restores over fakes: where the data come from, the volume that is made for an older point, and its end."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from chalicelib import points
from chalicelib.documents import RunDocument
from chalicelib.errors import CloudRefused, NothingToRestore, UnknownPoint
from chalicelib.facts import RestoreReady
from chalicelib.model import (
    MAX_VOLUMES,
    InstanceState,
    Kind,
    Marks,
    Mount,
    Outcome,
    Phase,
    PointMount,
    PointState,
    PointVolume,
    Slot,
    Source,
    Vault,
)
from chalicelib.ports import PointDisk
from tests.fakes.cloud import Killed
from tests.fakes.world import World

R1, R2, R3, R4, R5 = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))


@pytest.fixture
def world() -> World:
    world = World()
    world.enrol("C", "H")
    return world


def two_nights(world: World) -> tuple[str, str]:
    """The restore points of C's two nights."""
    return world.backed_up("C", R1), world.backed_up("C", R2)


def restore(world: World, point_id: str | None = None, run_id: str = R3, host: str = "C") -> RunDocument:
    return world.start(host, run_id, Kind.RESTORE, point_id=point_id)


def ready(world: World, run_id: str = R3, host: str = "C") -> bool:
    return world.control.status(host, run_id).ready


def source(world: World, run_id: str = R3) -> Source:
    document = world.control.status("C", run_id)
    assert document.restore
    return document.restore.source


def opened(world: World, point_id: str) -> str:
    """A restore of C that is ready, beside a backup of H that keeps the vault awake; gives the volume."""
    restore(world, point_id)
    world.start("H", R4)
    world.boot()
    world.report()
    assert ready(world)
    return world.vault.point_volumes["C"].volume_id or ""


# --- which point, and from where --------------------------------------------------------------------------


def test_the_newest_point_is_on_the_hosts_own_volume_and_nothing_is_made(world: World) -> None:
    _, newest = two_nights(world)
    document = restore(world)
    assert document.restore
    assert (document.restore.point_id, document.restore.point_run_id) == (newest, R2)
    assert document.restore.point_complete
    assert document.restore.source is Source.LIVE
    world.boot()
    assert ready(world)
    assert world.vault.point_volumes == {}
    assert not [call for call in world.cloud.calls if "point_volume" in call]


def test_a_pull_that_outlasts_its_run_by_a_moment_has_changed_nothing(world: World) -> None:
    two_nights(world)
    restore(world)
    world.start("H", R4)
    world.boot()
    world.report(transfers={"C": 7})
    world.finish("C", R3)
    world.clock.advance(1)
    world.report(transfers={"C": 7})
    assert restore(world, run_id=R5).restore
    assert source(world, R5) is Source.LIVE


def test_an_older_point_comes_from_a_volume_that_is_gone_afterwards(world: World) -> None:
    first, _ = two_nights(world)
    snapshots = len(world.cloud.snapshots)
    document = restore(world, first)
    assert document.restore
    assert document.restore.source is Source.POINT
    world.boot()
    assert not ready(world), "attached, and not yet mounted as far as the agent has said"
    (order,) = world.report().restores
    assert world.cloud.of_point[order.volume_id] == first
    assert ready(world)
    assert world.control.status("C", R3).vault
    assert [fact.run.run_id for fact in world.told.facts if isinstance(fact, RestoreReady)] == [R3]
    assert world.finish("C", R3).phase is Phase.CLOSING
    world.arrive()
    world.pass_minutes(2)
    assert world.cloud.point_volumes == {}
    assert world.vault.point_volumes == {}
    assert world.vault.phase is Phase.ASLEEP
    assert len(world.cloud.snapshots) == snapshots, "it was never snapshotted"
    assert world.told.alerts == []


def test_it_goes_while_another_host_goes_on_pushing(world: World) -> None:
    first, _ = two_nights(world)
    volume_id = opened(world, first)
    world.finish("C", R3)
    assert world.report().restores == [], "ordered away: the agent unmounts it after this"
    assert volume_id in world.cloud.attached, "not detached while it was mounted"
    world.report()
    assert volume_id not in world.cloud.attached
    world.report()
    assert volume_id in world.cloud.deleted
    assert world.vault.phase is Phase.OPEN
    assert world.vault.point_volumes == {}


def test_an_agent_that_has_just_begun_does_not_know_what_is_mounted(world: World) -> None:
    """It was killed and is started again: its first report, before any orders, tells of no restores."""
    first, _ = two_nights(world)
    volume_id = opened(world, first)
    world.finish("C", R3)
    world.cloud.ordered_points = {}
    world.report("starting")
    world.pass_minutes(1)
    assert volume_id in world.cloud.attached
    world.report()
    assert volume_id not in world.cloud.attached


def test_the_hosts_own_volume_is_not_ready_before_an_older_point_is_gone(world: World) -> None:
    """The vault serves a point as long as it is mounted: this pull would get older data, unnoticed."""
    first, _ = two_nights(world)
    opened(world, first)
    world.finish("C", R3)
    document = restore(world, run_id=R5)
    assert document.restore
    assert document.restore.source is Source.LIVE
    assert not document.ready
    world.report()  # it is told to let go of it ...
    assert not ready(world, R5)
    world.report()  # ... and has
    assert ready(world, R5)


def test_a_push_since_may_have_changed_the_volume(world: World) -> None:
    newest = world.backed_up("C", R1)
    world.start("C", R2)
    world.boot()
    world.report(transfers={"C": 5})
    world.finish("C", R2, Outcome.FAILED, 1)
    world.clock.advance(1)
    world.arrive()
    document = restore(world)
    assert document.restore
    assert (document.restore.point_id, document.restore.source) == (newest, Source.POINT)


def test_what_the_volume_holds_is_looked_at_again_when_the_vault_wakes(world: World) -> None:
    two_nights(world)
    restore(world)
    world.commits["C"] = R5  # a commit of which no report had come
    world.boot()
    assert source(world) is Source.POINT
    world.report()
    world.report()
    assert ready(world)


def test_an_incomplete_point_is_restored_only_when_it_is_named(world: World) -> None:
    whole = world.backed_up("C", R1)
    world.start("C", R2)
    world.boot()
    world.report(transfers={"C": 5})
    world.finish("C", R2, Outcome.FAILED, 1)
    world.arrive()
    world.arrive()
    (cut,) = set(world.cloud.snapshots) - {whole}
    named = restore(world, cut)
    assert named.restore
    assert (named.restore.point_id, named.restore.point_complete) == (cut, False)


def test_points_that_are_none_of_this_host(world: World) -> None:
    others = world.backed_up("H", R1)
    mine = world.backed_up("C", R2)
    world.start("C", R4)
    world.boot()
    world.commit("C", R4)
    world.finish("C", R4)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    (pending,) = world.vault.pending_points
    before = world.vault
    for wrong in (others, pending, "snap-999"):
        with pytest.raises(UnknownPoint, match=wrong):
            restore(world, wrong)
    world.cloud.lose_snapshot(mine)
    with pytest.raises(UnknownPoint):
        restore(world, mine)
    with pytest.raises(NothingToRestore):
        restore(world)
    assert world.vault == before


def test_the_list_of_points_is_what_ec2_still_has_newest_first(world: World) -> None:
    first, second = two_nights(world)
    listed = world.control.points("C").points
    assert [(p.point_id, p.point_state, p.point_complete) for p in listed] == [
        (second, PointState.COMPLETED, True),
        (first, PointState.COMPLETED, True),
    ]
    assert [(p.fit, p.locked) for p in listed] == [(True, False)] * 2
    _, recorded = world.store.points("C")
    marks = Marks(fit=False, locked_until=world.clock.now() + timedelta(days=1))
    assert world.store.mark(recorded, marks)
    assert [(p.fit, p.locked) for p in world.control.points("C").points] == [(False, True), (True, False)]
    assert restore(world).restore.point_id == first, "one that failed its drill is not what nobody named"  # type: ignore[union-attr]
    _, marked = world.store.points("C")
    assert world.store.mark(marked, Marks(dropped_at=world.clock.now()))
    assert [p.point_id for p in world.control.points("C").points] == [first], "it is about to be deleted"
    with pytest.raises(UnknownPoint):
        restore(world, second, R4)
    world.cloud.lose_snapshot(first)
    assert world.control.points("C").points == []
    assert world.control.points("H").points == []


def test_points_in_use_are_those_that_are_restored_or_wait_to_be(world: World) -> None:
    first, second = two_nights(world)
    assert points.in_use([world.vault]) == frozenset()
    volume_id = opened(world, first)
    assert points.in_use([world.vault]) == {first}
    world.finish("C", R3)
    assert points.in_use([world.vault]) == {first}, "a volume of it is still there"
    for _ in range(3):
        world.report()
    assert volume_id in world.cloud.deleted
    assert points.in_use([world.vault]) == frozenset()
    world.finish("H", R4)
    restore(world, second, R5)
    assert world.control.status("C", R5).queued
    assert points.in_use([world.vault]) == {second}


# --- who takes over, who waits ------------------------------------------------------------------------------


def test_a_newer_run_for_the_same_point_takes_the_volume_over(world: World) -> None:
    first, _ = two_nights(world)
    volume_id = opened(world, first)
    restore(world, first, R5)
    world.report()
    assert ready(world, R5)
    assert world.vault.point_volumes["C"].volume_id == volume_id
    assert len(world.cloud.point_volumes) == 1


def test_a_newer_run_for_another_point_waits_until_the_first_volume_is_gone(world: World) -> None:
    first = world.backed_up("C", R1)
    second = world.backed_up("C", R2)
    world.backed_up("C", R5)
    opened(world, first)
    newer = R5[:-1] + "9"
    restore(world, second, newer)
    for _ in range(5):
        assert len(world.cloud.point_volumes) <= 1
        world.report()
    assert ready(world, newer)
    assert world.cloud.of_point[world.vault.point_volumes["C"].volume_id or ""] == second


def test_a_restore_that_comes_while_the_vault_closes_makes_nothing_until_it_wakes(world: World) -> None:
    first, _ = two_nights(world)
    world.start("C", R4)
    world.boot()
    world.finish("C", R4)
    assert restore(world, first).queued
    assert world.vault.point_volumes == {}
    world.arrive()
    assert world.vault.phase is Phase.WAKING
    world.boot()
    world.report()
    world.report()
    assert ready(world)


def test_a_session_that_reads_keeps_its_run_alive_and_silence_ends_it(world: World) -> None:
    first, _ = two_nights(world)
    opened(world, first)
    for _ in range(40):
        world.report(transfers={"C": 7, "H": 1})
        world.pass_minutes(1)
    assert ready(world)
    for _ in range(16):
        world.report(transfers={"H": 1})
        world.pass_minutes(1)
    assert world.control.status("C", R3).outcome is Outcome.ABANDONED
    for _ in range(2):
        world.report(transfers={"H": 1})
    assert world.cloud.point_volumes == {}


def test_there_is_room_for_two_beside_twenty_four_hosts() -> None:
    slot = Slot(number=0, uid=1, public_key="k", size_gib=1, every_seconds=1)
    vault = Vault(vault_id="vault-1", hosts={f"h{n}": slot for n in range(24)})
    taken: dict[str, PointVolume] = {}
    for n in range(MAX_VOLUMES - 24):
        place = points.free_place(replace(vault, point_volumes=taken))
        assert place is not None
        taken[f"h{n}"] = PointVolume(host=f"h{n}", run_id="r", point_id="snap-1", place=place)
    assert len({volume.place for volume in taken.values()}) == len(taken) == 2
    assert points.free_place(replace(vault, point_volumes=taken)) is None


def test_who_comes_when_there_is_no_room_waits_and_its_lease_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "MAX_VOLUMES", 3)  # as if C and H had 23 others beside them
    first, _ = two_nights(world)
    older = world.backed_up("H", R4)
    world.backed_up("H", R4[:-1] + "8")
    opened_first = restore(world, first)
    restore(world, older, R5, "H")
    assert opened_first.outcome is None
    world.boot()
    for _ in range(40):
        world.report(transfers={"C": 1})
        world.pass_minutes(1)
    assert list(world.vault.point_volumes) == ["C"]
    assert world.control.status("H", R5).outcome is None
    world.finish("C", R3)
    for _ in range(5):
        world.report()
    assert ready(world, R5, "H")


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_point_that_is_deleted_meanwhile_fails_the_run_and_nothing_else(world: World) -> None:
    first, _ = two_nights(world)
    real = world.cloud.host_snapshots("C")
    world.cloud.lose_snapshot(first)
    world.cloud.host_snapshots = lambda host: real  # type: ignore[method-assign]  # noqa: ARG005
    world.start("H", R4)
    document = restore(world, first)
    assert document.outcome is Outcome.FAILED
    assert document.reason
    assert first in document.reason
    assert "InvalidSnapshot.NotFound" in document.reason
    ((subject, message),) = world.told.alerts
    assert subject == "nightvault: a restore of C failed"
    assert first in message
    world.boot()
    world.commit("H", R4)
    world.finish("H", R4)
    world.arrive()
    assert world.vault.phase is Phase.ASLEEP
    world.pass_minutes(1)
    assert world.vault.point_volumes == {}


def test_a_volume_of_its_own_that_cannot_be_mounted_is_done_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newest = two_nights(world)
    assert restore(world).restore
    assert source(world) is Source.LIVE
    broken = Mount(volume_id="vol-C", mounted=False, detail="it holds something that is not ours")
    monkeypatch.setattr(world, "_mount", lambda *_: broken)
    world.boot()
    assert source(world) is Source.POINT
    for _ in range(3):
        world.report()
    assert ready(world)
    assert world.cloud.of_point[world.vault.point_volumes["C"].volume_id or ""] == newest


def test_a_volume_of_its_own_that_somebody_deleted_is_waited_for_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newest = two_nights(world)
    restore(world)
    monkeypatch.setattr(world, "_mount", lambda *_: Mount(volume_id="vol-C", mounted=False, detail="absent"))
    world.boot()
    world.clock.advance(30)
    world.report()
    assert source(world) is Source.LIVE, "it may still be on its way"
    world.clock.advance(31)
    for _ in range(4):
        world.report()
    assert source(world) is Source.POINT
    assert ready(world)
    assert world.cloud.of_point[world.vault.point_volumes["C"].volume_id or ""] == newest


def test_a_volume_of_its_own_that_somebody_wiped_is_done_without(world: World) -> None:
    """Blank, it is made a filesystem as any new one, and holds no commit."""
    _, newest = two_nights(world)
    restore(world)
    world.commits.clear()
    world.boot()
    assert source(world) is Source.POINT
    for _ in range(3):
        world.report()
    assert ready(world)
    assert world.cloud.of_point[world.vault.point_volumes["C"].volume_id or ""] == newest


def test_throttling_is_waited_out(world: World) -> None:
    first, _ = two_nights(world)
    calls = len(world.cloud.calls)
    world.cloud.refuse_calls = {n for n in range(calls, calls + 40) if n % 2}
    restore(world, first)
    world.boot()
    for _ in range(8):
        world.report()
    assert ready(world)
    world.finish("C", R3)
    for _ in range(6):
        world.arrive()
        world.pass_minutes(1)
    assert world.cloud.point_volumes == {}


def test_what_is_refused_for_as_long_as_a_lease_fails_with_the_last_refusal(world: World) -> None:
    first, _ = two_nights(world)

    def refuse(*_: object) -> str:
        raise CloudRefused("CreateVolume", "RequestLimitExceeded", "slow down")

    world.cloud.make_point_volume = refuse  # type: ignore[method-assign,assignment]
    restore(world, first)
    world.boot()
    for _ in range(15):
        assert world.control.status("C", R3).outcome is None
        world.report()
        world.pass_minutes(1)
    document = world.control.status("C", R3)
    assert document.outcome is Outcome.FAILED
    assert document.reason
    assert "slow down" in document.reason
    assert world.vault.phase is Phase.CLOSING


@pytest.mark.parametrize("state", ["refused", "error"])
def test_a_volume_that_the_vault_will_not_mount(world: World, state: str) -> None:
    first, _ = two_nights(world)
    world.start("H", R4)
    restore(world, first)
    world.boot()
    volume_id = world.vault.point_volumes["C"].volume_id or ""
    world.seen_restores = {"C": PointMount(volume_id=volume_id, state=state, detail="its label is not C's")}
    for _ in range(16):
        world.report(transfers={"H": 1})
        world.pass_minutes(1)
    document = world.control.status("C", R3)
    assert document.outcome is Outcome.FAILED
    assert document.reason
    assert "its label is not C's" in document.reason


def test_a_machine_that_dies_takes_the_volume_with_it_to_the_next(world: World) -> None:
    first, _ = two_nights(world)
    volume_id = opened(world, first)
    instance = world.vault.instance_id or ""
    world.cloud.set_state(instance, InstanceState.TERMINATED)
    world.cloud.attached = {v: i for v, i in world.cloud.attached.items() if i != instance}
    world.pass_minutes(1)
    assert not ready(world)
    world.boot()
    world.report()
    world.report()
    assert ready(world)
    assert world.vault.point_volumes["C"].volume_id == volume_id
    assert world.cloud.attached[volume_id] == world.vault.instance_id != instance


def lose_the_answer(world: World) -> None:
    """EC2 makes the volume of an older point, and whoever asked dies before it hears of it."""
    first, _ = two_nights(world)
    real = world.cloud.make_point_volume

    def lost(vault_id: str, volume: PointVolume) -> str:
        real(vault_id, volume)
        raise Killed

    world.cloud.make_point_volume = lost  # type: ignore[method-assign]
    with pytest.raises(Killed):
        restore(world, first)
    world.cloud.make_point_volume = real  # type: ignore[method-assign]


def test_an_answer_that_is_lost_makes_no_second_volume(world: World) -> None:
    lose_the_answer(world)
    world.boot()
    for _ in range(3):
        world.report()
    assert ready(world)
    assert len(world.cloud.point_volumes) == 1


def test_an_answer_that_is_lost_and_a_run_that_is_given_up_leave_nothing(world: World) -> None:
    lose_the_answer(world)
    world.finish("C", R3, Outcome.FAILED, 1)
    assert world.vault.point_volumes["C"].volume_id is None
    assert len(world.cloud.point_volumes) == 1
    world.arrive()
    world.pass_minutes(3)
    assert world.cloud.point_volumes == {}
    assert world.vault.point_volumes == {}


def test_a_volume_that_no_vault_knows_is_removed_once_it_is_old_enough(world: World) -> None:
    disk = PointDisk(volume_id="vol-stray", vault_id="vault-1", host="C", run_id=R5, made_at=world.clock.now())
    world.cloud.point_volumes["vol-stray"] = disk
    world.pass_minutes(1)
    assert "vol-stray" in world.cloud.point_volumes, "whoever makes it may be about to record it"
    world.pass_minutes(30)
    assert "vol-stray" in world.cloud.deleted
    assert ("stray_volume", "vol-stray") in [(name, fields.get("volume_id")) for name, fields in world.told.faults]


def test_a_volume_that_does_not_go_is_told_once(world: World) -> None:
    first, _ = two_nights(world)
    volume_id = opened(world, first)
    world.finish("C", R3)
    world.seen_restores = {"C": PointMount(volume_id=volume_id, state="error", detail="busy")}
    for _ in range(45):
        world.report(transfers={"H": 1})
        world.pass_minutes(1)
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: a restore's volume of C stays"]
    assert volume_id in world.cloud.attached
    world.seen_restores = None
    world.finish("H", R4)
    world.arrive()
    world.pass_minutes(2)
    assert world.cloud.point_volumes == {}
