"""Every call that each function makes, held against its policy: nothing that is not allowed, nothing allowed in vain.

The first half is held by every night here: a call that the deployed role does not allow is denied. The second half is
held by one: the lives of lives.py, after which each action on each resource of each statement must have been what
allowed a call. What stands in EXEMPT can't be seen here, and why.
"""

import fnmatch
from collections.abc import Iterator

import pytest

from deploy.packaging import Package
from deploy.policies import FUNCTIONS
from tests.stack import lives
from tests.stack.cloud import StackCloud
from tests.stack.iam import Grant, grants

pytestmark = pytest.mark.stack

EVERY = "*"
_RACE = "only when another run of the same address begins while its address is being shut out: Actor._revoke"
# (function, statement, action): why no call of these lives can show it.
EXEMPT = {
    ("snapshot_changed", "OpenAndShutOurGroup", "ec2:AuthorizeSecurityGroupIngress"): _RACE,
    ("operate", "OpenAndShutOurGroup", "ec2:AuthorizeSecurityGroupIngress"): _RACE,
    ("snapshot_changed", "Look", "ec2:DescribeSecurityGroups"): "only when the vault falls asleep while it asks for the"
    " machine: Actor._check_instance, then SetIngress",
    ("api_handler", "RunOurMachine", "ec2:TerminateInstances"): "only when a launch answers after another machine has"
    " taken its place: phases.launched",
    (EVERY, "Logs", "logs:*"): "Lambda itself writes a function's log, with the function's role",
    (EVERY, "VolumeKey", "kms:DescribeKey"): "EBS asks for it, says its page, but not when",
    (EVERY, "VolumeKey", "kms:Decrypt"): "EBS asks for it, says its page, but not when",
    (EVERY, "VolumeKey", "kms:ReEncrypt*"): "EBS asks for it, says its page, where a snapshot's key is another",
}


@pytest.fixture(scope="module")
def lived(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackCloud]:
    """Nothing happens in them but what they do: no sweep by itself, no event."""
    folder = tmp_path_factory.mktemp("lives")
    with StackCloud(folder, made, policy=lives.LIVES, machines=False, sweep_every=None) as cloud:
        cloud.deployed.pause_schedule()
        cloud.aws.bus.rules.clear()
        cloud.faults.refuse("CreateVolume", lives.REFUSED)
        a = cloud.enroll("A")
        lives.first_waking(cloud, a)
        for by in ("sweep", "instance_changed"):
            lives.doors(cloud, a, by)
            lives.seals(cloud, a, by)
            lives.grows(cloud, a, by)
            lives.lost_in_the_middle(cloud, a, by)
            new = lives.volume_is_missing(cloud, f"late-{by[:8]}", "instance_changed")
            lives.never_boots(cloud, new, by)
        for by in ("api_handler", "sweep", "instance_changed"):
            for _ in range(5):  # on a busy machine the agent's report, and so the API, may come before who was meant
                lives.restores(cloud, a, by)
                if any(grant.sid == "MakeVolumeFromOurs" for grant in used(cloud, by)):
                    break
        for by in ("sweep", "instance_changed", "operate"):
            lives.retires(cloud, f"gone-{by[:8]}", by)
        lives.loses_its_volume(cloud, "lost")
        for by in ("api_handler", "operate"):
            lives.lost_for_good(cloud, a, by)
        lives.points_grow_old(cloud, a)
        lives.woken_by_an_operator(cloud, a)
        lives.strange_key(cloud, a)
        lives.snapshots_fail(cloud, a)
        lives.overdue_at_a_snapshots_news(cloud, a)
        lives.no_machine_at_a_snapshots_news(cloud, a)
        lives.estate_needs_mending(cloud)
        for action, fields in (("doctor", {"fix": True}), ("cost", {}), ("refresh_prices", {}), ("hosts", {})):
            cloud.operate(action, **fields)
        cloud.deployed.invoke("timeline_widget", {"widgetContext": {}})
        yield cloud


@pytest.mark.parametrize("name", [function.name for function in FUNCTIONS])
def test_nothing_is_allowed_that_is_never_called(lived: StackCloud, name: str) -> None:
    (function,) = (each for each in FUNCTIONS if each.name == name)
    allowed = set(grants(lived.deployed.policies(function)))
    assert used(lived, name) <= allowed
    unused = {each for each in allowed - used(lived, name) if not exempt(name, each)}
    assert not sorted(f"{each.sid}: {each.action} on {each.resource}" for each in unused)


def test_nothing_is_called_that_is_not_allowed(lived: StackCloud) -> None:
    assert not lived.denied()
    assert not lived.router.surprises


def used(lived: StackCloud, function: str) -> set[Grant]:
    return {grant for each in lived.router.decisions if each.function == function for grant in each.by}


def exempt(function: str, grant: Grant) -> bool:
    return any(
        fnmatch.fnmatch(function, who) and grant.sid == sid and fnmatch.fnmatch(grant.action, action)
        for who, sid, action in EXEMPT
    )
