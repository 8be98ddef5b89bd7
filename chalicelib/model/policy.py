"""The settings that a vault's life obeys."""

from msgspec import Struct

from chalicelib.model.points import Retention


class Policy(Struct, frozen=True, kw_only=True):
    """What a vault's life obeys: durations in seconds, and how many restore points are kept."""

    window_seconds: int = 12960  # 3.6 h of awake time a UTC day
    restore_seconds: int = 43200  # restores have a budget of their own: 12 h a day
    drill_seconds: int = 21600  # and drills: 6 h a day
    minimum_window_seconds: int = 300  # waking for less than this serves nobody
    linger_seconds: int = 300  # how long to stay up for a host whose usual time is near
    lease_seconds: int = 900  # a run that the vault does not see alive for this long is abandoned
    wake_timeout_seconds: int = 420  # from the wake to the agent's first `ready`
    max_wake_attempts: int = 3
    retry_seconds: int = 60  # pause after a failed wake, doubled each time
    claim_seconds: int = 90  # longer than any Lambda of ours may run, so that no effect has two actors
    report_seconds: int = 5
    power_off_grace_seconds: int = 600  # after the window's end the machine stops itself
    max_point_attempts: int = 3
    # Between two enlargements of a volume. AWS allows four in 24 hours, each after the one before has completed, and
    # where that is not yet so, one in six: https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html
    growth_pause_seconds: int = 21600
    keep_daily: int = 14
    keep_weekly: int = 8
    keep_monthly: int = 24
    copies_kept: int = 2  # complete ones of each host, in the region that copies go to; the newest always

    @property
    def retention(self) -> Retention:
        """Of hosts that have none of their own."""
        return Retention(daily=self.keep_daily, weekly=self.keep_weekly, monthly=self.keep_monthly)
