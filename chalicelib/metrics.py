"""Every metric that nightvault emits: the one place where telemetry, alarms and dashboard get their names.

CloudWatch charges for each name with each set of dimensions, by the hour in which it is sent, $0.30 for a month of
hours (https://aws.amazon.com/cloudwatch/pricing/). So no metric has a host for a dimension: at a hundred hosts that
would cost more than their backups. What belongs to one host is a value among those of all hosts (Maximum finds the
worst), in the log line beside it, and in the timeline. Only two are sent around the clock; the others cost the
hours of a night.
"""

from typing import NamedTuple

NAMESPACE = "nightvault"
STACK = "Stack"  # the dimension that every metric has: two stacks in an account stay apart


class Metric(NamedTuple):
    """`unit` is CloudWatch's word. `dimension`: one beside `Stack`, or none."""

    name: str
    unit: str
    dimension: str | None = None


RUNS = Metric("Runs", "Count", "Outcome")
BYTES_PUSHED = Metric("BytesPushed", "Bytes")
WAKING_SECONDS = Metric("WakingSeconds", "Seconds")
WAKE_FAULTS = Metric("WakeFaults", "Count")  # each attempt
WAKES_GIVEN_UP = Metric("WakesGivenUp", "Count")  # the last one: its hosts were not backed up
SECONDS_AWAKE = Metric("SecondsAwake", "Seconds")
RESTORE_POINTS = Metric("RestorePoints", "Count", "Label")
SNAPSHOT_FAILURES = Metric("SnapshotFailures", "Count")  # each attempt
POINTS_GIVEN_UP = Metric("PointsGivenUp", "Count")  # the last one: there is no restore point of that night
POINTS_DELETED = Metric("PointsDeleted", "Count")  # by retention
DELETIONS_REFUSED = Metric("DeletionsRefused", "Count")  # each attempt of retention that AWS would not have
UNUSUAL_PUSHES = Metric("UnusualPushes", "Count")  # changed or deleted far more than its host's usually do
BUDGETS_SPENT = Metric("BudgetsSpent", "Count")  # a vault has no awake time left until the next UTC day
RESTORE_READY_SECONDS = Metric("RestoreReadySeconds", "Seconds")  # from a restore's start until it can be pulled
RESTORES_FAILED = Metric("RestoresFailed", "Count")  # the vault could not give a restore its data
DRILLS_PASSED = Metric("DrillsPassed", "Count")
DRILLS_FAILED = Metric(
    "DrillsFailed", "Count"
)  # a restore point is not what its host pushed, or has no manifest any more
DRILL_OVERDUE = Metric("DrillOverdue", "Count")  # hosts without a proof for 30 days; only while there are any
UNEXPECTED_HOST_KEYS = Metric("UnexpectedHostKeys", "Count")
FAULTS = Metric("Faults", "Count")
SECONDS_PAST_WINDOW = Metric("SecondsPastWindow", "Seconds")  # only while a vault is awake past its window
VOLUME_FILL = Metric("VolumeFill", "Percent")  # of each volume, while its vault reports
VOLUMES_GROWN = Metric("VolumesGrown", "Count")
VOLUMES_AT_LIMIT = Metric("VolumesAtLimit", "Count")  # nearly full, and as large as its host's settings allow
HOURS_SINCE_LAST_BACKUP = Metric("HoursSinceLastBackup", "Count")  # of each host, all day
OVERDUE_HOSTS = Metric("OverdueHosts", "Count")  # all day, 0 too: its absence means that nobody looks

ALL = (
    RUNS,
    BYTES_PUSHED,
    WAKING_SECONDS,
    WAKE_FAULTS,
    WAKES_GIVEN_UP,
    SECONDS_AWAKE,
    RESTORE_POINTS,
    SNAPSHOT_FAILURES,
    POINTS_GIVEN_UP,
    POINTS_DELETED,
    DELETIONS_REFUSED,
    UNUSUAL_PUSHES,
    BUDGETS_SPENT,
    RESTORE_READY_SECONDS,
    RESTORES_FAILED,
    DRILLS_PASSED,
    DRILLS_FAILED,
    DRILL_OVERDUE,
    UNEXPECTED_HOST_KEYS,
    FAULTS,
    SECONDS_PAST_WINDOW,
    VOLUME_FILL,
    VOLUMES_GROWN,
    VOLUMES_AT_LIMIT,
    HOURS_SINCE_LAST_BACKUP,
    OVERDUE_HOSTS,
)
