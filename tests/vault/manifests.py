"""Manifests as a host's client makes them (docs/protocol.md, "The manifest")."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

UNSURE = "-" * 64


def line(tree: Path, path: Path, sha256: str = "") -> bytes:
    """One file as it is listed."""
    name = bytes(path.relative_to(tree))
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    digest = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    mark = "\\" if escaped != name else ""
    return f"{path.stat().st_size} {mark}{digest}  ".encode() + escaped + b"\n"


def lines(tree: Path) -> list[bytes]:
    """All of a tree's files."""
    files = (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())
    return [line(tree, path) for path in files if ".nightvault" not in path.parts]


def sign(
    tree: Path, run_id: str, host: str, key: Path, *, listed: Iterable[bytes] | None = None, first: str = ""
) -> None:
    """Give a tree its manifest, with the lines that are given or its own."""
    folder = tree / ".nightvault"
    folder.mkdir(exist_ok=True)
    listed = list(lines(tree) if listed is None else listed)
    size = sum(int(each.split()[0]) for each in listed if not each.startswith(b"- "))
    first = first or f"nightvault-manifest 1 {run_id} {host} {len(listed)} {size}\n"
    manifest = folder / "manifest"
    manifest.write_bytes(first.encode() + b"".join(listed))
    manifest.with_suffix(".sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "nightvault-manifest", manifest],
        check=True,
        stderr=subprocess.DEVNULL,
    )
