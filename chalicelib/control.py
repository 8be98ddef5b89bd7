"""The use cases: load, decide, save, act.

What is decided is saved before AWS is touched. A lost race re-decides on the winning record; a failed
call is told and left to the sweep, which derives every effect again.
"""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import takewhile
from urllib.parse import urlsplit

from msgspec.structs import replace

from chalicelib import points, unusual
from chalicelib.acting import Actor
from chalicelib.alerts import alert_of
from chalicelib.commands import Command, Finish, Observe, PointSettled, PushJudged, Report, Rest, Start
from chalicelib.copying import Copying
from chalicelib.documents import Orders, PointsDocument, RunDocument, orders, points_document, run_document
from chalicelib.draft import Decision
from chalicelib.drilling import Drilling
from chalicelib.errors import (
    CloudRefused,
    LostRace,
    NotForThisToken,
    NothingToRestore,
    UnknownHost,
    UnknownPoint,
    UnknownRun,
)
from chalicelib.facts import Fact
from chalicelib.lifecycle import decide
from chalicelib.model import (
    Host,
    InstanceState,
    Kind,
    LastBackup,
    Phase,
    PointState,
    Policy,
    Resting,
    RestorePoint,
    Run,
    Slot,
    Vault,
)
from chalicelib.pings import pings_of
from chalicelib.ports import Clock, Cloud, Conflict, Copier, Notifier, Pinger, Store, Telemetry
from chalicelib.retaining import Retaining

# 24 hosts in one second are 24 writers of one item: the last of them wins its 24th round. The first pause is
# spread over some ten writes' time, since every lost race costs a write too.
RACES = 60
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.8
QUIET_LOOK_MINUTES = 15


def _busy(vault: Vault) -> bool:
    """Something of this vault is under way, so EC2 is asked about it every minute."""
    leaving = any(slot.attached_to or slot.doomed for slot in vault.retired.values())
    changing = any(slot.making or slot.missing_since or _leaves(slot) for slot in vault.hosts.values())
    return (
        vault.phase is not Phase.ASLEEP
        or leaving
        or changing
        or bool(vault.pending_points or vault.owed_points or vault.point_volumes or vault.drilled)
    )


def _leaves(slot: Slot) -> bool:
    """Its volume is on its way out."""
    return bool(slot.volume_id and slot.rests_as)


def _newest_run(vault: Vault, host: str) -> Run | None:
    windows = (vault.recent, vault.window)
    runs = [*(run for w in windows if w for run in w.runs.values()), *vault.queued.values()]
    mine = (run for run in runs if run.host == host and run.kind is not Kind.DRILL)
    return max(mine, key=lambda run: (run.started_at, run.live), default=None)


class Amendment:
    """A change of a host's record that goes with a change of its vault: both are saved, or neither."""

    def __init__(self, name: str, **changes: object) -> None:
        self._name = name
        self._changes = changes

    def of(self, store: Store) -> Host:
        """The record as it shall be. Raises UnknownHost."""
        host = store.host(self._name)
        if host is None:
            raise UnknownHost(self._name)
        return replace(host, **self._changes)


class Control:
    """Everything that hosts, vaults, events and the schedule can ask of the control plane."""

    def __init__(
        self,
        *,
        store: Store,
        cloud: Cloud,
        notifier: Notifier,
        telemetry: Telemetry,
        clock: Clock,
        policy: Policy,
        pause: Callable[[float], None],
        pinger: Pinger,
        copier: Copier | None = None,
    ) -> None:
        self.store = store
        self.cloud = cloud
        self.notifier = notifier
        self.pinger = pinger
        self.copier = copier
        self.telemetry = telemetry
        self.clock = clock
        self.policy = policy
        self._pause = pause
        self._actor = Actor(self)
        self._retaining = Retaining(self)
        self.drilling = Drilling(self)
        self._copying = Copying(self)

    # --- hosts ---

    def start(self, command: Start, point_id: str | None = None) -> RunDocument:
        """Begin a run; a restore, of that restore point or of the newest that counts.

        Raises WindowSpent, RunIdTaken, UnknownPoint, NothingToRestore, and CloudRefused if EC2 cannot be asked
        about restore points.
        """
        host = self._host(command.host)
        if command.kind is Kind.RESTORE and not self._vault(host.vault_id).find_run(command.run_id):
            command = replace(command, point=self.point(host.name, point_id))
        vault = self.apply(host.vault_id, command)
        return self._document(vault, host, vault.find_run(command.run_id))

    def status(self, name: str, run_id: str | None) -> RunDocument:
        """A run as it stands; without an id the host's newest. Raises UnknownRun. Changes nothing."""
        host = self._host(name)
        vault = self._vault(host.vault_id)
        run = vault.find_run(run_id) if run_id else _newest_run(vault, name)
        if run_id and (run is None or run.host != name or run.kind is Kind.DRILL):
            raise UnknownRun(run_id)
        return self._document(vault, host, run)

    def finish(self, command: Finish) -> RunDocument:
        """End a run. Raises UnknownRun, RunSuperseded."""
        host = self._host(command.host)
        vault = self.apply(host.vault_id, command)
        return self._document(vault, host, vault.find_run(command.run_id))

    def points(self, name: str) -> PointsDocument:
        """What a host can be restored to. Raises CloudRefused if EC2 cannot be asked."""
        host = self._host(name)
        states = self.cloud.host_snapshots(host.name)
        return points_document(host.name, self.store.points(host.name), states, self.clock.now())

    def point(self, host: str, point_id: str | None) -> RestorePoint:
        """A restore point of which EC2 has the whole snapshot now. Raises UnknownPoint, NothingToRestore."""
        there = self.points_there(host)
        if point_id is not None:
            found = next((point for point in there if point.snapshot_id == point_id), None)
            if found is None:
                raise UnknownPoint(point_id)
            return found
        newest = points.newest(there)
        if newest is None:
            raise NothingToRestore(host)
        return newest

    def points_there(self, host: str) -> list[RestorePoint]:
        """Of which EC2 has the whole snapshot now, newest first. Raises CloudRefused if it cannot be asked."""
        states = self.cloud.host_snapshots(host)
        found = points.restorable(self.store.points(host), states)
        return [point for point in found if states[point.snapshot_id or ""] is PointState.COMPLETED]

    def sound_point(self, host: str, rests_as: str = "") -> RestorePoint | None:
        """What a host's next volume can be made of; only what counts, and no drill has found damaged.

        `rests_as` while that is there; else the newest from before the first unusual push that nobody has accepted,
        since what was pushed after it goes on from it; else the newest. Raises CloudRefused if EC2 cannot be asked.
        """
        there = self.points_there(host)
        sound = [point for point in there if point.marks.sound]
        rested = [point for point in sound if point.snapshot_id == rests_as]
        usual = takewhile(lambda point: not point.marks.unusual, reversed(there))
        return points.newest(rested or [p for p in usual if p.marks.sound]) or points.newest(sound)

    def newest_point(self, recorded: list[RestorePoint]) -> RestorePoint | None:
        """The newest of these, whatever it is, as EC2 knows it now; None if somebody deleted its snapshot.

        Raises CloudRefused.
        """
        newest = max((point for point in recorded if point.made_at), key=points.taken_at, default=None)
        if newest is None or newest.snapshot_id is None:
            return None
        state = self.cloud.snapshot_states([newest.snapshot_id]).get(newest.snapshot_id)
        return replace(newest, state=state) if state else None

    # --- the vault ---

    def report(self, vault_id: str, report: Report) -> Orders:
        """Take what the agent saw. Raises StaleVault when that machine is not meant to run."""
        vault = self.apply(vault_id, report)
        return orders(vault, self.clock.now(), self.policy)

    def judged(self, vault: Vault, point: RestorePoint) -> RestorePoint:
        """A restore point that is about to be made, marked if its push was unusual; then its host's history is held.

        A failure in here is told, and costs the mark; never the restore point.
        """
        if point.marks.unusual or not (point.change or point.uncounted):
            return point
        try:
            known = [*self.store.points(point.host), *self.store.buried(point.host), *vault.pending_points.values()]
            others = (each for each in known if each.host == point.host and each.run_id != point.run_id)
            earlier = sorted(others, key=points.taken_at, reverse=True)
            why = unusual.why(None if point.uncounted else point.change, earlier)
            if why:
                host = self.store.host(point.host)
                held = host is None or host.kept_since is not None
                there = [each for each in earlier if not each.marks.deleted_at]
                self.apply(
                    point.vault_id,
                    PushJudged(host=point.host, run_id=point.run_id, why=why, before=points.newest(there)),
                    None if held else Amendment(point.host, kept_since=self.clock.now()),
                )
        except Exception as failure:
            self.telemetry.fault("push_not_judged", host=point.host, run_id=point.run_id, error=repr(failure))
            return point
        return replace(point, marks=replace(point.marks, unusual=why))

    # --- events and the schedule ---

    def instance_changed(self, instance_id: str) -> None:
        """EC2 says that an instance changed. What it is now is asked, not believed: events come late and twice."""
        for vault in self.store.vaults():
            if vault.instance_id == instance_id:
                states = {machine.instance_id: machine.state for machine in self.cloud.machines()}
                self.apply(vault.vault_id, Observe(state=states.get(instance_id, InstanceState.GONE)))

    def snapshot_changed(self, snapshot_id: str) -> None:
        """EBS says that a snapshot was made, or failed."""
        for vault in self.store.vaults():
            if snapshot_id in vault.pending_points:
                self.check_points(vault, (snapshot_id,))

    def check_points(self, vault: Vault, snapshot_ids: tuple[str, ...]) -> None:
        """Settle restore points whose snapshot has completed or failed."""
        states = self.cloud.snapshot_states(snapshot_ids)
        for snapshot_id in snapshot_ids:
            state = states.get(snapshot_id) or self._unknown(vault.pending_points.get(snapshot_id))
            if state is not PointState.PENDING:
                self._settle(vault, snapshot_id, state)

    def _unknown(self, point: RestorePoint | None) -> PointState:
        """A snapshot that EC2 does not know was deleted, as good as failed; or it is too new to be listed."""
        soon = timedelta(seconds=self.policy.claim_seconds)
        new = point and point.made_at and self.clock.now() - point.made_at < soon
        return PointState.PENDING if new else PointState.ERROR

    def _settle(self, vault: Vault, snapshot_id: str, state: PointState) -> None:
        point = vault.pending_points.get(snapshot_id)
        if point is None or point.snapshot_id is None:
            return
        now = self.clock.now()
        # The host's record first: once the vault forgets the pending point, nothing would repair it.
        self.store.put_point(replace(point, state=state))
        if state is PointState.COMPLETED and point.complete:
            last = LastBackup(
                run_id=point.run_id,
                window_id=point.window_id,
                snapshot_id=point.snapshot_id,
                started_at=point.run_started_at,
                completed_at=now,
            )
            self.store.move_last_backup(point.host, last)
        self.apply(vault.vault_id, PointSettled(snapshot_id=snapshot_id, state=state))

    def sweep(self) -> None:
        """Every minute: enforce windows and leases, and repair whatever was interrupted.

        Raises an ExceptionGroup at the end if any vault's pass failed; the others have had theirs.
        """
        now = self.clock.now()
        vaults = self.store.vaults()
        quiet = now.minute % QUIET_LOOK_MINUTES == 0
        failures: list[Exception] = []
        hosts = self.store.hosts() if quiet else []
        if quiet:
            self.telemetry.gauges(hosts, vaults, now)
        self.telemetry.past_window(vaults, now)
        if quiet or any(_busy(vault) for vault in vaults):
            states = self._look(vaults, now)
            for n, vault in enumerate(vaults):
                try:
                    vaults[n] = self.apply(vault.vault_id, Observe(state=states(vault)))
                    self._rest(vaults[n], states(vault))
                except Exception as failure:
                    self.telemetry.fault("sweep_failed", vault_id=vault.vault_id, error=repr(failure))
                    failures.append(failure)
        if quiet or any(vault.point_volumes for vault in vaults):
            self._remove_strays(now)
        failures += self.drilling.see_to(vaults, hosts, now)
        failures += self._retaining.see_to(hosts, now)
        failures += self._copying.see_to(hosts, now)
        if failures:
            raise ExceptionGroup("the sweep failed for some vaults or hosts", failures)

    def _rest(self, vault: Vault, state: InstanceState | None) -> None:
        """Volumes of hosts that are to rest as their snapshot go, if that has passed its drill."""
        for host, slot in vault.hosts.items() if vault.phase is Phase.ASLEEP else ():
            if slot.volume_id is None or not (slot.resting is Resting.SNAPSHOT or slot.rests_as):
                continue
            recorded = self.store.points(host)
            if not slot.rests_as and not any(point.marks.fit for point in recorded):
                continue
            try:
                newest = self.newest_point(recorded)
            except CloudRefused as refused:
                self.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
                continue
            self.apply(vault.vault_id, Rest(host=host, newest=newest, state=state))

    def _remove_strays(self, now: datetime) -> None:
        """Volumes made for restores that no vault's record names: somebody died after the call, or was too slow."""
        try:
            disks = self.cloud.point_disks()
        except CloudRefused as refused:
            self.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
            return
        if not disks:
            return
        # Read after EC2 was asked: what is wanted is recorded before it is made.
        records = {(v.vault_id, p.host, p.run_id): p for v in self.store.vaults() for p in v.point_volumes.values()}
        for disk in disks:
            record = records.get((disk.vault_id, disk.host, disk.run_id))
            known = record is not None and record.volume_id in (None, disk.volume_id)
            if not known and now - disk.made_at > timedelta(seconds=self.policy.claim_seconds):
                self.telemetry.fault("stray_volume", volume_id=disk.volume_id, vault_id=disk.vault_id, host=disk.host)
                self._actor.try_remove(disk)

    def _look(self, vaults: list[Vault], now: datetime) -> Callable[[Vault], InstanceState | None]:
        """The state of each vault's machine. All unknown when EC2 cannot be asked: windows are enforced anyway."""
        try:
            machines = self.cloud.machines()
        except Exception as failure:
            self.telemetry.fault("lookup_failed", error=repr(failure))
            return lambda _: None
        known = {vault.instance_id for vault in vaults}
        launching = {vault.vault_id for vault in vaults if vault.launch}
        for machine in machines:
            settled = now - machine.launched_at > timedelta(seconds=self.policy.claim_seconds)
            wanted = machine.instance_id in known or machine.vault_id in launching
            if not wanted and settled and machine.state in (InstanceState.RUNNING, InstanceState.STOPPED):
                # Nobody's machine: given up, or launched for a window that had ended. It costs money, and it
                # may hold volumes that its successor needs.
                self.telemetry.fault("stray_machine", instance_id=machine.instance_id, vault_id=machine.vault_id)
                self._actor.try_terminate(machine.instance_id)
        states = {machine.instance_id: machine.state for machine in machines}

        def state(vault: Vault) -> InstanceState | None:
            return states.get(vault.instance_id, InstanceState.GONE) if vault.instance_id else None

        return state

    # --- load, decide, save, act ---

    def apply(self, vault_id: str, command: Command, amend: Amendment | None = None) -> Vault:
        """Say something to a vault; returns it as it is after all effects.

        `amend` changes a host's record together with it. Raises what `decide` raises, UnknownHost for a record
        that is not there, and LostRace when others kept winning.
        """
        now = self.clock.now()
        vault = self._vault(vault_id)
        for race in range(RACES):
            decision = decide(vault, command, now, self.policy)
            saved = vault
            # Read after the vault: whoever writes it meanwhile writes the vault too, and then we lose the race.
            host = amend.of(self.store) if amend else None
            if decision.vault != vault or host:
                try:
                    saved = self.store.save(decision.vault, decision.archived, host)
                except Conflict as conflict:
                    vault = conflict.current or self._vault(vault_id)
                    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**race)
                    self._pause(random.uniform(0, longest))  # noqa: S311 (jitter, not a secret)
                    continue
            self._tell(saved, command, decision.reason, len(decision.effects))
            return self.carry_out(saved, decision)
        raise LostRace(f"{vault_id} is being written by too many at once; try again")

    def carry_out(self, saved: Vault, decision: Decision) -> Vault:
        """Tell what is known and act, after `decision` has been saved; returns the vault as it is then."""
        for fact in decision.facts:
            self.tell(fact)
        vault = self._actor.act(saved, decision.effects)
        self._ping(pings_of(decision.facts, saved))
        return vault

    def tell(self, fact: Fact) -> None:
        """Log and measure what has become known, and tell the operator if that cannot wait."""
        self.telemetry.fact(fact)
        if alert := alert_of(fact):
            self._alert(*alert)

    def _ping(self, urls: list[str]) -> None:
        if not urls:
            return
        for url, wrong in self.pinger.ping(urls).items():
            # Without its path, which is a secret of the host's; and never a reason for anything else to fail.
            self.telemetry.fault("ping_failed", site=urlsplit(url).hostname, error=wrong)

    def _alert(self, subject: str, message: str) -> None:
        try:
            self.notifier.notify(subject, message)
        except Exception as failure:
            # An alert that cannot be sent must not keep a vault awake; it is counted, and alarms watch the count.
            self.telemetry.fault("alert_failed", subject=subject, error=repr(failure))

    def _tell(self, vault: Vault, command: Command, reason: str, effects: int) -> None:
        self.telemetry.event(
            "decided",
            vault_id=vault.vault_id,
            command=type(command).__name__,
            phase=vault.phase,
            window_id=vault.window and vault.window.window_id,
            host=getattr(command, "host", None),
            run_id=getattr(command, "run_id", None),
            reason=reason,
            effects=effects,
        )

    def _host(self, name: str) -> Host:
        host = self.store.host(name)
        if host is None or not host.token_hash:
            # The authorizer's answer is cached for a minute: a token may outlive its host, or its revocation.
            raise NotForThisToken(f"host {name!r} is retired, or its token was revoked; enrol again")
        return host

    def _vault(self, vault_id: str) -> Vault:
        vault = self.store.vault(vault_id)
        if vault is None:
            raise AssertionError(f"vault {vault_id} is named by a host or a token, but is not in the table")
        return vault

    def _document(self, vault: Vault, host: Host, run: Run | None) -> RunDocument:
        return run_document(vault, host, run, self.clock.now(), self.policy)
