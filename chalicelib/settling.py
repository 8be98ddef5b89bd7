"""What comes of a window's restore points: their pushes judged, their snapshots made, completed or failed.

Part of lifecycle.py's `decide`.
"""

from msgspec.structs import replace

from chalicelib import phases
from chalicelib.commands import PushJudged
from chalicelib.draft import Draft
from chalicelib.effects import MakePoints
from chalicelib.facts import PointCounted, PointFailed, PushUnusual
from chalicelib.model import Phase, PointState, Resting


def judged(draft: Draft, command: PushJudged) -> None:
    """Before its snapshot is made, so that this can carry the tag; told once, however often that is tried."""
    window, owed = draft.vault.window, draft.vault.owed_points
    place = window.points if window and command.host in window.points else owed
    point = place.get(command.host)
    if point is None or point.run_id != command.run_id or point.marks.unusual:
        return
    point = replace(point, marks=replace(point.marks, unusual=command.why))
    if place is owed:
        draft.change(owed_points={**owed, command.host: point})
    else:
        draft.change_window(points={**place, command.host: point})
    draft.want_drill(command.host, "its push was unusual")
    draft.facts.append(PushUnusual(point=point, before=command.before))
    draft.reasons.append(f"the push of {command.host} is unusual: {command.why}")


def made(draft: Draft, snapshots: dict[str, str]) -> None:
    window = draft.vault.window
    points = dict(window.points) if window else {}
    owed = dict(draft.vault.owed_points)
    pending = dict(draft.vault.pending_points)
    for host, snapshot_id in snapshots.items():
        place = points if host in points else owed
        if host not in place or place[host].snapshot_id is not None:
            continue
        made = replace(place[host], snapshot_id=snapshot_id, made_at=draft.now)
        pending[snapshot_id] = made
        if place is points:
            points[host] = made
        else:
            del owed[host]
    draft.change(pending_points=pending, owed_points=owed)
    if window and draft.vault.phase is Phase.SEALING:
        draft.change_window(points=points)
        phases.seal(draft)


def settled(draft: Draft, snapshot_id: str, state: PointState) -> None:
    point = draft.vault.pending_points.get(snapshot_id)
    if point is None or state is PointState.PENDING:
        return
    pending = {i: p for i, p in draft.vault.pending_points.items() if i != snapshot_id}
    draft.change(pending_points=pending)
    if state is PointState.COMPLETED:
        draft.facts.append(PointCounted(point=replace(point, state=state)))
        draft.reasons.append(f"restore point {snapshot_id} of {point.host} counts")
        slot = draft.vault.hosts.get(point.host)
        if slot and point.complete and slot.resting is Resting.SNAPSHOT:
            draft.want_drill(point.host, "it is to rest as its snapshot")
        return
    at_rest = draft.vault.phase is Phase.ASLEEP
    final = not at_rest or point.attempt >= draft.policy.max_point_attempts
    draft.facts.append(PointFailed(point=replace(point, state=state), final=final))
    draft.reasons.append(f"snapshot {snapshot_id} of {point.host} failed")
    if not final:
        again = replace(point, snapshot_id=None, made_at=None, attempt=point.attempt + 1)
        draft.change(owed_points={**draft.vault.owed_points, point.host: again})
        draft.claim()
        draft.effects.append(MakePoints(points=(again,)))
