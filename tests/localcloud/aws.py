"""The AWS account on this machine: moto's DynamoDB, EC2 and SNS behind our session, with what the stack makes."""

import functools
import json
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from moto import mock_aws
from moto.backends import get_backend
from moto.ec2.utils import filter_dict_attribute_mapping

from deploy import parts

from .calls import Ledger
from .clock import OffsetClock
from .events import ACCOUNT, EventBus
from .faults import Faults
from .hypervisor import Hypervisor
from .interposer import REGION, Interposer, plain_client
from .paths import REPOSITORY
from .regions import OtherRegion
from .states import Delays, SlowEc2
from .timeline import Timeline

_RESOURCES = REPOSITORY / ".chalice" / "resources.json"


@dataclass(frozen=True)
class Stack:
    """The names of what CloudFormation would have made."""

    table: str
    launch_template: str
    subnet: str
    topic_arn: str


class LocalAws:
    """One account, empty at first. `session` is the app's."""

    def __init__(self, *, hypervisor: Hypervisor, delays: Delays, clock: OffsetClock, faults: Faults) -> None:
        self.ledger = Ledger()
        self.timeline = Timeline()
        self.bus = EventBus(self.timeline, faults, clock)
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # saves 1.5 s
        filter_dict_attribute_mapping["client-token"] = "client_token"  # a filter of EC2 that moto lacks
        self._mock = mock_aws()
        self._mock.start()
        self.ec2 = SlowEc2(
            get_backend("ec2")[ACCOUNT][REGION],
            timeline=self.timeline,
            clock=clock,
            faults=faults,
            bus=self.bus,
            hypervisor=hypervisor,
            delays=delays,
        )
        self._regions: dict[str, OtherRegion] = {}
        self.other_region = functools.partial(
            self._other_region, clock=clock, faults=faults, hypervisor=hypervisor, seconds=delays.copy
        )
        self.interposer = Interposer(
            self.ledger, faults, lambda name: self.ec2 if name == REGION else self.other_region(name)
        )
        self.session = self.interposer.session

    def _other_region(self, name: str, **parts: Any) -> OtherRegion:
        if name not in self._regions:
            backend = get_backend("ec2")[ACCOUNT][name]
            backend.snapshots.clear()  # images' own, which moto makes
            self._regions[name] = OtherRegion(
                name, home=self.ec2.backend, backend=backend, timeline=self.timeline, **parts
            )
        return self._regions[name]

    def make_stack(self, name: str, *, table: dict[str, Any] | None = None) -> Stack:
        """What the template would make: the table, the launch template, a subnet and the topic."""
        ec2 = plain_client("ec2")
        image = self.make_image()
        template = f"{name}-vault"
        ec2.create_launch_template(
            LaunchTemplateName=template,
            LaunchTemplateData={
                "ImageId": image,
                "InstanceType": "t4g.small",
                "InstanceInitiatedShutdownBehavior": "stop",
                "UserData": user_data_in_template(),
                "MetadataOptions": {
                    "HttpTokens": "required",
                    "HttpPutResponseHopLimit": 1,
                    "InstanceMetadataTags": "enabled",
                },
                "BlockDeviceMappings": [
                    {
                        "DeviceName": "/dev/xvda",
                        "Ebs": {"VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": True},
                    }
                ],
            },
        )
        zone = f"{REGION}a"
        subnets = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"]
        properties = dict(table or _table_properties())
        properties["TableName"] = f"{name}-table"
        self._create_table(properties)
        topic = plain_client("sns").create_topic(Name=f"{name}-topic")["TopicArn"]
        return Stack(properties["TableName"], template, subnets[0]["SubnetId"], topic)

    def make_image(self) -> str:
        """The image that vaults are launched from; returns its id."""
        image = plain_client("ec2").register_image(
            Name="debian",
            Architecture="arm64",
            RootDeviceName="/dev/xvda",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, "VolumeType": "gp3"}}],
        )["ImageId"]
        self.ec2.backend.snapshots.clear()  # the image's own: not ours in AWS, and moto ignores OwnerIds
        return str(image)

    def put_parameter(self, name: str, value: str) -> None:
        """What the template makes last: the URL, once there is an API."""
        plain_client("ssm").put_parameter(Name=name, Value=value, Type="String")

    def _create_table(self, properties: dict[str, Any]) -> None:
        dynamodb = plain_client("dynamodb")
        arguments = {
            name: properties[name]
            for name in (
                "TableName",
                "AttributeDefinitions",
                "KeySchema",
                "BillingMode",
                "GlobalSecondaryIndexes",
            )
            if name in properties
        }
        dynamodb.create_table(**arguments)
        if expiry := properties.get("TimeToLiveSpecification"):
            dynamodb.update_time_to_live(TableName=properties["TableName"], TimeToLiveSpecification=expiry)

    def __enter__(self) -> "LocalAws":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.timeline.close()
        self._mock.stop()


@functools.cache
def user_data_in_template() -> str:
    """What the deployed launch template carries."""
    template = parts.vault()["Resources"]["VaultTemplate"]
    return str(template["Properties"]["LaunchTemplateData"]["UserData"])


def _table_properties() -> dict[str, Any]:
    """The table of the deployed stack, from the template that deploys it."""
    resources = json.loads(_RESOURCES.read_text())["Resources"]
    properties: dict[str, Any] = resources["Table"]["Properties"]
    return properties
