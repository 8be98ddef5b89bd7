"""ports.Copier in memory: copies that take their time, fail, or are refused; the Lambda may die after any call."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from chalicelib.errors import CloudRefused
from chalicelib.model import PointState, RestorePoint
from chalicelib.points import taken_at
from chalicelib.ports import CopyShot
from tests.fakes.cloud import FakeCloud

LIMIT = 20


@dataclass
class FakeCopier:
    """Of the snapshots of `cloud`. `done` is called after each call that changed something."""

    cloud: FakeCloud
    region: str = "eu-west-1"
    done: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._ids = count(1)
        self.shots: dict[str, CopyShot] = {}
        self.calls: list[str] = []
        self.refuse_calls: set[int] = set()
        self.forbidden: set[str] = set()  # kinds of calls
        self.lose_answers: set[int] = set()
        self.undeletable: set[str] = set()
        self.limit = LIMIT
        self.hidden = False  # EC2 does not list yet what it has just made

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) in self.refuse_calls or name.split(maxsplit=1)[0] in self.forbidden:
            raise CloudRefused(name, "UnauthorizedOperation", "you may not")

    def _after(self) -> None:
        self.done()
        if len(self.calls) in self.lose_answers:
            raise CloudRefused(self.calls[-1], "ReadTimeoutError", "no answer")

    def copies(self) -> list[CopyShot]:
        self._call("copies")
        return [] if self.hidden else list(self.shots.values())

    def copy(self, point: RestorePoint) -> str:
        self._call(f"copy {point.snapshot_id}")
        snapshot = self.cloud.snapshots.get(str(point.snapshot_id))
        if snapshot is None or snapshot.state is not PointState.COMPLETED:
            raise CloudRefused("CopySnapshot", "InvalidSnapshot.NotFound", f"there is no {point.snapshot_id}")
        if sum(shot.state is PointState.PENDING for shot in self.shots.values()) >= self.limit:
            raise CloudRefused("CopySnapshot", "ResourceLimitExceeded", "too many snapshot copies in progress")
        copy_id = f"copy-{next(self._ids)}"
        self.shots[copy_id] = CopyShot(
            copy_id=copy_id,
            host=point.host,
            point_id=str(point.snapshot_id),
            taken_at=taken_at(point).replace(microsecond=0),  # as the tag says it
            state=PointState.PENDING,
        )
        self._after()
        return copy_id

    def delete(self, copy_id: str, host: str) -> None:
        self._call(f"delete {copy_id}")
        if copy_id in self.undeletable:
            raise CloudRefused("DeleteSnapshot", "InvalidSnapshot.InUse", f"{copy_id} is in use")
        shot = self.shots.pop(copy_id, None)
        assert shot is None or shot.host == host
        self._after()

    def settle(self, state: PointState = PointState.COMPLETED, detail: str = "") -> None:
        """Every copy that is under way arrives; one whose source is gone fails."""
        for copy_id, shot in self.shots.items():
            if shot.state is PointState.PENDING:
                there = shot.point_id in self.cloud.snapshots
                self.shots[copy_id] = replace(shot, state=state if there else PointState.ERROR, detail=detail)
