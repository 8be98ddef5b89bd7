"""Another region, with snapshots that were copied to it and nothing else: its own records, its own disks, its own key.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-copy-snapshot.html: only a completed snapshot is copied; tags are
not; a copy names an arbitrary volume; at most 20 are under way; one whose key can't be used fails later, and not at
once. What is said to whoever exceeds a limit or names another region's key was seen in the wild, not on AWS's page:
https://github.com/aws-samples/copy-encrypted-ami/issues/3. Its events go to its own EventBridge, where nobody listens.
"""

import threading
from typing import Any

from moto.ec2.models.elastic_block_store import Snapshot

from .clock import OffsetClock
from .faults import Faults
from .hypervisor import Hypervisor
from .interposer import REGION, Answer, Forward, Refused
from .locks import may_delete_snapshot
from .timeline import Timeline

NO_KEY = "Given key ID is not accessible"


class SlowCopy(Snapshot):
    """A copy that is on its way."""

    state_message = ""
    volume_id = "vol-ffffffff"

    @property
    def progress(self) -> str:
        return "100%" if self.status == "completed" else "42%"


class OtherRegion:
    """Handles every EC2 call that is made in `name`. `home` and `backend` are moto's, of both regions."""

    def __init__(
        self,
        name: str,
        *,
        home: Any,
        backend: Any,
        timeline: Timeline,
        clock: OffsetClock,
        faults: Faults,
        hypervisor: Hypervisor,
        seconds: float,
    ) -> None:
        self.name = name
        self.backend = backend
        self.copies_at_once = 20
        self._home = home
        self._timeline = timeline
        self._clock = clock
        self._faults = faults
        self._hypervisor = hypervisor
        self._seconds = seconds
        self._lock = threading.RLock()

    def __call__(self, operation: str, parameters: dict[str, Any], forward: Forward) -> Answer:
        with self._lock:
            match operation:
                case "CopySnapshot":
                    return self._copy(parameters, forward)
                case "DeleteSnapshot":
                    may_delete_snapshot(parameters, self.backend, self._clock.now())
                    answer = forward()
                    self._hypervisor.delete_copy(parameters["SnapshotId"], self.name)
                    return answer
                case _:
                    return forward()

    def _copy(self, parameters: dict[str, Any], forward: Forward) -> Answer:
        source_id = parameters["SourceSnapshotId"]
        if parameters["SourceRegion"] != REGION:
            raise Refused("InvalidParameterValue", f"nothing is in {parameters['SourceRegion']}")
        if source_id not in self._home.snapshots:
            raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{source_id}' does not exist.")
        if self._home.snapshots[source_id].status != "completed":
            raise Refused("IncorrectState", f"Snapshot is in invalid state - {self._home.snapshots[source_id].status}")
        if sum(each.status == "pending" for each in self.backend.snapshots.values()) >= self.copies_at_once:
            raise Refused(
                "ResourceLimitExceeded",
                f"Too many snapshot copies in progress. The limit is {self.copies_at_once} for this region.",
            )
        answer = forward()
        copy = self.backend.snapshots[answer["SnapshotId"]]
        copy.__class__ = SlowCopy
        copy.status = "pending"
        copy.start_time = self._clock.now().replace(tzinfo=None)
        copy.encrypted = bool(parameters.get("Encrypted"))
        key = parameters.get("KmsKeyId", "")
        trouble = self._faults.strike("copy", source_id) or ""
        if key and f":{self.name}:" not in key:
            trouble = NO_KEY
        self._timeline.after(self._seconds, f"copy {copy.id}", lambda: self._arrive(copy, source_id, trouble))
        return answer

    def _arrive(self, copy: SlowCopy, source_id: str, trouble: str) -> None:
        """Bytes go over now: what is gone by then can't be copied (what AWS does then is not on its page)."""
        gone = source_id not in self._home.snapshots
        if not gone and not trouble:
            self._hypervisor.copy_snapshot(source_id, copy.id, self.name)
        with self._lock:
            copy.status = "error" if gone or trouble else "completed"
            copy.state_message = trouble or ("the source is gone" if gone else "")
