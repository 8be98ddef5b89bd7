"""What a cold start does not pay for. benchmarks/cold_start.py has the figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Each costs tens of milliseconds, and three times that on Lambda.
DEAR = ("boto3", "aws_lambda_powertools", "chalicelib.timeline", "chalicelib.lifecycle", "chalicelib.cloud")


def loaded(script: str) -> set[str]:
    """Which of the dear modules a fresh interpreter has after `script`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{script}\nprint(json.dumps(sorted(sys.modules)))"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(DEAR) & set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_application_loads_nothing_dear() -> None:
    assert loaded("import app") == set()


def test_the_authorizer_refuses_what_is_no_token_without_asking_aws() -> None:
    script = """
import os
os.environ |= {"NIGHTVAULT_STACK": "s", "NIGHTVAULT_TABLE": "t", "NIGHTVAULT_LAUNCH_TEMPLATE": "l",
    "NIGHTVAULT_SUBNET": "n", "NIGHTVAULT_TOPIC_ARN": "a", "AWS_DEFAULT_REGION": "eu-central-1"}
import app
arn = "arn:aws:execute-api:eu-central-1:123456789012:api/api/GET/status"
app.bearer({"type": "TOKEN", "authorizationToken": "Bearer no", "methodArn": arn}, None)
"""
    assert loaded(script) == {"boto3"}, "the table's client, and neither telemetry nor the vault's life"
