"""The instance metadata service answers as EC2's does, for cloud-init to walk through."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.localcloud.metadata import MetadataService

ITEMS = {
    "meta-data/instance-id": "i-1",
    "meta-data/placement/region": "eu-central-1",
    "meta-data/tags/instance/nightvault-code": "abc",
    "meta-data/tags/instance/nightvault-url": "http://there",
}
USER_DATA = b"\x1f\x8b\x00\xff"  # gzip is no text


@pytest.fixture
def service() -> Iterator[MetadataService]:
    found = MetadataService(lambda: ITEMS, user_data=USER_DATA)
    yield found
    found.close()


def ask(service: MetadataService, path: str, *, token: str | None = None, method: str = "GET", **headers: str) -> bytes:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["X-aws-ec2-metadata-token"] = token
    request = urllib.request.Request(service.url + path, headers=sent, method=method)  # noqa: S310 (our own)
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return bytes(answer.read())


def token(service: MetadataService) -> str:
    return ask(service, "/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="60").decode()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/latest/meta-data/instance-id", b"i-1"),
        ("/2009-04-04/meta-data/instance-id", b"i-1"),
        ("/latest/user-data", USER_DATA),
        ("/latest/", b"meta-data/"),
        ("/2021-03-23/meta-data/", b"instance-id\nplacement/\ntags/"),
        ("/latest/meta-data/tags/instance", b"nightvault-code\nnightvault-url"),
    ],
)
def test_items_and_folders(service: MetadataService, path: str, answer: bytes) -> None:
    assert ask(service, path, token=token(service)) == answer


@pytest.mark.parametrize(
    ("path", "with_token", "status"),
    [
        ("/latest/meta-data/instance-id", False, 401),
        ("/latest/user-data", False, 401),
        ("/latest/meta-data/none", True, 404),
        ("/meta-data/instance-id", True, 404),
    ],
)
def test_refusals(service: MetadataService, path: str, with_token: bool, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(service, path, token=token(service) if with_token else None)
    assert refused.value.code == status
