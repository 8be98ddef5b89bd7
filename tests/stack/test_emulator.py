"""What tests/stack counts on of ministack, and of what inside/ adds to it."""

from collections.abc import Iterator

import pytest

from deploy.alarms import ALARMS
from deploy.packaging import Package
from deploy.policies import FUNCTIONS
from tests.e2e.nights import vault
from tests.localcloud.events import instance_changed
from tests.stack.cloud import StackCloud
from tests.stack.nights import POLICY

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def cloud(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackCloud]:
    folder = tmp_path_factory.mktemp("emulator")
    with StackCloud(folder, made, policy=POLICY, machines=False, sweep_every=None) as cloud:
        yield cloud


def test_every_resource_of_the_template_was_made(cloud: StackCloud, made: Package) -> None:
    found = cloud.emulator.client("cloudformation").describe_stack_resources(StackName="nightvault")["StackResources"]
    logical = {each["LogicalResourceId"] for each in found}
    template = made.template["Resources"]
    unconditional = {name for name, each in template.items() if "Condition" not in each}
    assert unconditional <= logical
    assert {each["ResourceStatus"] for each in found} == {"CREATE_COMPLETE"}


def test_alarms_on_metric_math_too(cloud: StackCloud) -> None:
    made = cloud.emulator.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {each["AlarmName"] for each in made} == {f"nightvault-{alarm.name}" for alarm in ALARMS}


def test_the_launch_template_keeps_what_the_stack_says(cloud: StackCloud, made: Package) -> None:
    wanted = made.template["Resources"]["VaultTemplate"]["Properties"]["LaunchTemplateData"]
    data = cloud.deployed.template_of_vaults()["LaunchTemplateData"]
    assert data["UserData"] == wanted["UserData"]
    assert data["BlockDeviceMappings"][0]["Ebs"]["KmsKeyId"] == cloud.deployed.output("KeyArn")
    assert wanted["MetadataOptions"].items() <= data["MetadataOptions"].items()


def test_each_function_has_a_key_of_its_own(cloud: StackCloud) -> None:
    names = {cloud.deployed.caller(key).name for key in cloud.deployed.keys_of_workers()}
    assert names == {function.name for function in FUNCTIONS}
    assert not list((cloud.deployed.caller("ASIA0000000000000000").policies or list)())


def test_an_event_of_ec2_comes_to_the_function_by_the_deployed_rule(cloud: StackCloud) -> None:
    before = len(cloud.router.decisions)
    cloud.aws.bus.instance("i-0123456789abcdef0", "pending")  # no rule is for that
    cloud.aws.bus.instance("i-0123456789abcdef0", "stopped")

    def came() -> list[str]:
        return [each.function for each in cloud.router.decisions[before:]]

    cloud.wait_until(came, 60, what="the event has come")
    assert set(came()) == {"instance_changed"}
    assert instance_changed("i-1", "stopped", cloud.clock.now())["source"] == "aws.ec2"


def test_the_clock_of_the_functions_is_the_tests(cloud: StackCloud) -> None:
    cloud.clock.advance(seconds=86400)
    assert cloud.operate("about")["now"][:13] == cloud.clock.now().isoformat()[:13]


def test_the_deployed_schedule_sweeps(cloud: StackCloud) -> None:
    """The only test that waits for it: every minute, as on AWS."""
    cloud.enroll("C")
    assert vault(cloud)["phase"] == "asleep"
    cloud.wait_until(lambda: cloud.deployed.logged("sweep"), 90, what="the schedule has fired")


def test_the_api_asks_the_authorizer(cloud: StackCloud) -> None:
    host = cloud.enroll("H")
    assert host.status().status == 200
    stranger = type(host)(cloud.url, "H", host.token[:-4] + "AAAA")
    assert stranger.status().status == 403
