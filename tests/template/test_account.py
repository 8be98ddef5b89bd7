"""Where vaults are put, on moto: a public subnet of the default VPC, in a zone that has the instance type."""

from collections.abc import Iterator
from typing import Any

import boto3.session
import pytest
from moto import mock_aws

from deploy.account import Aws, find_place, place_of
from deploy.console import Stopped


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    with mock_aws():
        yield Aws(boto3.session.Session("testing", "testing", region_name="us-east-1"))


def test_the_first_zone_that_has_the_type(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    [vpc] = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    found = find_place(aws, "t4g.small")
    assert (found.vpc, found.zone) == (vpc["VpcId"], "us-east-1a")
    monkeypatch.setattr("deploy.account.zones_with", lambda _aws, _type: {"us-east-1c", "us-east-1d"})
    assert find_place(aws, "t4g.small").zone == "us-east-1c"


def test_a_type_that_the_region_lacks(aws: Aws) -> None:
    with pytest.raises(Stopped, match=r"has x9g\.huge") as stopped:
        find_place(aws, "x9g.huge")
    assert "InstanceType=" in stopped.value.remedy
    subnet = find_place(aws, "t4g.small").subnet
    with pytest.raises(Stopped, match=r"no x9g\.huge"):
        place_of(aws, subnet, "x9g.huge")


def test_a_private_subnet_is_not_taken(aws: Aws) -> None:
    client: Any = aws.ec2
    for subnet in client.describe_subnets()["Subnets"]:
        if subnet["AvailabilityZone"] == "us-east-1a":
            client.delete_subnet(SubnetId=subnet["SubnetId"])
    [vpc] = client.describe_vpcs()["Vpcs"]
    made = client.create_subnet(VpcId=vpc["VpcId"], CidrBlock="172.31.240.0/24", AvailabilityZone="us-east-1a")[
        "Subnet"
    ]
    client.modify_subnet_attribute(SubnetId=made["SubnetId"], MapPublicIpOnLaunch={"Value": False})  # AWS's default
    assert find_place(aws, "t4g.small").zone == "us-east-1b"
