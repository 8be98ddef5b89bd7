"""The evaluator, by cases that AWS's pages state."""

from typing import Any

import pytest

from tests.stack.iam import Grant, Need, decide, grants

TAG = "aws:ResourceTag/nightvault:stack"
I = "arn:aws:ec2:eu-central-1:123456789012:instance/i-1"  # noqa: E741


def allow(action: Any, resource: Any = "*", condition: Any = None, effect: str = "Allow") -> dict[str, Any]:
    statement = {"Sid": "S", "Effect": effect, "Action": action, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [{**statement, **({"Condition": condition} if condition else {})}]}


def equal(key: str, value: Any) -> dict[str, Any]:
    return {"StringEquals": {key: value}}


CASES: list[tuple[str, list[dict[str, Any]], dict[str, Any], bool]] = [
    ("nothing is allowed that no one allows", [], {}, False),
    ("its action", [allow("ec2:StopInstances")], {}, True),
    ("another action", [allow("ec2:StartInstances")], {}, False),
    ("actions have no case", [allow("EC2:stopinstances")], {}, True),
    ("a wildcard in an action", [allow("ec2:Stop*")], {}, True),
    ("a longer action", [allow("ec2:StopInstance")], {}, False),
    ("one of several", [allow(["ec2:StartInstances", "ec2:StopInstances"])], {}, True),
    ("its resource", [allow("ec2:StopInstances", I)], {}, True),
    ("resources have case", [allow("ec2:StopInstances", I.upper())], {}, False),
    ("a kind of resource", [allow("ec2:StopInstances", "arn:aws:ec2:*:*:instance/*")], {}, True),
    ("another kind", [allow("ec2:StopInstances", "arn:aws:ec2:*:*:volume/*")], {}, False),
    ("? is one character", [allow("ec2:StopInstances", I[:-1] + "?")], {}, True),
    ("? is not none", [allow("ec2:StopInstances", I + "?")], {}, False),
    ("a tag", [allow("ec2:StopInstances", "*", equal(TAG, "nv"))], {TAG: "nv"}, True),
    ("another value", [allow("ec2:StopInstances", "*", equal(TAG, "nv"))], {TAG: "NV"}, False),
    ("no tag", [allow("ec2:StopInstances", "*", equal(TAG, "nv"))], {}, False),
    ("keys have no case", [allow("ec2:StopInstances", "*", equal(TAG.lower(), "nv"))], {TAG: "nv"}, True),
    ("equals knows no wildcard", [allow("ec2:StopInstances", "*", equal(TAG, "n*"))], {TAG: "nv"}, False),
    ("like does", [allow("ec2:StopInstances", "*", {"StringLike": {TAG: "n*"}})], {TAG: "nv"}, True),
    ("any of the values", [allow("ec2:StopInstances", "*", equal(TAG, ["a", "nv"]))], {TAG: "nv"}, True),
    (
        "all keys of an operator",
        [allow("ec2:StopInstances", "*", {"StringEquals": {TAG: "nv", "k": "v"}})],
        {TAG: "nv"},
        False,
    ),
    ("not equal holds without the key", [allow("ec2:StopInstances", "*", {"StringNotEquals": {TAG: "x"}})], {}, True),
    ("not equal", [allow("ec2:StopInstances", "*", {"StringNotEquals": {TAG: "x"}})], {TAG: "x"}, False),
    ("if it exists: not", [allow("ec2:StopInstances", "*", {"StringEqualsIfExists": {TAG: "x"}})], {}, True),
    (
        "if it exists: it does",
        [allow("ec2:StopInstances", "*", {"StringEqualsIfExists": {TAG: "x"}})],
        {TAG: "y"},
        False,
    ),
    ("absent", [allow("ec2:StopInstances", "*", {"Null": {TAG: "true"}})], {}, True),
    ("absent, but present", [allow("ec2:StopInstances", "*", {"Null": {TAG: "true"}})], {TAG: "x"}, False),
    ("present", [allow("ec2:StopInstances", "*", {"Null": {TAG: "false"}})], {TAG: "x"}, True),
    (
        "all tags that are given",
        [allow("ec2:StopInstances", "*", {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}})],
        {"aws:TagKeys": ["a", "b"]},
        True,
    ),
    (
        "a tag too many",
        [allow("ec2:StopInstances", "*", {"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}})],
        {"aws:TagKeys": ["a", "b"]},
        False,
    ),
    (
        "all of none",
        [allow("ec2:StopInstances", "*", {"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}})],
        {},
        True,
    ),
    (
        "any of none",
        [allow("ec2:StopInstances", "*", {"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}})],
        {},
        False,
    ),
    (
        "any of them",
        [allow("ec2:StopInstances", "*", {"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}})],
        {"aws:TagKeys": ["a", "b"]},
        True,
    ),
    ("truth", [allow("ec2:StopInstances", "*", {"Bool": {"k": "true"}})], {"k": "True"}, True),
    ("deny wins", [allow("ec2:*"), allow("ec2:StopInstances", effect="Deny")], {}, False),
    ("deny elsewhere", [allow("ec2:*"), allow("ec2:StopInstances", "arn:x", effect="Deny")], {}, True),
    (
        "deny under a condition that does not hold",
        [allow("ec2:*"), allow("ec2:*", "*", equal(TAG, "other"), effect="Deny")],
        {TAG: "nv"},
        True,
    ),
]


@pytest.mark.parametrize(("policies", "context", "allowed"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_decision(policies: list[dict[str, Any]], context: dict[str, Any], allowed: bool) -> None:
    assert bool(decide(Need("ec2:StopInstances", I, context), policies)) is allowed


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "NotAction": "ec2:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
    ],
)
def test_what_is_not_known_is_never_passed(statement: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        decide(Need("ec2:StopInstances", I, {"aws:SourceIp": "10.0.0.1"}), [{"Statement": [statement]}])


def test_what_allowed_it_is_said_by_statement_action_and_resource() -> None:
    policy = {
        "Statement": [
            {"Sid": "A", "Effect": "Allow", "Action": ["x:One", "x:Two"], "Resource": ["arn:1", "arn:*"]},
            {"Sid": "B", "Effect": "Allow", "Action": "x:Two", "Resource": "*"},
        ]
    }
    assert set(decide(Need("x:Two", "arn:2", {}), [policy])) == {Grant("A", "x:Two", "arn:*"), Grant("B", "x:Two", "*")}
    assert len(list(grants([policy]))) == 5
