"""A host's restore points as EC2 has them now: those that are there, one by its name, the newest, the newest sound."""

from itertools import takewhile

from msgspec.structs import replace

from chalicelib import points
from chalicelib.errors import NothingToRestore, UnknownPoint
from chalicelib.model import PointState, RestorePoint
from chalicelib.ports import Cloud, Store


class Choosing:
    """What is on record, against what EC2 says."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self._store = store
        self._cloud = cloud

    def named(self, host: str, point_id: str | None) -> RestorePoint:
        """A restore point of which EC2 has the whole snapshot now. Raises UnknownPoint, NothingToRestore."""
        there = self.there(host)
        if point_id is not None:
            found = next((point for point in there if point.snapshot_id == point_id), None)
            if found is None:
                raise UnknownPoint(point_id)
            return found
        newest = points.newest(there)
        if newest is None:
            raise NothingToRestore(host)
        return newest

    def there(self, host: str) -> list[RestorePoint]:
        """Of which EC2 has the whole snapshot now, newest first. Raises CloudRefused if it cannot be asked."""
        states = self._cloud.host_snapshots(host)
        found = points.restorable(self._store.points(host), states)
        return [point for point in found if states[point.snapshot_id or ""] is PointState.COMPLETED]

    def sound(self, host: str, rests_as: str = "") -> RestorePoint | None:
        """What a host's next volume can be made of; only what counts, and no drill has found damaged.

        `rests_as` while that is there; else the newest from before the first unusual push that nobody has accepted,
        since what was pushed after it goes on from it; else the newest. Raises CloudRefused if EC2 cannot be asked.
        """
        there = self.there(host)
        sound = [point for point in there if point.marks.sound]
        rested = [point for point in sound if point.snapshot_id == rests_as]
        usual = takewhile(lambda point: not point.marks.unusual, reversed(there))
        return points.newest(rested or [p for p in usual if p.marks.sound]) or points.newest(sound)

    def newest(self, recorded: list[RestorePoint]) -> RestorePoint | None:
        """The newest of these, whatever it is, as EC2 knows it now; None if somebody deleted its snapshot.

        Raises CloudRefused.
        """
        newest = max((point for point in recorded if point.made_at), key=points.taken_at, default=None)
        if newest is None or newest.snapshot_id is None:
            return None
        state = self._cloud.snapshot_states([newest.snapshot_id]).get(newest.snapshot_id)
        return replace(newest, state=state) if state else None
