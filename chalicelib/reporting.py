"""What the vault's agent says of itself, its volumes, transfers and commits. Part of lifecycle.py's `decide`."""

from datetime import timedelta
from typing import assert_never

from msgspec.structs import replace

from chalicelib import drills, lending, phases
from chalicelib.commands import Report
from chalicelib.draft import Draft
from chalicelib.effects import Attach
from chalicelib.errors import StaleVault
from chalicelib.facts import HostKeyUnexpected, VaultReady, VolumeRefused
from chalicelib.model import Agent, Kind, Mount, Outcome, Phase, Progress
from chalicelib.tending import absent


def report(draft: Draft, command: Report) -> None:
    if draft.vault.agent and draft.vault.launch and draft.vault.instance_id is None:
        # It enrolled with this launch's code: RunInstances' answer was lost, or is slower than the boot.
        phases.launched(draft, command.instance_id)
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
    if draft.vault.awake and absent(draft.vault, command.mounts):
        draft.effects.append(Attach())


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
