"""A permission that is missing fails the night: it is denied, it is noticed, and what it kept from being done is done
once it is there."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.functions import Function
from deploy.packaging import Package
from tests.e2e.nights import last_backups
from tests.stack.cloud import StackCloud
from tests.stack.nights import PATIENCE, POLICY, night

pytestmark = pytest.mark.stack

# Of each function, some that it needs in any night.
SAMPLE = [
    ("bearer", "dynamodb:GetItem"),
    ("bearer", "kms:Decrypt"),
    ("api_handler", "dynamodb:PutItem"),
    ("api_handler", "ec2:StartInstances"),
    ("api_handler", "kms:CreateGrant"),
    ("api_handler", "ec2:AuthorizeSecurityGroupIngress"),
    ("api_handler", "ec2:StopInstances"),
    ("instance_changed", "ec2:CreateSnapshot"),
    ("instance_changed", "ec2:CreateTags"),
    ("snapshot_changed", "ec2:DescribeSnapshots"),
    ("sweep", "ec2:DescribeInstances"),
]
# The vault, asked to power itself off in the answer to its report, stops all the same: as designed.
HAS_A_SECOND_WAY = {("api_handler", "ec2:StopInstances")}
_NOTICED = ("UnauthorizedOperation", "AccessDenied")


@pytest.fixture(scope="module")
def cloud(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackCloud]:
    """One vault for all of them, launched once; only tests sweep."""
    folder = tmp_path_factory.mktemp("permissions")
    with StackCloud(folder, made, policy=POLICY, machines=False, sweep_every=None) as cloud:
        cloud.deployed.pause_schedule()
        night(cloud, cloud.enroll("first"))
        yield cloud


@pytest.mark.parametrize(("function", "action"), SAMPLE, ids=lambda value: str(value).replace(":", "-"))
def test_without_it_the_night_fails(cloud: StackCloud, function: str, action: str) -> None:
    name = f"{function}-{action.partition(':')[2]}"[:32]
    host = cloud.enroll(name)  # with a token that no authorizer has cached
    before = len(cloud.router.decisions)
    logged = len(cloud.deployed.logged(function))

    def denied() -> bool:
        if function == "sweep":
            with contextlib.suppress(RuntimeError):
                cloud.sweep()
        decided = cloud.router.decisions[before:]
        return any((each.function, each.need.action, bool(each.by)) == (function, action, False) for each in decided)

    def noticed() -> bool:
        news = cloud.deployed.logged(function)[logged:]
        return any(word in line for line in news for word in _NOTICED)

    with ThreadPoolExecutor(1) as pool:
        with cloud.deployed.without(Function(function), action):
            whole = pool.submit(night, cloud, host)
            cloud.wait_until(denied, PATIENCE, what=f"{function} is denied {action}")
            cloud.wait_until(noticed, PATIENCE, what=f"the log of {function} says so")
            if (function, action) not in HAS_A_SECOND_WAY:
                assert name not in last_backups(cloud)

        def repaired() -> bool:
            cloud.sweep()
            return whole.done()

        cloud.wait_until(repaired, PATIENCE, what="the night comes to its end after all")
        whole.result()
    assert name in last_backups(cloud)
