"""Random lives of a vault, and one night killed at every step: what must hold whatever is interrupted.

`NIGHTVAULT_LIVES=5000 pytest tests/unit/test_lives.py` tries so many random ones instead of the fixed few.
"""

import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from chalicelib import points
from chalicelib.documents import orders
from chalicelib.drills import MOST_AT_ONCE
from chalicelib.errors import NightvaultError, StaleVault
from chalicelib.facts import DrillEnded
from chalicelib.model import (
    Checked,
    DrillState,
    InstanceState,
    Kind,
    Outcome,
    Phase,
    PointState,
    Policy,
    Resting,
    Run,
    Slot,
    Source,
)
from chalicelib.operators.action import Action
from chalicelib.operators.changes import ChangeHost, Retire, Rotate
from chalicelib.operators.waking import RebuildVault, Sleep, Wake
from tests.fakes.cloud import Killed
from tests.fakes.mortal import MortalWorld

HOSTS = ("C", "H", "O")
POLICY = Policy(
    window_seconds=1800,
    restore_seconds=1200,
    drill_seconds=0,
    linger_seconds=180,
    lease_seconds=300,
    wake_timeout_seconds=240,
)
DRILLING = replace(POLICY, drill_seconds=1200)
ON = (InstanceState.RUNNING, InstanceState.PENDING)
LIVES = int(os.environ.get("NIGHTVAULT_LIVES", "0"))


class Lambdas:
    """Runs a use case as a Lambda would: it may die, and it may refuse; nothing else comes out of it."""

    @staticmethod
    def run(call: Callable[[], Any]) -> Any:
        """What the call answers; None when it died or refused."""
        try:
            return call()
        except Killed:
            return None
        except NightvaultError:
            return None
        except ExceptionGroup as group:  # the sweep's way to say which vaults failed
            assert all(isinstance(each, NightvaultError) for each in group.exceptions), group.exceptions
            return None


def agents_act(world: MortalWorld, transfers: dict[str, int] | None = None, *, obedient: bool = True) -> None:
    """What every machine that runs does: enrol once, report, and power off when told to."""
    for machine in list(world.cloud.instances.values()):
        if machine.state is not InstanceState.RUNNING:
            continue
        if machine.instance_id != world.vault.instance_id:
            answer: object = None
            stale = True
        else:
            stale, answer = _reports(world, transfers)
        if obedient and (stale or (answer is not None and getattr(answer, "power_off", False))):
            world.cloud.set_state(machine.instance_id, InstanceState.STOPPING)


def _reports(world: MortalWorld, transfers: dict[str, int] | None) -> tuple[bool, object]:
    if world.vault.agent is None:
        unused = [c for c in world.store._codes.values() if c.name == "@vault-1" and not c.used_at]
        if not unused:
            return False, None
        try:
            world.store.redeem(unused[-1], world._with_agent(world.vault), None, world.clock.now())
        except (Killed, NightvaultError):
            return False, None
    vault = world.vault
    machine = vault.instance_id
    wanted = {h: n for h, n in (transfers or {}).items() if world.cloud.attached.get(_volume(world, h)) == machine}
    for run in vault.window.live_runs if vault.window and vault.phase is Phase.OPEN else ():
        if run.host in wanted and run.kind is Kind.BACKUP:
            world.cloud.written[_volume(world, run.host)] += 1
    try:
        return False, world.report(transfers=wanted)
    except StaleVault:
        return True, None
    except (Killed, NightvaultError):
        return False, None


def _volume(world: MortalWorld, host: str) -> str:
    slot = world.vault.hosts.get(host)
    return (slot and slot.volume_id) or "none"


def live_snapshots(world: MortalWorld) -> Counter[tuple[str, str]]:
    return Counter(
        (s.point.host, s.point.window_id) for s in world.cloud.snapshots.values() if s.state is not PointState.ERROR
    )


def check_always(world: MortalWorld) -> None:
    """What holds at every instant."""
    twice = {key: n for key, n in live_snapshots(world).items() if n > 1}
    assert not twice, f"two live snapshots of one host and window: {twice}"
    for host in world.store.hosts():
        if host.last_backup:
            snapshot = world.cloud.snapshots[host.last_backup.snapshot_id]
            assert snapshot.state is PointState.COMPLETED
            assert snapshot.point.complete
            assert snapshot.point.host == host.name
    for window in world.store.windows("vault-1", 1000):
        assert window.closing_at
        assert window.stopped_at
        assert not window.live_runs
        for run in window.runs.values():
            if run.kind is Kind.BACKUP and (run.pushed or run.committed_at):
                assert run.host in window.points, f"{run.host} pushed and got no restore point"
    check_hosts(world)
    check_drills(world)
    check_point_volumes(world)
    check_budget(world)


def check_drills(world: MortalWorld) -> None:
    """At most two at once, of each host one and none beside its restore; nobody is let in for one."""
    live = world.vault.window.live_runs if world.vault.window else ()
    drilled = [run.host for run in live if run.kind is Kind.DRILL]
    assert len(drilled) <= MOST_AT_ONCE
    assert len(set(drilled)) == len(drilled), "two drills of one host"
    assert not {run.host for run in live if run.kind is Kind.RESTORE} & set(drilled), "a drill beside a restore"
    assert all("" not in addresses for addresses in world.cloud.admitted.values()), "a drill lets somebody in"


def check_point_volumes(world: MortalWorld) -> None:
    """At most one for each host, of the point that is wanted, and none that is wanted was deleted."""
    twice = [host for host, n in Counter(d.host for d in world.cloud.point_volumes.values()).items() if n > 1]
    assert not twice, f"two volumes made from restore points of {twice}"
    for volume in world.vault.point_volumes.values():
        if volume.leaving_at is None and volume.volume_id:
            assert volume.volume_id not in world.cloud.deleted, "a restore's volume was deleted under it"
            assert world.cloud.of_point[volume.volume_id] == volume.point_id
    for run in world.vault.window.live_runs if world.vault.window else ():
        if run.restore and run.restore.source is Source.LIVE:
            volume_id = world.vault.hosts[run.host].volume_id or ""
            assert world.cloud.holds[volume_id] == run.restore.point_run_id, "its own volume holds something else"


def check_hosts(world: MortalWorld) -> None:
    """Who is retired has no place, no run and no key; who is not has a place of its own, within its limits."""
    vault = world.vault
    window_runs = vault.window.runs.values() if vault.window else ()
    live = {run.host for run in (*window_runs, *vault.queued.values()) if run.live}
    let_in = {order.host for order in orders(vault, world.clock.now(), POLICY).hosts}
    for host in world.store.hosts():
        placed = host.name in vault.hosts
        assert placed is (host.retired_at is None)
        assert placed or host.name not in live, "a retired host has a live run"
        assert placed or host.name not in let_in, "a retired host's key is in the orders"
        assert host.token_hash or host.name not in let_in, "a revoked host's key is in the orders"
    slots = [*vault.hosts.values(), *vault.retired.values()]
    for each in ("volume_id", "uid"):
        known = [getattr(slot, each) for slot in slots if getattr(slot, each)]
        assert len(set(known)) == len(known), f"two hosts share a {each}"
    numbers = [slot.number for slot in slots if slot.attached_to or slot in vault.hosts.values()]
    assert len(set(numbers)) == len(numbers), "two volumes share a device"
    for slot in vault.hosts.values():
        assert slot.size_gib <= slot.limit_gib
        assert world.cloud.sizes.get(slot.volume_id or "", 0) <= slot.limit_gib
        assert slot.volume_id or slot.rests_as or not slot.making
    if vault.window and vault.window.held_until:
        assert vault.window.held_until <= vault.window.ceilings[Kind.RESTORE].closes_at, "a hold outlives its budget"


def check_budget(world: MortalWorld) -> None:
    spent = world.vault.spent
    if spent is None:
        return
    sealing = [world.vault.window] if world.vault.window else []  # charged when it stopped, archived when sealed
    windows = [*world.store.windows("vault-1", 1000), *sealing]
    of_that_day = [w for w in windows if f"{w.opened_at:%Y-%m-%d}" == spent.day]
    slack = 120.0
    for window in of_that_day:
        if window.stopped_at and window.closing_at:
            slack += 60 + (window.stopped_at - window.closing_at).total_seconds()
            # Nobody swept while the schedule paused.
            first_end = min(ceiling.closes_at for ceiling in window.ceilings.values())
            slack += max(0.0, (window.closing_at - first_end).total_seconds())
    assert spent.seconds.get(Kind.BACKUP, 0) <= POLICY.window_seconds + slack
    assert spent.seconds.get(Kind.RESTORE, 0) <= POLICY.restore_seconds + slack
    assert spent.seconds.get(Kind.DRILL, 0) <= DRILLING.drill_seconds + slack


def settle(world: MortalWorld) -> None:
    """No more faults; hosts are silent, the machine obeys: the sweeps bring everything to rest."""
    world.fate.dies_after = None
    world.cloud.refuse_calls = set()
    world.cloud.blind = False
    world.cloud.enlarging_is_too_soon = set()
    quiet = 0
    for _ in range(240):
        world.clock.advance(60)
        world.control.sweep()
        world.cloud.settle()
        vault = world.vault
        leaving = [slot for slot in vault.retired.values() if slot.doomed or slot.attached_to]
        leaving += [slot for slot in vault.hosts.values() if _between(slot)]
        busy = vault.pending_points or vault.owed_points or leaving or vault.point_volumes or vault.drilled
        at_rest = vault.phase is Phase.ASLEEP and not busy
        quiet = quiet + 1 if at_rest else 0
        if quiet > 16:
            break
    check_settled(world)


def _between(slot: Slot) -> bool:
    """A volume that is asked for, missing, or on its way out."""
    return slot.making or slot.missing_since is not None or bool(slot.volume_id and slot.rests_as)


def check_settled(world: MortalWorld) -> None:
    vault = world.vault
    for name, slot in vault.hosts.items():
        assert not _between(slot), f"the volume of {name} comes or goes, and never does"
        assert slot.volume_id not in world.cloud.deleted, f"{name} is on a volume that was deleted"
        assert slot.volume_id or slot.rests_as in world.cloud.snapshots, f"{name} rests as a snapshot that is gone"
    assert vault.phase is Phase.ASLEEP
    assert not vault.pending_points
    assert not vault.owed_points
    for name, slot in vault.retired.items():
        assert not slot.doomed, f"the volume of {name} was to be deleted, and is there"
        assert slot.volume_id not in world.cloud.attached, f"{name} is retired, and its volume attached"
    assert not vault.drilled, "what came of a drill was not recorded"
    assert not vault.point_volumes
    assert not world.cloud.point_volumes, "a volume made for a restore was left behind"
    assert not [m for m in world.cloud.instances.values() if m.state in ON], "a machine runs while all is asleep"
    kept = [m.instance_id for m in world.cloud.instances.values() if m.state is not InstanceState.TERMINATED]
    assert kept in ([], [vault.instance_id]), "a machine that nobody knows was left behind"
    for group in world.cloud.admitted:
        assert world.cloud.ingress(group) == frozenset(), "port 22 is open while all is asleep"
    for snapshot in world.cloud.snapshots.values():
        counts = snapshot.state is PointState.COMPLETED and snapshot.point.complete
        recorded = [p for p in world.store.points(snapshot.point.host) if p.snapshot_id == snapshot.snapshot_id]
        if counts and recorded:
            host = world.store.host(snapshot.point.host)
            assert host
            assert host.last_backup
            assert host.last_backup.started_at >= snapshot.point.run_started_at
    check_always(world)


# --- one night, interrupted at every step ---------------------------------------------------------------

RUNS = {"C": "00000000-0000-4000-8000-00000000000c", "H": "00000000-0000-4000-8000-00000000000f"}


def insist(world: MortalWorld, call: Callable[[], Any]) -> Any:
    """What a client does about a Lambda that died (5xx): it asks again, a little later."""
    for _ in range(20):
        answer = Lambdas.run(call)
        if answer is not None:
            return answer
        world.clock.advance(5)
    raise AssertionError("the client gave up")


def minute(world: MortalWorld) -> None:
    world.clock.advance(60)
    Lambdas.run(world.control.sweep)
    world.cloud.settle()
    if world.vault.instance_id:
        Lambdas.run(lambda: world.control.instance_changed(world.vault.instance_id or ""))
    for snapshot_id in list(world.cloud.snapshots):
        Lambdas.run(partial(world.control.snapshot_changed, snapshot_id))


def enrolled_world() -> MortalWorld:
    world = MortalWorld(POLICY)
    world.enrol(*RUNS)
    return world


def night(world: MortalWorld, runs: dict[str, str] = RUNS) -> None:
    """Two hosts push for a few minutes each. Clients and agent repeat what was not answered."""
    before = len(world.cloud.snapshots)
    for host, run_id in runs.items():
        insist(world, partial(world.start, host, run_id, address=f"198.51.100.{ord(host)}"))
        world.clock.advance(1)
    for _ in range(12):
        if all(world.control.status(host, run_id).ready for host, run_id in runs.items()):
            break
        minute(world)
        agents_act(world)
        agents_act(world)
    for host, run_id in runs.items():
        assert world.control.status(host, run_id).ready, f"{host} was never let in"
    agents_act(world, {"C": 10, "H": 10})
    for host, run_id in runs.items():
        world.commits[host] = run_id
        world.cloud.holds[_volume(world, host)] = run_id
        agents_act(world)
        agents_act(world)
        insist(world, partial(world.finish, host, run_id))
        world.clock.advance(2)
    for _ in range(8):
        minute(world)
        agents_act(world)
    settle(world)
    made = [s for s in list(world.cloud.snapshots.values())[before:] if s.state is not PointState.ERROR]
    assert sorted(snapshot.point.host for snapshot in made) == ["C", "H"]
    for host, run_id in runs.items():
        last = world.control.status(host, run_id).last
        assert last
        assert last.backup_run_id == run_id


def _effects_of_a_night() -> int:
    world = enrolled_world()
    before = world.fate.effects
    night(world)
    return world.fate.effects - before


def _calls_of_a_night() -> int:
    world = enrolled_world()
    before = len(world.cloud.calls)
    night(world)
    return len(world.cloud.calls) - before


@pytest.mark.parametrize("step", range(1, _effects_of_a_night() + 1))
def test_a_night_whose_lambda_dies_after_its_kth_effect(step: int) -> None:
    world = enrolled_world()
    world.fate.dies_after = world.fate.effects + step
    night(world)


@pytest.mark.parametrize("every", range(1, 8))
def test_a_night_whose_lambdas_die_after_every_kth_effect(every: int) -> None:
    world = enrolled_world()
    plain = world.fate.effect
    turns = count(1)

    def effect() -> None:
        plain()
        if next(turns) % (every + 3) == 0 and not calm[0]:
            raise Killed

    calm = [False]
    world.fate.effect = effect  # type: ignore[method-assign]
    try:
        night(world)
    except (Killed, AssertionError):
        # So many deaths may cost a host its night; never more than that.
        calm[0] = True
        settle(world)


@pytest.mark.parametrize("call", range(1, _calls_of_a_night() + 1))
@pytest.mark.parametrize("length", [1, 2])
def test_a_night_whose_kth_call_is_refused(call: int, length: int) -> None:
    world = enrolled_world()
    first = len(world.cloud.calls) + call
    world.cloud.refuse_calls = set(range(first, first + length))
    night(world)


# --- a restore of an older point, interrupted at every step ------------------------------------------------

LATER = {"C": "00000000-0000-4000-8000-0000000000c2", "H": "00000000-0000-4000-8000-0000000000f2"}
RESTORE = "00000000-0000-4000-8000-0000000000e1"


def world_after_two_nights() -> tuple[MortalWorld, str]:
    """And the restore point of C's first night."""
    world = enrolled_world()
    night(world)
    first = world.control.status("C", RUNS["C"]).last
    assert first
    world.clock.advance(86400)
    night(world, LATER)
    world.clock.advance(86400)
    return world, first.snapshot_id


def restore(world: MortalWorld, point_id: str) -> None:
    """C pulls its first night's point while H pushes; what was made for it is gone when all is over."""
    before = len(world.cloud.snapshots)
    insist(world, partial(world.start, "C", RESTORE, Kind.RESTORE, point_id=point_id))
    insist(world, partial(world.start, "H", RESTORE.replace("e1", "e2")))
    for _ in range(12):
        if world.control.status("C", RESTORE).ready:
            break
        minute(world)
        agents_act(world)
        agents_act(world)
    document = world.control.status("C", RESTORE)
    assert document.ready, "C was never let in"
    assert document.restore
    assert document.restore.source is Source.POINT
    made = world.vault.point_volumes["C"].volume_id
    assert made in world.cloud.mounted_points
    assert world.cloud.of_point[made or ""] == point_id
    agents_act(world, {"C": 10})
    check_always(world)
    insist(world, partial(world.finish, "C", RESTORE))
    for _ in range(4):
        minute(world)
        agents_act(world, {"H": 10})
    assert made in world.cloud.deleted, "it stayed though the vault was open"
    insist(world, partial(world.finish, "H", RESTORE.replace("e1", "e2")))
    settle(world)
    assert {s.point.host for s in list(world.cloud.snapshots.values())[before:]} == {"H"}, "C only read"


def _effects_of_a_restore() -> int:
    world, point_id = world_after_two_nights()
    before = world.fate.effects
    restore(world, point_id)
    return world.fate.effects - before


def _calls_of_a_restore() -> int:
    world, point_id = world_after_two_nights()
    before = len(world.cloud.calls)
    restore(world, point_id)
    return len(world.cloud.calls) - before


@pytest.mark.parametrize("step", range(1, _effects_of_a_restore() + 1))
def test_a_restore_whose_lambda_dies_after_its_kth_effect(step: int) -> None:
    world, point_id = world_after_two_nights()
    world.fate.dies_after = world.fate.effects + step
    restore(world, point_id)


@pytest.mark.parametrize("call", range(1, _calls_of_a_restore() + 1))
def test_a_restore_whose_kth_call_is_refused(call: int) -> None:
    world, point_id = world_after_two_nights()
    world.cloud.refuse_calls = {len(world.cloud.calls) + call}
    restore(world, point_id)


# --- a drill, interrupted at every step ------------------------------------------------------------------


def drill(world: MortalWorld, state: DrillState) -> None:
    """Of C's newest point while H pushes; what the vault says is recorded once with the point, and told."""
    world.control.policy = DRILLING
    newest = world.store.points("C")[-1]
    host = world.store.host("C")
    assert host
    insist(world, partial(world.control.drilling.begin, host, None))
    run_id = RESTORE.replace("e1", "e3")
    insist(world, partial(world.start, "H", run_id))
    world.checks = {"C": Checked(state=state, checked_bytes=7, detail="a file: another checksum")}
    for _ in range(16):
        minute(world)
        agents_act(world, {"H": 10})
        agents_act(world, {"H": 10})
        host = world.store.host("C")
        if host and host.drill:
            break
    world.control.policy = POLICY
    world.checks = {}
    insist(world, partial(world.finish, "H", run_id))
    settle(world)
    host = world.store.host("C")
    assert host
    assert host.drill
    assert (host.drill.point_id, host.drill.state) == (newest.snapshot_id, state)
    fit = {point.snapshot_id: point.marks.fit for point in world.store.points("C")}
    assert fit[newest.snapshot_id] is {DrillState.PASSED: True, DrillState.FAILED: False}.get(state)
    assert any(isinstance(fact, DrillEnded) for fact in world.told.facts)
    assert bool(world.told.alerts) is (state is not DrillState.PASSED)


def world_to_drill() -> MortalWorld:
    world = enrolled_world()
    night(world)
    world.clock.advance(86400)
    return world


def _effects_of_a_drill() -> int:
    world = world_to_drill()
    before = world.fate.effects
    drill(world, DrillState.FAILED)
    return world.fate.effects - before


def _calls_of_a_drill() -> int:
    world = world_to_drill()
    before = len(world.cloud.calls)
    drill(world, DrillState.FAILED)
    return len(world.cloud.calls) - before


@pytest.mark.parametrize("step", range(1, _effects_of_a_drill() + 1))
def test_a_drill_whose_lambda_dies_after_its_kth_effect(step: int) -> None:
    world = world_to_drill()
    world.fate.dies_after = world.fate.effects + step
    drill(world, DrillState.FAILED)


@pytest.mark.parametrize("call", range(1, _calls_of_a_drill() + 1))
def test_a_drill_whose_kth_call_is_refused(call: int) -> None:
    world = world_to_drill()
    world.cloud.refuse_calls = {len(world.cloud.calls) + call}
    drill(world, DrillState.PASSED)


# --- a host that rests as its snapshot, interrupted at every step ----------------------------------------


def only_the_proven_go(world: MortalWorld) -> None:
    """From now on: no volume of a host that is backed up is deleted but for a snapshot that passed its drill."""

    def check(volume_id: str) -> None:
        if any(slot.volume_id == volume_id for slot in world.vault.retired.values()):
            return
        recorded = [point for host in world.store.hosts() for point in world.store.points(host.name)]
        proven = [point.snapshot_id for point in recorded if point.marks.fit and point.complete]
        there = [world.cloud.snapshots[i] for i in proven if i in world.cloud.snapshots]
        whole = [shot for shot in there if shot.state is PointState.COMPLETED and shot.point.complete]
        holding = [shot for shot in whole if shot.content == world.cloud.written[volume_id]]
        assert any(
            volume_id in (shot.point.volume_id, "") or shot.snapshot_id == world.cloud.of_point.get(volume_id)
            for shot in holding
        ), f"{volume_id} was deleted, and no snapshot is proven to hold what it did"

    world.cloud.before_delete = check


def drilled(world: MortalWorld, host: str, *, passed: bool = True) -> None:
    """Its newest restore point is checked, byte for byte."""
    for point in world.store.points(host)[-1:]:
        world.store.mark(point, replace(point.marks, fit=passed, drilled_at=world.clock.now()))


def world_with_a_cold_host() -> MortalWorld:
    """After a night of C and H; C is to rest as its snapshot, which is not yet drilled."""
    world = enrolled_world()
    only_the_proven_go(world)
    night(world)
    assert ChangeHost(host="C", resting=Resting.SNAPSHOT).answer(world.wired).host.resting is Resting.SNAPSHOT
    world.pass_minutes(40)
    assert world.vault.hosts["C"].volume_id == "vol-C", "it went, and nothing had proven that it may"
    return world


def cold_night(world: MortalWorld) -> None:
    """The drill passes, the volume goes; the next night makes it again, and goes as any other."""
    drilled(world, "C") if world.fate.dies_after is None else Lambdas.run(partial(drilled, world, "C"))
    for _ in range(40):
        minute(world)
        if world.vault.hosts["C"].volume_id is None:
            break
    cold = world.vault.hosts["C"]
    assert cold.volume_id is None
    assert cold.rests_as == world.control.status("C", RUNS["C"]).last.snapshot_id  # type: ignore[union-attr]
    assert "vol-C" in world.cloud.deleted
    assert world.vault.hosts["H"].volume_id == "vol-H"
    world.clock.advance(86400 - 3600)
    night(world, LATER)
    warm = world.vault.hosts["C"]
    assert warm.volume_id == "vol-C-1"
    assert world.cloud.of_point["vol-C-1"] == cold.rests_as
    assert [made[1:] for made in world.cloud._made_volumes if made[1] == "C"] == [
        ("C", 20001, 0, ""),
        ("C", 20001, 1, cold.rests_as),
    ], "a lost answer made a second one"
    assert world.told.alerts == []


def _effects_of_a_cold_night() -> int:
    world = world_with_a_cold_host()
    before = world.fate.effects
    cold_night(world)
    return world.fate.effects - before


def _calls_of_a_cold_night() -> int:
    world = world_with_a_cold_host()
    before = len(world.cloud.calls)
    cold_night(world)
    return len(world.cloud.calls) - before


@pytest.mark.parametrize("step", range(1, _effects_of_a_cold_night() + 1))
def test_a_cold_night_whose_lambda_dies_after_its_kth_effect(step: int) -> None:
    world = world_with_a_cold_host()
    world.fate.dies_after = world.fate.effects + step
    cold_night(world)


@pytest.mark.parametrize("call", range(1, _calls_of_a_cold_night() + 1))
def test_a_cold_night_whose_kth_call_is_refused(call: int) -> None:
    world = world_with_a_cold_host()
    world.cloud.refuse_calls = {len(world.cloud.calls) + call}
    cold_night(world)


# --- random lives ---------------------------------------------------------------------------------------


class Life(RuleBasedStateMachine):
    """Anything may happen to a vault, in any order."""

    @initialize(hour=st.sampled_from([1, 12, 23]))
    def begin(self, hour: int) -> None:
        self.world = MortalWorld(DRILLING)
        self.world.clock.instant = self.world.clock.instant.replace(hour=hour, minute=40)
        self.world.enrol(*HOSTS)
        only_the_proven_go(self.world)
        self.ids = count(1)
        self.runs: list[tuple[str, str]] = []
        self.newest: dict[str, datetime] = {}
        self.said: dict[tuple[str, str], Outcome] = {}
        self.committed: set[str] = set()
        self.late_sweeps = 0
        self.idle_minutes = 0

    def _time(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    def _sweep(self) -> None:
        world = self.world
        window = world.vault.window
        blind, calls = world.cloud.blind, len(world.cloud.calls)
        due = window is not None and world.clock.now() >= window.closes_at and world.vault.awake
        try:
            world.control.sweep()
        except Killed:
            return
        except ExceptionGroup as group:
            assert all(isinstance(each, NightvaultError) for each in group.exceptions), group.exceptions
        self.late_sweeps = self.late_sweeps + 1 if due and world.vault.window is window else 0
        assert self.late_sweeps < 2, "the window outlived its end by two sweeps"
        hindered = blind or any(n in world.cloud.refuse_calls for n in range(calls + 1, len(world.cloud.calls) + 1))
        machine = world.cloud.instances.get(world.vault.instance_id or "")
        idle = world.vault.phase is Phase.ASLEEP and machine and machine.state is InstanceState.RUNNING
        self.idle_minutes = self.idle_minutes + 1 if idle and not hindered else 0
        assert self.idle_minutes <= 16, "it has been running while asleep for 16 minutes"

    @rule(host=st.sampled_from(HOSTS), kind=st.sampled_from([Kind.BACKUP, Kind.BACKUP, Kind.RESTORE]))
    def a_host_starts(self, host: str, kind: Kind) -> None:
        run_id = f"00000000-0000-4000-8000-{next(self.ids):012d}"
        self.runs.append((host, run_id))
        known = self.world.store.host(host)
        Lambdas.run(lambda: self.world.start(host, run_id, kind, f"198.51.100.{HOSTS.index(host) // 2}"))
        if known and not known.token_hash:
            assert self.world.vault.find_run(run_id) is None, "it woke for a host that is retired or revoked"

    @rule(host=st.sampled_from(HOSTS), data=st.data())
    def a_host_restores(self, host: str, data: st.DataObject) -> None:
        """Some point of its own, whatever its state, or the newest; the machine is up before or after."""
        mine = [i for i, s in self.world.cloud.snapshots.items() if s.point.host == host]
        point_id = data.draw(st.sampled_from([None, *mine]))
        run_id = f"00000000-0000-4000-8000-{next(self.ids):012d}"
        self.runs.append((host, run_id))
        Lambdas.run(lambda: self.world.start(host, run_id, Kind.RESTORE, "198.51.100.9", point_id))
        for _ in range(data.draw(st.integers(0, 2))):
            self.it_boots()
        vault = self.world.vault
        run = vault.find_run(run_id)
        if run and points.ready(vault, run) and run.restore and run.restore.source is Source.POINT:
            volume_id = vault.point_volumes[host].volume_id or ""
            assert volume_id in self.world.cloud.mounted_points, "not mounted, and called ready"
            assert self.world.cloud.of_point[volume_id] == point_id or point_id is None

    @rule(data=st.data(), kept=st.booleans())
    def a_snapshot_is_deleted(self, data: st.DataObject, kept: bool) -> None:
        """An older one; by retention, which spares what is being restored, or by somebody's hand."""
        cloud, vault = self.world.cloud, self.world.vault
        newest = {s.point.volume_id: i for i, s in cloud.snapshots.items() if s.point.complete}
        spared = {*newest.values(), *vault.pending_points, *(s.doomed for s in vault.retired.values())}
        spared |= {h.last_backup.snapshot_id for h in self.world.store.hosts() if h.last_backup}
        spared |= {slot.rests_as for slot in vault.hosts.values() if kept or slot.volume_id}
        older = [i for i in cloud.snapshots if i not in spared and not (kept and i in points.in_use([vault]))]
        if older:
            cloud.lose_snapshot(data.draw(st.sampled_from(older)))

    @rule(host=st.sampled_from(HOSTS))
    def a_volume_is_deleted_by_hand(self, host: str) -> None:
        """Taken off the machine by force, if need be."""
        volume_id = _volume(self.world, host)
        if volume_id in self.world.cloud.sizes:
            self.world.cloud.lose_volume(volume_id)
            self.world.commits.pop(host, None)

    @rule(host=st.sampled_from(HOSTS), passed=st.sampled_from([True, True, False]))
    def a_drill_ends(self, host: str, passed: bool) -> None:
        Lambdas.run(lambda: drilled(self.world, host, passed=passed))

    @rule(host=st.sampled_from(HOSTS), resting=st.sampled_from([Resting.SNAPSHOT, Resting.SNAPSHOT, Resting.VOLUME]))
    def an_operator_lets_a_host_rest(self, host: str, resting: Resting) -> None:
        self._operate(ChangeHost(host=host, resting=resting))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def a_start_is_repeated(self, data: st.DataObject) -> None:
        host, run_id = data.draw(st.sampled_from(self.runs[-4:]))
        first = Lambdas.run(lambda: self.world.start(host, run_id))
        again = Lambdas.run(lambda: self.world.start(host, run_id))
        if first and again:
            assert again == first

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.COMPLETE, Outcome.COMPLETE, Outcome.FAILED, Outcome.CUT]))
    def a_host_finishes(self, data: st.DataObject, outcome: Outcome) -> None:
        host, run_id = data.draw(st.sampled_from(self.runs[-5:]))
        first = Lambdas.run(lambda: self.world.finish(host, run_id, outcome))
        again = Lambdas.run(lambda: self.world.finish(host, run_id, outcome))
        if first and again:
            assert again == first, "finish twice, two answers"

    @rule(host=st.sampled_from(HOSTS), data=st.data())
    def an_operator_drills(self, host: str, data: st.DataObject) -> None:
        """Of the newest or any point, and may be the agent never answers."""
        mine = [i for i, s in self.world.cloud.snapshots.items() if s.point.host == host]
        point_id = data.draw(st.sampled_from([None, *mine]))
        record = self.world.store.host(host)
        if record and record.retired_at is None:
            Lambdas.run(lambda: self.world.control.drilling.begin(record, point_id))
        for _ in range(data.draw(st.integers(0, 2))):
            self.it_boots()

    @rule(host=st.sampled_from(HOSTS), state=st.sampled_from([None, *DrillState]), checked=st.integers(0, 9))
    def the_agent_checks(self, host: str, state: DrillState | None, checked: int) -> None:
        self.world.checks.pop(host, None)
        if state:
            self.world.checks[host] = Checked(state=state, checked_bytes=checked)
        agents_act(self.world)

    @rule(hosts=st.sets(st.sampled_from(HOSTS)))
    def the_vault_reports(self, hosts: set[str]) -> None:
        agents_act(self.world, dict.fromkeys(sorted(hosts), 7))

    @rule(
        hosts=st.sets(st.sampled_from(HOSTS), min_size=1),
        outcome=st.sampled_from([Outcome.COMPLETE, Outcome.COMPLETE, Outcome.COMPLETE, Outcome.CUT]),
    )
    def some_hosts_back_up(self, hosts: set[str], outcome: Outcome) -> None:
        """Single steps in a random order seldom make a night; this makes one, as far as the faults let it."""
        for host in sorted(hosts):
            self.a_host_starts(host, Kind.BACKUP)
        mine = {host: run_id for host, run_id in self.runs if host in hosts}
        for _ in range(3):
            self.it_boots()
        for host, run_id in mine.items():
            self.a_host_commits(host)
            Lambdas.run(partial(self.world.finish, host, run_id, outcome))

    @rule()
    def it_comes_to_rest(self) -> None:
        """The instance stops, and its event comes: the volumes are snapshotted."""
        self.world.cloud.settle()
        Lambdas.run(lambda: self.world.control.instance_changed(self.world.vault.instance_id or "i-0"))

    @precondition(lambda self: self.world.vault.instance_id in self.world.cloud.instances)
    @rule()
    def somebody_starts_the_machine_by_hand(self) -> None:
        world = self.world
        instance_id = world.vault.instance_id or ""
        if world.cloud.instances[instance_id].state is InstanceState.STOPPED:
            world.cloud.set_state(instance_id, InstanceState.RUNNING)

    @rule(host=st.sampled_from(HOSTS))
    def a_host_commits(self, host: str) -> None:
        vault = self.world.vault
        live = [r for r in (vault.window.live_runs if vault.window else ()) if _may_push(r, host)]
        machine = self.world.cloud.instances.get(vault.instance_id or "")
        there = self.world.cloud.attached.get(_volume(self.world, host)) == vault.instance_id
        if live and there and vault.phase is Phase.OPEN and machine and machine.state is InstanceState.RUNNING:
            self.world.cloud.written[_volume(self.world, host)] += 1
            self.world.cloud.holds[_volume(self.world, host)] = live[-1].run_id
            self.world.commits[host] = live[-1].run_id
            self.committed.add(live[-1].run_id)
            agents_act(self.world)

    @rule()
    def states_arrive(self) -> None:
        self.world.cloud.settle()

    @rule()
    def it_boots(self) -> None:
        self.world.cloud.settle()
        Lambdas.run(lambda: self.world.control.instance_changed(self.world.vault.instance_id or "i-0"))
        agents_act(self.world)
        agents_act(self.world)

    @rule(data=st.data())
    def an_event_comes_late_or_twice(self, data: st.DataObject) -> None:
        world = self.world
        known = sorted([*world.cloud.instances, *world.cloud.snapshots, "i-unknown", "snap-unknown"])
        each = data.draw(st.sampled_from(known))
        if each.startswith("i-"):
            Lambdas.run(lambda: world.control.instance_changed(each))
        else:
            Lambdas.run(lambda: world.control.snapshot_changed(each))

    @rule(minutes=st.sampled_from([1, 1, 2, 4, 16]))
    def minutes_pass(self, minutes: int) -> None:
        for _ in range(minutes):
            self._time(60)
            self._sweep()

    @rule(minutes=st.sampled_from([5, 15, 31]))
    def minutes_pass_while_everyone_pushes(self, minutes: int) -> None:
        for _ in range(minutes):
            self._time(60)
            self._sweep()
            agents_act(self.world, dict.fromkeys(HOSTS, 9))

    @rule(hours=st.sampled_from([1, 7, 25]))
    def the_schedule_pauses(self, hours: int) -> None:
        self._time(hours * 3600)
        self.late_sweeps = self.idle_minutes = 0
        for _ in range(3):
            self._time(60)
            self._sweep()
            self.world.cloud.settle()

    @rule(seconds=st.floats(0.01, 5))
    def moments_pass(self, seconds: float) -> None:
        self._time(seconds)

    @precondition(lambda self: self.world.vault.instance_id in self.world.cloud.instances)
    @rule(state=st.sampled_from([InstanceState.STOPPED, InstanceState.TERMINATED]))
    def the_machine_dies(self, state: InstanceState) -> None:
        world = self.world
        instance_id = world.vault.instance_id or ""
        if world.cloud.instances[instance_id].state is InstanceState.TERMINATED:
            return
        world.cloud.set_state(instance_id, state)
        if state is InstanceState.TERMINATED:
            world.cloud.attached = {v: i for v, i in world.cloud.attached.items() if i != instance_id}

    @rule(told=st.booleans())
    def a_snapshot_fails(self, told: bool) -> None:
        pending = [i for i, s in self.world.cloud.snapshots.items() if s.state is PointState.PENDING]
        for snapshot_id in pending[:1]:
            self.world.cloud.fail_snapshot(snapshot_id)
            if told:
                Lambdas.run(partial(self.world.control.snapshot_changed, snapshot_id))

    @rule(first=st.integers(1, 6), length=st.integers(1, 4))
    def calls_are_refused(self, first: int, length: int) -> None:
        made = len(self.world.cloud.calls)
        self.world.cloud.refuse_calls |= set(range(made + first, made + first + length))

    @rule(effects=st.integers(1, 8))
    def a_lambda_will_die(self, effects: int) -> None:
        self.world.fate.dies_after = self.world.fate.effects + effects

    @rule()
    def lookups_fail_or_work_again(self) -> None:
        self.world.cloud.blind = not self.world.cloud.blind

    @rule(host=st.sampled_from(HOSTS))
    def a_host_enrols_again(self, host: str) -> None:
        Lambdas.run(lambda: self.world.enrol(host))

    def _operate(self, action: Action) -> Any:
        return Lambdas.run(lambda: action.answer(self.world.wired))

    @rule(host=st.sampled_from(HOSTS), delete_volume=st.booleans())
    def an_operator_retires(self, host: str, delete_volume: bool) -> None:
        if self._operate(Retire(host=host, delete_volume=delete_volume)):
            record = self.world.store.host(host)
            assert record
            assert record.retired_at
            self.world.commits.pop(host, None)  # its volume is unmounted: the agent has no commit of it to report

    @rule(host=st.sampled_from(HOSTS), now=st.booleans())
    def an_operator_rotates(self, host: str, now: bool) -> None:
        self._operate(Rotate(host=host, revoke_now=now))

    @rule(host=st.sampled_from(HOSTS), limit=st.sampled_from([6, 9, 60]))
    def an_operator_changes_a_host(self, host: str, limit: int) -> None:
        self._operate(ChangeHost(host=host, max_size_gib=limit, ping_url="https://ping.example/x"))

    @rule(minutes=st.sampled_from([1, 10, 600]))
    def an_operator_wakes_it(self, minutes: int) -> None:
        self._operate(Wake(vault_id="vault-1", minutes=minutes))

    @rule(cut=st.booleans())
    def an_operator_puts_it_to_sleep(self, cut: bool) -> None:
        answer = self._operate(Sleep(vault_id="vault-1", cut=cut))
        if answer:
            assert answer.vault.held_until is None
            assert not (cut and self.world.vault.awake), "it was put to sleep, and is awake"

    @rule()
    def an_operator_gives_up_the_machine(self) -> None:
        self._operate(RebuildVault(vault_id="vault-1"))

    @rule(host=st.sampled_from(HOSTS), gib=st.sampled_from([0, 4, 5, 12]))
    def a_volume_fills(self, host: str, gib: int) -> None:
        self.world.used_gib[host] = gib

    @rule(host=st.sampled_from(HOSTS))
    def it_is_too_soon_to_grow(self, host: str) -> None:
        self.world.cloud.enlarging_is_too_soon ^= {_volume(self.world, host)}

    @rule()
    def all_comes_to_rest(self) -> None:
        settle(self.world)
        self.late_sweeps = self.idle_minutes = 0

    @invariant()
    def nothing_is_broken(self) -> None:
        # Begins with the world: hypothesis calls invariants only after `initialize`.
        self._time(0.01)  # two windows of one instant would share a name; EC2 needs seconds for each
        check_always(self.world)
        for host in self.world.store.hosts():
            if host.last_backup:
                assert host.last_backup.run_id in self.committed, "it counts, and was never committed"
                before = self.newest.get(host.name, host.last_backup.started_at)
                assert host.last_backup.started_at >= before, "the last backup moved backwards"
                self.newest[host.name] = host.last_backup.started_at

    def teardown(self) -> None:
        if hasattr(self, "world"):
            settle(self.world)


def _may_push(run: Run, host: str) -> bool:
    return run.host == host and run.kind is Kind.BACKUP


TestLives = Life.TestCase
TestLives.settings = settings(
    max_examples=LIVES or 100,
    stateful_step_count=60,
    deadline=None,
    derandomize=not LIVES,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_day_after_has_a_budget_of_its_own() -> None:
    world = enrolled_world()
    world.clock.instant = world.clock.instant.replace(hour=23, minute=50)
    night(world)
    assert world.vault.spent
    assert world.vault.spent.day == "2026-11-23"
    world.clock.advance(timedelta(hours=1).total_seconds())
    assert world.start("C", "00000000-0000-4000-8000-0000000000ff").phase is Phase.WAKING
