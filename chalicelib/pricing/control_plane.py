"""What the control plane itself uses, estimated from what asks it something. Pure.

None of it is counted by AWS for us: reading CloudWatch's counts would cost more than most of what they count.
benchmarks/control_plane.py counts the calls of a night; the seconds of a call are guesses, on the long side.
"""

from msgspec import Struct

# What the template makes, whatever the number of hosts; tests/pricing/test_pages.py holds these to it. An alarm is
# charged for each metric that it watches: https://aws.amazon.com/cloudwatch/pricing/ (metric math)
ALARM_METRICS = 26
DASHBOARDS = 1
KEYS = 1

MEMORY_GB = 0.5
SWEEP_SECONDS = 0.15
REQUEST_SECONDS = 0.10
EVENT_SECONDS = 1.0
REPORT_SECONDS = 5  # model.Policy.report_seconds
POLL_SECONDS = 5
WAKING_SECONDS = 90  # so long a host polls until the vault is awake
VAULT_KIB = 4  # a vault with 24 runs, deflated
LOG_BYTES = 700  # a line of ours, and Lambda's own three, a request
HOURS = 730
# A metric is charged for the hours in which it is sent (https://aws.amazon.com/cloudwatch/pricing/). Around the clock:
# OverdueHosts and HoursSinceLastBackup, for all hosts together (chalicelib/metrics.py). In the hours of a night: runs
# of one outcome, bytes, seconds waking and awake, restore points, how full volumes are.
ALWAYS_SENT = 2
SENT_IN_A_NIGHT = 6


class Traffic(Struct, frozen=True, kw_only=True):
    """What there was in a stretch of `seconds`. `month_share`: how much of a month that is."""

    seconds: float
    month_share: float
    vaults: int
    hosts: int
    awake_seconds: float = 0.0  # of all vaults
    windows: int = 0
    runs: int = 0
    points: int = 0


def counts(traffic: Traffic) -> dict[str, float]:
    """Amounts by the name of their price, for the whole stretch. Never negative; none shrinks when traffic grows."""
    sweeps = traffic.seconds / 60
    calls = traffic.awake_seconds / REPORT_SECONDS + traffic.runs * (WAKING_SECONDS / POLL_SECONDS + 2)
    authorizations = calls * min(1.0, REPORT_SECONDS / 60) + traffic.runs  # an answer is kept for a minute
    events = 3 * traffic.windows + traffic.runs
    requests = sweeps + calls + authorizations + events
    seconds = sweeps * SWEEP_SECONDS + (calls + authorizations) * REQUEST_SECONDS + events * EVENT_SECONDS
    kib = traffic.vaults * VAULT_KIB + traffic.points + traffic.hosts
    metric_hours = traffic.seconds / 3600 * ALWAYS_SENT + SENT_IN_A_NIGHT * traffic.windows
    return {
        "lambda_request": requests,
        "lambda_gb_second": seconds * MEMORY_GB,
        "api_request": calls,
        "table_read": sweeps * traffic.vaults + 3 * calls + authorizations + 4 * events,
        "table_write": VAULT_KIB * (calls + 6 * traffic.windows) + 2 * events,
        "table_storage": kib / 1e6 * traffic.month_share,
        "table_recovery": kib / 1e6 * traffic.month_share,
        "metric": metric_hours / HOURS,
        "alarm": ALARM_METRICS * traffic.month_share,
        "dashboard": DASHBOARDS * traffic.month_share,
        "log_ingest": requests * LOG_BYTES / 1e9,
        "log_storage": requests * LOG_BYTES / 1e9,
        "key": KEYS * traffic.month_share,
        "key_request": 4 * traffic.windows + 2.0 * traffic.runs,
        "mail": 0.0,
    }
