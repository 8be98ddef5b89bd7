"""The steps from one phase of a vault's life to the next, and a hold in it. Part of lifecycle.py's `decide`."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from chalicelib import budget, points, turns
from chalicelib.draft import Draft
from chalicelib.effects import CheckInstance, MakePoints, Stop, Terminate, Wake
from chalicelib.errors import WindowSpent
from chalicelib.facts import BudgetSpent, PointFailed, RunEnded, WakeFaulted, WindowClosing, WindowSealed
from chalicelib.model import Kind, Outcome, Phase, PointState, RestorePoint, Run, Window
from chalicelib.tending import enlarge, see_to_growth

FORCE_STOP_AFTER = timedelta(minutes=10)


# --- waking -------------------------------------------------------------------------------------------


def open_window(draft: Draft, runs: list[Run], kind: Kind) -> None:
    """asleep -> waking, for runs (of that kind first) or a hold. Raises WindowSpent when no budget is left."""
    first = budget.ceiling(draft.vault, kind, draft.now, draft.policy)
    milliseconds = draft.now.microsecond // 1000
    window = Window(
        window_id=f"{draft.vault.vault_id}-{draft.now:%Y%m%dT%H%M%S}.{milliseconds:03d}Z",
        vault_id=draft.vault.vault_id,
        opened_at=draft.now,
        ceilings={kind: first},
        woken_at=draft.now,
    )
    for point in draft.vault.owed_points.values():
        # The volume is about to change: what was owed can no longer be made.
        draft.facts.append(PointFailed(point=point, final=True))
    for host, slot in draft.vault.hosts.items():
        if slot.attached_to:
            draft.change_slot(host, rests_as="")  # it stays; one that is not attached may just have been deleted
    draft.change(phase=Phase.WAKING, window=window, retry_at=None, owed_points={})
    for run in runs:
        turns.join(draft, run)
    wake(draft)


def wake(draft: Draft) -> None:
    draft.claim()
    draft.effects.append(Wake())


def launched(draft: Draft, instance_id: str) -> None:
    if draft.vault.instance_id not in (None, instance_id):
        draft.effects.append(Terminate(instance_id=instance_id))
        draft.reasons.append(f"{instance_id} came too late: {draft.vault.instance_id} is the machine")
        return
    draft.change(instance_id=instance_id, launch=None)
    draft.claim()  # EC2's describe may not know it yet: until then `gone` means nothing
    draft.reasons.append(f"launched {instance_id}")
    if draft.vault.phase is Phase.CLOSING:
        stop_instance(draft)


def wake_again(draft: Draft, reason: str) -> None:
    """Another attempt; the last one with a new machine, since the old one may be what is broken."""
    attempt = draft.window.wake_attempts + 1
    if attempt > draft.policy.max_wake_attempts:
        _give_up(draft, reason)
        return
    if attempt == draft.policy.max_wake_attempts and draft.vault.instance_id:
        draft.effects.append(Terminate(instance_id=draft.vault.instance_id))
        draft.forget_instance()
    draft.change(phase=Phase.WAKING, retry_at=None)
    draft.change_window(wake_attempts=attempt, woken_at=draft.now, ready_at=None)
    draft.reasons.append(f"wake attempt {attempt}: {reason}")
    wake(draft)


def fault(draft: Draft, reason: str) -> None:
    """waking -> faulted: switch off, wait, try again; or give up after the last attempt."""
    attempt = draft.window.wake_attempts
    if attempt >= draft.policy.max_wake_attempts:
        _give_up(draft, reason)
        return
    pause = draft.policy.retry_seconds * 2 ** (attempt - 1)
    draft.change(phase=Phase.FAULTED, retry_at=draft.after(pause))
    draft.facts.append(WakeFaulted(window=draft.window, reason=reason, final=False))
    draft.reasons.append(f"wake attempt {attempt} failed ({reason}); next in {pause} s")
    if draft.vault.instance_id:
        draft.effects.append(Stop(instance_id=draft.vault.instance_id))


def _give_up(draft: Draft, reason: str) -> None:
    for run in draft.window.live_runs:
        turns.end(draft, run, Outcome.FAILED, f"the vault would not wake: {reason}")
    draft.facts.append(WakeFaulted(window=draft.window, reason=reason, final=True))
    close(draft, f"the vault would not wake: {reason}")


# --- closing ------------------------------------------------------------------------------------------


def end_overdue_runs(draft: Draft) -> None:
    """Nothing that happens to a vault finds a run that has outlived its window or its lease."""
    if not draft.vault.awake:
        return
    for run in draft.window.live_runs:
        if draft.now >= draft.window.ceilings[run.kind].closes_at:
            turns.end(draft, run, Outcome.CUT, "the window ended")
        elif draft.vault.phase is Phase.OPEN and draft.now >= run.lease_until:
            turns.end_lease(draft, run)
    if draft.now >= draft.window.closes_at:
        close(draft, "the window ended")


def close_if_idle(draft: Draft) -> None:
    """Nobody is pushing: close now, or linger for a host whose usual time is near."""
    if not draft.vault.awake:
        return
    if draft.needed:
        if draft.window.idle_since:
            draft.change_window(idle_since=None)
        return
    since = draft.window.idle_since or draft.now
    linger = timedelta(seconds=draft.policy.linger_seconds)
    expected = _expected_hosts(draft, since, linger)
    if draft.vault.phase is Phase.OPEN and expected and draft.now < since + linger:
        if draft.window.idle_since is None:
            draft.change_window(idle_since=since)
            draft.reasons.append(f"lingering for {', '.join(expected)}")
        return
    close(draft, "no live run, and no host expected")


def _expected_hosts(draft: Draft, since: datetime, linger: timedelta) -> list[str]:
    """Hosts not seen in this window whose usual time is within `linger` of `since`."""
    seen = {run.host for run in draft.window.runs.values() if run.kind is Kind.BACKUP}
    return [
        host
        for host, slot in draft.vault.hosts.items()
        if host not in seen and slot.expected_at and abs(slot.expected_at - since) <= linger
    ]


def close(draft: Draft, reason: str) -> None:
    """-> closing: stop the instance."""
    draft.change(phase=Phase.CLOSING, retry_at=None)
    end_hold(draft)
    draft.change_window(closing_at=draft.now, close_reason=reason)
    draft.facts.append(WindowClosing(window=draft.window))
    draft.reasons.append(f"closing: {reason}")
    draft.claim()
    stop_instance(draft)


def stop_instance(draft: Draft) -> None:
    if draft.vault.instance_id:
        overdue = draft.window.closing_at and draft.now - draft.window.closing_at >= FORCE_STOP_AFTER
        draft.effects.append(Stop(instance_id=draft.vault.instance_id, force=bool(overdue)))
    elif draft.vault.launch:
        # RunInstances was about to be called when something died; there may be a machine.
        draft.effects.append(CheckInstance())
    else:
        stopped(draft)


# --- sealing ------------------------------------------------------------------------------------------


def stopped(draft: Draft) -> None:
    """closing -> sealing: the volumes are at rest; snapshot those that were pushed to."""
    wanted = points.to_make(draft.vault, draft.window)
    draft.change_window(stopped_at=draft.now, points=wanted)
    for host in wanted:
        draft.change_slot(host, changed=None, uncounted=False)
    see_to_growth(draft)
    draft.change(phase=Phase.SEALING, launch=None, spent=budget.charge(draft.vault, draft.window, draft.now))
    for kind in draft.window.ceilings:
        left = budget.remaining(draft.vault, kind, draft.now, draft.policy)
        # Drills wait a day and nobody was cut; if they wait too long, they are overdue.
        if kind is not Kind.DRILL and left < draft.policy.minimum_window_seconds:
            draft.facts.append(BudgetSpent(vault_id=draft.vault.vault_id, kind=kind))
    draft.reasons.append("the instance is at rest")
    draft.claim()
    seal(draft)


def seal(draft: Draft) -> None:
    """Make what snapshots are missing; when none is: archive, fall asleep, and wake for who came meanwhile."""
    if missing := _missing_points(draft):
        draft.effects.append(MakePoints(points=missing))
        return
    sealed = replace(draft.window, sealed_at=draft.now)
    draft.archived = sealed
    draft.facts.append(WindowSealed(window=sealed))
    draft.reasons.append(f"window {sealed.window_id} is sealed")
    queued, hold_until = draft.vault.queued, draft.vault.hold_until
    draft.change(phase=Phase.ASLEEP, window=None, recent=sealed, queued={}, claim_until=None, hold_until=None)
    enlarge(draft)
    _wake_for(draft, queued, hold_until)


def _missing_points(draft: Draft) -> tuple[RestorePoint, ...]:
    return tuple(p for p in draft.window.points.values() if p.snapshot_id is None and p.state is PointState.PENDING)


def seal_again(draft: Draft) -> None:
    """Whoever was to make the snapshots died or was refused. One bad volume must not hold up the rest for ever."""
    attempt = draft.window.seal_attempts + 1
    made = dict(draft.window.points)
    if attempt > draft.policy.max_point_attempts:
        for point in _missing_points(draft):
            made[point.host] = replace(point, state=PointState.ERROR)
            draft.facts.append(PointFailed(point=made[point.host], final=True))
    draft.change_window(seal_attempts=attempt, points=made)
    draft.claim()
    seal(draft)


def _wake_for(draft: Draft, queued: dict[str, Run], hold_until: datetime | None) -> None:
    able: list[Run] = []
    spent: list[Run] = []
    for run in queued.values():
        left = budget.remaining(draft.vault, run.kind, draft.now, draft.policy)
        if run.live:
            (able if left >= draft.policy.minimum_window_seconds else spent).append(run)
    for run in spent:
        ended = replace(run, outcome=Outcome.FAILED, reason="today's window is used up", ended_at=draft.now)
        queued = {**queued, run.run_id: ended}
        draft.facts.append(RunEnded(run=ended))
    if draft.vault.recent:
        done = {run_id: run for run_id, run in queued.items() if not run.live}
        draft.change(recent=replace(draft.vault.recent, runs={**draft.vault.recent.runs, **done}))
    if able:
        draft.reasons.append("waking again for who came while it was closing")
        open_window(draft, able, able[0].kind)
    if hold_until and draft.now < hold_until:
        _hold_again(draft, int((hold_until - draft.now).total_seconds()))


# --- holding ------------------------------------------------------------------------------------------


def hold(draft: Draft, seconds: int) -> None:
    """Keep the window under way open, within the budget of restores. Raises WindowSpent."""
    window = budget.admit_kind(draft.vault, draft.window, Kind.RESTORE, draft.now, draft.policy)
    until = min(draft.after(seconds), window.ceilings[Kind.RESTORE].closes_at)
    draft.change(window=replace(window, held_until=until, idle_since=None))
    draft.reasons.append(f"held awake until {until:%Y-%m-%dT%H:%M:%SZ}")


def end_hold(draft: Draft) -> None:
    if draft.held:
        draft.change_window(held_until=draft.now)


def _hold_again(draft: Draft, seconds: int) -> None:
    """The hold that was asked for while it was closing; its budget may be spent by now."""
    try:
        if draft.vault.phase is Phase.ASLEEP:
            open_window(draft, [], Kind.RESTORE)
        hold(draft, seconds)
    except WindowSpent as spent:
        draft.reasons.append(f"no hold: {spent}")
