"""Drills over fakes: when one is due, what the vault says of it, what is recorded, and what comes first."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib import drills, points
from chalicelib.draft import Draft
from chalicelib.drills import Due
from chalicelib.errors import BadRequest, CloudRefused, DrillHindered, RunIdTaken, UnknownRun, WindowSpent
from chalicelib.facts import DrillEnded, RunEnded
from chalicelib.http import StartBody
from chalicelib.model import (
    Checked,
    Drill,
    DrillState,
    Kind,
    Outcome,
    Phase,
    PointMount,
    Policy,
    Resting,
    Run,
    Slot,
    Source,
    Vault,
)
from chalicelib.operators.changes import ChangeHost, Retire, Rotate
from tests.fakes.world import KEY, World

R1, R2, R3, R4, R5 = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))
DAY = 86400
PASSED = Checked(state=DrillState.PASSED, files=3, checked_bytes=70, total_bytes=70)
FAILED = Checked(
    state=DrillState.FAILED, files=3, checked_bytes=70, total_bytes=70, detail="a/b: other checksum; 1 file"
)
UNPROVEN = Checked(state=DrillState.UNPROVEN)
BROKEN = Checked(state=DrillState.ERROR, detail="ssh-keygen is missing")


@pytest.fixture
def world() -> World:
    world = World(Policy(window_seconds=DAY))
    world.enrol("C", "H")
    return world


def drill_of(world: World, host: str = "C") -> Run:
    """Its newest in the window under way, or the one before."""
    windows = [window for window in (world.vault.recent, world.vault.window) if window]
    runs = [run for w in windows for run in w.runs.values() if (run.host, run.kind) == (host, Kind.DRILL)]
    return max(runs, key=lambda run: run.started_at)


def begun(world: World, host: str = "C", point_id: str | None = None) -> Run:
    """An operator's drill, mounted and ordered."""
    record = world.store.host(host)
    assert record
    run = world.control.drilling.begin(record, point_id)
    world.boot()
    world.pass_minutes(1)
    for _ in range(3):
        world.report()
    return run


def minutes_until_awake(world: World) -> None:
    """Nobody starts anything: the sweep wakes it at one of its quarterly looks."""
    for _ in range(16):
        world.pass_minutes(1)
        if world.vault.awake:
            return
    raise AssertionError("no drill woke it")


def answered(world: World, checked: Checked, host: str = "C") -> Drill:
    """What is recorded when the vault has said that, the vault asleep again."""
    world.checks[host] = checked
    world.report()
    del world.checks[host]
    for _ in range(3):
        world.arrive()
        world.pass_minutes(1)
    record = world.store.host(host)
    assert record
    assert record.drill
    return record.drill


def fit(world: World, point_id: str, host: str = "C") -> bool | None:
    return next(point.marks.fit for point in world.store.points(host) if point.snapshot_id == point_id)


# --- its way ---------------------------------------------------------------------------------------------


def test_a_drill_that_passes(world: World) -> None:
    point_id = world.backed_up("C", R1)
    snapshots = len(world.cloud.snapshots)
    run = begun(world)
    order = world.drill_orders["C"].drill
    assert order
    assert (order.run_id, order.point_run_id, order.public_keys) == (run.run_id, R1, [KEY])
    assert world.cloud.of_point[world.drill_orders["C"].volume_id] == point_id
    assert point_id in points.in_use([world.vault]), "retention leaves it alone"
    drill = answered(world, PASSED)
    assert (drill.state, drill.point_id, drill.files, drill.checked_bytes) == (DrillState.PASSED, point_id, 3, 70)
    assert drill.judged_at == drill.at
    assert fit(world, point_id) is True
    assert world.vault.drilled == {}
    assert (world.vault.phase, world.cloud.point_volumes) == (Phase.ASLEEP, {})
    assert len(world.cloud.snapshots) == snapshots
    assert not [call for call in world.cloud.calls if call.startswith("admit") and not call.split()[-1].strip()]
    assert [fact.drill for fact in world.told.facts if isinstance(fact, DrillEnded)] == [drill]
    assert world.told.alerts == []


def test_a_drill_that_fails_heals(world: World) -> None:
    """The point is unfit, restores take another, pushes compare every byte until a newer point has passed."""
    first, second = world.backed_up("C", R1), world.backed_up("C", R2)
    begun(world)
    drill = answered(world, FAILED)
    assert (drill.state, drill.detail) == (DrillState.FAILED, FAILED.detail)
    assert (fit(world, first), fit(world, second)) == (None, False)
    (alert,) = world.told.alerts
    assert "failed its drill" in alert[0]
    assert FAILED.detail in alert[1]
    assert world.control.status("C", None).verify
    document = world.start("C", R3, Kind.RESTORE)
    assert document.restore
    assert document.restore.point_id == first
    world.boot()
    world.finish("C", R3)
    world.arrive()
    world.pass_minutes(20)
    assert world.vault.phase is Phase.ASLEEP, "the one that failed is not drilled again"

    begun(world, point_id=first)
    assert answered(world, PASSED).state is DrillState.PASSED
    assert world.control.status("C", None).verify, "an older point says nothing of what the volume holds"

    world.clock.advance(DAY)
    third = world.backed_up("C", R4)
    minutes_until_awake(world)
    world.boot()
    world.pass_minutes(1)
    for _ in range(3):
        world.report()
    assert answered(world, PASSED).point_id == third
    assert not world.control.status("C", None).verify
    assert world.vault.hosts["C"].drill_wanted == ""


def test_a_point_without_a_manifest_is_told_once(world: World) -> None:
    """And that is all that a drill can say of a host which cannot sign."""
    point_id = world.backed_up("C", R1)
    for checked in (UNPROVEN, BROKEN, UNPROVEN):
        begun(world)
        drill = answered(world, checked)
        assert (drill.state, fit(world, point_id)) == (checked.state, None)
        assert (drill.unprovable, drill.manifest_lost) == (True, False)
        assert (drill.judged_at == drill.at) is (checked is UNPROVEN)
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: the restore points of C cannot be proven"]


def test_a_manifest_that_is_there_no_more(world: World) -> None:
    """Told once, until a newer point has one; what a drill of an older point says, says nothing of that."""
    bare, first, second = (world.backed_up("C", run_id) for run_id in (R1, R2, R3))

    def lost(point_id: str, checked: Checked) -> bool:
        begun(world, point_id=point_id)
        drill = answered(world, checked)
        assert not drill.unprovable
        return drill.manifest_lost

    assert not lost(first, PASSED)
    assert not lost(bare, UNPROVEN), "before its nightvault knew how"
    assert world.told.alerts == []
    for checked in (UNPROVEN, BROKEN, UNPROVEN):
        assert lost(second, checked)
        assert [subject for subject, _ in world.told.alerts] == ["nightvault: C pushes no manifest any more"]
    assert lost(first, PASSED)
    third = world.backed_up("C", R4)
    assert not lost(third, PASSED)


def test_progress_renews_the_lease_and_nothing_else_does(world: World) -> None:
    world.backed_up("C", R1)
    run = begun(world)
    for gone in range(40):
        world.checks["C"] = Checked(state=DrillState.CHECKING, checked_bytes=gone, total_bytes=100)
        world.report(transfers={"C": gone})
        world.pass_minutes(1)
    assert drill_of(world).live
    assert drill_of(world).progress
    for gone in range(20):  # the agent was started again, and begins anew
        world.checks["C"] = Checked(state=DrillState.CHECKING, checked_bytes=gone, total_bytes=100)
        world.report()
        world.pass_minutes(1)
    assert drill_of(world).live
    for minute in range(17):
        world.report(transfers={"C": 100 + minute})
        world.pass_minutes(1)
    world.arrive()
    assert drill_of(world).outcome is Outcome.ABANDONED
    world.pass_minutes(2)
    record = world.store.host("C")
    assert record
    assert record.drill
    assert (record.drill.run_id, record.drill.state) == (run.run_id, DrillState.ERROR)
    assert "not seen alive" in record.drill.detail


def test_an_agent_that_knows_no_drills_is_ordered_one_and_no_more(world: World) -> None:
    """It mounts the point and says nothing of it. One that was made since does."""
    world.knows_drills = False
    for host, run_id in {"C": R1, "H": R2}.items():
        world.backed_up(host, run_id)
    world.clock.advance(29 * DAY)

    def woken() -> None:
        minutes_until_awake(world)
        world.boot()
        for _ in range(20):
            world.pass_minutes(1)
            if world.vault.window:
                world.cloud.settle()
                world.control.instance_changed(world.vault.instance_id or "")
            if world.vault.phase is Phase.OPEN:
                world.report()
        assert world.vault.phase is Phase.ASLEEP

    woken()
    assert world.store.windows("vault-1")[0].awake_seconds < 6 * 60
    for host in ("C", "H"):
        record = world.store.host(host)
        assert record
        assert record.drill
        assert record.drill.state is DrillState.ERROR
        assert "of a version without drills" in record.drill.detail
    world.clock.advance(2 * DAY)
    world.pass_minutes(16)
    assert world.vault.phase is Phase.ASLEEP
    begun(world)  # by an operator, who may know better
    assert answered(world, PASSED).state is DrillState.ERROR
    world.knows_drills = True
    begun(world)
    assert answered(world, PASSED).state is DrillState.PASSED
    minutes_until_awake(world)
    assert drill_of(world, "H").live


@pytest.mark.parametrize("checked", [PASSED, FAILED, UNPROVEN, BROKEN])
@pytest.mark.parametrize("wrong", ["run", "volume"])
def test_what_is_said_of_another_drill_is_not_believed(world: World, checked: Checked, wrong: str) -> None:
    world.backed_up("C", R1)
    run = begun(world)
    order = world.drill_orders["C"]
    assert order.drill
    if wrong == "run":
        world.drill_orders["C"] = replace(order, drill=replace(order.drill, run_id=R5))
    else:
        world.drill_orders["C"] = replace(order, volume_id="vol-other")
        world.cloud.mounted_points.add("vol-other")
    world.checks["C"] = checked
    world.report()
    assert drill_of(world).run_id == run.run_id
    assert drill_of(world).live


def test_a_point_that_the_vault_refuses_to_mount_is_unfit(world: World) -> None:
    point_id = world.backed_up("C", R1)
    begun(world)
    order = world.drill_orders["C"]
    world.seen_restores = {"C": PointMount(volume_id=order.volume_id, state="refused", detail="no filesystem")}
    world.report()
    world.seen_restores = None
    world.pass_minutes(2)
    assert fit(world, point_id) is False


def test_a_volume_that_aws_does_not_make_says_nothing_of_the_point(world: World) -> None:
    point_id = world.backed_up("C", R1)
    record = world.store.host("C")
    assert record
    world.control.drilling.begin(record, None)
    world.boot()
    world.cloud.refuse_calls = set(range(len(world.cloud.calls), len(world.cloud.calls) + 400))
    world.pass_minutes(18)
    world.cloud.refuse_calls = set()
    world.pass_minutes(2)
    record = world.store.host("C")
    assert record
    assert record.drill
    assert (record.drill.state, fit(world, point_id)) == (DrillState.ERROR, None)


# --- whose turn it is --------------------------------------------------------------------------------------


def test_a_backup_of_its_host_goes_on_beside_it_and_a_restore_ends_it(world: World) -> None:
    first, _ = world.backed_up("C", R1), world.backed_up("C", R2)
    begun(world, point_id=first)
    world.start("C", R3)
    world.report()
    assert world.control.status("C", R3).ready
    assert drill_of(world).live
    assert [order.live for order in world.report().hosts if order.host == "C"] == [True]
    document = world.start("C", R4, Kind.RESTORE, point_id=first)
    assert document.restore
    assert document.restore.source is Source.POINT
    assert drill_of(world).outcome is Outcome.ABANDONED
    for _ in range(3):
        world.report()
    assert world.control.status("C", R4).ready
    with pytest.raises(DrillHindered, match="busy with another restore"):
        begun(world)
    assert world.vault.hosts["C"].drilled_at is None, "it was not answered: it is tried again"


def test_hosts_neither_see_drills_nor_touch_them(world: World) -> None:
    world.backed_up("C", R1)
    before = world.control.status("C", None)
    run = begun(world)
    assert [order.live for order in world.report().hosts if order.host == "C"] == [False]
    assert world.control.status("C", None).run_id == before.run_id
    with pytest.raises(UnknownRun):
        world.control.status("C", run.run_id)
    with pytest.raises(UnknownRun):
        world.finish("C", run.run_id)
    with pytest.raises(RunIdTaken):
        world.start("C", run.run_id)
    with pytest.raises(BadRequest, match="kind"):
        StartBody(run_id=R5, kind=Kind.DRILL).command("C", "192.0.2.1")  # type: ignore[arg-type]
    assert drill_of(world).live
    group = world.vault.security_group_id or ""
    world.pass_minutes(1)
    assert world.cloud.ingress(group) == frozenset(), "it lets nobody in"


def test_a_restore_of_another_host_gets_the_last_place(world: World) -> None:
    world.enrol(*(f"X{n}" for n in range(22)))
    world.backed_up("C", R1)
    world.backed_up("H", R2)
    older, _ = world.backed_up("X0", R3), world.backed_up("X0", R4)
    begun(world, "C")
    begun(world, "H")
    assert points.free_place(world.vault) is None
    world.start("X0", R5, Kind.RESTORE, point_id=older)
    ended = [run.host for run in (drill_of(world, "C"), drill_of(world, "H")) if run.outcome is Outcome.ABANDONED]
    assert len(ended) == 1
    for _ in range(5):
        world.report()
    assert world.control.status("X0", R5).ready
    assert len([run for run in (drill_of(world, "C"), drill_of(world, "H")) if run.live]) == 1


def test_two_at_once_and_no_more(world: World) -> None:
    world.enrol("O")
    for host, run_id in {"C": R1, "H": R2, "O": R3}.items():
        world.backed_up(host, run_id)
    begun(world, "C")
    begun(world, "H")
    with pytest.raises(DrillHindered, match="busy with 2 drills"):
        begun(world, "O")


def test_one_under_way_is_not_begun_again(world: World) -> None:
    world.backed_up("C", R1)
    assert begun(world).run_id == begun(world).run_id


def test_none_begins_while_the_vault_closes(world: World) -> None:
    world.backed_up("C", R1)
    world.start("C", R2)
    world.boot()
    world.finish("C", R2)
    record = world.store.host("C")
    assert record
    with pytest.raises(DrillHindered, match="closing; try again"):
        world.control.drilling.begin(record, None)


@pytest.mark.parametrize("retired", [True, False])
def test_it_ends_with_its_hosts_key(world: World, *, retired: bool) -> None:
    world.backed_up("C", R1)
    begun(world)
    (Retire(host="C") if retired else Rotate(host="C", revoke_now=True)).answer(world.wired)
    world.arrive()
    world.pass_minutes(3)
    assert drill_of(world).outcome is Outcome.ABANDONED
    assert world.cloud.point_volumes == {}
    assert world.vault.drilled == {}


def test_its_budget_is_its_own_and_nobody_is_told_when_it_is_spent(world: World) -> None:
    world.control.policy = Policy(drill_seconds=600)
    world.backed_up("C", R1)
    begun(world)
    for gone in range(14):
        world.checks["C"] = Checked(state=DrillState.CHECKING, checked_bytes=gone, total_bytes=100)
        if world.vault.phase is Phase.OPEN:
            world.report()
        world.pass_minutes(1)
        world.arrive()
    assert drill_of(world).outcome is Outcome.CUT
    record = world.store.host("C")
    assert record
    with pytest.raises(WindowSpent):
        world.control.drilling.begin(record, None)
    assert world.start("C", R2).phase is Phase.WAKING, "backups have their own"
    assert world.told.alerts == []


# --- when it is due ----------------------------------------------------------------------------------------

SLOT = Slot(number=0, uid=20001, public_key=KEY, size_gib=5, every_seconds=DAY)


@pytest.mark.parametrize(
    ("slot_days", "wanted", "drillable", "expected"),
    [
        ((None, None), "", None, Due.IF_OPEN),
        ((None, None), "", 27, Due.IF_OPEN),
        ((None, None), "", 28, Due.NOW),
        ((None, 0.9), "", 28, Due.NOT),
        ((None, 1), "", 28, Due.NOW),
        ((25, 25), "", 99, Due.NOT),
        ((26, 26), "", 99, Due.IF_OPEN),
        ((28, 28), "", 99, Due.NOW),
        ((28, 0.5), "", 99, Due.NOT),
        ((2, 2), "a push was unusual", 99, Due.NOW),
        ((0.5, 0.5), "its last drill failed", 99, Due.NOT),
    ],
)
def test_due(slot_days: tuple[float | None, float | None], wanted: str, drillable: int | None, expected: Due) -> None:
    """Days ago: of the last drill that was answered, of the last attempt, of the first point that counted."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    drilled, tried, since = (None if days is None else now - timedelta(days=days) for days in (*slot_days, drillable))
    slot = replace(SLOT, drilled_at=drilled, drill_tried_at=tried, drill_wanted=wanted)
    assert drills.due(slot, now, since) is expected


def test_a_wish_is_granted_at_once_whatever_was_tried(world: World) -> None:
    now = world.clock.now()
    slot = replace(SLOT, drilled_at=now, drill_tried_at=now)
    draft = Draft(vault=Vault(vault_id="vault-1", hosts={"C": slot}), now=now, policy=Policy())
    draft.want_drill("C", "a push was unusual")
    slot = draft.vault.hosts["C"]
    assert drills.due(slot, now) is Due.NOW


def test_a_month_of_nights(world: World) -> None:
    """A drill when the vault is open anyway: the second night's, and one 26 days later; nothing wakes it for one."""
    passed: list[int] = []
    for night in range(32):
        run_id = f"00000000-0000-4000-8000-0000000001{night:02}"
        world.start("C", run_id)
        world.boot()
        world.commit("C", run_id)
        world.pass_minutes(2)
        for _ in range(3):
            world.report()
        world.checks["C"] = PASSED
        world.report()
        world.finish("C", run_id)
        world.checks = {}
        for _ in range(3):
            world.arrive()
            world.pass_minutes(1)
        assert world.vault.phase is Phase.ASLEEP
        ended = [fact.run for fact in world.told.facts if isinstance(fact, RunEnded) and fact.run.kind is Kind.DRILL]
        passed += [night] * (len(ended) - len(passed))
        world.clock.advance(DAY - 300)
    assert passed == [1, 27]
    assert len(world.store.windows("vault-1")) == 32


@pytest.mark.parametrize(("used_gib", "kinds"), [(11, {Kind.BACKUP, Kind.DRILL}), (13, {Kind.BACKUP})])
def test_a_volume_that_takes_long_to_read_holds_up_no_nights_restore_points(
    world: World, used_gib: int, kinds: set[Kind]
) -> None:
    """It is drilled in a waking of its own, when that is due."""
    world.backed_up("C", R1)
    world.cloud.sizes[str(world.vault.hosts["C"].volume_id)] = 20
    world.used_gib["C"] = used_gib
    world.clock.advance(27 * DAY)
    world.start("C", R2)
    world.boot()
    world.commit("C", R2)
    world.pass_minutes(2)
    assert world.vault.window
    assert {run.kind for run in world.vault.window.runs.values()} == kinds
    world.report()
    world.checks["C"] = PASSED
    world.report()
    world.finish("C", R2)
    for _ in range(3):
        world.arrive()
        world.pass_minutes(1)
    assert world.vault.phase is Phase.ASLEEP
    world.clock.advance(DAY)
    if kinds == {Kind.BACKUP}:
        minutes_until_awake(world)
        assert {run.kind for run in world.vault.window.runs.values()} == {Kind.DRILL}


def test_overdue(world: World) -> None:
    world.clock.advance(40 * DAY)
    world.backed_up("C", R1)
    record = world.store.host("C")
    assert record
    assert not record.drill_overdue(world.clock.now()), "there was nothing to drill until now"
    world.clock.advance(31 * DAY)
    assert record.drill_overdue(world.clock.now())
    assert not replace(record, enrolled_at=world.clock.now()).drill_overdue(world.clock.now()), "another machine"
    begun(world)
    answered(world, PASSED)
    record = world.store.host("C")
    assert record
    assert not record.drill_overdue(world.clock.now())
    silent = world.store.host("H")
    assert silent
    assert not silent.drill_overdue(world.clock.now()), "it has no backup that could be drilled"


def test_ec2_cannot_be_asked(world: World) -> None:
    world.backed_up("C", R1)
    world.clock.advance(29 * DAY)
    world.cloud.blind = True
    world.pass_minutes(16)
    assert world.vault.phase is Phase.ASLEEP
    record = world.store.host("C")
    assert record
    with pytest.raises(CloudRefused):
        world.control.drilling.begin(record, None)
    world.cloud.blind = False
    minutes_until_awake(world)


def test_older_keys_are_kept_for_what_they_signed(world: World) -> None:
    keys = [f"ssh-ed25519 {letter * 68}" for letter in "BCDEFGH"]
    for key in keys:
        world.enrolment.enroll(world.enrolment.invite("C", 5, DAY).code, key)
    slot = world.vault.hosts["C"]
    assert (slot.public_key, slot.former_keys) == (keys[-1], tuple(keys[-2:-7:-1]))
    assert slot.with_key("").former_keys == tuple(keys[-1:-6:-1])
    assert slot.with_key(keys[-1]) == slot


def test_a_host_that_rests_as_its_snapshot_has_each_new_one_drilled(world: World) -> None:
    """The volume goes when that has passed, and not when the tree carries no manifest."""
    world.backed_up("C", R1)
    world.pass_minutes(40)
    assert world.vault.phase is Phase.ASLEEP
    ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired)
    for run_id, checked in ((None, UNPROVEN), (R2, PASSED), (R3, PASSED), (R4, UNPROVEN)):
        if run_id:
            world.clock.advance(DAY / 2)
            point_id = world.backed_up("C", run_id)
        minutes_until_awake(world)
        world.boot()
        world.pass_minutes(1)
        for _ in range(3):
            world.report()
        assert answered(world, checked).state is checked.state
        world.pass_minutes(40)
        slot = world.vault.hosts["C"]
        rests = slot.volume_id is None and slot.rests_as == point_id if checked is PASSED else slot.volume_id
        assert rests, f"after {run_id}, which is {checked.state}"
        assert world.vault.phase is Phase.ASLEEP, "once was enough"
