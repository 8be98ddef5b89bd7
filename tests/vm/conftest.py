"""One cloud for each module, whose vault is a whole machine; see tests/localcloud/vm/README.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import nights
from tests.localcloud.cloud import LocalCloud

# Emulated, a first boot takes a minute, and several on a busy machine.
POLICY = {
    **nights.POLICY,
    "window_seconds": 3600,
    "wake_timeout_seconds": 1200,
    "lease_seconds": 900,
    "power_off_grace_seconds": 600,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """Shared by a module's tests: each brings hosts of its own, and begins and ends with a vault that sleeps."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), policy=POLICY, vault="vm") as cloud:
        yield cloud
