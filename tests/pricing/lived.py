"""A stack on moto that has had a night, left as `make deploy` and that night leave it."""

import dataclasses
from datetime import timedelta
from typing import Any

from moto.backends import get_backend
from msgspec.structs import replace

from benchmarks.control_plane import Bench
from chalicelib import metrics
from chalicelib.operators.checks import Facts, diagnose
from chalicelib.operators.clients import Clients
from chalicelib.operators.doctor import GP3_TIB, SNAPSHOTS, VCPUS, doctor, gather
from tests.fakes.told import Told
from tests.localcloud.events import ACCOUNT
from tests.localcloud.faults import Faults
from tests.localcloud.interposer import REGION, plain_client

QUOTAS = {VCPUS[1]: 32.0, GP3_TIB[1]: 50.0, SNAPSHOTS[1]: 100_000.0}


class Quotas:
    """Service Quotas, which moto knows for other services only. `refuses`: an error that it answers with."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.limits = dict(QUOTAS)
        self.refuses: Exception | None = None

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        if self.refuses:
            raise self.refuses
        return {"Quota": {"ServiceCode": ServiceCode, "QuotaCode": QuotaCode, "Value": self.limits[QuotaCode]}}


def found(seen: Facts) -> dict[str, tuple[str, str | None]]:
    """By the check's name: level and resource of what these facts show not to be as it should be."""
    return {check.name: (check.level, check.resource) for check, _ in diagnose(seen) if not check.ok}


class Lived(Bench):
    """`eyes` is EC2 as someone with the console has it; `told` what telemetry heard."""

    def __init__(self, hosts: int = 2) -> None:
        super().__init__(hosts)
        self.told = Told()
        vars(self.wiring)["telemetry"] = self.told
        self.quotas = Quotas()
        self.sns, self.watch, self.dynamodb = (plain_client(each) for each in ("sns", "cloudwatch", "dynamodb"))
        self.backend = get_backend("ec2")[ACCOUNT][REGION]

    @property
    def clients(self) -> Clients:
        clients = Clients(self.wiring)
        vars(clients)["quotas"] = self.quotas
        return clients

    def lives(self) -> None:
        """One night; then what CloudFormation has made and moto's stack lacks."""
        self.night(minutes=0)
        settings = self.wiring.settings
        # A record is behind its call by no more than that: here by nothing, so nothing is too new to be looked at.
        policy = replace(settings.policy, claim_seconds=0)
        self.wiring.settings = dataclasses.replace(settings, policy=policy)
        self.dynamodb.update_continuous_backups(
            TableName=settings.table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        self.sns.subscribe(TopicArn=settings.topic_arn, Protocol="email", Endpoint="operator@example.org")
        self.sweep_seen(minutes_ago=10)
        # EC2 tags what a template launched by itself; moto does not.
        self.backend.create_tags([self.instance_id], {"aws:ec2launchtemplate:version": "1"})
        for disk in self.eyes.describe_volumes()["Volumes"]:
            self.backend.volumes[disk["VolumeId"]].encrypted = True  # the real template says so for the root
        for snapshot in self.backend.snapshots.values():
            snapshot.encrypted = True

    @property
    def instance_id(self) -> str:
        return str(self.vault.instance_id)

    def sweep_seen(self, *, minutes_ago: int) -> None:
        """What CloudWatch makes of the sweep's log line."""
        dimension = {"Name": metrics.STACK, "Value": self.wiring.settings.stack}
        line = {
            "MetricName": metrics.OVERDUE_HOSTS.name,
            "Dimensions": [dimension],
            "Timestamp": self.clock.now() - timedelta(minutes=minutes_ago),
            "Value": 0,
        }
        self.watch.put_metric_data(Namespace=metrics.NAMESPACE, MetricData=[line])

    def facts(self) -> Facts:
        """What doctor sees."""
        return gather(self.wiring, self.clients)

    def wrong(self, *, fix: bool = False) -> dict[str, tuple[str, str | None]]:
        """By the check's name: level and resource of what is not as it should be."""
        checks = doctor(self.wiring, fix=fix, clients=self.clients).checks
        return {check.name: (check.level, check.resource) for check in checks if not check.ok}

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": "nightvault:stack", "Value": self.wiring.settings.stack}]

    @property
    def faults(self) -> Faults:
        """What shall go wrong."""
        return self.aws.ec2._faults

    def subscriptions(self) -> Any:
        """moto's records of them, to be changed where moto is too quick."""
        return get_backend("sns")[ACCOUNT][REGION].subscriptions
