"""How a restore point comes to count: its push is judged before its snapshot is made; completed, it is settled."""

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from chalicelib import points, unusual
from chalicelib.amendment import Amendment
from chalicelib.commands import PointSettled, PushJudged
from chalicelib.model import LastBackup, PointState, RestorePoint, Vault

if TYPE_CHECKING:
    from chalicelib.control import Control


class Counting:
    """Restore points of all hosts, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control
        self._store = control.store
        self._telemetry = control.telemetry

    def judged(self, vault: Vault, point: RestorePoint) -> RestorePoint:
        """A restore point that is about to be made, marked if its push was unusual; then its host's history is held.

        A failure in here is told, and costs the mark; never the restore point.
        """
        if point.marks.unusual or not (point.change or point.uncounted):
            return point
        try:
            known = [*self._store.points(point.host), *self._store.buried(point.host), *vault.pending_points.values()]
            others = (each for each in known if each.host == point.host and each.run_id != point.run_id)
            earlier = sorted(others, key=points.taken_at, reverse=True)
            why = unusual.why(None if point.uncounted else point.change, earlier)
            if why:
                host = self._store.host(point.host)
                held = host is None or host.kept_since is not None
                there = [each for each in earlier if not each.marks.deleted_at]
                self._control.apply(
                    point.vault_id,
                    PushJudged(host=point.host, run_id=point.run_id, why=why, before=points.newest(there)),
                    None if held else Amendment(point.host, kept_since=self._control.clock.now()),
                )
        except Exception as failure:
            self._telemetry.fault("push_not_judged", host=point.host, run_id=point.run_id, error=repr(failure))
            return point
        return replace(point, marks=replace(point.marks, unusual=why))

    def check(self, vault: Vault, snapshot_ids: tuple[str, ...]) -> None:
        """Settle restore points whose snapshot has completed or failed."""
        states = self._control.cloud.snapshot_states(snapshot_ids)
        for snapshot_id in snapshot_ids:
            state = states.get(snapshot_id) or self._unknown(vault.pending_points.get(snapshot_id))
            if state is not PointState.PENDING:
                self._settle(vault, snapshot_id, state)

    def _unknown(self, point: RestorePoint | None) -> PointState:
        """A snapshot that EC2 does not know was deleted, as good as failed; or it is too new to be listed."""
        soon = timedelta(seconds=self._control.policy.claim_seconds)
        new = point and point.made_at and self._control.clock.now() - point.made_at < soon
        return PointState.PENDING if new else PointState.ERROR

    def _settle(self, vault: Vault, snapshot_id: str, state: PointState) -> None:
        point = vault.pending_points.get(snapshot_id)
        if point is None or point.snapshot_id is None:
            return
        now = self._control.clock.now()
        # The host's record first: once the vault forgets the pending point, nothing would repair it.
        self._store.put_point(replace(point, state=state))
        if state is PointState.COMPLETED and point.complete:
            last = LastBackup(
                run_id=point.run_id,
                window_id=point.window_id,
                snapshot_id=point.snapshot_id,
                started_at=point.run_started_at,
                completed_at=now,
            )
            self._store.move_last_backup(point.host, last)
        self._control.apply(vault.vault_id, PointSettled(snapshot_id=snapshot_id, state=state))
