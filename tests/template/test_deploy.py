"""`make deploy` and `make destroy` against a local AWS: done once, twice, interrupted anywhere, and after failures."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import botocore.session
import pytest
from rich.console import Console

from deploy import __main__ as program
from deploy import down, up
from deploy.account import Aws
from deploy.console import Screen, Stopped
from deploy.naming import BadName, stack_name
from deploy.packaging import Package
from deploy.stack import Stack
from tests.template.conftest import ROOT
from tests.template.ministack import IMAGE, Ministack, deployable

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    server = Ministack(tmp_path_factory.mktemp("ministack") / "log")
    yield server
    server.close()


@pytest.fixture(scope="module")
def made(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return deployable(made, tmp_path_factory.mktemp("deployable"))


class Account:
    """An account and region of its own for each test: regions share nothing."""

    def __init__(self, ministack: Ministack, region: str) -> None:
        self.ministack = ministack
        self.region = region
        ministack.with_image(region)

    def client(self, service: str) -> Any:
        return self.ministack.client(service, self.region)

    def stack(self, name: str = "nightvault") -> Any:
        found = [s for s in self.client("cloudformation").describe_stacks()["Stacks"] if s["StackName"] == name]
        return found[0] if found else None


LOADER = botocore.session.Session().get_component("data_loader")
REGIONS = iter(
    [
        *("eu-central-1", "eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "us-east-2", "us-west-1", "us-west-2"),
        *("ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
        *("sa-east-1", "us-east-1", "ap-east-1", "af-south-1", "me-south-1", "eu-south-1", "ap-northeast-3"),
    ]
)


@pytest.fixture
def account(ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> Account:
    region = next(REGIONS)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ministack.environment(region).items():
        monkeypatch.setenv(name, value)
    # ministack has no DescribeInstanceTypeOfferings; test_account.py tries it on moto.
    monkeypatch.setattr("deploy.account.zones_with", lambda _aws, _type: {f"{region}{letter}" for letter in "abcdef"})
    return Account(ministack, region)


def screen() -> Screen:
    """Waits a twentieth of the time."""
    return Screen(Console(file=io.StringIO(), width=200, highlight=False), lambda seconds: Screen().pause(seconds / 20))


def said(on: Screen) -> str:
    file = on.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, at a call of the test's choosing."""


def aws(*, interrupt_at: int = 0, moment: str = "before-call") -> Aws:
    """Interrupted at its n-th call, before it is made or when it is done and the answer unread."""
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)  # EC2's model takes half a second to read
    session = boto3.session.Session(botocore_session=core)
    calls = iter(range(1, 100000))

    def strike(**_: Any) -> None:
        if next(calls) == interrupt_at:
            raise Interrupted

    session.events.register(moment, strike)
    return Aws(session)


def wish(stage: str = "prod", subnet: str = "", **settings: str) -> up.Wish:
    return up.Wish(stage=stage, subnet=subnet, settings={"Image": IMAGE, **settings})


# --- deploy ---------------------------------------------------------------------------------------------


def test_deploys_and_then_has_nothing_to_do(account: Account, made: Package) -> None:
    first = screen()
    outputs = up.deploy(aws(), made, wish(), first)
    assert outputs["Url"].startswith("https://") and outputs["OperateFunction"] == "nightvault-operate"
    assert account.stack()["StackStatus"] == "CREATE_COMPLETE"
    assert "CREATE_COMPLETE" in said(first) and "AWS::DynamoDB::Table" in said(first)
    chosen = {p["ParameterKey"]: p["ParameterValue"] for p in account.stack()["Parameters"]}
    [vpc] = account.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert chosen["Vpc"] == vpc["VpcId"] and chosen["Subnet"].startswith("subnet-")
    assert chosen["GatewayLogRole"] == "make", "the account had none"

    second = screen()
    assert up.deploy(aws(), made, wish(), second) == outputs
    assert "nothing to change" in said(second)


def test_a_setting_stays_until_it_is_changed(account: Account, made: Package) -> None:
    up.deploy(aws(), made, wish(WindowHours="2"), screen())
    up.deploy(aws(), made, wish(LingerSeconds="60"), screen())
    chosen = {p["ParameterKey"]: p["ParameterValue"] for p in account.stack()["Parameters"]}
    assert (chosen["WindowHours"], chosen["LingerSeconds"]) == ("2", "60")
    variables = account.client("lambda").get_function_configuration(FunctionName="nightvault-sweep")["Environment"]
    assert variables["Variables"]["NIGHTVAULT_WINDOW_HOURS"] == "2"
    assert variables["Variables"]["NIGHTVAULT_LINGER_SECONDS"] == "60"


def test_a_second_region_gives_the_sweep_a_policy_and_takes_it_away(account: Account, made: Package) -> None:
    key = "arn:aws:kms:eu-north-1:123456789012:key/0123abcd"

    def policies() -> set[str]:
        iam = account.client("iam")
        (role,) = (each for each in iam.list_roles()["Roles"] if "SweepRole" in each["RoleName"])
        return set(iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"])

    up.deploy(aws(), made, wish(CopyRegion="eu-north-1"), screen())
    assert "copies" in policies() and "copies-key" not in policies()
    up.deploy(aws(), made, wish(CopyKmsKey=key), screen())
    assert {"copies", "copies-key"} <= policies()
    variables = account.client("lambda").get_function_configuration(FunctionName="nightvault-sweep")["Environment"]
    assert variables["Variables"]["NIGHTVAULT_COPY_REGION"] == "eu-north-1"
    assert variables["Variables"]["NIGHTVAULT_COPY_KMS_KEY"] == key
    with pytest.raises(Stopped, match="CopyKmsKey"):
        up.deploy(aws(), made, wish(CopyRegion=""), screen())
    up.deploy(aws(), made, wish(CopyRegion="", CopyKmsKey=""), screen())
    assert not {"copies", "copies-key"} & policies()


def test_stages_stand_beside_each_other(account: Account, made: Package) -> None:
    up.deploy(aws(), made, wish("prod"), screen())
    up.deploy(aws(), made, wish("test"), screen())
    assert account.stack()["StackStatus"] == account.stack("nightvault-test")["StackStatus"] == "CREATE_COMPLETE"
    told = screen()
    assert down.destroy(aws(), "test", told, yes=True)
    assert "stays, for nightvault" in said(told)
    assert account.stack("nightvault-test") is None and account.stack() is not None


def test_the_bucket_is_private(account: Account, made: Package) -> None:
    up.deploy(aws(), made, wish(), screen())
    s3 = account.client("s3")
    [bucket] = [b["Name"] for b in s3.list_buckets()["Buckets"] if b["Name"].endswith(account.region)]
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert made.zip_key in keys


@pytest.mark.parametrize("moment", ["before-call", "after-call"])
def test_interrupted_at_every_call_and_said_again(account: Account, made: Package, moment: str) -> None:
    for at in range(1, 200):
        try:
            outputs = up.deploy(aws(interrupt_at=at, moment=moment), made, wish(), screen())
        except Interrupted:
            continue
        break
    assert at > 20 and outputs["Url"]
    assert account.stack()["StackStatus"] == "CREATE_COMPLETE"
    assert not account.client("cloudformation").list_change_sets(StackName="nightvault")["Summaries"][1:]
    assert len(account.client("dynamodb").list_tables()["TableNames"]) == 1


def test_a_first_deployment_that_failed_is_cleared_away(account: Account, made: Package, tmp_path: Path) -> None:
    template = made.template
    template["Resources"]["KeyAlias"]["Properties"]["AliasName"] = "no-alias"
    template["Resources"]["KeyAlias"]["DependsOn"] = ["Table", "GatewayAccount"]
    (tmp_path / "template.json").write_text(json.dumps(template))
    failed = screen()
    with pytest.raises(Stopped, match="failed"):
        up.deploy(aws(), Package(tmp_path / "template.json", made.zip_path), wish(), failed)
    assert "CREATE_FAILED" in said(failed) and "must begin with alias/" in said(failed)
    assert account.stack()["StackStatus"] == "ROLLBACK_COMPLETE"
    assert account.client("dynamodb").list_tables()["TableNames"] == [], "an empty table is no data"

    again = screen()
    assert up.deploy(aws(), made, wish(), again)["Url"]
    assert "Clearing it away" in said(again)
    role = account.client("apigateway").get_account()["cloudwatchRoleArn"].rsplit("/", 1)[-1]
    assert account.client("iam").get_role(RoleName=role), "not the one that was rolled back"


def test_a_template_that_cloudformation_refuses_changes_nothing(account: Account, made: Package) -> None:
    with pytest.raises(Stopped, match="does not take") as stopped:
        up.deploy(aws(), made, wish(Image="/no-such/image"), screen())
    assert "nothing was changed" in stopped.value.remedy
    assert up.deploy(aws(), made, wish(), screen())["Url"]


def test_no_default_vpc(account: Account, made: Package) -> None:
    ec2 = account.client("ec2")
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    with pytest.raises(Stopped, match="no public subnet"):
        up.deploy(aws(), made, wish(), screen())
    for gateway in ec2.describe_internet_gateways()["InternetGateways"]:
        ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc["VpcId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    with pytest.raises(Stopped, match="no default VPC") as stopped:
        up.deploy(aws(), made, wish(), screen())
    assert "SUBNET=" in stopped.value.remedy
    assert account.stack() is None

    other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    assert up.deploy(aws(), made, wish(subnet=subnet), screen())["Url"]
    with pytest.raises(Stopped, match="can't follow"):
        up.deploy(aws(), made, wish(subnet="subnet-00000000"), screen())


@pytest.mark.parametrize("replacement", ["True", "Conditional"])
def test_data_is_never_replaced(
    account: Account, made: Package, monkeypatch: pytest.MonkeyPatch, replacement: str
) -> None:
    """ministack's change sets say nothing of replacements, so what AWS would say is put in."""

    def with_replacement(parsed: dict[str, Any], **_: Any) -> None:
        for change in parsed.get("Changes", []):
            if change["ResourceChange"]["LogicalResourceId"] == "Table":
                change["ResourceChange"] |= {"Action": "Modify", "Replacement": replacement}

    using = aws()
    using.cloudformation.meta.events.register("after-call.cloudformation.DescribeChangeSet", with_replacement)
    with pytest.raises(Stopped, match="holds data"):
        up.deploy(using, made, wish(), screen())
    assert account.stack() is None or account.stack()["StackStatus"] == "REVIEW_IN_PROGRESS"


def test_a_setting_that_there_is_not(account: Account, made: Package) -> None:
    with pytest.raises(Stopped, match="Windowhours") as stopped:
        up.deploy(aws(), made, wish(Windowhours="2"), screen())
    assert "WindowHours" in stopped.value.remedy


@pytest.mark.parametrize("stage", ["", "Prod", "a_b", "a-", "-a", "x" * 31, "1a", "a b"])
def test_a_stage_that_is_no_name(stage: str) -> None:
    with pytest.raises(BadName, match="STAGE="):
        stack_name(stage)


# --- destroy --------------------------------------------------------------------------------------------


def night(account: Account, name: str = "nightvault") -> dict[str, str]:
    """What a night leaves behind: a machine, its security group, a host's volume and a restore point of it."""
    ec2 = account.client("ec2")

    def tags(kind: str, **more: str) -> Any:
        named = {"nightvault:stack": name, **{f"nightvault:{key}": value for key, value in more.items()}}
        return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in named.items()]}]

    chosen = {p["ParameterKey"]: p["ParameterValue"] for p in account.stack(name)["Parameters"]}
    group = ec2.create_security_group(
        GroupName=f"{name}-vault-1", Description="x", VpcId=chosen["Vpc"], TagSpecifications=tags("security-group")
    )["GroupId"]
    instance = ec2.run_instances(
        MinCount=1,
        MaxCount=1,
        LaunchTemplate={"LaunchTemplateName": f"{name}-vault", "Version": "$Latest"},
        SubnetId=chosen["Subnet"],
        SecurityGroupIds=[group],
        TagSpecifications=tags("instance", vault="vault-1"),
    )["Instances"][0]["InstanceId"]
    [subnet] = ec2.describe_subnets(SubnetIds=[chosen["Subnet"]])["Subnets"]
    volume = ec2.create_volume(
        AvailabilityZone=subnet["AvailabilityZone"],
        Size=5,
        VolumeType="gp3",
        TagSpecifications=tags("volume", vault="vault-1", host="C"),
    )["VolumeId"]
    ec2.attach_volume(InstanceId=instance, VolumeId=volume, Device="/dev/xvdba")
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags("snapshot", host="C"))["SnapshotId"]
    return {"group": group, "instance": instance, "volume": volume, "snapshot": snapshot}


def gone_but_for_data(account: Account, things: dict[str, str]) -> None:
    ec2 = account.client("ec2")
    assert account.stack() is None
    states = [
        i["State"]["Name"]
        for r in ec2.describe_instances(InstanceIds=[things["instance"]])["Reservations"]
        for i in r["Instances"]
    ]
    assert set(states) <= {"terminated"}
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert things["group"] not in {group["GroupId"] for group in groups}
    [volume] = ec2.describe_volumes(VolumeIds=[things["volume"]])["Volumes"]
    assert volume["Size"] == 5  # on EC2 it is `available` now; ministack leaves it `in-use` by a machine that is gone
    assert ec2.describe_snapshots(SnapshotIds=[things["snapshot"]])["Snapshots"]
    [table] = account.client("dynamodb").list_tables()["TableNames"]
    assert table.startswith("nightvault-Table-")
    assert not [b for b in account.client("s3").list_buckets()["Buckets"] if b["Name"].endswith(account.region)]


def test_destroys_everything_but_data_and_says_what_that_costs(account: Account, made: Package) -> None:
    outputs = up.deploy(aws(), made, wish(), screen())
    things = night(account)
    told = screen()
    assert down.destroy(aws(), "prod", told, yes=True)
    gone_but_for_data(account, things)
    text = said(told)
    assert things["instance"] in text
    assert "volume of C" in text and "5 GiB" in text and "$0.40" in text
    assert "1 restore points of C" in text
    assert outputs["TableName"] in text and "$1.00" in text
    assert f"aws ec2 delete-volume --volume-id {things['volume']}" in text
    key = account.client("kms").describe_key(KeyId=outputs["KeyArn"])["KeyMetadata"]
    assert key["KeyState"] == "Enabled", "without it the volumes can't be read"

    again = screen()
    assert down.destroy(aws(), "prod", again, yes=True)
    assert "nothing is deployed" in said(again) and "volume of C" in said(again)


@pytest.mark.parametrize("moment", ["before-call", "after-call"])
def test_destroy_interrupted_at_every_call(account: Account, made: Package, moment: str) -> None:
    up.deploy(aws(), made, wish(), screen())
    things = night(account)
    for at in range(1, 200):
        try:
            down.destroy(aws(interrupt_at=at, moment=moment), "prod", screen(), yes=True)
        except Interrupted:
            continue
        break
    assert at > 15
    gone_but_for_data(account, things)


def test_destroy_asks_first(account: Account, made: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    up.deploy(aws(), made, wish(), screen())
    with pytest.raises(Stopped, match="nobody is there") as stopped:
        down.destroy(aws(), "prod", screen(), yes=False)
    assert "YES=1" in stopped.value.remedy
    unsure = screen()
    monkeypatch.setattr(unsure, "ask", lambda _question: False)
    assert not down.destroy(aws(), "prod", unsure, yes=False)
    assert account.stack()["StackStatus"] == "CREATE_COMPLETE"


def test_another_stacks_machines_are_left_alone(account: Account, made: Package) -> None:
    up.deploy(aws(), made, wish("prod"), screen())
    up.deploy(aws(), made, wish("test"), screen())
    things = night(account)
    down.destroy(aws(), "test", screen(), yes=True)
    found = account.client("ec2").describe_instances(InstanceIds=[things["instance"]])["Reservations"]
    assert found[0]["Instances"][0]["State"]["Name"] == "running"


# --- the command ----------------------------------------------------------------------------------------


def test_the_commands_whole(account: Account, made: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("deploy.packaging.package", lambda _out: made)
    on = screen()
    assert program.main(["up", "--set", f"Image={IMAGE}", "--email", "a@example.org"], on) == 0
    assert "enroll HOST" in said(on) and "a@example.org" in said(on)
    assert program.main(["down", "--yes"], on) == 0
    assert program.main(["down", "--yes"], on) == 0
    assert Stack(aws(), "nightvault", on).describe() is None


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=ROOT,
        env={**kept, "HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("command", [("up",), ("down", "--yes")])
def test_without_credentials_or_region_it_says_so(command: tuple[str, ...]) -> None:
    no_region = run(*command, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
    assert (no_region.returncode, "AWS_REGION" in no_region.stdout) == (1, True), no_region
    none = run(*command, AWS_REGION="eu-central-1")
    assert (none.returncode, "no AWS credentials" in none.stdout) == (1, True), none
    assert "Traceback" not in none.stdout + none.stderr
    if command == ("down", "--yes"):
        return  # the rest is the same code
    profile = run(*command, AWS_REGION="eu-central-1", AWS_PROFILE="nobody")
    assert (profile.returncode, "nobody" in profile.stdout) == (1, True), profile
    silent = run(
        *command,
        AWS_REGION="eu-central-1",
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="x",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_MAX_ATTEMPTS="1",
    )
    assert (silent.returncode, "does not answer" in silent.stdout) == (1, True), silent
