"""Manifests as the client makes them, read by others than the client."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.client.harness import CLIENT, Host

UNSURE = "-" * 64


def manifest_of(host: Host) -> Path:
    return host.vault.volume / "current" / ".nightvault" / "manifest"


def lines(manifest: Path) -> dict[bytes, tuple[str, str]]:
    """PATH: (SIZE, SHA256), unescaped."""
    found = {}
    for line in manifest.read_bytes().split(b"\n")[1:-1]:
        size, sum_, path = re.fullmatch(rb"(\S+) (\S+)  (.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        if sum_.startswith(b"\\"):
            sum_ = sum_[1:]
            path = re.sub(rb"\\(.)", lambda mark: {b"n": b"\n", b"r": b"\r"}.get(mark[1], mark[1]), path)
        found[path] = (size.decode(), sum_.decode())
    return found


def verdict_of_the_vault(host: Host) -> tuple[str, str]:
    keys = [(host.state / "key.pub").read_text().strip()]
    order = {"place": str(host.vault.volume), "host": "C", "run_id": host.plane.pushed_run_id, "public_keys": keys}
    command = [sys.executable, "-EsS", str(CLIENT.parents[1] / "vault-image" / "drill.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        program.stdin.write(json.dumps(order) + "\n")
        program.stdin.flush()  # and not closed, which would end it
        *_, last = program.stdout
    told = json.loads(last)
    return told["state"], told["detail"]


def check(host: Host, pulled: Path) -> None:
    """By plain tools, and by the vault's: the tree that this host pushed last is what its manifest says."""
    manifest = pulled / ".nightvault" / "manifest"
    signers = pulled.with_name("signers")
    signers.write_text(f"C {(host.state / 'key.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "C", "-n", "nightvault-manifest"]
    with manifest.open("rb") as read:
        subprocess.run([*command, "-s", f"{manifest}.sig"], stdin=read, stdout=subprocess.DEVNULL, check=True)
    there = {
        os.path.relpath(os.fsencode(path), os.fsencode(pulled)): path.read_bytes()
        for path in pulled.rglob("*")
        if path.is_file() and not path.is_symlink() and path.parent.name != ".nightvault"
    }
    expected = {path: (str(len(data)), hashlib.sha256(data).hexdigest()) for path, data in there.items()}
    difference = set(lines(manifest).items()) ^ set(expected.items())
    assert not difference, difference
    total = sum(len(data) for data in there.values())
    first = f"nightvault-manifest 1 {host.plane.pushed_run_id} C {len(there)} {total}"
    assert manifest.read_bytes().split(b"\n")[0].decode() == first
    # sha256sum of coreutils 9.1 does not know \\r yet.
    by_hand = r"sed 1d .nightvault/manifest | grep -v '\\r' | cut -d' ' -f2- | sha256sum -c --quiet --strict"
    subprocess.run(["sh", "-c", by_hand], cwd=pulled, check=True)
    assert verdict_of_the_vault(host) == ("passed", "")
