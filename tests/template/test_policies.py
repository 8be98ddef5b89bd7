"""Least privilege, as far as a policy's text shows it; tests/stack holds it against the calls that are made."""

import json
import re
from typing import Any

import pytest

from deploy.functions import Function
from deploy.policies import FUNCTIONS, UNSCOPED, policy, unscoped_rows
from tests.template.conftest import ROOT

READS = re.compile(r"[a-z0-9]+:(Describe|Get|List)[A-Za-z]+")
BY_NAME = {function.name: function for function in FUNCTIONS}
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)


def statements(function: Function) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = policy(function)["Statement"]
    return found


def actions(name: str) -> set[str]:
    return {action for statement in statements(BY_NAME[name]) for action in statement["Action"]}


@every_function
def test_a_role_and_policy_of_its_own(resources: dict[str, Any], function: Function) -> None:
    assert resources[function.resource]["Properties"]["Role"] == {"Fn::GetAtt": [function.role, "Arn"]}
    [packaged] = resources[function.role]["Properties"]["Policies"]
    assert packaged["PolicyDocument"] == policy(function)
    assert not resources[function.role]["Properties"].get("ManagedPolicyArns")
    users = [
        name
        for name, resource in resources.items()
        if resource.get("Properties", {}).get("Role") == {"Fn::GetAtt": [function.role, "Arn"]}
    ]
    assert users == [function.resource]


@every_function
def test_nothing_is_allowed_wholesale(function: Function) -> None:
    for statement in statements(function):
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource"} & set(statement)
        assert all("*" not in action for action in statement["Action"])
        if statement["Resource"] == "*":
            assert set(statement["Action"]) <= set(UNSCOPED), statement["Sid"]
    sids = [statement["Sid"] for statement in statements(function)]
    assert len(sids) == len(set(sids))


def test_what_has_no_narrower_resource_only_reads_and_is_used() -> None:
    assert all(READS.fullmatch(action) for action in UNSCOPED)
    assert all(page.startswith("https://docs.aws.amazon.com/") for page in UNSCOPED.values())
    assert set(UNSCOPED) <= set().union(*(actions(name) for name in BY_NAME))


def test_the_documentation_lists_them_all() -> None:
    """On a difference: put what `python -c 'from deploy.policies import *; print(unscoped_rows())'` prints there."""
    assert f"\n|---|---|\n{unscoped_rows()}\n\n" in (ROOT / "docs" / "permissions.md").read_text()


@every_function
def test_it_writes_to_its_own_log_only_and_makes_none(function: Function) -> None:
    logs = [s for s in statements(function) if any(action.startswith("logs:") for action in s["Action"])]
    [statement] = [s for s in logs if s["Sid"] == "Logs"]
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"]["Fn::Sub"].endswith(f"/aws/lambda/${{AWS::StackName}}-{function.suffix}:*")


@every_function
def test_whatever_changes_a_machine_is_tied_to_our_tag(function: Function) -> None:
    free = {"LaunchFrom", "MakeGroupInVpc"}  # what a launch takes, and the VPC that a group is made in
    for statement in statements(function):
        changes = [a for a in statement["Action"] if a.startswith("ec2:") and not READS.fullmatch(a)]
        if changes and statement["Sid"] not in free:
            assert "nightvault:stack" in json.dumps(statement.get("Condition", {})), statement["Sid"]


@every_function
def test_tags_are_given_only_by_what_makes_the_thing(function: Function) -> None:
    for statement in statements(function):
        if "ec2:CreateTags" in statement["Action"]:
            assert statement["Condition"]["StringEquals"]["ec2:CreateAction"]


@every_function
def test_the_key_is_used_through_a_service_only(function: Function) -> None:
    for statement in statements(function):
        if any(action.startswith("kms:") for action in statement["Action"]):
            assert statement["Resource"] == {"Fn::GetAtt": ["Key", "Arn"]}
            assert "kms:ViaService" in statement["Condition"]["StringEquals"]
            if "kms:CreateGrant" in statement["Action"]:
                assert statement["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


@every_function
def test_what_it_names_is_in_the_template(resources: dict[str, Any], function: Function) -> None:
    text = json.dumps(policy(function))
    parameters = json.loads((ROOT / ".chalice" / "resources.json").read_text())["Parameters"]
    named = set(re.findall(r"\$\{([A-Za-z]+)\}", text)) | set(re.findall(r'"Ref": "([A-Za-z]+)"', text))
    named |= set(re.findall(r'"Fn::GetAtt": \["([A-Za-z]+)"', text))
    assert named <= set(resources) | set(parameters)


def called(module: str) -> set[str]:
    """API names of the boto3 calls in a source file: `self._client.run_instances(` is RunInstances."""
    source = (ROOT / "chalicelib" / module).read_text()
    snake = set(re.findall(r"client\s*\.(\w+)\(", source)) | set(re.findall(r'get_paginator\("(\w+)"\)', source))
    return {"".join(word.title() for word in name.split("_")) for name in snake - {"get_paginator"}}


@pytest.mark.parametrize("name", ["sweep"])
def test_who_repairs_everything_may_make_every_call_of_the_adapter(name: str) -> None:
    """What the others may is held to what they call: tests/stack/test_least_privilege.py."""
    needed = {f"ssm:{call}" if call == "GetParameter" else f"ec2:{call}" for call in called("cloud.py")}
    assert needed <= actions(name)
    assert "sns:Publish" in actions(name)


def test_every_call_to_the_table_is_allowed_to_someone() -> None:
    # A transaction needs the actions of the writes in it, and is none itself.
    needed = {f"dynamodb:{call}" for call in called("store.py") - {"TransactWriteItems"}}
    assert needed <= actions("api_handler")
    assert needed <= actions("sweep")


@pytest.mark.parametrize(("name", "only"), [("bearer", {"dynamodb:GetItem"}), ("timeline_widget", {"dynamodb:Query"})])
def test_who_only_reads_the_table(name: str, only: set[str]) -> None:
    assert {action for action in actions(name) if not action.startswith(("logs:", "kms:"))} == only
