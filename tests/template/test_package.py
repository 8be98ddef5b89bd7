"""The template and the zip as `chalice package` makes them: handlers exist, and each function may do what it must.

A later issue deploys and proves the policies; here they are held to what the code calls.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHALICE = Path(sys.executable).with_name("chalice")
FUNCTIONS = {
    "APIHandler": ("app.app", "policy-api.json"),
    "Bearer": ("app.bearer", "policy-bearer.json"),
    "Sweep": ("app.sweep", "policy-sweep.json"),
    "InstanceChanged": ("app.instance_changed", "policy-instance-changed.json"),
    "SnapshotChanged": ("app.snapshot_changed", "policy-snapshot-changed.json"),
    "Operate": ("app.operate", "policy-operate.json"),
    "TimelineWidget": ("app.timeline_widget", "policy-timeline-widget.json"),
}
DESCRIBES = re.compile(r"ec2:Describe[A-Za-z]+")


@dataclass(frozen=True)
class Package:
    template: dict[str, Any]
    files: frozenset[str]

    @property
    def resources(self) -> dict[str, Any]:
        found: dict[str, Any] = self.template["Resources"]
        return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    out = tmp_path_factory.mktemp("package")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTVAULT_", "AWS_"))}
    done = subprocess.run(
        [CHALICE, "package", "--stage", "prod", "--merge-template", ".chalice/resources.json", out / "made"],
        cwd=ROOT,
        env={**kept, "AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0 and re.search(
        r"Could not install dependencies|No matching distribution|ConnectionError|Max retries|NewConnectionError",
        done.stdout + done.stderr,
    ):
        pytest.skip("offline: `chalice package` fetches the wheels that Lambda runs")
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(out / "made" / "deployment.zip") as archive:
        files = frozenset(archive.namelist())
    return Package(json.loads((out / "made" / "sam.json").read_text()), files)


def test_the_functions_are_these_and_their_handlers_exist(package: Package) -> None:
    made = {
        name: resource["Properties"]["Handler"]
        for name, resource in package.resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    assert made == {name: handler for name, (handler, _) in FUNCTIONS.items()}
    script = "".join(f"import app; assert callable({handler})\n" for handler in made.values())
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={}, check=True)


def test_the_zip_holds_what_app_imports_and_no_secret(package: Package) -> None:
    tops = {name.split("/")[0] for name in package.files}
    assert {"app.py", "chalicelib", "chalice", "aws_lambda_powertools", "msgspec"} <= tops
    assert not tops & {"tests", "boto3", "botocore", ".chalice", "vault-image", "host-client"}
    ours = {path.name for path in (ROOT / "chalicelib").glob("*.py")}
    assert {name.removeprefix("chalicelib/") for name in package.files if name.startswith("chalicelib/")} >= ours
    compiled = [name for name in package.files if name.endswith(".so")]
    assert compiled
    assert all("aarch64" in name for name in compiled), "Lambda runs on arm64"


def test_requirements_are_those_of_the_project() -> None:
    listed = re.findall(
        r'^\s*"([a-z0-9-]+)', (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1], re.MULTILINE
    )
    carried = re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    # Lambda's runtime brings boto3, and `chalice package` brings its runtime part by itself.
    assert set(carried) == set(listed[:4]) - {"boto3", "chalice"}


# --- policies -------------------------------------------------------------------------------------------


def policy(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / ".chalice" / FUNCTIONS[name][1]).read_text())["Statement"]
    return found


def actions(name: str) -> set[str]:
    return {action for statement in policy(name) for action in statement["Action"]}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_a_role_and_policy_of_its_own(package: Package, name: str) -> None:
    role = {"APIHandler": "ApiHandlerRole"}.get(name, f"{name}Role")
    assert package.resources[name]["Properties"]["Role"] == {"Fn::GetAtt": [role, "Arn"]}
    (made,) = package.resources[role]["Properties"]["Policies"]
    assert made["PolicyDocument"]["Statement"] == policy(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_policy_says_everything(name: str) -> None:
    for statement in policy(name):
        assert statement["Effect"] == "Allow"
        assert all("*" not in action for action in statement["Action"])
        if statement["Resource"] == "*":
            assert all(DESCRIBES.fullmatch(action) for action in statement["Action"]), statement["Sid"]
    assert "logs:PutLogEvents" in actions(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_policies_name_is_in_the_template(package: Package, name: str) -> None:
    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            if "Fn::GetAtt" in value:
                return {str(value["Fn::GetAtt"][0])}
            if "Ref" in value:
                return set() if value["Ref"].startswith("AWS::") else {str(value["Ref"])}
            return set().union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list) else set()

    assert names(policy(name)) <= set(package.resources)


def called(module: str) -> set[str]:
    """API names of the boto3 calls in a source file: `self._client.run_instances(` is RunInstances."""
    source = (ROOT / "chalicelib" / module).read_text()
    snake = set(re.findall(r"_client\s*\.(\w+)\(", source)) | set(re.findall(r'get_paginator\("(\w+)"\)', source))
    return {"".join(word.title() for word in name.split("_")) for name in snake - {"get_paginator"}}


@pytest.mark.parametrize("name", ["APIHandler", "Sweep", "InstanceChanged"])
def test_who_runs_a_vaults_life_may_make_every_call_of_the_adapter(name: str) -> None:
    assert {f"ec2:{call}" for call in called("cloud.py")} <= actions(name)
    assert "sns:Publish" in actions(name)


def test_every_call_to_the_table_is_allowed_to_someone() -> None:
    # A transaction needs the actions of the writes in it, and is none itself.
    needed = {f"dynamodb:{call}" for call in called("store.py") - {"TransactWriteItems"}}
    assert needed <= actions("APIHandler")
    assert needed <= actions("Sweep")


def test_the_authorizer_the_widget_and_the_operator_touch_no_machine() -> None:
    assert {a for a in actions("TimelineWidget") if not a.startswith("logs:")} == {"dynamodb:Query"}
    assert {action for action in actions("Bearer") if not action.startswith("logs:")} == {"dynamodb:GetItem"}
    assert not [action for action in actions("Operate") if action.startswith("ec2:")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whatever_changes_a_machine_is_tied_to_our_tag(name: str) -> None:
    free = {"LaunchFrom", "MakeGroupInVpc"}  # what a launch takes, and the VPC that a group is made in
    for statement in policy(name):
        changes = [a for a in statement["Action"] if a.startswith("ec2:") and not DESCRIBES.fullmatch(a)]
        if changes and statement["Sid"] not in free:
            assert "nightvault:stack" in json.dumps(statement.get("Condition", {})), statement["Sid"]
