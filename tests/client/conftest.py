from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from tests.client.harness import SHELLS, ControlPlane, Host, Vault
from tests.localcloud.patience import wait_until


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Each test has a shell of its own; those marked `in_every_shell` run in all of them."""
    return SHELLS[sorted(SHELLS)[crc32(request.node.name.encode()) % len(SHELLS)]]


def left_over(folder: Path) -> list[str]:
    """Mounts and processes that belong to the folder."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    processes = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes()
        except OSError:
            continue  # it has just ended
        if str(folder).encode() in words:
            processes.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return mounts + processes


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault")
    yield vault
    vault.stop()


@pytest.fixture
def plane(vault: Vault) -> Iterator[ControlPlane]:
    plane = ControlPlane(vault.document())
    yield plane
    plane.close()


@pytest.fixture
def new_host(tmp_path: Path, vault: Vault, plane: ControlPlane, shell: list[str]) -> Iterator[Host]:
    """A host that is not enrolled yet. Afterwards nothing of it is mounted or running."""
    yield Host(tmp_path / "host", vault, plane, shell)
    vault.stop()
    try:
        wait_until(lambda: not left_over(tmp_path), 60)  # on a busy machine a FUSE daemon ends late
    except AssertionError:
        remains = left_over(tmp_path)
        for line in remains:
            if line.split()[1].startswith(str(tmp_path)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        pytest.fail(f"left behind: {remains}")


@pytest.fixture
def host(new_host: Host) -> Host:
    """An enrolled host."""
    new_host.enroll()
    return new_host
