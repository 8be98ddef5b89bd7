"""The template and the zip, as `make deploy` packages them; once a session."""

import re
from pathlib import Path
from typing import Any

import pytest

from deploy.packaging import Package, PackagingFailed, package

ROOT = Path(__file__).resolve().parents[2]
_OFFLINE = re.compile(r"Could not install dependencies|No matching distribution|ConnectionError|Max retries")


def packaged(out: Path, architecture: str = "arm64") -> Package:
    try:
        return package(out, architecture=architecture)
    except PackagingFailed as failed:
        if _OFFLINE.search(str(failed)):
            pytest.skip("offline: `chalice package` fetches the wheels that Lambda runs")
        raise


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return packaged(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def resources(made: Package) -> dict[str, Any]:
    found: dict[str, Any] = made.template["Resources"]
    return found
