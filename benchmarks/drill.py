"""What checking a restore point takes, and what counting a commit's change takes: seconds, processor, memory.

    python -m benchmarks.drill              # 10,000, 100,000 files of 100 bytes, one of 2 GiB; --help for others

drill.py by itself, on trees in memory (/dev/shm): the processor's part, for the disk's is EBS's. The change is counted
between the tree and a copy of it.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import vm  # noqa: F401 # first: with it vault-image can be found

# isort: split
import gate_changes

from tests.vault import manifests, vaults

RUN = "00000000-0000-4000-8000-000000000001"
MIB = 1024**2
# By a small process: one that is started by a large one counts that one's memory as its own (getrusage(2)).
MEASURED = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def make(place: Path, files: int, size: int) -> Path:
    """A restore point; gives the public key that its manifest is signed with."""
    tree = place / f"tree.{RUN}"
    tree.mkdir(parents=True)
    (place / "current").symlink_to(tree.name)
    (place / "committed.json").write_text(json.dumps({"run_id": RUN}))
    piece = os.urandom(min(size, MIB))
    digest = hashlib.sha256()
    for _ in range(size // len(piece)):
        digest.update(piece)
    listed = []
    for number in range(files):
        folder = f"a-folder-{number // 1000:06d}"
        if number % 1000 == 0:
            (tree / folder).mkdir()
        path = f"{folder}/a-name-as-long-as-gocryptfs-makes-{number:08d}"
        with (tree / path).open("wb") as file:
            for _ in range(size // len(piece)):
                file.write(piece)
        listed.append(f"{size} {digest.hexdigest()}  {path}\n".encode())
    key = vaults.keygen(place / "key")
    manifests.sign(tree, RUN, "C", key, listed=listed)
    return key.with_suffix(".pub")


def check(place: Path, public_key: Path) -> str:
    """One drill: its verdict and figures."""
    public = " ".join(public_key.read_text().split()[:2])
    order = {"place": str(place), "host": "C", "run_id": RUN, "public_keys": [public]}
    began = time.monotonic()
    command = [sys.executable, "-c", MEASURED, str(vaults.IMAGE / "drill.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        if program.stdin and program.stdout:
            program.stdin.write(json.dumps(order).encode() + b"\n")
            program.stdin.flush()
            *_, told, (cpu, mib) = map(json.loads, program.stdout.read().splitlines())
    return f"{told['state']}, {time.monotonic() - began:6.1f} s, processor {cpu:5.1f} s, {mib:4.0f} MiB"


def count(place: Path) -> str:
    """The change of a commit that changed nothing."""
    before, after = place / f"tree.{RUN}", place / "copy"
    subprocess.run(["cp", "-a", before, after], check=True)
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    change = gate_changes.change(before, after)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    unchanged = change is not None and not any(
        change[name] for name in ("files_added", "files_changed", "files_deleted")
    )
    return f"{'right' if unchanged else 'WRONG'}, {time.monotonic() - began:6.1f} s, processor {cpu:5.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--large", type=int, default=2048, help="MiB of the one large file; 0: none")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where the trees are made")  # noqa: S108
    chosen = parser.parse_args()
    for files, size in [*((files, 100) for files in chosen.files), *([(1, chosen.large * MIB)] * bool(chosen.large))]:
        base = Path(tempfile.mkdtemp(prefix="drill", dir=chosen.folder))
        try:
            public_key = make(base, files, size)
            print(f"{files:8d} files of {size:10d} bytes: check {check(base, public_key)}", flush=True)
            if size == 100:
                print(f"{'':36s} change {count(base)}", flush=True)
        finally:
            shutil.rmtree(base)


if __name__ == "__main__":
    main()
