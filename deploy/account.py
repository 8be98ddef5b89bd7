"""What is asked of the AWS account before anything is made in it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import ClientError

from deploy.console import Stopped

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client


class Aws:
    """Clients of one account and region, from boto3's own chain: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL …"""

    def __init__(self, session: boto3.session.Session) -> None:
        self._session = session
        self._config = Config(retries={"mode": "standard", "total_max_attempts": 8})

    def client(self, service: str) -> Any:
        made: Any = self._session.client(service, config=self._config)  # type: ignore[call-overload]
        return made

    @property
    def region(self) -> str:
        region = self._session.region_name
        if not region:
            raise Stopped("no AWS region is set", "export AWS_REGION=eu-central-1, say, or set it in ~/.aws/config")
        return region

    @property
    def partition(self) -> str:
        """`aws`, but in China and for the US government."""
        return str(self._session.get_partition_for_region(self.region))

    @cached_property
    def account(self) -> str:
        return str(self.client("sts").get_caller_identity()["Account"])

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        client: CloudFormationClient = self.client("cloudformation")
        return client

    @cached_property
    def ec2(self) -> "EC2Client":
        client: EC2Client = self.client("ec2")
        return client

    @cached_property
    def s3(self) -> "S3Client":
        client: S3Client = self.client("s3")
        return client


@dataclass(frozen=True)
class Place:
    """Where vaults are to live."""

    vpc: str
    subnet: str
    zone: str


def find_place(aws: Aws, instance_type: str) -> Place:
    """A public subnet of the default VPC, in the first zone that has this instance type. Raises Stopped.

    Not every zone has every type, and a host's volume never leaves its zone.
    https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc-components.html
    """
    vpcs = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise Stopped(
            f"there is no default VPC in {aws.region}",
            "make one (aws ec2 create-default-vpc), or name a public subnet: make deploy SUBNET=subnet-…",
        )
    vpc = vpcs[0]["VpcId"]
    found = aws.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    public = [subnet for subnet in found if subnet.get("MapPublicIpOnLaunch")]
    if not public:
        raise Stopped(
            f"the default VPC {vpc} has no public subnet",
            "make one (aws ec2 create-default-subnet --availability-zone …), or name one: make deploy SUBNET=subnet-…",
        )
    zones = zones_with(aws, instance_type)
    usable = [subnet for subnet in public if subnet["AvailabilityZone"] in zones]
    if not usable:
        raise Stopped(
            f"no public subnet of {vpc} is in a zone that has {instance_type}",
            "choose another type (make deploy SET=InstanceType=…) or subnet (SUBNET=subnet-…)",
        )
    chosen = min(usable, key=lambda subnet: (subnet["AvailabilityZone"], subnet["SubnetId"]))
    return Place(vpc, chosen["SubnetId"], chosen["AvailabilityZone"])


def place_of(aws: Aws, subnet_id: str, instance_type: str) -> Place:
    """The subnet that was named. Raises Stopped when its zone lacks the instance type."""
    [subnet] = aws.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
    place = Place(subnet["VpcId"], subnet_id, subnet["AvailabilityZone"])
    if place.zone not in zones_with(aws, instance_type):
        raise Stopped(f"{subnet_id} is in {place.zone}, which has no {instance_type}", "name another subnet or type")
    return place


def zones_with(aws: Aws, instance_type: str) -> set[str]:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypeOfferings.html"""
    pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}]
    )
    return {offer["Location"] for page in pages for offer in page["InstanceTypeOfferings"]}


def gateway_may_log(aws: Aws) -> bool:
    """Whether the account has given API Gateway a role for its logs; without one, a stage with access logs fails.

    One role serves the account and region, so ours must not take the place of another's, nor vanish with our stack.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """
    arn = aws.client("apigateway").get_account().get("cloudwatchRoleArn")
    if not arn:
        return False
    try:
        aws.client("iam").get_role(RoleName=arn.rsplit("/", 1)[-1])
    except ClientError as error:
        # The account goes on naming a role that was deleted, for example when our first deployment was rolled back.
        return error.response["Error"]["Code"] != "NoSuchEntity"
    return True
