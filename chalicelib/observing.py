"""What EC2 says of a vault's machine, and what is repaired for it: whatever an interrupted command left undone.

Part of lifecycle.py's `decide`. docs/structure.md says phase by phase what it sees to.
"""

from typing import assert_never

from chalicelib import phases, volumes
from chalicelib.draft import Draft
from chalicelib.effects import CheckPoints, FindVolumes, MakePoints, SetIngress, Stop
from chalicelib.model import InstanceState, Phase
from chalicelib.tending import absent, enlarge, see_to_volumes

AT_REST = (InstanceState.STOPPED, InstanceState.TERMINATED, InstanceState.GONE)
LOST = (InstanceState.TERMINATED, InstanceState.SHUTTING_DOWN, InstanceState.GONE)


def observe(draft: Draft, state: InstanceState | None) -> None:
    vault = draft.vault
    match vault.phase:
        case Phase.ASLEEP:
            _asleep(draft, state)
        case Phase.WAKING:
            _waking(draft, state)
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
                if vault.agent and absent(vault, vault.agent.mounts):
                    draft.effects.append(FindVolumes())
        case Phase.CLOSING:
            _closing(draft, state)
        case Phase.SEALING:
            if not draft.claimed:
                phases.seal_again(draft)
        case phase:
            assert_never(phase)
    see_to_volumes(draft, running=state is InstanceState.RUNNING)


def _asleep(draft: Draft, state: InstanceState | None) -> None:
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


def _waking(draft: Draft, state: InstanceState | None) -> None:
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


def _closing(draft: Draft, state: InstanceState | None) -> None:
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
