"""Whole nights over fakes: what DESIGN's night and rules promise, told as scenarios."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from chalicelib.commands import Report
from chalicelib.errors import CloudRefused, RunIdTaken, RunSuperseded, StaleVault, UnknownRun, WindowSpent
from chalicelib.facts import PointFailed, RunEnded, WakeFaulted
from chalicelib.model import InstanceState, Kind, Mount, Outcome, Phase, PointState, Policy, RestorePoint, Slot
from tests.fakes.cloud import Killed, Snapshot
from tests.fakes.world import KEY, World

R1, R2, R3, R4 = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5))


@pytest.fixture
def world() -> World:
    world = World()
    world.enrol("C", "H")
    return world


def snapshots(world: World) -> list[Snapshot]:
    return list(world.cloud.snapshots.values())


def phase(world: World) -> Phase:
    return world.vault.phase


def test_a_night(world: World) -> None:
    assert world.start("C", R1).phase is Phase.WAKING
    assert world.start("H", R2).phase is Phase.WAKING
    world.boot()
    document = world.control.status("C", R1)
    assert document.ready
    assert document.vault is not None
    assert document.vault.user == "nv20001"
    world.report(transfers={"C": 500, "H": 20})
    world.commit("C", R1)
    assert world.finish("C", R1).phase is Phase.OPEN
    world.commit("H", R2)
    document = world.finish("H", R2)
    assert document.phase is Phase.CLOSING
    assert document.outcome is Outcome.COMPLETE
    assert document.last is None
    world.arrive()
    assert world.vault.phase is Phase.ASLEEP
    assert world.cloud.calls.count("stop") == 1
    assert sorted(s.point.host for s in snapshots(world)) == ["C", "H"]
    assert all(s.point.complete for s in snapshots(world))
    last = world.control.status("C", R1).last
    assert last is not None
    assert last.backup_run_id == R1
    (window,) = world.store.windows("vault-1", 5)
    assert window.close_reason == "no live run, and no host expected"
    assert world.cloud.ingress("sg-vault-1") == frozenset()


def test_last_backup_moves_only_when_the_snapshot_of_a_complete_run_has_completed(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    assert world.vault.pending_points
    assert world.control.status("C", R1).last is None
    world.cloud.settle()
    world.pass_minutes(1)  # its event never came: the sweep asks
    assert world.control.status("C", R1).last is not None


def test_complete_without_a_commit_is_an_incomplete_restore_point(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.report(transfers={"C": 5})
    world.finish("C", R1)
    world.arrive()
    (snapshot,) = snapshots(world)
    assert not snapshot.point.complete
    assert world.control.status("C", R1).last is None


def test_a_host_that_never_pushed_gets_no_snapshot(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.finish("C", R1, Outcome.FAILED, 4)
    world.arrive()
    assert snapshots(world) == []
    assert world.vault.phase is Phase.ASLEEP


def test_the_window_cuts_who_is_not_done_and_labels_it_incomplete(world: World) -> None:
    world.start("C", R1)
    world.boot()
    for _ in range(216):
        world.report(transfers={"C": 5})
        world.pass_minutes(1)
    assert world.vault.phase is Phase.CLOSING
    document = world.control.status("C", R1)
    assert document.outcome is Outcome.CUT
    world.arrive()
    (snapshot,) = snapshots(world)
    assert snapshot.point.outcome is Outcome.CUT
    assert not snapshot.point.complete
    with pytest.raises(WindowSpent) as spent:
        world.start("C", R2)
    midnight = 24 * 3600 - (3600 + 216 * 60)
    assert spent.value.retry_after_seconds == pytest.approx(midnight, abs=2)
    world.clock.advance(spent.value.retry_after_seconds)
    assert world.start("C", R2).phase is Phase.WAKING


def test_a_restore_has_a_budget_of_its_own(world: World) -> None:
    world.backed_up("C", R3)
    world.start("C", R1)
    world.boot()
    while world.vault.phase is Phase.OPEN:
        world.report(transfers={"C": 5})
        world.pass_minutes(1)
    world.arrive()
    with pytest.raises(WindowSpent):
        world.start("C", R2)
    assert world.start("C", R2, Kind.RESTORE).phase is Phase.WAKING
    world.boot()
    world.report(transfers={"C": 5})
    world.finish("C", R2)
    world.arrive()
    assert len(snapshots(world)) == 2, "a restore makes no restore point"


def test_what_the_vault_saw_committed_is_complete_though_its_host_died(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.pass_minutes(16)
    assert world.control.status("C", R1).outcome is Outcome.COMPLETE
    world.arrive()
    assert snapshots(world)[0].point.complete


def test_a_lease_ends_when_the_vault_does_not_see_the_run(world: World) -> None:
    world.start("C", R1)
    world.boot()
    for _ in range(30):
        world.report(transfers={"C": 5})
        world.pass_minutes(1)
    assert world.control.status("C", R1).outcome is None, "seen alive for twice its lease"
    world.pass_minutes(15)
    assert world.control.status("C", R1).outcome is Outcome.ABANDONED
    assert world.vault.phase is Phase.CLOSING


def test_start_and_finish_are_idempotent(world: World) -> None:
    first = world.start("C", R1)
    calls = list(world.cloud.calls)
    assert world.start("C", R1) == first
    assert world.cloud.calls == calls
    world.boot()
    world.commit("C", R1)
    first = world.finish("C", R1)
    assert world.finish("C", R1) == first
    world.arrive()
    assert world.finish("C", R1).outcome is Outcome.COMPLETE
    assert world.cloud.calls.count("stop") == 1


def test_unknown_and_foreign_runs(world: World) -> None:
    world.start("C", R1)
    before = world.vault
    attempts: list[Callable[[], object]] = [
        lambda: world.finish("C", R3),
        lambda: world.finish("H", R1),
        lambda: world.control.status("H", R1),
        lambda: world.control.status("C", R3),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownRun):
            attempt()
    with pytest.raises(RunIdTaken):
        world.start("H", R1)
    assert world.vault == before


def test_a_new_run_supersedes_the_live_one(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.start("C", R2)
    assert world.control.status("C", R1).outcome is Outcome.ABANDONED
    with pytest.raises(RunSuperseded):
        world.finish("C", R1)
    assert world.control.status("C", None).run_id == R2
    assert world.vault.phase is Phase.OPEN


def test_a_start_while_closing_is_queued_and_wakes_again(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    document = world.start("H", R2)
    assert document.phase is Phase.CLOSING
    assert document.queued
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    document = world.control.status("H", R2)
    assert document.phase is Phase.WAKING
    assert not document.queued
    world.boot()
    assert world.control.status("H", R2).ready
    assert world.cloud.calls.count("stop") == 1


def test_a_queued_run_that_gives_up_wakes_nobody(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    world.start("H", R2)
    world.finish("H", R2, Outcome.FAILED, 5)
    world.arrive()
    assert world.vault.phase is Phase.ASLEEP
    assert world.finish("H", R2, Outcome.FAILED, 5).outcome is Outcome.FAILED


def test_it_lingers_for_a_host_whose_usual_time_is_near(world: World) -> None:
    for host, run in (("C", R1), ("H", R2)):
        world.start(host, run)
    world.boot()
    for host, run in (("C", R1), ("H", R2)):
        world.commit(host, run)
        world.finish(host, run)
    world.arrive()
    world.clock.advance(86400 - 60)
    world.start("C", R3)
    world.boot()
    world.commit("C", R3)
    assert world.finish("C", R3).phase is Phase.OPEN, "H is expected in a minute"
    world.clock.advance(60)
    world.start("H", R4)
    world.commit("H", R4)
    assert world.finish("H", R4).phase is Phase.CLOSING


def test_it_lingers_no_longer_than_that(world: World) -> None:
    test_it_lingers_for_a_host_whose_usual_time_is_near(world)
    world.arrive()
    world.clock.advance(86400)
    world.start("C", "00000000-0000-4000-8000-00000000000a")
    world.boot()
    world.finish("C", "00000000-0000-4000-8000-00000000000a")
    assert phase(world) is Phase.OPEN
    world.pass_minutes(5)
    assert phase(world) is Phase.CLOSING


def test_a_boot_that_never_comes_up_is_tried_again_and_then_with_a_new_machine(world: World) -> None:
    world.start("C", R1)
    first = world.vault.instance_id
    world.cloud.settle()
    world.pass_minutes(7)
    assert phase(world) is Phase.FAULTED
    assert world.control.status("C", R1).outcome is None
    world.cloud.settle()
    world.pass_minutes(1)
    assert phase(world) is Phase.WAKING
    assert world.vault.instance_id == first
    world.cloud.settle()
    world.pass_minutes(7)
    world.cloud.settle()
    world.pass_minutes(2)
    assert world.vault.phase is Phase.WAKING
    assert world.vault.instance_id != first
    assert "terminate" in world.cloud.calls
    world.boot()
    assert world.control.status("C", R1).ready


def test_a_vault_that_will_not_wake_gives_up_and_says_so(world: World) -> None:
    world.start("C", R1)
    for _ in range(60):
        world.cloud.settle()
        world.pass_minutes(1)
    assert world.vault.phase is Phase.ASLEEP
    document = world.control.status("C", R1)
    assert document.outcome is Outcome.FAILED
    assert "would not wake" in (document.reason or "")
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: vault-1 would not wake"]
    assert all(m.state is not InstanceState.RUNNING for m in world.cloud.instances.values())


def test_a_refused_wake_is_tried_again(world: World) -> None:
    world.cloud.refuse_calls = {len(world.cloud.calls) + 2, len(world.cloud.calls) + 3}
    assert world.start("C", R1).phase is Phase.FAULTED
    assert any(isinstance(fact, WakeFaulted) for fact in world.told.facts)
    world.pass_minutes(1)
    assert world.vault.phase is Phase.WAKING
    world.pass_minutes(1)
    world.boot()
    assert world.control.status("C", R1).ready


def test_a_machine_that_dies_in_its_window_is_woken_again(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.report(transfers={"C": 5})
    world.cloud.set_state(world.vault.instance_id or "", InstanceState.STOPPED)
    world.control.instance_changed(world.vault.instance_id or "")
    assert world.control.status("C", R1).phase is Phase.WAKING
    world.boot()
    assert world.control.status("C", R1).ready


def test_a_machine_that_was_terminated_is_launched_anew_and_takes_the_volumes(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.cloud.terminate(world.vault.instance_id or "")
    world.pass_minutes(1)
    world.boot()
    assert world.control.status("C", R1).ready
    assert world.vault.phase is Phase.OPEN


@pytest.mark.parametrize("minutes_blind", [3, 300])
def test_it_is_stopped_on_time_though_lookups_fail(world: World, minutes_blind: int) -> None:
    world.start("C", R1)
    world.boot()
    world.cloud.blind = True
    world.pass_minutes(minutes_blind)
    world.cloud.blind = False
    for _ in range(220):
        world.pass_minutes(1)
        world.cloud.settle()
    assert world.vault.phase is Phase.ASLEEP
    (window,) = world.store.windows("vault-1", 5)
    assert window.closing_at is not None
    assert (window.closing_at - window.opened_at).total_seconds() <= 12960 + 60


def test_a_stop_that_was_refused_is_ordered_again_and_forced_at_last(world: World) -> None:
    world.start("C", R1)
    world.boot()
    instance_id = world.vault.instance_id or ""
    world.cloud.refuse_calls = set(range(len(world.cloud.calls) + 1, len(world.cloud.calls) + 9))
    world.finish("C", R1, Outcome.FAILED, 1)
    assert world.report().power_off, "the machine is told to go by itself"
    world.pass_minutes(14)
    assert "force-stop" in world.cloud.calls
    world.cloud.refuse_calls = set()
    world.pass_minutes(4)
    world.arrive()
    assert world.cloud.instances[instance_id].state is InstanceState.STOPPED
    assert world.vault.phase is Phase.ASLEEP


def test_reports_of_a_stale_machine_are_refused(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.finish("C", R1)
    world.arrive()
    with pytest.raises(StaleVault):
        world.report()
    world.cloud.set_state(world.vault.instance_id or "", InstanceState.RUNNING)
    world.clock.instant = world.clock.instant.replace(minute=0)
    world.control.sweep()
    assert world.cloud.instances[world.vault.instance_id or ""].state is InstanceState.STOPPING


def test_a_machine_that_nobody_knows_is_given_up(world: World) -> None:
    world.start("C", R1)
    world.boot()
    stray = world.cloud.instances[world.vault.instance_id or ""]
    world.cloud.instances["i-stray"] = replace(stray, instance_id="i-stray")
    world.pass_minutes(3)
    assert world.cloud.instances["i-stray"].state is InstanceState.TERMINATED


def test_one_bad_volume_does_not_hold_up_the_others(world: World) -> None:
    for host, run in (("C", R1), ("H", R2)):
        world.start(host, run)
    world.boot()
    for host, run in (("C", R1), ("H", R2)):
        world.commit(host, run)
        world.finish(host, run)
    real = world.cloud.snapshot

    def refuse_c(point: RestorePoint) -> str:
        if point.host == "C":
            raise CloudRefused("CreateSnapshot", "InvalidVolume.NotFound", "gone")
        return real(point)

    world.cloud.snapshot = refuse_c  # type: ignore[method-assign]
    for _ in range(10):
        world.cloud.settle()
        world.pass_minutes(1)
    assert world.vault.phase is Phase.ASLEEP
    assert world.control.status("H", None).last is not None
    assert world.control.status("C", None).last is None
    assert any(isinstance(f, PointFailed) and f.final and f.point.host == "C" for f in world.told.facts)


def test_a_runs_progress_is_of_all_its_transfers(world: World) -> None:
    world.start("C", R1)
    world.boot()
    for transfer in ([0, 400, 900], [0, 300], [100, 100, 250]):
        for received in transfer:
            world.report(transfers={"C": received})
        world.report()  # its connection broke
    progress = world.control.status("C", R1).progress
    assert progress is not None
    assert progress.transfer_bytes == 900 + 300 + 250


def test_a_snapshot_whose_answer_got_lost_is_found_once_ec2_shows_it(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    make, find, made_at = world.cloud.snapshot, world.cloud.find_snapshots, world.clock.now()

    def lose(point: RestorePoint) -> str:
        make(point)
        raise CloudRefused("CreateSnapshot", "ReadTimeoutError", "no answer")

    def find_later(window_id: str) -> dict[str, str]:
        return find(window_id) if world.clock.now() > made_at + timedelta(seconds=60) else {}

    world.cloud.snapshot = lose  # type: ignore[method-assign]
    world.cloud.find_snapshots = find_later  # type: ignore[method-assign]
    for _ in range(5):
        world.cloud.settle()
        world.pass_minutes(1)
    (snapshot_id,) = world.cloud.snapshots
    assert world.vault.phase is Phase.ASLEEP
    last = world.control.status("C", None).last
    assert last is not None
    assert last.snapshot_id == snapshot_id


def test_a_snapshot_that_fails_is_made_again(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    (first,) = world.cloud.snapshots
    world.cloud.snapshots[first] = replace(world.cloud.snapshots[first], state=PointState.ERROR)
    world.control.snapshot_changed(first)
    assert len(world.cloud.snapshots) == 2
    world.cloud.settle()
    world.pass_minutes(1)
    last = world.control.status("C", None).last
    assert last is not None
    assert last.snapshot_id != first


def test_an_outcome_is_told_once(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.finish("C", R1)
    world.finish("C", R1)
    world.pass_minutes(3)
    assert len([fact for fact in world.told.facts if isinstance(fact, RunEnded)]) == 1


def test_a_host_behind_the_same_address_is_not_shut_out(world: World) -> None:
    world.start("C", R1)
    world.start("H", R2)
    world.boot()
    world.finish("C", R1)
    assert world.cloud.ingress("sg-vault-1") == {"198.51.100.7"}
    world.finish("H", R2)
    assert world.cloud.ingress("sg-vault-1") == frozenset()


def test_what_a_lost_admit_left_is_repaired_by_the_sweep(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.cloud.admitted["sg-vault-1"] = {"192.0.2.66"}
    world.pass_minutes(1)
    assert world.cloud.ingress("sg-vault-1") == {"198.51.100.7"}


def test_the_25th_host_gets_the_next_vault() -> None:
    world = World()
    world.enrol(*(f"h{n}" for n in range(25)))
    first, second = world.store.vaults()
    assert len(first.hosts) == 24
    assert list(second.hosts) == ["h24"]
    assert second.hosts["h24"].uid == 20025
    assert len({slot.number for slot in first.hosts.values()}) == 24


def test_a_host_that_enrols_again_keeps_volume_uid_and_history(world: World) -> None:
    test_a_night(world)
    before = world.vault.hosts["C"]
    last = world.store.host("C")
    world.enrol("C")
    after = world.vault.hosts["C"]
    assert (after.uid, after.volume_id, after.number) == (before.uid, before.volume_id, before.number)
    now = world.store.host("C")
    assert now is not None
    assert last is not None
    assert now.last_backup == last.last_backup
    assert now.token_hash != last.token_hash


def test_overdue_hosts_are_measured(world: World) -> None:
    world.clock.advance(3 * 86400)
    world.clock.instant = world.clock.instant.replace(minute=15)
    world.control.sweep()
    assert world.told.overdue == ["C", "H"]


def test_a_short_window_is_not_worth_waking_for() -> None:
    world = World(Policy(window_seconds=200, minimum_window_seconds=300))
    world.enrol("C")
    with pytest.raises(WindowSpent):
        world.start("C", R1)
    assert world.vault.phase is Phase.ASLEEP


# --- found by random lives and by reading ---------------------------------------------------------------


def test_a_refused_revoke_leaves_no_door_open_while_asleep(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.cloud.refuse_calls = {len(world.cloud.calls) + 1}
    world.finish("C", R1)
    assert "revoke" in world.cloud.calls
    world.arrive()
    world.pass_minutes(15)
    assert world.vault.phase is Phase.ASLEEP
    assert world.cloud.ingress("sg-vault-1") == frozenset()


def test_a_volume_detached_behind_our_back_is_attached_again(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.cloud.attached.clear()
    report_absent(world, "C")
    assert world.cloud.attached == {"vol-C": world.vault.instance_id, "vol-H": world.vault.instance_id}


def report_absent(world: World, host: str) -> None:
    vault = world.vault
    volume_id = vault.hosts[host].volume_id or ""
    world.control.report(
        "vault-1",
        Report(
            instance_id=vault.instance_id or "",
            boot_id="boot",
            state="ready",
            address="203.0.113.9",
            port=22,
            host_key=KEY,
            mounts={host: Mount(volume_id=volume_id, mounted=False, detail="absent")},
            transfers={},
            commits={},
        ),
    )


def test_a_snapshot_that_describe_does_not_know_yet_has_not_failed(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    real, found = world.cloud.snapshot_states, world.cloud.find_snapshots
    world.cloud.snapshot_states = lambda snapshot_ids: {}  # type: ignore[method-assign]  # noqa: ARG005
    world.cloud.find_snapshots = lambda window_id: {}  # type: ignore[method-assign]  # noqa: ARG005
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    world.pass_minutes(1)
    assert world.vault.pending_points, "EC2 may take a while to list what it has just made"
    world.cloud.snapshot_states, world.cloud.find_snapshots = real, found  # type: ignore[method-assign]
    world.cloud.settle()
    world.pass_minutes(1)
    assert len(world.cloud.snapshots) == 1
    assert world.control.status("C", R1).last is not None


def test_a_snapshot_that_is_gone_for_good_is_made_again(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    world.cloud.snapshots.clear()
    world.pass_minutes(3)
    world.cloud.settle()
    world.pass_minutes(1)
    assert world.control.status("C", R1).last is not None


def test_a_spent_kind_beside_a_long_restore_is_told_when_to_come_back(world: World) -> None:
    world.clock.instant = world.clock.instant.replace(hour=20)
    world.backed_up("H", R4)
    world.start("C", R1)
    world.boot()
    world.start("H", R2, Kind.RESTORE)
    for _ in range(60 * 5):
        world.report(transfers={"C": 5, "H": 5})
        world.pass_minutes(1)
    assert world.control.status("C", R1).outcome is Outcome.CUT
    assert world.vault.window
    with pytest.raises(WindowSpent) as spent:
        world.start("C", R3)
    assert spent.value.retry_after_seconds >= 60
    assert f"{world.vault.window.closes_at:%Y-%m-%dT%H:%M:%SZ}" in str(spent.value)


def test_a_machine_given_up_is_given_up_though_it_stopped_and_its_termination_was_refused(world: World) -> None:
    """It holds the hosts' volumes: its successor could never attach them."""
    world.start("C", R1)
    first = world.vault.instance_id or ""
    world.boot()
    real = world.cloud.terminate
    refusals = [1]

    def terminate(instance_id: str) -> None:
        if refusals:
            refusals.pop()
            raise CloudRefused("TerminateInstances", "RequestLimitExceeded", "slow down")
        real(instance_id)

    world.cloud.terminate = terminate  # type: ignore[method-assign]
    for _ in range(2):  # dies in the middle of its window, and again
        world.cloud.set_state(world.vault.instance_id or "", InstanceState.STOPPED)
        world.control.instance_changed(world.vault.instance_id or "")
        if world.vault.instance_id == first:
            world.boot()
    assert world.vault.instance_id != first
    assert world.cloud.instances[first].state is InstanceState.STOPPED
    world.pass_minutes(3)
    assert world.cloud.instances[first].state is InstanceState.TERMINATED
    world.boot()
    world.pass_minutes(1)
    world.report()
    assert world.control.status("C", R1).ready


def test_a_launch_whose_answer_was_lost_is_taken_up_and_not_given_up(world: World) -> None:
    world.cloud.kill_after = len(world.cloud.calls) + 3
    with pytest.raises(Killed):
        world.start("C", R1)
    assert world.cloud.calls[-1] == "launch"
    world.cloud.settle()
    for _ in range(4):
        world.pass_minutes(1)
    assert [m.state for m in world.cloud.instances.values()] == [InstanceState.RUNNING]
    assert world.vault.instance_id in world.cloud.instances


def test_a_code_that_the_machine_has_used_stays_used_when_its_launch_is_repeated(world: World) -> None:
    world.start("C", R1)
    world.boot()
    (code,) = [c for c in world.store._codes.values() if c.name == "@vault-1"]
    assert code.used_at
    world.store.put_code(structs.replace(code, used_at=None))
    kept = world.store.code(code.code_hash)
    assert kept
    assert kept.used_at


def test_nothing_is_launched_for_a_vault_that_has_fallen_asleep_meanwhile(world: World) -> None:
    real = world.cloud.make_group

    def make_group(vault_id: str) -> str:
        world.finish("C", R1, Outcome.FAILED, 4)  # its host gives up while the group is being made
        return real(vault_id)

    world.cloud.make_group = make_group  # type: ignore[method-assign]
    world.start("C", R1)
    assert world.vault.phase is Phase.ASLEEP
    assert world.cloud.instances == {}


def test_who_starts_while_it_lingers_without_a_machine_is_served(world: World) -> None:
    test_a_night(world)
    world.clock.advance(86400 - 60)
    world.start("C", R3)
    world.boot()
    world.commit("C", R3)
    world.finish("C", R3)
    assert world.vault.phase is Phase.OPEN, "H is expected in a minute"
    world.cloud.terminate(world.vault.instance_id or "")
    world.pass_minutes(1)
    world.start("H", R4)
    for _ in range(4):
        world.pass_minutes(1)
        world.cloud.settle()
    world.boot()
    assert world.control.status("H", R4).ready


def test_a_host_that_starts_over_and_over_does_not_make_its_vault_too_big_to_save(world: World) -> None:
    """DynamoDB takes items up to 400 KB; a vault that cannot be saved could not be stopped either."""
    world.start("H", R1)
    world.boot()
    for n in range(1000, 1500):
        world.start("C", f"00000000-0000-4000-8000-{n:012d}")
        world.clock.advance(1)
    assert world.vault.window
    assert len(world.vault.window.runs) < 10
    for host, run in (("H", R1), ("C", f"00000000-0000-4000-8000-{1499:012d}")):
        world.finish(host, run)
    for n in range(500):
        world.start("C", f"00000000-0000-4000-9000-{n:012d}")
    assert world.vault.phase is Phase.CLOSING
    assert len(world.vault.queued) < 10


def test_what_a_forgotten_run_pushed_still_makes_a_restore_point(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.report(transfers={"C": 5})
    for n in range(100, 120):
        world.start("C", f"00000000-0000-4000-8000-{n:012d}")
        world.clock.advance(1)
    world.finish("C", f"00000000-0000-4000-8000-{119:012d}", Outcome.FAILED, 5)
    world.arrive()
    assert [s.point.run_id for s in snapshots(world)] == [R1]


def test_an_unexpected_host_key_is_told_once(world: World) -> None:
    world.start("C", R1)
    world.boot()
    vault = world.vault
    for _ in range(5):
        world.clock.advance(20)
        world.control.report(
            "vault-1",
            Report(
                instance_id=vault.instance_id or "",
                boot_id="boot",
                state="ready",
                address="203.0.113.9",
                port=22,
                host_key="ssh-ed25519 " + "B" * 68,
                mounts={},
                transfers={},
                commits={},
            ),
        )
    assert [subject for subject, _ in world.told.alerts] == ["nightvault: unexpected ssh host key"]


def test_an_agent_that_reports_before_its_launch_is_recorded_is_the_machine(world: World) -> None:
    """RunInstances had its effect and its answer was lost, or is slower than the boot: not a stale machine."""
    world.cloud.kill_after = len(world.cloud.calls) + 3  # the group, the admission, then the launch
    with pytest.raises(Killed):
        world.start("C", R1)
    (machine,) = world.cloud.instances.values()
    assert world.vault.instance_id is None
    world.cloud.settle()
    world.enrol_agent()
    world.report("starting", instance_id=machine.instance_id)
    assert world.vault.instance_id == machine.instance_id
    world.boot()
    assert world.control.status("C", R1).ready
    assert world.cloud.calls.count("launch") == 1


def test_a_snapshot_that_failed_counts_for_nothing(world: World) -> None:
    world.start("C", R1)
    world.boot()
    world.commit("C", R1)
    world.finish("C", R1)
    world.cloud.settle()
    world.control.instance_changed(world.vault.instance_id or "")
    (first,) = world.cloud.snapshots
    world.cloud.fail_snapshot(first)
    world.control.snapshot_changed(first)
    assert world.control.status("C", R1).last is None


def test_one_volume_that_cannot_be_attached_does_not_keep_the_others_waiting(world: World) -> None:
    def refuse(instance_id: str, slots: dict[str, Slot]) -> tuple[str, ...]:
        attached = real(instance_id, {host: slot for host, slot in slots.items() if host != "C"})
        assert attached is not None
        raise CloudRefused("AttachVolume", "UnauthorizedOperation", "no")

    test_a_night(world)
    world.enrol("O")
    world.clock.advance(86400)
    world.cloud.attached.pop("vol-C")
    real = world.cloud.attach
    world.cloud.attach = refuse  # type: ignore[method-assign]
    world.start("O", R3)
    assert world.vault.phase is Phase.WAKING
    world.boot()
    assert world.control.status("O", R3).ready
    assert any(fields.get("call") == "AttachVolume" for _, fields in world.told.faults)
