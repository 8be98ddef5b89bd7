"""A decision in the making: the vault as it changes, and what is to be done and known after that.

Private to `decide` and its parts. A Draft lives for one call of it; the values in it are frozen.
"""

from datetime import datetime, timedelta

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.effects import Effect
from chalicelib.facts import Fact
from chalicelib.model import Policy, Run, Vault, Window


class Decision(Struct, frozen=True, kw_only=True):
    """The vault as it shall be saved, what to do after that, what is then known, and why.

    `archived`: the window that ended, saved with the vault in one transaction.
    """

    vault: Vault
    effects: tuple[Effect, ...] = ()
    facts: tuple[Fact, ...] = ()
    reason: str = ""
    archived: Window | None = None


class Draft(Struct, kw_only=True):
    """A decision in the making. Lives for one call of `decide`, so that its steps read as prose."""

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
        """The host's newest restore point is to be drilled as soon as there is nothing newer under way."""
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

    def forget_instance(self) -> None:
        self.change(instance_id=None, launch=None, agent=None)
