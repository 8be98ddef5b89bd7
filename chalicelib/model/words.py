"""Enums: what a vault, run, instance, snapshot, drill or resting host is, of a few, as stored items spell it."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a vault is in its life."""

    ASLEEP = "asleep"
    WAKING = "waking"
    OPEN = "open"
    CLOSING = "closing"
    SEALING = "sealing"
    FAULTED = "faulted"


class Kind(StrEnum):
    """What a run is for. Each kind has its own daily budget of awake time."""

    BACKUP = "backup"
    RESTORE = "restore"
    DRILL = "drill"  # the control plane's own: a restore point is checked byte by byte on its vault


class Source(StrEnum):
    """Where a restore's data come from: the host's own volume as it is, or one made from the restore point."""

    LIVE = "live"
    POINT = "point"


class Outcome(StrEnum):
    """How a run ended. `CUT`: the window ended first. `ABANDONED`: its lease ended, or a newer run took over."""

    COMPLETE = "complete"
    FAILED = "failed"
    CUT = "cut"
    ABANDONED = "abandoned"


class InstanceState(StrEnum):
    """EC2's own words, and `GONE` for an instance that EC2 no longer knows."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    GONE = "gone"


class PointState(StrEnum):
    """How far a restore point's snapshot is; EC2's own words."""

    PENDING = "pending"
    COMPLETED = "completed"
    ERROR = "error"


class DrillState(StrEnum):
    """What a vault says of the restore point that it checks. `UNPROVEN`: it carries no manifest to check against.

    `ERROR`: it could not be checked; also what is recorded of a drill that ended without an answer.
    """

    CHECKING = "checking"
    PASSED = "passed"
    FAILED = "failed"
    UNPROVEN = "unproven"
    ERROR = "error"


class Resting(StrEnum):
    """What a host's data are between its backups: a volume that stays, or the snapshot of it alone."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
