"""The package that is deployed, once a session."""

import platform

import pytest

from deploy.packaging import Package, package
from tests.stack.ministack import PYTHON

# Lambda's name for this machine: the zip's compiled parts must run here.
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What `make deploy` deploys, but for the processor."""
    if not PYTHON.exists():
        pytest.skip("needs ministack: tools/prepare stack")
    return package(tmp_path_factory.mktemp("package"), architecture=_ARCHITECTURES[platform.machine().lower()])
