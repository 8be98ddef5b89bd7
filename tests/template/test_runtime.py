"""The zip runs with nothing but what Lambda's runtime has: each handler string, imported and invoked afresh.

The zip's compiled parts are for arm64. So it is packaged a second time for the machine that runs this, from the same
requirements, and the two are held against each other: the same files, but for the compiled ones' names.
"""

import base64
import gzip
import hashlib
import json
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from packaging.requirements import Requirement

from deploy.functions import Function
from deploy.packaging import Package
from deploy.policies import FUNCTIONS
from tests.template.conftest import ROOT, packaged

NATIVE = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
AARCH64 = 183  # e_machine: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
REGION = "eu-central-1"
SCRIPT = Path(__file__).with_name("in_lambda.py")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return packaged(tmp_path_factory.mktemp("native"), NATIVE)


@pytest.fixture(scope="module")
def task(native: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/var/task, as Lambda unpacks it."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(native.zip_path) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/var/runtime: boto3 and what it needs, and nothing else of this environment.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
    """
    folder = tmp_path_factory.mktemp("runtime")
    wanted, seen = ["boto3"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for file in found.files or []:
            top = folder / file.parts[0]
            if not file.parts[0].startswith("..") and not top.is_symlink():
                top.symlink_to(Path(str(found.locate_file(file.parts[0]))))
        for line in found.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.append(needed.name)
    return folder


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """AWS, by moto in a process of its own; gives the environment of a function in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"},
            stdout=out,
            stderr=out,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{url}/moto-api/", timeout=1):  # noqa: S310 (http)
                    break
            except OSError:
                assert time.monotonic() < end and server.poll() is None, log.read_text()
                time.sleep(0.05)
        yield {**_furnish(url), "AWS_ENDPOINT_URL": url}
    finally:
        server.terminate()
        server.wait(10)


def _furnish(url: str) -> dict[str, str]:
    session: Any = boto3.session.Session("testing", "testing", region_name=REGION)
    table = json.loads((ROOT / ".chalice" / "resources.json").read_text())["Resources"]["Table"]["Properties"]
    session.client("dynamodb", endpoint_url=url).create_table(
        TableName="t", **{key: table[key] for key in ("AttributeDefinitions", "KeySchema", "BillingMode")}
    )
    topic = session.client("sns", endpoint_url=url).create_topic(Name="t")["TopicArn"]
    subnet = session.client("ec2", endpoint_url=url).describe_subnets()["Subnets"][0]["SubnetId"]
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "NIGHTVAULT_STACK": "nightvault",
        "NIGHTVAULT_TABLE": "t",
        "NIGHTVAULT_LAUNCH_TEMPLATE": "nightvault-vault",
        "NIGHTVAULT_SUBNET": subnet,
        "NIGHTVAULT_TOPIC_ARN": topic,
        "NIGHTVAULT_URL_PARAMETER": "/nightvault/url",
    }


def request(method: str, path: str, body: str | None) -> dict[str, Any]:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html"""
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "httpMethod": method,
            "resourcePath": path,
            "identity": {"sourceIp": "198.51.100.7"},
            "requestId": "r",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "tests" / "events" / f"{name}.json").read_text())
    return found


# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html
TOKEN = {
    "type": "TOKEN",
    "authorizationToken": "Bearer nv1.C.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "methodArn": f"arn:aws:execute-api:{REGION}:123456789012:api/api/POST/start",
}
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html
TICK = {
    **event("ec2_instance_state_change"),
    "source": "aws.events",
    "detail-type": "Scheduled Event",
    "detail": {},
}

# What each is asked, and a word that its answer must hold: so it has been to the table.
ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "api_handler": (
        request("POST", "/enroll", json.dumps({"code": "x", "public_key": "ssh-ed25519 " + "A" * 68})),
        "403",
    ),
    "bearer": (TOKEN, "policyDocument"),
    "sweep": (TICK, "null"),
    "instance_changed": (event("ec2_instance_state_change"), "null"),
    "snapshot_changed": (event("ebs_create_snapshot"), "null"),
    "operate": ({"action": "hosts"}, '"hosts": []'),
    "timeline_widget": ({"widgetContext": {"theme": "dark"}}, "<"),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_it_runs_with_nothing_but_lambdas_runtime(
    native: Package, task: Path, runtime: Path, cloud: dict[str, str], function: Function
) -> None:
    handler = native.template["Resources"][function.resource]["Properties"]["Handler"]
    asked, expected = ASKED[function.name]
    assert expected in json.dumps(given(asked, handler, task, runtime, cloud))


def given(asked: dict[str, Any], handler: str, task: Path, runtime: Path, cloud: dict[str, str]) -> Any:
    """What the handler answers."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, task, runtime, handler],
        input=json.dumps(asked),
        env=cloud,
        cwd=task,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["outside"] == []
    return told["given"]


def test_a_new_vault_gets_the_program_that_its_user_data_names(
    native: Package, task: Path, runtime: Path, cloud: dict[str, str]
) -> None:
    data = native.template["Resources"]["VaultTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    (digest,) = re.findall(r"\b[0-9a-f]{64}\b", gzip.decompress(base64.b64decode(data)).decode())
    asked = request("GET", "/program", None) | {"multiValueQueryStringParameters": {"sha256": [digest]}}
    answer = given(asked, "app.app", task, runtime, cloud)
    assert answer["statusCode"] == 200
    assert hashlib.sha256(base64.b64decode(json.loads(answer["body"])["program"])).hexdigest() == digest


def test_the_proof_sees_what_is_missing(task: Path, runtime: Path, cloud: dict[str, str], tmp_path: Path) -> None:
    """Without a library that the zip must carry, the same run fails."""
    for entry in task.iterdir():
        if entry.name != "msgspec":
            (tmp_path / entry.name).symlink_to(entry)
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, tmp_path, runtime, "app.operate"],
        input="{}",
        env=cloud,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1 and "No module named 'msgspec'" in done.stderr


def _names(package: Package) -> set[str]:
    """Without what the machine's kind adds to a compiled file's name, and the wheels' own lists of files."""
    with zipfile.ZipFile(package.zip_path) as archive:
        return {re.sub(r"-(aarch64|x86_64)-linux-gnu|\.dist-info/.*", "", name) for name in archive.namelist()}


def test_the_zip_for_lambda_differs_in_compiled_parts_only(made: Package, native: Package) -> None:
    assert _names(made) == _names(native)
    with zipfile.ZipFile(made.zip_path) as arm, zipfile.ZipFile(native.zip_path) as other:
        for name in arm.namelist():
            if name.endswith(".so"):
                header = arm.read(name)[:20]
                assert header.startswith(b"\x7fELF") and struct.unpack("<H", header[18:])[0] == AARCH64, name
            elif name.endswith(".py"):
                assert arm.read(name) == other.read(name), name
