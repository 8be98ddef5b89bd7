"""A decision in the making: the steps of a vault's life that several commands share.

Private to lifecycle.py. A Draft lives for one call of `decide`; the values in it are frozen.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from chalicelib import budget, growth, points
from chalicelib.effects import (
    Admit,
    Attach,
    CheckInstance,
    DeleteVolume,
    Detach,
    Effect,
    Enlarge,
    MakePoints,
    MakeVolume,
    Revoke,
    Stop,
    Terminate,
    Wake,
)
from chalicelib.errors import WindowSpent
from chalicelib.facts import (
    BudgetSpent,
    Fact,
    PointFailed,
    RestoreFailed,
    RunEnded,
    VolumeNearlyFull,
    WakeFaulted,
    WindowClosing,
    WindowSealed,
)
from chalicelib.model import (
    Checked,
    DrillState,
    InstanceState,
    Kind,
    Outcome,
    Phase,
    PointState,
    Policy,
    RestorePoint,
    Run,
    Slot,
    Source,
    Vault,
    Window,
)

FORCE_STOP_AFTER = timedelta(minutes=10)
# Runs of one host that a window remembers. 24 hosts that do nothing but start must not make the vault
# bigger than the 400 KB that DynamoDB takes: what cannot be saved could not be stopped either.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
RUNS_REMEMBERED = 4


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The vault as it shall be saved, what to do after that, what is then known, and why.

    `archived`: the window that ended, saved with the vault in one transaction.
    """

    vault: Vault
    effects: tuple[Effect, ...] = ()
    facts: tuple[Fact, ...] = ()
    reason: str = ""
    archived: Window | None = None


@dataclass(kw_only=True)
class Draft:
    """A decision in the making. Lives for one call of `decide`, so that the steps below read as prose."""

    vault: Vault
    now: datetime
    policy: Policy
    effects: list[Effect] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    archived: Window | None = None

    def decision(self) -> Decision:
        return Decision(
            vault=self.vault,
            effects=tuple(dict.fromkeys(self.effects)),
            facts=tuple(self.facts),
            reason="; ".join(self.reasons) or "nothing to do",
            archived=self.archived,
        )

    # --- small changes ---

    @property
    def window(self) -> Window:
        if self.vault.window is None:
            raise AssertionError(f"a vault that is {self.vault.phase} has no window")
        return self.vault.window

    def change(self, **changes: object) -> None:
        self.vault = replace(self.vault, **changes)

    def change_window(self, **changes: object) -> None:
        self.change(window=replace(self.window, **changes))

    def change_slot(self, host: str, **changes: object) -> None:
        if host in self.vault.hosts:
            slot = replace(self.vault.hosts[host], **changes)
            self.change(hosts={**self.vault.hosts, host: slot})

    def want_drill(self, host: str, why: str) -> None:
        """Of its newest restore point, as soon as there is nothing newer under way."""
        self.change_slot(host, drill_wanted=why, drill_tried_at=None)

    def put_run(self, run: Run) -> None:
        if run.run_id in self.vault.queued:
            self.change(queued={**self.vault.queued, run.run_id: run})
        else:
            self.change_window(runs={**self.window.runs, run.run_id: run})

    def claim(self) -> None:
        self.change(claim_until=self.after(self.policy.claim_seconds))

    @property
    def claimed(self) -> bool:
        return self.vault.claim_until is not None and self.now < self.vault.claim_until

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def addresses(self) -> frozenset[str]:
        """Of hosts with a live run; a drill lets nobody in."""
        return frozenset(run.source_address for run in self.window.live_runs if run.source_address)

    @property
    def held(self) -> bool:
        """An operator keeps it awake."""
        return self.window.held_until is not None and self.now < self.window.held_until

    @property
    def needed(self) -> bool:
        """There is a reason to be awake now."""
        return self.held or bool(self.window.live_runs)

    # --- runs ---

    def end(self, run: Run, outcome: Outcome, reason: str, **changes: object) -> Run:
        """End a live run. What the vault saw committed is complete, although its host never came to say so."""
        if run.committed_at and outcome in (Outcome.CUT, Outcome.ABANDONED):
            outcome, reason = Outcome.COMPLETE, f"committed, though {reason}"
        ended = replace(run, outcome=outcome, reason=reason, ended_at=self.now, **changes)
        queued = run.run_id in self.vault.queued
        self.put_run(ended)
        if not queued and run.kind is Kind.BACKUP and self.window.ready_at:
            # It was let in, and may have pushed unseen: no older restore point is sure to hold all of its volume.
            self.change_slot(run.host, pushed_at=self.now)
        if run.kind is Kind.DRILL:
            self._keep_drill(ended)
        self.facts.append(RunEnded(run=ended))
        self.reasons.append(f"run {run.run_id} of {run.host} ended {outcome}: {reason}")
        if not queued and run.source_address and run.source_address not in self.addresses():
            self.effects.append(Revoke(address=run.source_address))
        return ended

    def _keep_drill(self, run: Run) -> None:
        """It is recorded later. One that was answered is good for a month; of a failed one, the next point is due."""
        self.change(drilled={**self.vault.drilled, run.host: run})
        state = run.checked.state if run.checked else DrillState.ERROR
        slot = self.vault.hosts.get(run.host)
        if slot and run.restore and state in (DrillState.PASSED, DrillState.FAILED, DrillState.UNPROVEN):
            # What was wanted is a drill of the newest: of what the volume holds.
            wanted = "" if slot.committed == run.restore.point_run_id else slot.drill_wanted
            wanted = "its last drill failed" if state is DrillState.FAILED else wanted
            self.change_slot(run.host, drilled_at=run.started_at, drill_wanted=wanted)

    def end_runs_of(self, host: str, reason: str) -> None:
        """The live and the waiting ones, by the control plane's will."""
        runs = [*(self.vault.window.runs.values() if self.vault.window else ()), *self.vault.queued.values()]
        for run in runs:
            if run.live and run.host == host:
                self.end(run, Outcome.ABANDONED, reason)

    def forget_old_runs(self, host: str) -> None:
        """Make room for another run of this host: its oldest that are over go, but none that a restore point needs."""
        for name in ("window", "queued"):
            runs = self.vault.queued if name == "queued" else self.vault.window.runs if self.vault.window else {}
            over = sorted((r for r in runs.values() if r.host == host and not r.live), key=lambda r: r.started_at)
            pushed = sorted((r for r in over if r.pushed or r.committed_at), key=lambda r: (r.whole, r.started_at))
            gone = {r.run_id for r in over[: 1 - RUNS_REMEMBERED]} - {r.run_id for r in pushed[-1:]}
            kept = {run_id: run for run_id, run in runs.items() if run_id not in gone}
            if gone and name == "queued":
                self.change(queued=kept)
            elif gone:
                self.change_window(runs=kept)

    def end_overdue_runs(self) -> None:
        """Nothing that happens to a vault finds a run that has outlived its window or its lease."""
        if not self.vault.awake:
            return
        for run in self.window.live_runs:
            if self.now >= self.window.ceilings[run.kind].closes_at:
                self.end(run, Outcome.CUT, "the window ended")
            elif self.vault.phase is Phase.OPEN and self.now >= run.lease_until:
                self._end_lease(run)
        if self.now >= self.window.closes_at:
            self.close("the window ended")

    def _end_lease(self, run: Run) -> None:
        """A restore that was never ready is not its host's fault; one that waits for room goes on waiting."""
        if run.restore is None or run.restore.ready_at or points.ready(self.vault, run):
            self.end(run, Outcome.ABANDONED, f"not seen alive for {self.policy.lease_seconds} s")
        elif run.restore.source is Source.LIVE:
            self.fail_restore(run, f"its volume was not mounted in {self.policy.lease_seconds} s")
        elif points.serves(self.vault, run.restore, run.host):
            trouble = self.vault.point_volumes[run.host].trouble
            why = f"not mounted in {self.policy.lease_seconds} s; {trouble or 'AWS takes too long'}"
            seen = self.vault.agent.restores.get(run.host) if self.vault.agent else None
            self.fail_restore(run, why, unfit=seen is not None and seen.state == "error")

    def fail_restore(self, run: Run, why: str, *, unfit: bool = False) -> None:
        """The vault cannot give this run its data; its host and an operator are told. Of a drill its result tells.

        `unfit`: that is the restore point's own fault, which is what drills are for.
        """
        point_id = run.restore.point_id if run.restore else "nothing"
        if run.kind is Kind.DRILL and unfit:
            run = replace(run, checked=Checked(state=DrillState.FAILED, detail=why))
        ended = self.end(run, Outcome.FAILED, f"restore point {point_id} could not be made available: {why}")
        if run.kind is Kind.RESTORE:
            self.facts.append(RestoreFailed(run=ended))

    def join(self, run: Run) -> None:
        """Put a run into the window under way."""
        window = budget.admit_kind(self.vault, self.window, run.kind, self.now, self.policy)
        run = replace(run, lease_until=self.after(self.policy.lease_seconds))
        self.change(window=replace(window, runs={**window.runs, run.run_id: run}, idle_since=None))
        if run.source_address:
            self.effects.append(Admit(address=run.source_address))

    def hold(self, seconds: int) -> None:
        """Keep the window under way open, within the budget of restores. Raises WindowSpent."""
        window = budget.admit_kind(self.vault, self.window, Kind.RESTORE, self.now, self.policy)
        until = min(self.after(seconds), window.ceilings[Kind.RESTORE].closes_at)
        self.change(window=replace(window, held_until=until, idle_since=None))
        self.reasons.append(f"held awake until {until:%Y-%m-%dT%H:%M:%SZ}")

    # --- phases ---

    def open_window(self, runs: list[Run], kind: Kind) -> None:
        """asleep -> waking, for runs (of that kind first) or a hold. Raises WindowSpent when no budget is left."""
        first = budget.ceiling(self.vault, kind, self.now, self.policy)
        milliseconds = self.now.microsecond // 1000
        window = Window(
            window_id=f"{self.vault.vault_id}-{self.now:%Y%m%dT%H%M%S}.{milliseconds:03d}Z",
            vault_id=self.vault.vault_id,
            opened_at=self.now,
            ceilings={kind: first},
            woken_at=self.now,
        )
        for point in self.vault.owed_points.values():
            # The volume is about to change: what was owed can no longer be made.
            self.facts.append(PointFailed(point=point, final=True))
        for host, slot in self.vault.hosts.items():
            if slot.attached_to:
                self.change_slot(host, rests_as="")  # it stays; one that is not attached may just have been deleted
        self.change(phase=Phase.WAKING, window=window, retry_at=None, owed_points={})
        for run in runs:
            self.join(run)
        self.wake()

    def wake(self) -> None:
        self.claim()
        self.effects.append(Wake())

    def wake_again(self, reason: str) -> None:
        """Another attempt; the last one with a new machine, since the old one may be what is broken."""
        attempt = self.window.wake_attempts + 1
        if attempt > self.policy.max_wake_attempts:
            self.give_up(reason)
            return
        if attempt == self.policy.max_wake_attempts and self.vault.instance_id:
            self.effects.append(Terminate(instance_id=self.vault.instance_id))
            self.forget_instance()
        self.change(phase=Phase.WAKING, retry_at=None)
        self.change_window(wake_attempts=attempt, woken_at=self.now, ready_at=None)
        self.reasons.append(f"wake attempt {attempt}: {reason}")
        self.wake()

    def fault(self, reason: str) -> None:
        """waking -> faulted: switch off, wait, try again; or give up after the last attempt."""
        attempt = self.window.wake_attempts
        if attempt >= self.policy.max_wake_attempts:
            self.give_up(reason)
            return
        pause = self.policy.retry_seconds * 2 ** (attempt - 1)
        self.change(phase=Phase.FAULTED, retry_at=self.after(pause))
        self.facts.append(WakeFaulted(window=self.window, reason=reason, final=False))
        self.reasons.append(f"wake attempt {attempt} failed ({reason}); next in {pause} s")
        if self.vault.instance_id:
            self.effects.append(Stop(instance_id=self.vault.instance_id))

    def give_up(self, reason: str) -> None:
        for run in self.window.live_runs:
            self.end(run, Outcome.FAILED, f"the vault would not wake: {reason}")
        self.facts.append(WakeFaulted(window=self.window, reason=reason, final=True))
        self.close(f"the vault would not wake: {reason}")

    def close_if_idle(self) -> None:
        """Nobody is pushing: close now, or linger for a host whose usual time is near."""
        if not self.vault.awake:
            return
        if self.needed:
            if self.window.idle_since:
                self.change_window(idle_since=None)
            return
        since = self.window.idle_since or self.now
        expected = self.expected_hosts(since)
        if self.vault.phase is Phase.OPEN and expected and self.now < since + self.linger:
            if self.window.idle_since is None:
                self.change_window(idle_since=since)
                self.reasons.append(f"lingering for {', '.join(expected)}")
            return
        self.close("no live run, and no host expected")

    @property
    def linger(self) -> timedelta:
        return timedelta(seconds=self.policy.linger_seconds)

    def expected_hosts(self, since: datetime) -> list[str]:
        """Hosts not seen in this window whose usual time is within `linger` of `since`."""
        seen = {run.host for run in self.window.runs.values() if run.kind is Kind.BACKUP}
        return [
            host
            for host, slot in self.vault.hosts.items()
            if host not in seen and slot.expected_at and abs(slot.expected_at - since) <= self.linger
        ]

    def close(self, reason: str) -> None:
        """-> closing: stop the instance."""
        self.change(phase=Phase.CLOSING, retry_at=None)
        self.end_hold()
        self.change_window(closing_at=self.now, close_reason=reason)
        self.facts.append(WindowClosing(window=self.window))
        self.reasons.append(f"closing: {reason}")
        self.claim()
        self.stop_instance()

    def end_hold(self) -> None:
        if self.held:
            self.change_window(held_until=self.now)

    def stop_instance(self) -> None:
        if self.vault.instance_id:
            overdue = self.window.closing_at and self.now - self.window.closing_at >= FORCE_STOP_AFTER
            self.effects.append(Stop(instance_id=self.vault.instance_id, force=bool(overdue)))
        elif self.vault.launch:
            # RunInstances was about to be called when something died; there may be a machine.
            self.effects.append(CheckInstance())
        else:
            self.stopped()

    def stopped(self) -> None:
        """closing -> sealing: the volumes are at rest; snapshot those that were pushed to."""
        points = _points(self.vault, self.window)
        self.change_window(stopped_at=self.now, points=points)
        for host in points:
            self.change_slot(host, changed=None, uncounted=False)
        self.see_to_growth()
        self.change(phase=Phase.SEALING, launch=None, spent=budget.charge(self.vault, self.window, self.now))
        for kind in self.window.ceilings:
            left = budget.remaining(self.vault, kind, self.now, self.policy)
            # Drills wait a day and nobody was cut; if they wait too long, they are overdue.
            if kind is not Kind.DRILL and left < self.policy.minimum_window_seconds:
                self.facts.append(BudgetSpent(vault_id=self.vault.vault_id, kind=kind))
        self.reasons.append("the instance is at rest")
        self.claim()
        self.seal()

    def seal(self) -> None:
        """Make what snapshots are missing; when none is: archive, fall asleep, and wake for who came meanwhile."""
        if missing := self.missing_points():
            self.effects.append(MakePoints(points=missing))
            return
        sealed = replace(self.window, sealed_at=self.now)
        self.archived = sealed
        self.facts.append(WindowSealed(window=sealed))
        self.reasons.append(f"window {sealed.window_id} is sealed")
        queued, hold_until = self.vault.queued, self.vault.hold_until
        self.change(phase=Phase.ASLEEP, window=None, recent=sealed, queued={}, claim_until=None, hold_until=None)
        self.enlarge()
        self.wake_for(queued, hold_until)

    def missing_points(self) -> tuple[RestorePoint, ...]:
        return tuple(p for p in self.window.points.values() if p.snapshot_id is None and p.state is PointState.PENDING)

    def seal_again(self) -> None:
        """Whoever was to make the snapshots died or was refused. One bad volume must not hold up the rest for ever."""
        attempt = self.window.seal_attempts + 1
        points = dict(self.window.points)
        if attempt > self.policy.max_point_attempts:
            for point in self.missing_points():
                points[point.host] = replace(point, state=PointState.ERROR)
                self.facts.append(PointFailed(point=points[point.host], final=True))
        self.change_window(seal_attempts=attempt, points=points)
        self.claim()
        self.seal()

    def wake_for(self, queued: dict[str, Run], hold_until: datetime | None) -> None:
        able: list[Run] = []
        spent: list[Run] = []
        for run in queued.values():
            left = budget.remaining(self.vault, run.kind, self.now, self.policy)
            if run.live:
                (able if left >= self.policy.minimum_window_seconds else spent).append(run)
        for run in spent:
            ended = replace(run, outcome=Outcome.FAILED, reason="today's window is used up", ended_at=self.now)
            queued = {**queued, run.run_id: ended}
            self.facts.append(RunEnded(run=ended))
        if self.vault.recent:
            done = {run_id: run for run_id, run in queued.items() if not run.live}
            self.change(recent=replace(self.vault.recent, runs={**self.vault.recent.runs, **done}))
        if able:
            self.reasons.append("waking again for who came while it was closing")
            self.open_window(able, able[0].kind)
        if hold_until and self.now < hold_until:
            self.hold_again(int((hold_until - self.now).total_seconds()))

    def hold_again(self, seconds: int) -> None:
        """The hold that was asked for while it was closing; its budget may be spent by now."""
        try:
            if self.vault.phase is Phase.ASLEEP:
                self.open_window([], Kind.RESTORE)
            self.hold(seconds)
        except WindowSpent as spent:
            self.reasons.append(f"no hold: {spent}")

    def forget_instance(self) -> None:
        self.change(instance_id=None, launch=None, agent=None)

    def see_to_growth(self) -> None:
        """Which volumes are to be larger, by what the agent said last, and which are full and may not be."""
        for host, slot in self.vault.hosts.items():
            mount = self.vault.agent.mounts.get(host) if self.vault.agent else None
            fill = growth.fill(slot, mount)
            if fill is None or fill <= growth.FULL:
                continue
            wanted = growth.target(slot, fill)
            if wanted == slot.size_gib:
                full = VolumeNearlyFull(
                    host=host,
                    volume_id=slot.volume_id or "",
                    fill=fill,
                    size_gib=slot.size_gib,
                    max_size_gib=slot.limit_gib,
                )
                self.facts.append(full)
                self.reasons.append(f"the volume of {host} is nearly full, and may not grow")
            elif wanted > slot.wanted_gib:
                # The default limit is ten times the size that it has now, not of what it will have.
                self.change_slot(host, wanted_gib=wanted, max_size_gib=slot.limit_gib)

    def enlarge(self) -> None:
        """What growth was decided and is not yet made; not sooner after the last than AWS takes it."""
        pause = timedelta(seconds=self.policy.growth_pause_seconds)
        for host, slot in self.vault.hosts.items():
            soon = slot.modified_at is not None and self.now < slot.modified_at + pause
            if slot.volume_id and slot.wanted_gib > slot.size_gib and not soon:
                self.effects.append(Enlarge(host=host, volume_id=slot.volume_id, size_gib=slot.wanted_gib))

    def see_to_volumes(self, *, running: bool = False) -> None:
        """Every host has a volume, and it is attached once the machine runs (before, EC2 refuses).

        One that rests as a snapshot gets it when it begins to back up; then it is made, whatever becomes of the run.
        """
        running = running or self.vault.phase is Phase.OPEN
        live = self.window.live_runs if self.vault.awake else ()
        for run in live:
            if run.kind is Kind.BACKUP and run.host in self.vault.hosts:
                self.change_slot(run.host, making=self.vault.hosts[run.host].volume_id is None)
        for host, slot in self.vault.hosts.items():
            if slot.volume_id is None:
                if slot.making or not slot.rests_as:
                    self.effects.append(MakeVolume(host=host))
            elif running and self.vault.awake and slot.attached_to != self.vault.instance_id:
                self.effects.append(Attach())

    def let_go(self, host: str, slot: Slot, holds_all: str, state: InstanceState | None) -> None:
        """A step to a volume's end: off a machine at rest; then it is deleted, if that snapshot holds all of it.

        Of a machine that is up the filesystem may be mounted, and detaching would stick:
        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachVolume.html
        """
        if slot.volume_id is None:
            return
        if slot.attached_to is None:
            if holds_all:
                self.effects.append(DeleteVolume(host=host, volume_id=slot.volume_id, snapshot_id=holds_all))
        elif state is InstanceState.STOPPED or slot.attached_to != self.vault.instance_id:
            self.effects.append(Detach(host=host, volume_id=slot.volume_id))


def _points(vault: Vault, window: Window) -> dict[str, RestorePoint]:
    """One restore point for each host that pushed: of its newest whole run, else of its newest run."""
    points: dict[str, RestorePoint] = {}
    pushed = [r for r in window.runs.values() if r.kind is Kind.BACKUP and (r.pushed or r.committed_at)]
    for run in sorted(pushed, key=lambda r: (r.whole, r.started_at)):
        slot = vault.slot(run.host)
        mount = vault.agent.mounts.get(run.host) if vault.agent else None
        if slot and slot.volume_id and run.outcome:
            points[run.host] = RestorePoint(
                host=run.host,
                vault_id=vault.vault_id,
                window_id=window.window_id,
                volume_id=slot.volume_id,
                run_id=run.run_id,
                run_started_at=run.started_at,
                outcome=run.outcome,
                complete=run.whole,
                volume_gib=slot.size_gib,
                used_bytes=mount.used_bytes if mount and mount.volume_id == slot.volume_id else None,
                change=slot.changed,
                uncounted=slot.uncounted,
            )
    return points
