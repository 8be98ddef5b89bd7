"""A local AWS with CloudFormation in it, as a server process on a free port; see tools/prepare for its environment."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from deploy.packaging import Package

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".venv-ministack" / "bin" / "ministack"
IMAGE = "/test/debian"  # AWS's own public parameters are not there, and nobody may put one


def deployable(made: Package, folder: Path) -> Package:
    """The package with what ministack's CloudFormation can't make put simpler: alarms on metric math."""
    template = made.template
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::CloudWatch::Alarm" and properties.pop("Metrics", None):
            properties |= {"Namespace": "nightvault", "MetricName": "Faults", "Statistic": "Sum", "Period": 60}
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    return Package(path, made.zip_path)


class Ministack:
    """`environment` is what makes boto3, here or in another process, talk to it."""

    def __init__(self, log: Path) -> None:
        if not PROGRAM.exists():
            pytest.skip("no ministack: tools/prepare stack")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NIGHTVAULT_"))}
        settings = {"IOT_MTLS_ENABLED": "0", "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1"}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [PROGRAM], env={**kept, **settings, "GATEWAY_PORT": str(port)}, cwd=log.parent, stdout=out, stderr=out
            )
        self.log = log
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=1):  # noqa: S310 (http)
                    return
            except OSError:
                time.sleep(0.05)
        self.close()
        raise AssertionError(f"ministack does not answer: {self.log.read_text()[-2000:]}")

    def environment(self, region: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": region,
            "AWS_REGION": region,
        }

    def session(self, region: str) -> boto3.session.Session:
        return boto3.session.Session("testing", "testing", region_name=region)

    def client(self, service: str, region: str) -> Any:
        session: Any = self.session(region)
        return session.client(service, endpoint_url=self.url)

    def with_image(self, region: str) -> str:
        """Debian's image, as AWS would have it; gives the name of its parameter."""
        image = self.client("ec2", region).register_image(
            Name="debian-12-arm64", Architecture="arm64", RootDeviceName="/dev/xvda"
        )["ImageId"]
        self.client("ssm", region).put_parameter(Name=IMAGE, Value=image, Type="String", Overwrite=True)
        return IMAGE

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
