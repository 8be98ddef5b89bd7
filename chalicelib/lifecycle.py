"""The life of a vault as one pure function: `decide(vault, command, now, policy) -> Decision`.

No AWS, no clock, no logging. A Decision is first saved and only then acted upon, and every effect can be
derived again from the saved vault and what EC2 says (`Observe`), so whatever is interrupted is repaired by
the next command or sweep. `claim_until` says how long the one who saved an effect has the sole right to
carry it out; it is longer than any of our Lambdas may run.

This file says what each command does in each phase; the steps that they share are in phases.py, turns.py and
tending.py, and change the Draft of draft.py.
"""

from datetime import datetime, timedelta
from typing import assert_never

from msgspec.structs import replace

from chalicelib import budget, drills, lending, phases, turns, volumes
from chalicelib.commands import (
    AgentEnrolled,
    BeginDrill,
    Command,
    DrillRecorded,
    Finish,
    GroupMade,
    GrowthPostponed,
    HostPlaced,
    Launched,
    LaunchIntended,
    Observe,
    PointSettled,
    PointsMade,
    PointVolumeAttached,
    PointVolumeGone,
    PointVolumeMade,
    PointVolumeRefused,
    PushJudged,
    Report,
    Rest,
    SnapshotMissing,
    Start,
    VolumeDeleted,
    VolumeDetached,
    VolumeEnlarged,
    VolumeMade,
    VolumesAttached,
    VolumesMissing,
    WakeFailed,
)
from chalicelib.draft import Decision, Draft
from chalicelib.effects import Attach, CheckPoints, FindVolumes, MakePoints, SetIngress, Stop, Terminate
from chalicelib.errors import NotForThisToken, RunIdTaken, RunSuperseded, StaleVault, UnknownRun
from chalicelib.facts import (
    HostKeyUnexpected,
    PointCounted,
    PointFailed,
    PushUnusual,
    RunStarted,
    VaultReady,
    VolumeRefused,
)
from chalicelib.model import (
    Agent,
    InstanceState,
    Kind,
    Mount,
    Outcome,
    Phase,
    PointState,
    Policy,
    Progress,
    Resting,
    Run,
    Slot,
    Vault,
)
from chalicelib.operated import operated
from chalicelib.tending import enlarge, see_to_volumes

AT_REST = (InstanceState.STOPPED, InstanceState.TERMINATED, InstanceState.GONE)
LOST = (InstanceState.TERMINATED, InstanceState.SHUTTING_DOWN, InstanceState.GONE)


def decide(vault: Vault, command: Command, now: datetime, policy: Policy) -> Decision:
    """What a vault does about a command at `now`.

    Raises the facts of errors.py that refuse a command; the vault is then unchanged.
    """
    draft = Draft(vault=vault, now=now, policy=policy)
    phases.end_overdue_runs(draft)
    match command:
        case Start():
            _start(draft, command)
        case Finish():
            _finish(draft, command)
        case Report():
            _report(draft, command)
        case Observe(state=state):
            _observe(draft, state)
        case WakeFailed(reason=reason):
            if draft.vault.phase is Phase.WAKING:
                phases.fault(draft, reason)
        case LaunchIntended(launch=launch):
            if draft.vault.awake and draft.vault.launch is None and draft.vault.instance_id is None:
                draft.change(launch=launch)
        case Launched(instance_id=instance_id):
            _launched(draft, instance_id)
        case AgentEnrolled(token_hash=token_hash, host_key=host_key):
            draft.change(agent=Agent(token_hash=token_hash, host_key=host_key))
        case GroupMade(security_group_id=group_id):
            draft.change(security_group_id=group_id)
        case HostPlaced(host=host, slot=slot):
            _place(draft, host, slot)
        case VolumesAttached(instance_id=instance_id, hosts=hosts):
            for host in hosts:
                draft.change_slot(host, attached_to=instance_id, missing_since=None, rests_as="")
        case VolumeMade() | VolumeEnlarged() | GrowthPostponed() | VolumeDetached() | VolumeDeleted():
            volumes.take(draft, command)
        case VolumesMissing() | SnapshotMissing() | Rest():
            volumes.take(draft, command)
        case PushJudged():
            _push_judged(draft, command)
        case PointsMade(snapshots=snapshots):
            _points_made(draft, snapshots)
        case PointSettled(snapshot_id=snapshot_id, state=state):
            _point_settled(draft, snapshot_id, state)
        case PointVolumeMade() | PointVolumeAttached() | PointVolumeRefused() | PointVolumeGone():
            lending.take_answer(draft, command)
        case BeginDrill():
            drills.begin(draft, command)
        case DrillRecorded():
            drills.recorded(draft, command)
        case _:
            operated(draft, command)
    phases.close_if_idle(draft)
    lending.see_to_point_volumes(draft, command)
    return draft.decision()


def _place(draft: Draft, host: str, slot: Slot) -> None:
    kept = draft.vault.retired.get(host)
    if kept and kept.volume_id == slot.volume_id:
        # It is back: a volume that is to be deleted stays behind and is not what it comes back to.
        draft.change(retired={name: other for name, other in draft.vault.retired.items() if name != host})
    draft.change(hosts={**draft.vault.hosts, host: slot})
    see_to_volumes(draft)


def _start(draft: Draft, command: Start) -> None:
    known = draft.vault.find_run(command.run_id)
    if known:
        if known.host != command.host or known.kind is Kind.DRILL:
            raise RunIdTaken(command.run_id)
        draft.reasons.append(f"run {command.run_id} is known")
        return
    if command.host not in draft.vault.hosts:
        raise NotForThisToken(f"host {command.host!r} is not (or no longer) backed up here; enrol again")
    run = Run(
        run_id=command.run_id,
        host=command.host,
        kind=command.kind,
        started_at=draft.now,
        source_address=command.source_address,
        lease_until=draft.after(draft.policy.lease_seconds),
        restore=lending.restoring(draft.vault, command.host, command.point) if command.point else None,
    )
    turns.forget_old_runs(draft, command.host)
    for old in draft.vault.live_runs:
        if old.host != command.host:
            continue
        if old.kind is not Kind.DRILL:
            old = replace(old, superseded_by=run.run_id)  # noqa: PLW2901
            turns.end(draft, old, Outcome.ABANDONED, f"superseded by {run.run_id}")
        elif run.kind is Kind.RESTORE:  # of which it has the host's one volume
            turns.end(draft, old, Outcome.ABANDONED, f"restore {run.run_id} of its host came first")
    match draft.vault.phase:
        case Phase.ASLEEP:
            phases.open_window(draft, [run], run.kind)
        case Phase.WAKING | Phase.OPEN | Phase.FAULTED:
            turns.join(draft, run)
        case Phase.CLOSING | Phase.SEALING:
            budget.ceiling(draft.vault, run.kind, draft.now, draft.policy)
            draft.change(queued={**draft.vault.queued, run.run_id: run})
        case phase:
            assert_never(phase)
    queued = run.run_id in draft.vault.queued
    if command.kind is Kind.BACKUP:
        draft.change_slot(command.host, last_started_at=draft.now)
    see_to_volumes(draft)
    draft.facts.append(RunStarted(run=run, queued=queued))
    draft.reasons.append(f"run {run.run_id} of {run.host} {'queued' if queued else 'joined'}")


def _finish(draft: Draft, command: Finish) -> None:
    run = draft.vault.find_run(command.run_id)
    if run is None or run.host != command.host or run.kind is Kind.DRILL:
        raise UnknownRun(command.run_id)
    if run.superseded_by and run.outcome is Outcome.ABANDONED:
        raise RunSuperseded(run.run_id, run.superseded_by)
    if run.live:
        reason = "the host said so" if command.exit_code == 0 else f"exit code {command.exit_code}"
        turns.end(draft, run, command.outcome, reason, exit_code=command.exit_code, stats=command.stats)
    else:
        draft.reasons.append(f"run {run.run_id} had ended")


def _report(draft: Draft, command: Report) -> None:
    if draft.vault.agent and draft.vault.launch and draft.vault.instance_id is None:
        # It enrolled with this launch's code: RunInstances' answer was lost, or is slower than the boot.
        _launched(draft, command.instance_id)
    vault = draft.vault
    if vault.agent is None or vault.instance_id != command.instance_id:
        raise StaleVault(f"instance {command.instance_id} is not (or no longer) the machine of {vault.vault_id}")
    if vault.phase in (Phase.ASLEEP, Phase.SEALING):
        raise StaleVault(f"{vault.vault_id} is {vault.phase}; power off")
    if command.host_key not in (vault.agent.host_key, vault.agent.strange_key):
        draft.facts.append(HostKeyUnexpected(expected=vault.agent.host_key, seen=command.host_key))
    _take_agent(draft, vault.agent, command)
    _take_runs(draft, command)
    match draft.vault.phase:
        case Phase.WAKING:
            if command.state == "ready":
                _opened(draft)
        case Phase.OPEN | Phase.CLOSING | Phase.FAULTED:
            pass  # the orders tell a machine that is closing or faulted to power off
        case Phase.ASLEEP | Phase.SEALING:
            pass  # refused above
        case phase:
            assert_never(phase)
    lending.take_restores(draft, command)
    drills.take(draft, command)
    if draft.vault.awake and _absent(draft.vault, command.mounts):
        draft.effects.append(Attach())


def _absent(vault: Vault, mounts: dict[str, Mount]) -> bool:
    """A volume that should be there and is not: never attached, or detached behind our back."""
    return any(
        slot.volume_id and host in mounts and not mounts[host].mounted and mounts[host].detail == "absent"
        for host, slot in vault.hosts.items()
    )


def _take_agent(draft: Draft, agent: Agent, command: Report) -> None:
    for host, mount in command.mounts.items():
        if mount.refused and agent.mounts.get(host) != mount:
            draft.facts.append(VolumeRefused(host=host, volume_id=mount.volume_id, detail=mount.detail))
    seen = replace(
        agent,
        boot_id=command.boot_id,
        address=command.address,
        port=command.port,
        mounts=_unmounted(agent.mounts) if command.state == "stopping" else command.mounts,
        restores={} if command.state == "stopping" else command.restores,
        strange_key=command.host_key if command.host_key != agent.host_key else "",
    )
    stale = agent.reported_at is None or draft.now - agent.reported_at >= timedelta(seconds=15)
    if seen != agent or stale:
        # Not for every report a new version of the vault: 24 hosts write it too.
        draft.change(agent=replace(seen, reported_at=draft.now))


def _unmounted(mounts: dict[str, Mount]) -> dict[str, Mount]:
    """An agent that powers off has let go of its volumes, and has nothing to say of them; how full they are stays,
    and which are not theirs."""
    return {
        host: mount if mount.refused else replace(mount, mounted=False, detail="the machine is stopping")
        for host, mount in mounts.items()
    }


def _take_runs(draft: Draft, command: Report) -> None:
    """Leases, progress and commits. A commit counts until the volumes are sealed, even of a run that had ended."""
    for host, slot in draft.vault.hosts.items():
        if slot.volume_id and slot.rests_as and host in command.mounts and command.mounts[host].mounted:
            draft.change_slot(host, rests_as="")  # attached, though nobody came to say so: it stays
        committed = command.commits.get(host, slot.committed)
        if committed != slot.committed or (host in command.transfers and not _only_restores(draft, host)):
            # Whatever run it is of, or none: from now on the volume holds what no restore point before does.
            draft.change_slot(host, pushed_at=draft.now, committed=committed)
        change = command.changes.get(host)
        if committed != slot.committed and change:
            # Added up until a restore point is made: a second, small commit must not hide what the first one did.
            draft.change_slot(host, changed=slot.changed.then(change) if slot.changed else change)
        elif committed != slot.committed and slot.committed:
            draft.change_slot(host, uncounted=True)
    for run in draft.window.runs.values():
        if run.kind is Kind.BACKUP and command.commits.get(run.host) == run.run_id and not run.committed_at:
            change = command.changes.get(run.host)
            run = replace(run, committed_at=draft.now, pushed=True, change=change)  # noqa: PLW2901
            if run.outcome in (Outcome.CUT, Outcome.ABANDONED):
                run = replace(run, outcome=Outcome.COMPLETE, reason=f"committed, though {run.reason}")  # noqa: PLW2901
            draft.put_run(run)
            draft.reasons.append(f"run {run.run_id} of {run.host} is committed")
        if run.live and run.kind is not Kind.DRILL and run.host in command.transfers:
            received = command.transfers[run.host]
            known = run.progress.transfer_bytes if run.progress else 0
            # The agent counts from the transfer's start: fewer than before is another one, after a reconnect.
            earlier = known if received < known - run.earlier_bytes else run.earlier_bytes
            lease = draft.after(draft.policy.lease_seconds)
            draft.put_run(
                replace(
                    run,
                    pushed=run.pushed or run.kind is Kind.BACKUP,
                    progress=Progress(transfer_bytes=earlier + received, seen_at=draft.now),
                    earlier_bytes=earlier,
                    lease_until=lease,
                )
            )


def _only_restores(draft: Draft, host: str) -> bool:
    """In this window, also when that is over: a pull may outlast its run by a moment, and changes nothing."""
    kinds = {run.kind for run in draft.window.runs.values() if run.host == host}
    return kinds - {Kind.DRILL} == {Kind.RESTORE}


def _opened(draft: Draft) -> None:
    lease = draft.after(draft.policy.lease_seconds)
    runs = {i: replace(r, lease_until=lease) if r.live else r for i, r in draft.window.runs.items()}
    draft.change(phase=Phase.OPEN, retry_at=None, claim_until=None)
    draft.change_window(ready_at=draft.now, runs=runs)
    waking = int((draft.now - (draft.window.woken_at or draft.now)).total_seconds())
    draft.facts.append(VaultReady(window=draft.window, waking_seconds=waking))
    draft.reasons.append(f"the vault is open after {waking} s")


def _launched(draft: Draft, instance_id: str) -> None:
    if draft.vault.instance_id not in (None, instance_id):
        draft.effects.append(Terminate(instance_id=instance_id))
        draft.reasons.append(f"{instance_id} came too late: {draft.vault.instance_id} is the machine")
        return
    draft.change(instance_id=instance_id, launch=None)
    draft.claim()  # EC2's describe may not know it yet: until then `gone` means nothing
    draft.reasons.append(f"launched {instance_id}")
    if draft.vault.phase is Phase.CLOSING:
        phases.stop_instance(draft)


def _observe(draft: Draft, state: InstanceState | None) -> None:
    vault = draft.vault
    match vault.phase:
        case Phase.ASLEEP:
            _observe_asleep(draft, state)
        case Phase.WAKING:
            _observe_waking(draft, state)
        case Phase.FAULTED:
            stopping = state is InstanceState.STOPPING
            if vault.retry_at and draft.now >= vault.retry_at and not stopping and draft.needed:
                if state in LOST:
                    draft.forget_instance()
                phases.wake_again(draft, "retrying after a failed wake")
        case Phase.OPEN:
            if state in AT_REST and vault.instance_id:
                if state in LOST:
                    draft.forget_instance()
                if draft.needed:
                    phases.wake_again(draft, f"the instance is {state} in the middle of its window")
                else:
                    phases.close(draft, f"the instance is {state}, and nobody is pushing")
            else:
                draft.effects.append(SetIngress(addresses=draft.addresses()))
                if vault.agent and _absent(vault, vault.agent.mounts):
                    draft.effects.append(FindVolumes())
        case Phase.CLOSING:
            _observe_closing(draft, state)
        case Phase.SEALING:
            if not draft.claimed:
                phases.seal_again(draft)
        case phase:
            assert_never(phase)
    see_to_volumes(draft, running=state is InstanceState.RUNNING)


def _observe_asleep(draft: Draft, state: InstanceState | None) -> None:
    vault = draft.vault
    if state in (InstanceState.RUNNING, InstanceState.PENDING) and vault.instance_id:
        draft.effects.append(Stop(instance_id=vault.instance_id))
        draft.reasons.append("it runs although it is meant to be asleep")
    if state in LOST and vault.instance_id and not draft.claimed:
        draft.forget_instance()
    if vault.security_group_id:
        # A Revoke that was refused, or whose Lambda died, must not leave the port open till the next window.
        draft.effects.append(SetIngress(addresses=frozenset()))
    if vault.pending_points:
        draft.effects.append(CheckPoints(snapshot_ids=tuple(vault.pending_points)))
    if vault.owed_points and not draft.claimed:
        draft.claim()
        draft.effects.append(MakePoints(points=tuple(vault.owed_points.values())))
    if any(slot.volume_id for slot in vault.hosts.values()):
        draft.effects.append(FindVolumes())
    enlarge(draft)
    volumes.see_to_retired(draft, state)


def _observe_waking(draft: Draft, state: InstanceState | None) -> None:
    woken_at = draft.window.woken_at or draft.now
    waited = (draft.now - woken_at).total_seconds()
    if waited >= draft.policy.wake_timeout_seconds:
        phases.fault(draft, f"no report from the machine in {int(waited)} s; EC2 says {state or 'nothing'}")
    elif not draft.claimed and (draft.vault.instance_id is None or state in AT_REST):
        # Whoever was to wake it died, or the machine did: while booting, or before it was recorded.
        if state in LOST and draft.vault.instance_id:
            draft.forget_instance()
        draft.reasons.append(f"waking, and EC2 says {state or 'nothing'}")
        phases.wake(draft)


def _observe_closing(draft: Draft, state: InstanceState | None) -> None:
    # A machine launched a moment ago may not be known to describe yet; the claim outlasts that.
    unsure = state is InstanceState.GONE and draft.claimed and draft.vault.instance_id
    if state in AT_REST and not unsure:
        if state in LOST:
            draft.forget_instance()
        phases.stopped(draft)
    elif not draft.claimed:
        # Also when the lookup failed (None): a vault is stopped on time, whatever else is broken.
        draft.claim()
        phases.stop_instance(draft)


def _push_judged(draft: Draft, command: PushJudged) -> None:
    """Before its snapshot is made, so that this can carry the tag; told once, however often that is tried."""
    window, owed = draft.vault.window, draft.vault.owed_points
    place = window.points if window and command.host in window.points else owed
    point = place.get(command.host)
    if point is None or point.run_id != command.run_id or point.marks.unusual:
        return
    point = replace(point, marks=replace(point.marks, unusual=command.why))
    if place is owed:
        draft.change(owed_points={**owed, command.host: point})
    else:
        draft.change_window(points={**place, command.host: point})
    if slot := draft.vault.hosts.get(command.host):
        draft.change(hosts={**draft.vault.hosts, command.host: drills.want(slot, "its push was unusual")})
    draft.facts.append(PushUnusual(point=point, before=command.before))
    draft.reasons.append(f"the push of {command.host} is unusual: {command.why}")


def _points_made(draft: Draft, snapshots: dict[str, str]) -> None:
    window = draft.vault.window
    points = dict(window.points) if window else {}
    owed = dict(draft.vault.owed_points)
    pending = dict(draft.vault.pending_points)
    for host, snapshot_id in snapshots.items():
        place = points if host in points else owed
        if host not in place or place[host].snapshot_id is not None:
            continue
        made = replace(place[host], snapshot_id=snapshot_id, made_at=draft.now)
        pending[snapshot_id] = made
        if place is points:
            points[host] = made
        else:
            del owed[host]
    draft.change(pending_points=pending, owed_points=owed)
    if window and draft.vault.phase is Phase.SEALING:
        draft.change_window(points=points)
        phases.seal(draft)


def _point_settled(draft: Draft, snapshot_id: str, state: PointState) -> None:
    point = draft.vault.pending_points.get(snapshot_id)
    if point is None or state is PointState.PENDING:
        return
    pending = {i: p for i, p in draft.vault.pending_points.items() if i != snapshot_id}
    draft.change(pending_points=pending)
    if state is PointState.COMPLETED:
        draft.facts.append(PointCounted(point=replace(point, state=state)))
        draft.reasons.append(f"restore point {snapshot_id} of {point.host} counts")
        slot = draft.vault.hosts.get(point.host)
        if slot and point.complete and slot.resting is Resting.SNAPSHOT:
            draft.want_drill(point.host, "it is to rest as its snapshot")
        return
    at_rest = draft.vault.phase is Phase.ASLEEP
    final = not at_rest or point.attempt >= draft.policy.max_point_attempts
    draft.facts.append(PointFailed(point=replace(point, state=state), final=final))
    draft.reasons.append(f"snapshot {snapshot_id} of {point.host} failed")
    if not final:
        again = replace(point, snapshot_id=None, made_at=None, attempt=point.attempt + 1)
        draft.change(owed_points={**draft.vault.owed_points, point.host: again})
        draft.claim()
        draft.effects.append(MakePoints(points=(again,)))
