"""The template and the zip: whole, the same each time, and with what the code and the README count on."""

import base64
import gzip
import hashlib
import json
import re
import zipfile
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest

from chalicelib.model import Policy
from chalicelib.settings import PROGRAM, Settings
from deploy import parts
from deploy.packaging import Package
from deploy.policies import FUNCTIONS
from tests.template.conftest import ROOT, packaged


def test_the_functions_are_those_that_have_a_policy(resources: dict[str, Any]) -> None:
    in_template = {name for name, resource in resources.items() if resource["Type"] == "AWS::Serverless::Function"}
    assert in_template == {function.resource for function in FUNCTIONS}


def test_the_zip_holds_what_app_imports_and_nothing_else_of_ours(made: Package) -> None:
    with zipfile.ZipFile(made.zip_path) as archive:
        files = set(archive.namelist())
    tops = {name.split("/")[0] for name in files}
    assert {"app.py", "chalicelib", "chalice", "aws_lambda_powertools", "msgspec"} <= tops
    assert not tops & {"tests", "boto3", "botocore", ".chalice", "vault-image", "host-client", "deploy"}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "chalicelib").rglob("*.py")}
    assert {name for name in files if name.startswith("chalicelib/") and name.endswith(".py")} == ours
    bytecode = {name for name in files if name.endswith(".pyc")}
    # Of this Python, which is the functions' runtime, for every source of ours; a wheel may hold what is no module.
    assert {cache_from_source(name) for name in ours | {"app.py"}} <= bytecode <= {cache_from_source(n) for n in files}
    compiled = [name for name in files if name.endswith(".so")]
    assert compiled
    assert all("aarch64" in name for name in compiled), "Lambda runs on arm64"


def test_the_zip_holds_the_program_that_user_data_names(made: Package, resources: dict[str, Any]) -> None:
    with zipfile.ZipFile(made.zip_path) as archive:
        program = archive.read(f"chalicelib/{PROGRAM.name}")
    data = resources["VaultTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    assert hashlib.sha256(program).hexdigest() in gzip.decompress(base64.b64decode(data)).decode()


def test_the_same_sources_give_the_same_bytes(made: Package, tmp_path: Path) -> None:
    """Else every deployment would deploy something."""
    again = packaged(tmp_path)
    assert again.zip_path.read_bytes() == made.zip_path.read_bytes()
    assert again.template_path.read_bytes() == made.template_path.read_bytes()


def test_the_code_is_named_by_its_content(made: Package) -> None:
    functions = [
        resource["Properties"]["CodeUri"]
        for resource in made.uploaded("bucket")["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    assert functions == [{"Bucket": "bucket", "Key": made.zip_key}] * len(FUNCTIONS)
    assert re.fullmatch(r"[0-9a-f]{32}\.zip", made.zip_key)


def test_requirements_are_those_of_the_project() -> None:
    listed = re.findall(
        r'^\s*"([a-z0-9-]+)', (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1], re.MULTILINE
    )
    carried = re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    # Lambda's runtime brings boto3, and `chalice package` brings its runtime part by itself.
    assert set(carried) == set(listed[:4]) - {"boto3", "chalice"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_gets_its_settings(resources: dict[str, Any], function: Any) -> None:
    """With the parameters' defaults, they are what the code takes as the default."""
    variables = resources[function.resource]["Properties"]["Environment"]["Variables"]
    defaults = {name: str(parameter.get("Default", "x")) for name, parameter in _parameters().items()}
    environment = {name: defaults.get(value.get("Ref", ""), "x") for name, value in variables.items()}
    settings = Settings.from_environment(environment)
    assert settings.policy == Policy()
    assert bool(settings.url) == (function.name == "operate")
    assert settings.kms_key and settings.url_parameter


def _parameters() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / ".chalice" / "resources.json").read_text())["Parameters"]
    return found


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_no_log_lives_for_ever(resources: dict[str, Any], function: Any) -> None:
    lambda_ = resources[function.resource]
    group = resources[function.log_group]["Properties"]
    assert group["LogGroupName"]["Fn::Sub"] == "/aws/lambda/" + lambda_["Properties"]["FunctionName"]["Fn::Sub"]
    assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert function.log_group in lambda_["DependsOn"], "else Lambda would make it, without retention"


def test_data_stays_when_the_stack_goes(resources: dict[str, Any]) -> None:
    for name in ("Table", "Key"):
        assert (resources[name]["DeletionPolicy"], resources[name]["UpdateReplacePolicy"]) == ("Retain", "Retain")
    table = resources["Table"]["Properties"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"]["KMSMasterKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}


def test_the_vault_is_launched_as_the_design_says(resources: dict[str, Any]) -> None:
    template = resources["VaultTemplate"]["Properties"]
    assert template["LaunchTemplateName"] == {"Fn::Sub": "${AWS::StackName}-vault"}
    data = template["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"
    [root] = data["BlockDeviceMappings"]
    assert root["Ebs"]["Encrypted"] is True and root["Ebs"]["DeleteOnTermination"] is True
    assert root["Ebs"]["VolumeType"] == "gp3"
    # No credentials, no way in but what the control plane opens: it names subnet and group at each launch.
    assert not {"IamInstanceProfile", "KeyName", "NetworkInterfaces", "SecurityGroupIds"} & set(data)
    assert gzip.decompress(base64.b64decode(data["UserData"])).startswith(b"#cloud-config\n")


def test_the_api_is_regional_throttled_and_logged(resources: dict[str, Any]) -> None:
    api = resources["RestAPI"]["Properties"]
    assert api["EndpointConfiguration"] == "REGIONAL"
    [setting] = api["MethodSettings"]
    assert (setting["HttpMethod"], setting["ResourcePath"]) == ("*", "/*")
    assert setting["ThrottlingRateLimit"] == {"Ref": "RequestsPerSecond"}
    # Without it SAM makes a second stage, named Stage, with none of this (aws/serverless-application-model#191).
    assert api["OpenApiVersion"] == "2.0"
    logged = json.loads(api["AccessLogSetting"]["Format"])
    assert not [field for field in logged.values() if "header" in field.lower() or "body" in field.lower()]


def test_whoever_takes_a_code_away_from_a_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PARTS", (*parts.PARTS, lambda: {"Resources": {"Table": {"Type": "X"}}}))
    with pytest.raises(parts.PartsDisagree, match=r"Resources\.Table\.Type"):
        parts.merged()
