"""Makes the vault image's modules importable as they are on a vault: plain files in one folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_IMAGE = str(Path(__file__).resolve().parents[2] / "vault-image")
if _IMAGE not in sys.path:
    sys.path.insert(0, _IMAGE)

from tests.vault import vaults  # noqa: E402 # vault-image can be found only now

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: accounts, mounts and loop devices")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[vaults.Machine]:
    """A vault with accounts and mounts. Its rootless counterpart is `rootless`."""
    if os.geteuid() != 0:
        pytest.skip("needs root: accounts, mounts and loop devices; the rootless tests cover the rest")
    with vaults.vault_of(vaults.Machine, tmp_path) as vault:
        yield vault


@pytest.fixture
def rootless(tmp_path: Path) -> Iterator[vaults.Rootless]:
    """A vault of plain folders, as whoever runs the tests."""
    with vaults.vault_of(vaults.Rootless, tmp_path) as vault:
        yield vault


@pytest.fixture(params=["machine", "rootless"])
def vault(request: pytest.FixtureRequest) -> vaults.Machine | vaults.Rootless:
    """Both kinds, one after the other."""
    made: vaults.Machine | vaults.Rootless = request.getfixturevalue(request.param)
    return made
