"""EBS snapshot lock, which moto does not have: modes, cooling-off, and what a lock forbids.

https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-lock-concepts.html and
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_LockSnapshot.html (and its sisters). They name no error
codes; those here are made up, and nothing of ours may go by them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .interposer import Answer, Refused

MADE_UP = "SnapshotLocked"


@dataclass(frozen=True)
class Lock:
    """Kept on moto's snapshot, as its `lock`."""

    mode: str
    created_on: datetime
    days: int
    cool_off_hours: int

    @property
    def expires_on(self) -> datetime:
        return self.created_on + timedelta(days=self.days)

    def state(self, now: datetime) -> str:
        if now >= self.expires_on:
            return "expired"
        cooling = now < self.created_on + timedelta(hours=self.cool_off_hours)
        return "compliance-cooloff" if self.mode == "compliance" and cooling else self.mode

    def answer(self, snapshot_id: str, now: datetime) -> Answer:
        return {
            "SnapshotId": snapshot_id,
            "LockState": self.state(now),
            "LockDuration": self.days,
            "LockCreatedOn": self.created_on,
            "LockDurationStartTime": self.created_on,
            "LockExpiresOn": self.expires_on,
        }


def lock_of(snapshot: Any) -> Lock | None:
    found: Lock | None = getattr(snapshot, "lock", None)
    return found


def may_delete_snapshot(parameters: dict[str, Any], backend: Any, now: datetime) -> None:
    """Nobody deletes a locked snapshot: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-snapshot-lock.html"""
    lock = lock_of(backend.snapshots.get(parameters["SnapshotId"]))
    if lock and lock.state(now) != "expired":
        raise Refused(MADE_UP, f"The snapshot {parameters['SnapshotId']} is locked")


def lock_snapshot(parameters: dict[str, Any], backend: Any, now: datetime) -> Answer:
    """A lock in compliance mode whose cooling-off is over may only be made longer."""
    snapshot = _snapshot(parameters, backend)
    if parameters["LockMode"] == "governance" and "CoolOffPeriod" in parameters:
        raise Refused("InvalidParameterCombination", "CoolOffPeriod is of compliance mode")
    if snapshot.status not in ("pending", "completed"):
        raise Refused("IncorrectState", f"The snapshot is {snapshot.status}")
    new = Lock(parameters["LockMode"], now, parameters["LockDuration"], parameters.get("CoolOffPeriod", 0))
    old = lock_of(snapshot)
    if old and old.state(now) == "compliance" and (new.mode != old.mode or new.expires_on < old.expires_on):
        raise Refused(MADE_UP, "a lock in compliance mode can only be made longer")
    snapshot.lock = new
    return new.answer(snapshot.id, now)


def unlock_snapshot(parameters: dict[str, Any], backend: Any, now: datetime) -> Answer:
    """Not in compliance mode after its cooling-off."""
    snapshot = _snapshot(parameters, backend)
    lock = lock_of(snapshot)
    if lock and lock.state(now) == "compliance":
        raise Refused(MADE_UP, "locked in compliance mode")
    snapshot.lock = None
    return {"SnapshotId": snapshot.id}


def describe_locked(parameters: dict[str, Any], backend: Any, now: datetime) -> Answer:
    wanted = {value for each in parameters.get("Filters", ()) for value in each["Values"]}
    locks = {each.id: lock for each in backend.snapshots.values() if (lock := lock_of(each))}
    answers = [lock.answer(snapshot_id, now) for snapshot_id, lock in locks.items()]
    return {"Snapshots": [each for each in answers if not wanted or each["LockState"] in wanted]}


def _snapshot(parameters: dict[str, Any], backend: Any) -> Any:
    snapshot = backend.snapshots.get(parameters["SnapshotId"])
    if snapshot is None:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{parameters['SnapshotId']}' does not exist.")
    return snapshot
