"""The use cases: load, decide, save, act.

What is decided is saved before AWS is touched. A lost race re-decides on the winning record; a failed
call is told and left to the sweep, which derives every effect again.
"""

import random
from collections.abc import Callable
from urllib.parse import urlsplit

from msgspec.structs import replace

from chalicelib.acting import Actor
from chalicelib.alerts import alert_of
from chalicelib.amendment import Amendment
from chalicelib.choosing import Choosing
from chalicelib.commands import Command, Finish, Observe, Report, Start
from chalicelib.counting import Counting
from chalicelib.documents import Orders, PointsDocument, RunDocument, orders, points_document, run_document
from chalicelib.draft import Decision
from chalicelib.drilling import Drilling
from chalicelib.errors import LostRace, NotForThisToken, UnknownRun
from chalicelib.facts import Fact
from chalicelib.lifecycle import decide
from chalicelib.model import Host, InstanceState, Kind, Policy, Run, Vault
from chalicelib.pings import pings_of
from chalicelib.ports import Clock, Cloud, Conflict, Copier, Notifier, Pinger, Store, Telemetry
from chalicelib.sweeping import Sweeping

# 24 hosts in one second are 24 writers of one item: the last of them wins its 24th round. The first pause is
# spread over some ten writes' time, since every lost race costs a write too.
RACES = 60
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.8


def _newest_run(vault: Vault, host: str) -> Run | None:
    windows = (vault.recent, vault.window)
    runs = [*(run for w in windows if w for run in w.runs.values()), *vault.queued.values()]
    mine = (run for run in runs if run.host == host and run.kind is not Kind.DRILL)
    return max(mine, key=lambda run: (run.started_at, run.live), default=None)


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
        self.choosing = Choosing(store, cloud)
        self.counting = Counting(self)
        self.actor = Actor(self)
        self.drilling = Drilling(self)
        self._sweeping = Sweeping(self)

    # --- hosts ---

    def start(self, command: Start, point_id: str | None = None) -> RunDocument:
        """Begin a run; a restore, of that restore point or of the newest that counts.

        Raises WindowSpent, RunIdTaken, UnknownPoint, NothingToRestore, and CloudRefused if EC2 cannot be asked
        about restore points.
        """
        host = self._host(command.host)
        if command.kind is Kind.RESTORE and not self._vault(host.vault_id).find_run(command.run_id):
            command = replace(command, point=self.choosing.named(host.name, point_id))
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

    # --- the vault ---

    def report(self, vault_id: str, report: Report) -> Orders:
        """Take what the agent saw. Raises StaleVault when that machine is not meant to run."""
        vault = self.apply(vault_id, report)
        return orders(vault, self.clock.now(), self.policy)

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
                self.counting.check(vault, (snapshot_id,))

    def sweep(self) -> None:
        """Every minute. Raises an ExceptionGroup at the end if any vault's pass failed; the others have had theirs."""
        self._sweeping.sweep()

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
        vault = self.actor.act(saved, decision.effects)
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
