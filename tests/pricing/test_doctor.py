"""doctor: each fault, made on purpose, is found; what is safe is mended, and no volume or snapshot is ever deleted."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from msgspec.structs import replace

from chalicelib.commands import Start
from chalicelib.model import Kind, PointVolume
from chalicelib.operators.cost import cost
from chalicelib.operators.doctor import VCPUS, doctor
from deploy.policies import _DOCTOR_AND_COST, FUNCTIONS, policy
from tests.localcloud.patience import wait_until
from tests.pricing.lived import Lived, found

ZONE = "eu-central-1a"


@pytest.fixture
def lived() -> Iterator[Lived]:
    stack = Lived(hosts=2)
    try:
        stack.lives()
        yield stack
    finally:
        stack.close()


# --- machines ---------------------------------------------------------------------------------------------


def stray(stack: Lived) -> str:
    made = stack.eyes.run_instances(
        MinCount=1,
        MaxCount=1,
        ImageId=stack.eyes.describe_images(Owners=["self"])["Images"][0]["ImageId"],
        InstanceType="t4g.small",
        TagSpecifications=[{"ResourceType": "instance", "Tags": stack.tags}],
    )
    return str(made["Instances"][0]["InstanceId"])


def test_a_machine_that_no_vault_knows_is_found_and_terminated(lived: Lived) -> None:
    instance_id = stray(lived)
    assert lived.wrong()["machines"] == ("wrong", instance_id)
    assert lived.state(instance_id) == "running"
    checks = doctor(lived.wiring, fix=True, clients=lived.clients).checks
    (check,) = (each for each in checks if each.name == "machines")
    assert check.fixable
    assert check.fixed
    wait_until(lambda: lived.state(instance_id) in ("terminated", "shutting-down"))
    wait_until(lambda: "machines" not in lived.wrong())
    assert ("mended", {"mend": "StrayMachine", "resource": instance_id}) in lived.told.events
    assert lived.state(lived.instance_id) == "stopped", "the vault's own is left alone"


def test_a_machine_that_may_still_be_recorded_is_left_alone(lived: Lived) -> None:
    stray(lived)
    seen = lived.facts()
    young = replace(seen, policy=replace(seen.policy, claim_seconds=90))
    assert "machines" not in found(young)


def test_a_machine_of_another_stack_is_none_of_ours(lived: Lived) -> None:
    instance_id = stray(lived)
    lived.eyes.create_tags(Resources=[instance_id], Tags=[{"Key": "nightvault:stack", "Value": "other"}])
    assert lived.wrong(fix=True) == {}
    assert lived.state(instance_id) == "running"


def test_a_machine_that_will_not_be_terminated_stays_a_finding(lived: Lived) -> None:
    stray(lived)
    lived.faults.refuse("TerminateInstances", "UnauthorizedOperation")
    checks = doctor(lived.wiring, fix=True, clients=lived.clients).checks
    (check,) = (each for each in checks if each.name == "machines")
    assert not check.fixed
    assert any(name == "mend_refused" for name, _ in lived.told.faults)


def test_a_vault_that_runs_in_its_sleep_is_found(lived: Lived) -> None:
    lived.eyes.start_instances(InstanceIds=[lived.instance_id])
    wait_until(lambda: lived.wrong().get("machines") == ("wrong", lived.instance_id))


def test_an_older_template_is_said_with_the_vault_to_rebuild(lived: Lived) -> None:
    template = lived.wiring.settings.launch_template
    by = "LaunchTemplateId" if template.startswith("lt-") else "LaunchTemplateName"
    lived.eyes.create_launch_template_version(
        **{by: template}, SourceVersion="1", LaunchTemplateData={"InstanceType": "t4g.medium"}
    )
    (check,) = (each for each in doctor(lived.wiring, clients=lived.clients).checks if each.name == "templates")
    assert check.level == "warning"
    assert "vaultctl rebuild-vault vault-1" in check.remedy


# --- volumes and snapshots --------------------------------------------------------------------------------


def test_a_volume_of_nobody_is_named_and_never_deleted(lived: Lived) -> None:
    tags = [*lived.tags, {"Key": "nightvault:host", "Value": "gone"}]
    made = lived.eyes.create_volume(
        AvailabilityZone=ZONE,
        Size=7,
        Encrypted=True,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )["VolumeId"]
    assert lived.wrong(fix=True)["volumes"] == ("warning", made)
    assert lived.eyes.describe_volumes(VolumeIds=[made])["Volumes"], "it is still there"


def test_a_restores_volume_is_left_alone_while_it_is_on_record_and_no_hosts_bill_has_it(lived: Lived) -> None:
    snapshot = next(each["SnapshotId"] for each in lived.eyes.describe_snapshots(OwnerIds=["self"])["Snapshots"])
    lent = PointVolume(host="h0", run_id="r-1", point_id=snapshot, place=0)
    volume_id = lived.wiring.ec2_cloud.make_point_volume("vault-1", lent)
    lived.backend.volumes[volume_id].encrypted = True
    wait_until(lambda: lived.eyes.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "available")
    assert lived.wrong(fix=True) == {"volumes": ("warning", volume_id)}, "no vault knows it: the sweep removes it"
    assert volume_id not in {each.volume_id for each in cost(lived.wiring, clients=lived.clients).usage.volumes}
    vault = lived.vault
    lived.wiring.store.save(replace(vault, point_volumes={"h0": replace(lent, volume_id=volume_id)}))
    assert lived.wrong() == {}


def test_a_volume_that_is_gone_is_said(lived: Lived) -> None:
    volume_id = str(lived.vault.hosts["h0"].volume_id)
    del lived.backend.volumes[volume_id]
    (check,) = (each for each in doctor(lived.wiring, clients=lived.clients).checks if each.name == "volumes")
    assert (check.level, check.resource) == ("wrong", volume_id)
    assert "h0" in check.what


def test_a_snapshot_without_a_record_is_named_and_never_deleted(lived: Lived) -> None:
    made = lived.eyes.create_snapshot(
        VolumeId=lived.vault.hosts["h0"].volume_id,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": lived.tags}],
    )["SnapshotId"]
    lived.backend.snapshots[made].encrypted = True
    assert lived.wrong(fix=True) == {"points": ("warning", made)}
    assert lived.eyes.describe_snapshots(SnapshotIds=[made])["Snapshots"]


def test_a_restore_point_without_its_snapshot_is_wrong(lived: Lived) -> None:
    (point,) = lived.wiring.store.points("h0")
    lived.eyes.delete_snapshot(SnapshotId=point.snapshot_id)
    assert lived.wrong() == {"points": ("wrong", point.snapshot_id)}


def test_what_is_not_encrypted_is_wrong(lived: Lived) -> None:
    volume_id = str(lived.vault.hosts["h1"].volume_id)
    lived.backend.volumes[volume_id].encrypted = False
    assert lived.wrong() == {"encryption": ("wrong", volume_id)}


def test_a_snapshot_for_the_world_is_wrong(lived: Lived) -> None:
    (point,) = lived.wiring.store.points("h1")
    lived.eyes.modify_snapshot_attribute(
        SnapshotId=point.snapshot_id, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"]
    )
    assert lived.wrong() == {"public": ("wrong", point.snapshot_id)}


def test_a_snapshot_shared_with_one_account_is_not_public(lived: Lived) -> None:
    (point,) = lived.wiring.store.points("h1")
    lived.eyes.modify_snapshot_attribute(
        SnapshotId=point.snapshot_id, Attribute="createVolumePermission", OperationType="add", UserIds=["210987654321"]
    )
    assert lived.wrong() == {}


# --- who may reach it -------------------------------------------------------------------------------------

ADDRESS: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}


def begin(stack: Lived, address: str) -> str:
    run_id = str(uuid.uuid4())
    stack.control.start(Start(host="h0", run_id=run_id, kind=Kind.BACKUP, source_address=address))
    return run_id


def test_a_host_with_a_live_run_is_left_alone_among_strays(lived: Lived) -> None:
    begin(lived, "198.51.100.7")
    group = str(lived.vault.security_group_id)
    for address in ("203.0.113.5/32", "203.0.113.6/32"):
        lived.eyes.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[{**ADDRESS, "IpRanges": [{"CidrIp": address}]}],
        )
    assert len([c for c in doctor(lived.wiring, clients=lived.clients, fix=True).checks if c.name == "ingress"]) == 2
    assert lived.wiring.ec2_cloud.ingress(group) == {"198.51.100.7"}


def test_a_run_that_begins_while_we_look_is_not_shut_out(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts are of before the run; the rule is of after it."""
    before = lived.facts()
    begin(lived, "198.51.100.7")
    mixed = replace(before, estate=lived.facts().estate)
    monkeypatch.setattr("chalicelib.operators.doctor.gather", lambda *_: mixed)
    doctor(lived.wiring, fix=True, clients=lived.clients)
    assert lived.wiring.ec2_cloud.ingress(str(lived.vault.security_group_id)) == {"198.51.100.7"}


def test_a_group_of_no_vault_is_named(lived: Lived) -> None:
    made = lived.eyes.create_security_group(
        GroupName="left", Description="left", TagSpecifications=[{"ResourceType": "security-group", "Tags": lived.tags}]
    )["GroupId"]
    assert lived.wrong(fix=True) == {"groups": ("warning", made)}


# --- the stack itself -------------------------------------------------------------------------------------


def test_recovery_that_is_off_is_wrong(lived: Lived) -> None:
    table = lived.wiring.settings.table
    lived.dynamodb.update_continuous_backups(
        TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    assert lived.wrong() == {"recovery": ("wrong", table)}


def test_a_subscription_that_waits_is_said(lived: Lived) -> None:
    topic = lived.wiring.settings.topic_arn
    (one,) = lived.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    # https://docs.aws.amazon.com/sns/latest/dg/SendMessageToEmail.html; moto confirms at once
    subscriptions = lived.subscriptions()
    subscriptions[one["SubscriptionArn"]].arn = "PendingConfirmation"
    assert lived.wrong() == {"alerts": ("warning", "operator@example.org")}


def test_nobody_to_tell_is_said(lived: Lived) -> None:
    topic = lived.wiring.settings.topic_arn
    (one,) = lived.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    lived.sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])
    assert lived.wrong() == {"alerts": ("warning", None)}


def test_the_clock_is_held_to_aws_own(lived: Lived) -> None:
    assert abs(lived.facts().skew_seconds or 99) < 5
    lived.clock.advance(seconds=3600)
    assert lived.facts().skew_seconds == pytest.approx(3600, abs=5)


# --- quotas -----------------------------------------------------------------------------------------------


def test_other_machines_of_the_account_count_too(lived: Lived) -> None:
    before = {quota.code: quota.used for quota in lived.facts().quotas}
    other = stray(lived)
    lived.eyes.create_tags(Resources=[other], Tags=[{"Key": "nightvault:stack", "Value": "other"}])
    after = {quota.code: quota.used for quota in lived.facts().quotas}
    assert after[VCPUS[1]] > before[VCPUS[1]]


# --- what cannot be looked at -----------------------------------------------------------------------------

DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, "GetServiceQuota")


@pytest.mark.parametrize("error", [DENIED, EndpointConnectionError(endpoint_url="https://servicequotas")])
def test_a_right_that_is_missing_is_said_and_the_rest_goes_on(lived: Lived, error: Exception) -> None:
    lived.quotas.refuses = error
    stray(lived)
    wrong = lived.wrong()
    assert wrong["quotas"] == ("warning", None)
    assert wrong["machines"][0] == "wrong"


# --- what it needs ----------------------------------------------------------------------------------------

SERVICES = {"service-quotas": "servicequotas", "monitoring": "cloudwatch"}


def test_operate_is_allowed_what_doctor_and_cost_call_and_changes_nothing_else(lived: Lived) -> None:
    """The whole of it: a stray machine, a stray rule, a public snapshot, prices and a bill."""
    stray(lived)
    group = str(lived.vault.security_group_id)
    rule = {**ADDRESS, "IpRanges": [{"CidrIp": "203.0.113.5/32"}]}
    lived.eyes.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    lived.aws.ledger.forget()
    doctor(lived.wiring, fix=True, clients=lived.clients)
    cost(lived.wiring, clients=lived.clients)
    called = {f"{SERVICES.get(c.service, c.service)}:{c.operation}" for c in lived.aws.ledger.find()}
    called |= {"servicequotas:GetServiceQuota", "pricing:GetProducts"}  # not moto's, so not in the ledger
    (operate,) = (function for function in FUNCTIONS if function.name == "operate")
    allowed = {action for statement in policy(operate)["Statement"] for action in statement["Action"]}
    assert called <= allowed
    ours = {action for statement in _DOCTOR_AND_COST for action in statement["Action"]}
    assert ours <= called, "nothing is allowed that is not called"
