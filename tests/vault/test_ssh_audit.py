"""What ssh-audit (https://github.com/jtesta/ssh-audit) finds in the vault's real sshd: nothing that it calls weak.

Hosts of before OpenSSH 8.5 know no key exchange that a quantum computer could not break, so one of the old kind is
left, the last of the list: it is all that ssh-audit warns of.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vault import vaults

WITHOUT_POST_QUANTUM = {"curve25519-sha256", "curve25519-sha256@libssh.org"}


@pytest.fixture
def audit(rootless: vaults.Rootless) -> dict[str, Any]:
    # Not its rate test: the vault's port is open to hosts with a live run only, and these may come all at once.
    command = [str(Path(sys.executable).with_name("ssh-audit")), "--json", "--skip-rate-test"]
    command += ["-p", str(rootless.port), "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 2), done.stdout + done.stderr  # 2: warnings, 3: failures
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_ssh_audit_calls_nothing_weak(audit: dict[str, Any]) -> None:
    assert {"kex", "key", "enc", "mac"} <= set(audit)
    told = [
        (kind, entry["algorithm"], level, text)
        for kind in ("kex", "key", "enc", "mac")
        for entry in audit[kind]
        for level in ("fail", "warn")
        for text in entry["notes"].get(level, ())
    ]
    assert {name for _, name, _, _ in told} == WITHOUT_POST_QUANTUM
    assert {(kind, level) for kind, _, level, _ in told} == {("kex", "warn")}
    assert all("post-quantum" in text for _, _, _, text in told)
    assert not audit["cves"]


def test_post_quantum_key_exchange_comes_first(audit: dict[str, Any]) -> None:
    offered = [entry["algorithm"] for entry in audit["kex"]]
    assert offered[0].startswith("sntrup761x25519-sha512")
    assert set(offered[:2]) == {"sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com"}
