"""What the sweep may do in a second region: decided as IAM decides, call by call."""

import re
from typing import Any

import pytest

from deploy import up
from deploy.console import Stopped
from deploy.copies import COPIES, COPY_KEY
from tests.stack.iam import Need, decide

HOME, THERE = "eu-central-1", "eu-west-1"
KEY = f"arn:aws:kms:{HOME}:123456789012:key/k"
COPY = f"arn:aws:kms:{THERE}:123456789012:key/c"
VALUES = {
    "AWS::Partition": "aws",
    "AWS::Region": HOME,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "nightvault",
    "CopyRegion": THERE,
    "CopyKmsKey": COPY,
}


def deployed(thing: Any) -> Any:
    """As CloudFormation would resolve it."""
    match thing:
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: VALUES[found[1]], text)
        case {"Ref": name}:
            return VALUES[name]
        case {"Fn::GetAtt": ["Key", "Arn"]}:
            return KEY
        case dict():
            return {name: deployed(value) for name, value in thing.items()}
        case list():
            return [deployed(each) for each in thing]
        case _:
            return thing


def snapshot(region: str) -> str:
    return f"arn:aws:ec2:{region}::snapshot/snap-1"


OURS = {"aws:ResourceTag/nightvault:stack": "nightvault"}
A_COPY = {"aws:ResourceTag/nightvault:stack": f"nightvault@{HOME}"}
BECOMES = {"aws:RequestTag/nightvault:stack": f"nightvault@{HOME}"}
BY_COPYING = {"ec2:CreateAction": "CopySnapshot"}
THROUGH = {"kms:ViaService": f"ec2.{THERE}.amazonaws.com"}


@pytest.mark.parametrize(
    ("may", "action", "resource", "context"),
    [
        (True, "ec2:CopySnapshot", snapshot(HOME), OURS),
        (False, "ec2:CopySnapshot", snapshot(HOME), {}),
        (True, "ec2:CopySnapshot", snapshot(THERE), BECOMES),
        (False, "ec2:CopySnapshot", snapshot(THERE), {}),
        (False, "ec2:CopySnapshot", snapshot("us-east-1"), BECOMES),
        (True, "ec2:CreateTags", snapshot(THERE), BECOMES | BY_COPYING),
        (False, "ec2:CreateTags", snapshot(THERE), BECOMES),
        (False, "ec2:CreateTags", snapshot(HOME), BECOMES | BY_COPYING),
        (True, "ec2:DeleteSnapshot", snapshot(THERE), A_COPY),
        (False, "ec2:DeleteSnapshot", snapshot(THERE), OURS),  # of a stack of the same name that lives there
        (False, "ec2:DeleteSnapshot", snapshot(HOME), A_COPY),
        (True, "kms:Decrypt", KEY, THROUGH),
        (False, "kms:Decrypt", KEY, {}),
        (False, "kms:ReEncryptTo", KEY, THROUGH),
        (True, "kms:CreateGrant", KEY, THROUGH | {"kms:GrantIsForAWSResource": "true"}),
        (False, "kms:CreateGrant", KEY, THROUGH),
        (True, "kms:GenerateDataKeyWithoutPlaintext", COPY, THROUGH),
        (False, "kms:GenerateDataKeyWithoutPlaintext", COPY, {}),
    ],
)
def test_what_the_sweep_may_do(may: bool, action: str, resource: str, context: dict[str, str]) -> None:
    policies = [{"Statement": deployed(statements)} for statements in (COPIES, COPY_KEY)]
    assert bool(decide(Need(action, resource, context), policies)) is may


def test_without_a_second_region_there_is_no_such_policy(resources: dict[str, Any]) -> None:
    for name, condition in (("CopyPolicy", "CopiesOn"), ("CopyKeyPolicy", "CopiesHaveKey")):
        assert resources[name]["Condition"] == condition
        assert resources[name]["Properties"]["Roles"] == [{"Ref": "SweepRole"}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CopyRegion": HOME}, "CopyRegion: eu-central-1 is where the restore points are"),
        ({"CopyKmsKey": COPY}, "CopyKmsKey: .*which is empty"),
        ({"CopyRegion": THERE, "CopyKmsKey": KEY}, "CopyKmsKey: .* is not of CopyRegion"),
    ],
)
def test_a_region_or_a_key_that_cannot_be_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(Stopped, match=said):
        up._copies(HOME, settings)


@pytest.mark.parametrize("settings", [{}, {"CopyRegion": THERE}, {"CopyRegion": THERE, "CopyKmsKey": COPY}])
def test_what_can_be_is_taken(settings: dict[str, str]) -> None:
    up._copies(HOME, settings)
