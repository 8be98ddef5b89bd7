"""ports.Cloud in memory: machines that take their time, snapshots that complete later, calls that fail or kill."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count

from chalicelib.errors import CloudRefused
from chalicelib.model import InstanceState, PointState, PointVolume, RestorePoint, Slot, Vault
from chalicelib.ports import Machine, PointDisk
from tests.fakes.clock import FakeClock


class Killed(BaseException):
    """The Lambda died here: after the call had its effect, before anything else."""


@dataclass(frozen=True)
class Snapshot:
    snapshot_id: str
    point: RestorePoint
    state: PointState = PointState.PENDING
    content: int = 0  # how often its volume had been written to


class FakeCloud:
    """Counts every changing call in `calls`; `refuse_calls` and `kill_after` make the n-th of them fail."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._ids = count(1)
        self._launched: dict[str, str] = {}
        self._made_volumes: dict[tuple[str, str, int, int, str], str] = {}
        self.sizes: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.written: Counter[str] = Counter()  # pushes to each volume
        self.holds: dict[str, str] = {}  # the run that was committed last on each
        self.lost: set[str] = set()  # volumes that were deleted by somebody's hand
        self.came_back: dict[str, str] = {}  # by host: what its new volume holds as committed, "" for a blank one
        self.before_delete: Callable[[str], None] = lambda _: None  # of a host's own volume
        self.locked: set[str] = set()  # by EBS itself
        self.undeletable: set[str] = set()
        self.deleted_snapshots: dict[str, Snapshot] = {}
        self.enlarging_is_too_soon: set[str] = set()
        self.point_volumes: dict[str, PointDisk] = {}  # made from restore points, by volume id
        self.of_point: dict[str, str] = {}  # the snapshot that each was made from
        # By the agent of the machine that runs: what it was ordered, and has mounted. To detach one of these sticks.
        self.ordered_points: dict[str, str] = {}
        self.mounted_points: set[str] = set()
        self.instances: dict[str, Machine] = {}
        self.attached: dict[str, str] = {}
        self.admitted: dict[str, set[str]] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.calls: list[str] = []
        self.refuse_calls: set[int] = set()
        self.kill_after: int | None = None
        self.blind = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) in self.refuse_calls:
            raise CloudRefused(name, "RequestLimitExceeded", "slow down")

    def _done(self) -> None:
        if self.kill_after is not None and len(self.calls) >= self.kill_after:
            self.kill_after = None
            raise Killed

    def set_state(self, instance_id: str, state: InstanceState) -> None:
        self.instances[instance_id] = replace(self.instances[instance_id], state=state)
        if state is not InstanceState.RUNNING:
            self.ordered_points, self.mounted_points = {}, set()

    def agent_mounts(self, instance_id: str) -> None:
        """The agent mounts, of what it was ordered, what is attached; and lets go of the rest."""
        self.mounted_points = {v for v in self.ordered_points.values() if self.attached.get(v) == instance_id}

    def settle(self) -> None:
        """Let every state that is on its way arrive."""
        for instance_id, machine in self.instances.items():
            arrived = {InstanceState.PENDING: InstanceState.RUNNING, InstanceState.STOPPING: InstanceState.STOPPED}
            self.set_state(instance_id, arrived.get(machine.state, machine.state))
        for snapshot_id, snapshot in self.snapshots.items():
            if snapshot.state is PointState.PENDING:
                self.snapshots[snapshot_id] = replace(snapshot, state=PointState.COMPLETED)

    def fail_snapshot(self, snapshot_id: str) -> None:
        self.snapshots[snapshot_id] = replace(self.snapshots[snapshot_id], state=PointState.ERROR)

    def machines(self) -> list[Machine]:
        if self.blind:
            raise CloudRefused("DescribeInstances", "RequestLimitExceeded", "slow down")
        return [m for m in self.instances.values() if m.state is not InstanceState.TERMINATED]

    def find_launched(self, client_token: str) -> str | None:
        return self._launched.get(client_token)

    def make_group(self, vault_id: str) -> str:
        self._call("make_group")
        group = f"sg-{vault_id}"
        self.admitted.setdefault(group, set())
        return group

    def launch(self, vault: Vault) -> str:
        self._call("launch")
        assert vault.launch
        token = vault.launch.client_token
        if token not in self._launched:
            instance_id = f"i-{next(self._ids)}"
            self._launched[token] = instance_id
            self.instances[instance_id] = Machine(
                instance_id=instance_id,
                vault_id=vault.vault_id,
                state=InstanceState.PENDING,
                launched_at=self._clock.now(),
            )
        self._done()
        return self._launched[token]

    def start(self, instance_id: str) -> None:
        self._call("start")
        if self.instances[instance_id].state not in (
            InstanceState.STOPPED,
            InstanceState.RUNNING,
            InstanceState.PENDING,
        ):
            raise CloudRefused("StartInstances", "IncorrectInstanceState", "not stopped")
        if self.instances[instance_id].state is InstanceState.STOPPED:
            self.instances[instance_id] = replace(
                self.instances[instance_id], state=InstanceState.PENDING, launched_at=self._clock.now()
            )
        self._done()

    def stop(self, instance_id: str, *, force: bool) -> None:
        self._call("force-stop" if force else "stop")
        if self.instances[instance_id].state in (InstanceState.RUNNING, InstanceState.PENDING):
            self.set_state(instance_id, InstanceState.STOPPING)
        self._done()

    def terminate(self, instance_id: str) -> None:
        self._call("terminate")
        self.set_state(instance_id, InstanceState.TERMINATED)
        self.attached = {volume: holder for volume, holder in self.attached.items() if holder != instance_id}
        self._done()

    def make_volume(self, vault_id: str, host: str, slot: Slot) -> str:
        self._call("make_volume")
        assert slot.size_gib > 0
        key = (vault_id, host, slot.uid, slot.remade, slot.rests_as)
        if key not in self._made_volumes:
            number = sum(made[1] == host for made in self._made_volumes)
            volume_id = f"vol-{host}-{number}" if number else f"vol-{host}"
            if slot.rests_as:
                self._made_from(volume_id, slot.rests_as, slot.size_gib)
            if slot.remade:
                self.came_back[host] = self.holds.get(volume_id, "")
            self._made_volumes[key] = volume_id
            self.sizes[volume_id] = slot.size_gib
        volume_id = self._made_volumes[key]
        self._done()
        return volume_id

    def _made_from(self, volume_id: str, snapshot_id: str, size_gib: int) -> None:
        snapshot = self.snapshots.get(snapshot_id)
        if snapshot is None or snapshot.state is not PointState.COMPLETED:
            raise CloudRefused("CreateVolume", "InvalidSnapshot.NotFound", f"there is no {snapshot_id}")
        assert size_gib >= (snapshot.point.volume_gib or 0)
        self.of_point[volume_id] = snapshot_id
        self.written[volume_id] = snapshot.content
        self.holds[volume_id] = snapshot.point.run_id

    def missing_volumes(self, volume_ids: Iterable[str]) -> frozenset[str]:
        if self.blind:
            raise CloudRefused("DescribeVolumes", "RequestLimitExceeded", "slow down")
        return frozenset(volume_ids) & self.deleted

    def enlarge(self, volume_id: str, size_gib: int) -> int | None:
        self._call(f"enlarge {volume_id}")
        if volume_id in self.enlarging_is_too_soon:
            return None
        self.sizes[volume_id] = max(size_gib, self.sizes[volume_id])
        self._done()
        return self.sizes[volume_id]

    def detach(self, volume_id: str) -> bool:
        """As on EC2 it takes its time: the call begins it, and the next one finds it done."""
        if volume_id not in self.attached:
            return True
        self._call(f"detach {volume_id}")
        up = self.instances[self.attached[volume_id]].state in (InstanceState.RUNNING, InstanceState.PENDING)
        may_be_mounted = volume_id in self.mounted_points or volume_id not in self.point_volumes
        assert not (up and may_be_mounted), "its filesystem may be mounted"
        del self.attached[volume_id]
        self._done()
        return False

    def delete_volume(self, volume_id: str) -> bool:
        if volume_id in self.attached:
            return False
        self._call(f"delete_volume {volume_id}")
        if self.point_volumes.pop(volume_id, None):
            self.deleted.add(volume_id)
            self._done()
            return True
        if volume_id in self.deleted:
            return True
        whole = [s for s in self.snapshots.values() if s.point.complete and s.state is PointState.COMPLETED]
        of_it = [s for s in whole if s.point.volume_id == volume_id or s.snapshot_id == self.of_point.get(volume_id)]
        held = max((s.content for s in of_it), default=0)
        assert held == self.written[volume_id], "it held what no completed snapshot of a complete run does"
        self.before_delete(volume_id)
        self.deleted.add(volume_id)
        self._done()
        return True

    def attach(self, instance_id: str, slots: dict[str, Slot]) -> tuple[str, ...]:
        self._call("attach")
        ready = self.instances[instance_id].state in (InstanceState.RUNNING, InstanceState.STOPPED)
        attached = []
        for host, slot in slots.items():
            if slot.volume_id is None or slot.volume_id in self.deleted or not ready:
                continue
            if self.attached.setdefault(slot.volume_id, instance_id) == instance_id:
                attached.append(host)
        self._done()
        return tuple(attached)

    def point_disks(self) -> list[PointDisk]:
        if self.blind:
            raise CloudRefused("DescribeVolumes", "RequestLimitExceeded", "slow down")
        return list(self.point_volumes.values())

    def make_point_volume(self, vault_id: str, volume: PointVolume) -> str:
        self._call(f"make_point_volume {volume.host} {volume.point_id}")
        snapshot = self.snapshots.get(volume.point_id)
        if snapshot is None or snapshot.state is not PointState.COMPLETED:
            raise CloudRefused("CreateVolume", "InvalidSnapshot.NotFound", f"there is no {volume.point_id}")
        volume_id = f"vol-{volume.host}-{volume.run_id}"
        if volume_id not in self.point_volumes and volume_id not in self.deleted:
            self.of_point[volume_id] = volume.point_id
            self.point_volumes[volume_id] = PointDisk(
                volume_id=volume_id,
                vault_id=vault_id,
                host=volume.host,
                run_id=volume.run_id,
                made_at=self._clock.now(),
            )
        self._done()
        return volume_id

    def attach_point_volume(self, instance_id: str, volume: PointVolume) -> bool:
        self._call("attach_point_volume")
        assert volume.volume_id
        up = self.instances[instance_id].state in (InstanceState.RUNNING, InstanceState.STOPPED)
        if volume.volume_id not in self.point_volumes or not up:
            return False
        holder = self.attached.setdefault(volume.volume_id, instance_id)
        self._done()
        return holder == instance_id

    def ingress(self, group_id: str) -> frozenset[str]:
        return frozenset(self.admitted[group_id])

    def admit(self, group_id: str, address: str) -> None:
        self._call("admit")
        self.admitted[group_id].add(address)
        self._done()

    def revoke(self, group_id: str, address: str) -> None:
        self._call("revoke")
        self.admitted[group_id].discard(address)
        self._done()

    def find_snapshots(self, window_id: str) -> dict[str, str]:
        return {
            snapshot.point.host: snapshot_id
            for snapshot_id, snapshot in self.snapshots.items()
            if snapshot.point.window_id == window_id and snapshot.state is not PointState.ERROR
        }

    def snapshot(self, point: RestorePoint) -> str:
        self._call(f"snapshot {point.host} {point.window_id}")
        snapshot_id = f"snap-{next(self._ids)}"
        if point.volume_id in self.lost:
            raise CloudRefused("CreateSnapshot", "InvalidVolume.NotFound", f"there is no {point.volume_id}")
        assert point.volume_id not in self.deleted
        self.snapshots[snapshot_id] = Snapshot(snapshot_id, point, content=self.written[point.volume_id])
        self._done()
        return snapshot_id

    def delete_snapshot(self, snapshot_id: str, host: str) -> None:
        self._call(f"delete_snapshot {snapshot_id}")
        if snapshot_id in self.undeletable:
            raise CloudRefused("DeleteSnapshot", "InvalidSnapshot.InUse", f"{snapshot_id} is in use")
        snapshot = self.snapshots.get(snapshot_id)
        assert snapshot is None or snapshot.point.host == host
        assert snapshot_id not in self.locked
        if snapshot:
            self.deleted_snapshots[snapshot_id] = self.snapshots.pop(snapshot_id)
        self._done()

    def locked_snapshots(self) -> frozenset[str]:
        return frozenset(self.locked)

    def snapshot_states(self, snapshot_ids: Iterable[str]) -> dict[str, PointState]:
        return {i: self.snapshots[i].state for i in snapshot_ids if i in self.snapshots}

    def host_snapshots(self, host: str) -> dict[str, PointState]:
        if self.blind:
            raise CloudRefused("DescribeSnapshots", "RequestLimitExceeded", "slow down")
        return {i: snapshot.state for i, snapshot in self.snapshots.items() if snapshot.point.host == host}

    def lose_snapshot(self, snapshot_id: str) -> None:
        """By somebody's hand."""
        del self.snapshots[snapshot_id]

    def lose_volume(self, volume_id: str) -> None:
        """By somebody's hand, in EC2's console."""
        self.lost.add(volume_id)
        self.deleted.add(volume_id)
        self.attached.pop(volume_id, None)
