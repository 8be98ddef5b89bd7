"""The steps of a run's life: it joins a window, it ends, it is forgotten. Part of lifecycle.py's `decide`."""

from msgspec.structs import replace

from chalicelib import budget, points
from chalicelib.draft import Draft
from chalicelib.effects import Admit, Revoke
from chalicelib.facts import RestoreFailed, RunEnded
from chalicelib.model import Checked, DrillState, Kind, Outcome, Run, Source

# Runs of one host that a window remembers. 24 hosts that do nothing but start must not make the vault
# bigger than the 400 KB that DynamoDB takes: what cannot be saved could not be stopped either.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
RUNS_REMEMBERED = 4


def join(draft: Draft, run: Run) -> None:
    """Put a run into the window under way."""
    window = budget.admit_kind(draft.vault, draft.window, run.kind, draft.now, draft.policy)
    run = replace(run, lease_until=draft.after(draft.policy.lease_seconds))
    draft.change(window=replace(window, runs={**window.runs, run.run_id: run}, idle_since=None))
    if run.source_address:
        draft.effects.append(Admit(address=run.source_address))


def end(draft: Draft, run: Run, outcome: Outcome, reason: str, **changes: object) -> Run:
    """End a live run. What the vault saw committed is complete, although its host never came to say so."""
    if run.committed_at and outcome in (Outcome.CUT, Outcome.ABANDONED):
        outcome, reason = Outcome.COMPLETE, f"committed, though {reason}"
    ended = replace(run, outcome=outcome, reason=reason, ended_at=draft.now, **changes)
    queued = run.run_id in draft.vault.queued
    draft.put_run(ended)
    if not queued and run.kind is Kind.BACKUP and draft.window.ready_at:
        # It was let in, and may have pushed unseen: no older restore point is sure to hold all of its volume.
        draft.change_slot(run.host, pushed_at=draft.now)
    if run.kind is Kind.DRILL:
        _keep_drill(draft, ended)
    draft.facts.append(RunEnded(run=ended))
    draft.reasons.append(f"run {run.run_id} of {run.host} ended {outcome}: {reason}")
    if not queued and run.source_address and run.source_address not in draft.addresses():
        draft.effects.append(Revoke(address=run.source_address))
    return ended


def _keep_drill(draft: Draft, run: Run) -> None:
    """It is recorded later. One that was answered is good for a month; of a failed one, the next point is due."""
    draft.change(drilled={**draft.vault.drilled, run.host: run})
    state = run.checked.state if run.checked else DrillState.ERROR
    slot = draft.vault.hosts.get(run.host)
    if slot and run.restore and state in (DrillState.PASSED, DrillState.FAILED, DrillState.UNPROVEN):
        # What was wanted is a drill of the newest: of what the volume holds.
        wanted = "" if slot.committed == run.restore.point_run_id else slot.drill_wanted
        wanted = "its last drill failed" if state is DrillState.FAILED else wanted
        draft.change_slot(run.host, drilled_at=run.started_at, drill_wanted=wanted)


def end_runs_of(draft: Draft, host: str, reason: str) -> None:
    """The live and the waiting ones, by the control plane's will."""
    for run in draft.vault.live_runs:
        if run.host == host:
            end(draft, run, Outcome.ABANDONED, reason)


def fail_restore(draft: Draft, run: Run, why: str, *, unfit: bool = False) -> None:
    """The vault cannot give this run its data; its host and an operator are told. Of a drill its result tells.

    `unfit`: that is the restore point's own fault, which is what drills are for.
    """
    point_id = run.restore.point_id if run.restore else "nothing"
    if run.kind is Kind.DRILL and unfit:
        run = replace(run, checked=Checked(state=DrillState.FAILED, detail=why))
    ended = end(draft, run, Outcome.FAILED, f"restore point {point_id} could not be made available: {why}")
    if run.kind is Kind.RESTORE:
        draft.facts.append(RestoreFailed(run=ended))


def end_lease(draft: Draft, run: Run) -> None:
    """A restore that was never ready is not its host's fault; one that waits for room goes on waiting."""
    if run.restore is None or run.restore.ready_at or points.ready(draft.vault, run):
        end(draft, run, Outcome.ABANDONED, f"not seen alive for {draft.policy.lease_seconds} s")
    elif run.restore.source is Source.LIVE:
        fail_restore(draft, run, f"its volume was not mounted in {draft.policy.lease_seconds} s")
    elif points.serves(draft.vault, run.restore, run.host):
        trouble = draft.vault.point_volumes[run.host].trouble
        why = f"not mounted in {draft.policy.lease_seconds} s; {trouble or 'AWS takes too long'}"
        seen = draft.vault.agent.restores.get(run.host) if draft.vault.agent else None
        fail_restore(draft, run, why, unfit=seen is not None and seen.state == "error")


def forget_old_runs(draft: Draft, host: str) -> None:
    """Make room for another run of this host: its oldest that are over go, but none that a restore point needs."""
    for name in ("window", "queued"):
        runs = draft.vault.queued if name == "queued" else draft.vault.window.runs if draft.vault.window else {}
        over = sorted((r for r in runs.values() if r.host == host and not r.live), key=lambda r: r.started_at)
        pushed = sorted((r for r in over if r.pushed or r.committed_at), key=lambda r: (r.whole, r.started_at))
        gone = {r.run_id for r in over[: 1 - RUNS_REMEMBERED]} - {r.run_id for r in pushed[-1:]}
        kept = {run_id: run for run_id, run in runs.items() if run_id not in gone}
        if gone and name == "queued":
            draft.change(queued=kept)
        elif gone:
            draft.change_window(runs=kept)
