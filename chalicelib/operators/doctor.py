"""The action `doctor`: looks at the stack, says what is not as it should be, and mends what is safe to mend.

It never deletes a volume or a snapshot. A part that cannot be looked at (a right that is missing, a call that
fails) is a finding, and the other checks go on.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct
from msgspec.structs import replace

from chalicelib import metrics
from chalicelib.calling import calling
from chalicelib.model import Host, Vault
from chalicelib.operators.checks import (
    Check,
    Facts,
    Mend,
    Quota,
    StrayIngress,
    StrayMachine,
    Subscription,
    diagnose,
    live_addresses,
)
from chalicelib.operators.clients import Clients
from chalicelib.operators.estate import Estate, look
from chalicelib.wiring import Wiring

SIGN_OF_SWEEP = timedelta(hours=3)
UNLAUNCHED_VCPUS = 2  # of every t4g up to large; a vault that was never awake has no machine to ask
STANDARD_FAMILIES = "acdhimrtz"
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html, and
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-resource-quotas.html
VCPUS = ("ec2", "L-1216C47A", "vCPUs of running on-demand standard instances")
GP3_TIB = ("ebs", "L-7A658B76", "TiB of gp3 volumes")
SNAPSHOTS = ("ebs", "L-309BACF6", "snapshots")

Found = TypeVar("Found")


class Answer(Struct, frozen=True, kw_only=True):
    """What `doctor` answers."""

    checks: list[Check]


def doctor(wired: Wiring, *, fix: bool = False, clients: Clients | None = None) -> Answer:
    """Every check. Raises CloudRefused only if EC2 cannot be asked at all."""
    clients = clients or Clients(wired)
    checks = []
    for check, mend in diagnose(gather(wired, clients)):
        fixed = bool(fix and mend and _mend(wired, clients, mend))
        checks.append(replace(check, fixed=fixed))
    return Answer(checks=checks)


# --- looking ----------------------------------------------------------------------------------------------


class _Look:
    """Asks part by part; what fails leaves a gap with its name."""

    def __init__(self) -> None:
        self.gaps: dict[str, str] = {}

    def part(self, name: str, ask: Callable[[], Found], otherwise: Found) -> Found:
        try:
            return ask()
        except (ClientError, BotoCoreError) as refused:
            self.gaps[name] = str(refused)
            return otherwise


def gather(wired: Wiring, clients: Clients) -> Facts:
    """Look at everything that a check needs. Raises CloudRefused if EC2 does not answer."""
    settings, now = wired.settings, wired.clock.now()
    vaults = tuple(wired.store.vaults())
    with calling("DescribeInstances"):
        estate = look(clients.ec2, settings.stack)
    hosts = wired.store.hosts()
    names = {host.name for host in hosts} | {shot.host for shot in estate.shots if shot.host}
    looking = _Look()
    ask = looking.part
    return Facts(
        now=now,
        stack=settings.stack,
        table=settings.table,
        policy=settings.policy,
        vaults=vaults,
        points=tuple(point for name in sorted(names) for point in wired.store.points(name)),
        estate=estate,
        hosts=tuple(hosts),
        copy_region=settings.copy_region,
        left_over=ask("copies", lambda: _left_over(clients, hosts, settings.copy_region), frozenset()),
        quotas=ask("quotas", lambda: _quotas(clients, vaults, estate), ()),
        subscriptions=ask("alerts", lambda: _subscriptions(clients.sns, settings.topic_arn), ()),
        recovery=ask("recovery", lambda: _recovery(clients.dynamodb, settings.table), True),
        sweep_at=ask("sweep", lambda: _sweep_at(clients.watch, settings.stack, now), None),
        skew_seconds=ask("clock", lambda: _skew(wired, clients), None),
        newest_template=ask("templates", lambda: _newest(clients.ec2, settings.launch_template), None),
        public=ask("public", lambda: _public(clients.ec2, settings.stack), ()),
        gaps=looking.gaps,
    )


def _quotas(clients: Clients, vaults: tuple[Vault, ...], estate: Estate) -> tuple[Quota, ...]:
    ec2 = clients.ec2
    mine = {machine.instance_id for machine in estate.machines}
    ours = theirs = 0
    for page in ec2.get_paginator("describe_instances").paginate():
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["InstanceId"] in mine:
                    ours += _vcpus(instance)
                elif instance["State"]["Name"] in ("pending", "running") and _standard(instance):
                    theirs += _vcpus(instance)
    asleep = sum(vault.instance_id not in mine for vault in vaults)
    gp3 = [{"Name": "volume-type", "Values": ["gp3"]}]
    volumes = [v for page in ec2.get_paginator("describe_volumes").paginate(Filters=gp3) for v in page["Volumes"]]
    pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"])
    used = {
        VCPUS: ours + theirs + asleep * UNLAUNCHED_VCPUS,
        GP3_TIB: round(sum(volume["Size"] for volume in volumes) / 1024, 2),
        SNAPSHOTS: sum(len(page["Snapshots"]) for page in pages),
    }
    found = []
    for (service, code, name), amount in used.items():
        limit = clients.quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
        found.append(Quota(name=name, code=code, used=amount, limit=limit))
    return tuple(found)


def _vcpus(instance: dict[str, Any]) -> int:
    options = instance.get("CpuOptions", {})
    return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 2))


def _standard(instance: dict[str, Any]) -> bool:
    """On demand, and of a family that this quota counts."""
    return instance.get("InstanceLifecycle") != "spot" and instance["InstanceType"][0] in STANDARD_FAMILIES


def _subscriptions(sns: Any, topic_arn: str) -> tuple[Subscription, ...]:
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic_arn)
    # https://docs.aws.amazon.com/sns/latest/api/API_Subscription.html: until confirmed, this stands for the ARN
    return tuple(
        Subscription(endpoint=each["Endpoint"], confirmed=each["SubscriptionArn"].startswith("arn:"))
        for page in pages
        for each in page["Subscriptions"]
    )


def _recovery(dynamodb: Any, table: str) -> bool:
    found = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    return bool(found.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED")


def _sweep_at(watch: Any, stack: str, now: datetime) -> datetime | None:
    """When the sweep last said how many hosts are overdue, which it does every quarter of an hour."""
    found = watch.get_metric_statistics(
        Namespace=metrics.NAMESPACE,
        MetricName=metrics.OVERDUE_HOSTS.name,
        Dimensions=[{"Name": metrics.STACK, "Value": stack}],
        StartTime=now - SIGN_OF_SWEEP,
        EndTime=now,
        Period=300,
        Statistics=["SampleCount"],
    )["Datapoints"]
    stamps: list[datetime] = [point["Timestamp"] for point in found]
    return max(stamps, default=None)


def _skew(wired: Wiring, clients: Clients) -> float | None:
    """Seconds by which our clock is ahead of the Date of DynamoDB's answer; None if it has none."""
    answer = clients.dynamodb.get_item(TableName=wired.settings.table, Key={"pk": {"S": "-"}, "sk": {"S": "-"}})
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return (wired.clock.now() - parsedate_to_datetime(date)).total_seconds() if date else None


def _left_over(clients: Clients, hosts: list[Host], copy_region: str) -> frozenset[str]:
    """Copies that are still there, in regions to which the stack copies no more."""
    there: dict[str, list[str]] = {}
    for copy in (copy for host in hosts for copy in host.copies if copy.region != copy_region and copy.copy_id):
        there.setdefault(copy.region, []).append(copy.copy_id)
    found = set()
    for region, copy_ids in there.items():
        only: Any = [{"Name": "snapshot-id", "Values": copy_ids}]
        pages = clients.ec2_in(region).get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=only)
        found |= {snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"]}
    return frozenset(found)


def _newest(ec2: Any, template: str) -> int | None:
    """The newest version of the launch template, by its name or id."""
    named = {"LaunchTemplateIds" if template.startswith("lt-") else "LaunchTemplateNames": [template]}
    found = ec2.describe_launch_templates(**named)["LaunchTemplates"]
    return int(found[0]["LatestVersionNumber"]) if found else None


def _public(ec2: Any, stack: str) -> tuple[str, ...]:
    """Snapshots of ours that any account may make a volume of.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSnapshots.html: RestorableBy `all`. Each is
    looked at once more by itself, so that nothing is called public on one answer.
    """
    mine = [{"Name": "tag:nightvault:stack", "Values": [stack]}]
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], RestorableByUserIds=["all"], Filters=mine
    )
    candidates = [snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"]]
    return tuple(each for each in candidates if _for_all(ec2, each))


def _for_all(ec2: Any, snapshot_id: str) -> bool:
    found = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    return any(permission.get("Group") == "all" for permission in found["CreateVolumePermissions"])


# --- mending ----------------------------------------------------------------------------------------------


def _mend(wired: Wiring, clients: Clients, mend: Mend) -> bool:
    """Whether it is mended now. What is refused stays a finding, and is told as a fault."""
    try:
        match mend:
            case StrayMachine(instance_id=instance_id):
                clients.ec2.terminate_instances(InstanceIds=[instance_id])
            case StrayIngress() as stray:
                return _close(wired, clients, stray)
    except (ClientError, BotoCoreError) as refused:
        wired.telemetry.fault("mend_refused", mend=type(mend).__name__, error=str(refused))
        return False
    wired.telemetry.event("mended", mend=type(mend).__name__, resource=mend.instance_id)
    return True


def _close(wired: Wiring, clients: Clients, stray: StrayIngress) -> bool:
    """Revoke one rule, unless a run has begun since that needs it."""
    vault = wired.store.vault(stray.vault_id) if stray.vault_id else None
    if stray.address in live_addresses(vault):
        return True
    clients.ec2.revoke_security_group_ingress(GroupId=stray.group_id, IpPermissions=[stray.permission])
    wired.telemetry.event("mended", mend="StrayIngress", resource=stray.group_id, address=stray.address)
    return True
