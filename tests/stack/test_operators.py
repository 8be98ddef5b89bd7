"""An operator at work: `vaultctl` as a process, with nothing but the right to invoke the deployed `operate`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.packaging import Package
from tests.e2e.nights import asleep, vault
from tests.localcloud.hosts import FakeHost
from tests.localcloud.interposer import REGION
from tests.localcloud.paths import REPOSITORY
from tests.stack.cloud import StackCloud
from tests.stack.nights import PATIENCE, POLICY, night

pytestmark = pytest.mark.stack


class Operator:
    """A user of the account whose only permission is lambda:InvokeFunction on `operate`."""

    def __init__(self, cloud: StackCloud) -> None:
        iam, function = cloud.emulator.client("iam"), cloud.deployed.function("operate")
        found = cloud.emulator.client("lambda").get_function_configuration(FunctionName=function)
        allowed = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": found["FunctionArn"]}
        iam.create_user(UserName="operator")
        iam.put_user_policy(
            UserName="operator",
            PolicyName="operate",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
        )
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(cloud.directory),
            "AWS_ENDPOINT_URL": cloud.emulator.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vaultctl", "--json", *words],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def asks(self, *words: str) -> dict[str, Any]:
        """The answer; AssertionError with what it said, if it exits with anything but 0."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture(scope="module")
def cloud(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackCloud]:
    with StackCloud(tmp_path_factory.mktemp("operators"), made, policy=POLICY, machines=False) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def operator(cloud: StackCloud) -> Operator:
    return Operator(cloud)


def enrolled(cloud: StackCloud, operator: Operator, name: str) -> FakeHost:
    """By the code and the address that `vaultctl enroll` prints."""
    invitation = operator.asks("enroll", name, "--size-gib", "1")
    return FakeHost.enrolled(cloud.resolved(invitation["url"]), name, invitation["code"])


def test_from_enrolment_to_retirement(cloud: StackCloud, operator: Operator) -> None:
    host = enrolled(cloud, operator, "C")
    night(cloud, host)
    (seen,) = operator.asks("hosts")["hosts"]
    assert (seen["name"], seen["overdue"]) == ("C", False)
    (window,) = operator.asks("windows")["windows"]
    assert [run["outcome"] for run in window["runs"]] == ["complete"]
    (point,) = operator.asks("restore-points", "C")["restore_points"]
    assert point["snapshot_id"] == seen["last"]["snapshot_id"] == cloud.snapshots()[0]["SnapshotId"]

    operator.asks("change", "C", "--every", "12h")
    assert operator.asks("host", "C")["host"]["every_seconds"] == 43200

    operator.asks("wake")
    cloud.wait_until(lambda: vault(cloud)["phase"] == "open", PATIENCE, what="the vault is open for the operator")
    operator.asks("sleep")
    asleep(cloud)
    operator.asks("rebuild-vault", "--yes")
    night(cloud, host)
    assert len({each["instance_id"] for each in operator.asks("vaults")["vaults"]} - {None}) == 1
    assert sorted(cloud.instances().values()) == ["stopped", "terminated"]

    old = host
    host = enrolled_again(cloud, operator, "C")
    assert host.status().status == 200
    # API Gateway keeps the authorizer's answer for a minute, as app.py says it may.
    cloud.wait_until(lambda: old.status().status == 403, 75, what="the old token is worthless")
    operator.asks("retire", "C", "--yes")
    assert len(operator.asks("restore-points", "C")["restore_points"]) == len(cloud.snapshots()) == 2
    assert not cloud.denied()
    assert not cloud.failures


def enrolled_again(cloud: StackCloud, operator: Operator, name: str) -> FakeHost:
    invitation = operator.asks("rotate", name)
    return FakeHost.enrolled(cloud.resolved(invitation["url"]), name, invitation["code"])


def test_an_operator_may_ask_operate_and_nothing_else(cloud: StackCloud, operator: Operator) -> None:
    assert operator.asks("about")["stack"] == "nightvault"
    refused = operator.run("--stack", "another", "about")
    assert refused.returncode == 3, refused.stderr
    session = {name: operator.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    lambda_ = cloud.emulator.client_as("lambda", *session.values())
    with pytest.raises(lambda_.exceptions.ClientError, match="AccessDenied"):
        lambda_.invoke(FunctionName=cloud.deployed.function("sweep"), Payload=b"{}")
