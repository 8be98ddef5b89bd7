"""`make destroy`: everything but data. Each step finds what is there and may be repeated, so it may be interrupted.

The stack goes first: with its functions gone nothing launches a machine or opens a door behind our back. Then the
machines and the security groups, which are made by the functions and are no part of the stack.
"""

from typing import Any

from botocore.exceptions import ClientError

from deploy import kept
from deploy.account import Aws
from deploy.artifacts import Bucket
from deploy.console import Screen, Stopped
from deploy.naming import stack_name
from deploy.stack import Stack

LOOK_SECONDS = 3.0
_ALIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]
_MINUTES = 15  # an instance that takes longer to go than this needs a look


def destroy(aws: Aws, stage: str, screen: Screen, *, yes: bool) -> bool:
    """Remove it, and say what was kept. False if the operator said no. Raises Stopped, BadName, botocore's errors."""
    name = stack_name(stage)
    stack = Stack(aws, name, screen)
    found = stack.describe()
    machines, groups = _machines(aws, name), _groups(aws, name)
    screen.say(f"{name} in account {aws.account}, {aws.region}")
    if found is None and not machines and not groups:
        screen.done("nothing is deployed")
    else:
        running = [m["InstanceId"] for m in machines if m["State"]["Name"] in ("pending", "running")]
        if running:
            screen.warn(f"{', '.join(running)} is awake: what is being pushed now is cut, and not snapshotted")
        screen.say(
            f"to be removed: {'the stack, ' if found else ''}{len(machines)} machines with their root disks, "
            f"{len(groups)} security groups. Hosts can't back up any more. Volumes, restore points, the table and "
            "the key stay."
        )
        if not yes and not screen.ask(f"Remove {name}?"):
            screen.say("nothing was removed")
            return False
    stack.delete()
    _terminate(aws, name, screen)
    _remove_groups(aws, name, screen)
    _remove_bucket(aws, screen)
    kept.show(kept.kept(aws, name), screen)
    return True


def _mine(name: str) -> Any:
    return [{"Name": "tag:nightvault:stack", "Values": [name]}]


def _machines(aws: Aws, name: str) -> list[Any]:
    filters = [*_mine(name), {"Name": "instance-state-name", "Values": _ALIVE}]
    pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)
    return [instance for page in pages for held in page["Reservations"] for instance in held["Instances"]]


def _groups(aws: Aws, name: str) -> list[Any]:
    pages = aws.ec2.get_paginator("describe_security_groups").paginate(Filters=_mine(name))
    return [group for page in pages for group in page["SecurityGroups"]]


def _terminate(aws: Aws, name: str, screen: Screen) -> None:
    """Hosts' volumes are only detached: they were attached later, so they don't go with the instance.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/preserving-volumes-on-termination.html
    """
    told: set[str] = set()
    for _ in range(int(_MINUTES * 60 / LOOK_SECONDS)):
        machines = _machines(aws, name)
        if not machines:
            break
        new = [m["InstanceId"] for m in machines if m["InstanceId"] not in told]
        if new:
            # Also those that shut down already: a call that was launched before the stack went may come late.
            aws.ec2.terminate_instances(InstanceIds=new)
            told |= set(new)
            screen.say(f"terminating {', '.join(new)}")
        screen.pause(LOOK_SECONDS)
    else:
        raise Stopped(f"{', '.join(sorted(told))} will not go", "look at it in EC2's console, then say it again")
    for instance_id in sorted(told):
        screen.done(f"{instance_id} is gone")


def _remove_groups(aws: Aws, name: str, screen: Screen) -> None:
    for group in _groups(aws, name):
        for _ in range(20):  # a network interface takes a moment longer to go than its instance
            try:
                aws.ec2.delete_security_group(GroupId=group["GroupId"])
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidGroup.NotFound":
                    break
                if error.response["Error"]["Code"] != "DependencyViolation":
                    raise
                screen.pause(LOOK_SECONDS)
            else:
                screen.done(f"removed the security group {group['GroupName']}")
                break
        else:
            raise Stopped(
                f"{group['GroupId']} is still in use", "see what uses it (aws ec2 describe-network-interfaces)"
            )


def _remove_bucket(aws: Aws, screen: Screen) -> None:
    """Unless another stage needs it."""
    pages = aws.cloudformation.get_paginator("describe_stacks").paginate()
    others = [
        stack["StackName"]
        for page in pages
        for stack in page["Stacks"]
        if any(tag["Key"] == "nightvault:stack" for tag in stack.get("Tags", [])) and "ParentId" not in stack
    ]
    bucket = Bucket(aws)
    if others:
        screen.say(f"the bucket {bucket.name} stays, for {', '.join(sorted(others))}")
    elif bucket.exists():
        bucket.delete()
        screen.done(f"removed the bucket {bucket.name}")
