"""The life of a vault as one pure function: `decide(vault, command, now, policy) -> Decision`.

No AWS, no clock, no logging. A Decision is first saved and only then acted upon, and every effect can be
derived again from the saved vault and what EC2 says (`Observe`), so whatever is interrupted is repaired by
the next command or sweep. `claim_until` says how long the one who saved an effect has the sole right to
carry it out; it is longer than any of our Lambdas may run.

This file says who sees to which command, and what those of a run do: start and finish. The steps that commands share
are in phases.py, turns.py and tending.py; all change the Draft of draft.py.
"""

from datetime import datetime
from typing import assert_never

from msgspec.structs import replace

from chalicelib import budget, drills, lending, observing, phases, reporting, settling, turns, volumes
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
from chalicelib.errors import NotForThisToken, RunIdTaken, RunSuperseded, UnknownRun
from chalicelib.facts import RunStarted
from chalicelib.model import Agent, Kind, Outcome, Phase, Policy, Run, Slot, Vault
from chalicelib.operated import operated
from chalicelib.tending import see_to_volumes


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
            reporting.report(draft, command)
        case Observe(state=state):
            observing.observe(draft, state)
        case WakeFailed(reason=reason):
            if draft.vault.phase is Phase.WAKING:
                phases.fault(draft, reason)
        case LaunchIntended(launch=launch):
            if draft.vault.awake and draft.vault.launch is None and draft.vault.instance_id is None:
                draft.change(launch=launch)
        case Launched(instance_id=instance_id):
            phases.launched(draft, instance_id)
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
            settling.judged(draft, command)
        case PointsMade(snapshots=snapshots):
            settling.made(draft, snapshots)
        case PointSettled(snapshot_id=snapshot_id, state=state):
            settling.settled(draft, snapshot_id, state)
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
