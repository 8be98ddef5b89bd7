"""The sweep: every minute it enforces windows and leases, and repairs whatever was interrupted.

Each quarter of an hour it looks at all; in between at vaults of which something is under way.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from chalicelib.commands import Observe, Rest
from chalicelib.copying import Copying
from chalicelib.errors import CloudRefused
from chalicelib.model import InstanceState, Phase, Resting, Slot, Vault
from chalicelib.retaining import Retaining

if TYPE_CHECKING:
    from chalicelib.control import Control

QUIET_LOOK_MINUTES = 15


class Sweeping:
    """The sweep, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control
        self._store = control.store
        self._telemetry = control.telemetry
        self._retaining = Retaining(control)
        self._copying = Copying(control)

    def sweep(self) -> None:
        """Every minute: enforce windows and leases, and repair whatever was interrupted.

        Raises an ExceptionGroup at the end if any vault's pass failed; the others have had theirs.
        """
        now = self._control.clock.now()
        vaults = self._store.vaults()
        quiet = now.minute % QUIET_LOOK_MINUTES == 0
        failures: list[Exception] = []
        hosts = self._store.hosts() if quiet else []
        if quiet:
            self._telemetry.gauges(hosts, vaults, now)
        self._telemetry.past_window(vaults, now)
        if quiet or any(_busy(vault) for vault in vaults):
            states = self._states(vaults, now)
            for n, vault in enumerate(vaults):
                try:
                    vaults[n] = self._control.apply(vault.vault_id, Observe(state=states(vault)))
                    self._rest(vaults[n], states(vault))
                except Exception as failure:
                    self._telemetry.fault("sweep_failed", vault_id=vault.vault_id, error=repr(failure))
                    failures.append(failure)
        if quiet or any(vault.point_volumes for vault in vaults):
            self._remove_strays(now)
        failures += self._control.drilling.see_to(vaults, hosts, now)
        failures += self._retaining.see_to(hosts, now)
        failures += self._copying.see_to(hosts, now)
        if failures:
            raise ExceptionGroup("the sweep failed for some vaults or hosts", failures)

    def _rest(self, vault: Vault, state: InstanceState | None) -> None:
        """Volumes of hosts that are to rest as their snapshot go, if that has passed its drill."""
        for host, slot in vault.hosts.items() if vault.phase is Phase.ASLEEP else ():
            if slot.volume_id is None or not (slot.resting is Resting.SNAPSHOT or slot.rests_as):
                continue
            recorded = self._store.points(host)
            if not slot.rests_as and not any(point.marks.fit for point in recorded):
                continue
            try:
                newest = self._control.choosing.newest(recorded)
            except CloudRefused as refused:
                self._telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
                continue
            self._control.apply(vault.vault_id, Rest(host=host, newest=newest, state=state))

    def _remove_strays(self, now: datetime) -> None:
        """Volumes made for restores that no vault's record names: somebody died after the call, or was too slow."""
        try:
            disks = self._control.cloud.point_disks()
        except CloudRefused as refused:
            self._telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
            return
        if not disks:
            return
        # Read after EC2 was asked: what is wanted is recorded before it is made.
        records = {(v.vault_id, p.host, p.run_id): p for v in self._store.vaults() for p in v.point_volumes.values()}
        for disk in disks:
            record = records.get((disk.vault_id, disk.host, disk.run_id))
            known = record is not None and record.volume_id in (None, disk.volume_id)
            if not known and now - disk.made_at > timedelta(seconds=self._control.policy.claim_seconds):
                self._telemetry.fault("stray_volume", volume_id=disk.volume_id, vault_id=disk.vault_id, host=disk.host)
                self._control.actor.try_remove(disk)

    def _states(self, vaults: list[Vault], now: datetime) -> Callable[[Vault], InstanceState | None]:
        """The state of each vault's machine. All unknown when EC2 cannot be asked: windows are enforced anyway."""
        try:
            machines = self._control.cloud.machines()
        except Exception as failure:
            self._telemetry.fault("lookup_failed", error=repr(failure))
            return lambda _: None
        known = {vault.instance_id for vault in vaults}
        launching = {vault.vault_id for vault in vaults if vault.launch}
        for machine in machines:
            settled = now - machine.launched_at > timedelta(seconds=self._control.policy.claim_seconds)
            wanted = machine.instance_id in known or machine.vault_id in launching
            if not wanted and settled and machine.state in (InstanceState.RUNNING, InstanceState.STOPPED):
                # Nobody's machine: given up, or launched for a window that had ended. It costs money, and it
                # may hold volumes that its successor needs.
                self._telemetry.fault("stray_machine", instance_id=machine.instance_id, vault_id=machine.vault_id)
                self._control.actor.try_terminate(machine.instance_id)
        states = {machine.instance_id: machine.state for machine in machines}

        def state(vault: Vault) -> InstanceState | None:
            return states.get(vault.instance_id, InstanceState.GONE) if vault.instance_id else None

        return state


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
