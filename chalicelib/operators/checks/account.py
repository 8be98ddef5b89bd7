"""The stack itself: who is told, whether it runs, and what the account allows."""

from collections.abc import Iterator
from datetime import timedelta

from chalicelib.operators.checks.findings import Facts, Finding

# A quarter of an hour lies between two signs of the sweep; CloudWatch shows a metric some minutes later.
SWEEP_SILENCE = timedelta(minutes=35)
SKEW_WARNING_SECONDS, SKEW_WRONG_SECONDS = 5, 60
NEARLY = 0.8  # of a quota


def alerts(facts: Facts) -> Iterator[Finding]:
    if not facts.subscriptions:
        yield Finding(
            level="warning",
            what="nobody is told when something is wrong",
            remedy="`make deploy ALERT_EMAIL=you@example.org`, then confirm the e-mail that AWS sends",
        )
    for each in facts.subscriptions:
        if not each.confirmed:
            yield Finding(
                level="warning",
                what=f"{each.endpoint} has not confirmed, so it is told nothing",
                remedy="follow the link in AWS's e-mail (look among spam); it is good for two days, then deploy again",
                resource=each.endpoint,
            )


def recovery(facts: Facts) -> Iterator[Finding]:
    if not facts.recovery:
        yield Finding(
            level="wrong",
            what="the table's point-in-time recovery is off: a lost table could not be brought back",
            remedy=f"aws dynamodb update-continuous-backups --table-name {facts.table}"
            " --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
            resource=facts.table,
        )


def sweep(facts: Facts) -> Iterator[Finding]:
    if facts.sweep_at is None or facts.now - facts.sweep_at > SWEEP_SILENCE:
        last = f"last at {facts.sweep_at:%Y-%m-%dT%H:%M:%SZ}" if facts.sweep_at else "not in the last three hours"
        yield Finding(
            level="wrong",
            what=f"the sweep gives no sign of life ({last}): nothing would end a window or repair what broke",
            remedy="look into the log group of the stack's Sweep function, and whether its EventBridge rule is enabled;"
            " in the first half hour of a stack this is ordinary",
        )


def clock(facts: Facts) -> Iterator[Finding]:
    skew = abs(facts.skew_seconds or 0)
    if skew > SKEW_WARNING_SECONDS:
        yield Finding(
            level="wrong" if skew > SKEW_WRONG_SECONDS else "warning",
            what=f"our clock and AWS's are {skew:.0f} s apart: windows and leases end at the wrong time",
            remedy="ask again; if it stays, it is Lambda's own clock, and a case for AWS support",
        )


def quotas(facts: Facts) -> Iterator[Finding]:
    for quota in facts.quotas:
        if quota.used > quota.limit * NEARLY:
            over = quota.used > quota.limit
            yield Finding(
                level="wrong" if over else "warning",
                what=f"{quota.name}: {quota.used:g} of {quota.limit:g} with every vault awake",
                remedy=f"ask for more in the Service Quotas console (quota {quota.code}), before a night needs it",
                resource=quota.code,
            )
