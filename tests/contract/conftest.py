"""DynamoDB as moto plays it, in process."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RESOURCES = Path(__file__).resolve().parents[2] / ".chalice" / "resources.json"


def make_table(client: "DynamoDBClient", name: str) -> None:
    """The table as the template makes it."""
    properties = json.loads(RESOURCES.read_text())["Resources"]["Table"]["Properties"]
    expiry = properties["TimeToLiveSpecification"]
    wanted = ("AttributeDefinitions", "KeySchema", "BillingMode")
    client.create_table(TableName=name, **{key: properties[key] for key in wanted})
    client.update_time_to_live(TableName=name, TimeToLiveSpecification=expiry)


@pytest.fixture(scope="module")
def mocked() -> Iterator["DynamoDBClient"]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name="eu-central-1")
        # DynamoDB's calls are atomic; moto's transactions are only if no other call runs beside them.
        plain, lock = client._make_api_call, Lock()  # type: ignore[attr-defined]

        def one_at_a_time(operation: str, parameters: dict[str, Any]) -> Any:
            with lock:
                return plain(operation, parameters)

        client._make_api_call = one_at_a_time  # type: ignore[attr-defined]
        yield client
