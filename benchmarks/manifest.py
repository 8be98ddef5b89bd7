"""What the manifest costs: hashing before the vault is woken, on this machine, and what of it a push sends.

    python -m benchmarks.manifest [--files 20000] [--mb 1000]

The client's own functions, on a folder of files that are all of one size: all new, unchanged, and with a hundred
changed and one new. Files are in the page cache, so it is the processor that is timed, not the disk.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from tests.client.harness import CLIENT

# After the client without its last line, which would run it, and its part that makes manifests.
SCRIPT = r"""
. ./functions
set +e
run=run keep=directory encrypt=inplace payload=$1 payload_keys='' host_name=C
mkdir -p run
rm -f run/files
hash_payload
[ "$manifest" = 1 ] || exit
[ -z "$2" ] || { { echo first line; as_manifest; } >"$2"; }
echo "$sha256"
"""


def pushed(manifest: Path, onto: Path, how: str) -> int:
    """Bytes of a manifest that rsync sends, where an older one is there."""
    command = ["rsync", "-a", "-I", "--no-whole-file", how, "--stats", str(manifest), str(onto)]
    stats = subprocess.run(command, text=True, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"})
    (sent,) = re.findall(r"^Total bytes sent: ([\d,]+)$", stats.stdout, re.MULTILINE)
    return int(sent.replace(",", ""))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=20000)
    arguments.add_argument("--mb", type=int, default=1000)
    wanted = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightvault-manifest-") as name:
        state, tree = Path(name) / "state", Path(name) / "tree"
        state.mkdir()
        text = CLIENT.read_text()
        part = CLIENT.with_name("nightvault-manifest").read_text()
        (state / "functions").write_text(text[: text.rindex('main "$@"; exit')] + part)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", state / "key"], check=True)
        for number in range(wanted.files):
            path = tree / str(number // 200) / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(wanted.mb * 1_000_000 // wanted.files))

        def hashed(what: str, into: str = "") -> None:
            began = time.perf_counter()
            tool = subprocess.run(
                ["sh", "-c", SCRIPT, "sh", tree, into], cwd=state, text=True, stdout=subprocess.PIPE, check=True
            ).stdout.strip()
            print(f"{what}: {time.perf_counter() - began:.2f} s, with {tool}")

        print(f"{wanted.files} files, {wanted.mb} MB")
        hashed("all new", "old")
        time.sleep(2.5)  # what is younger is read again
        hashed("read again")
        hashed("unchanged")
        for number in range(100):
            with (tree / str(number) / f"{number * 200}").open("ab") as file:
                file.write(b"more")
        (tree / "0" / "one more").write_bytes(b"new")
        hashed("100 changed, one new", "new")
        for how in ("--inplace", "--no-inplace"):
            (state / "there").write_bytes((state / "old").read_bytes())
            size, sent = (state / "new").stat().st_size, pushed(state / "new", state / "there", how)
            print(f"the manifest of {size} bytes, rsync {how}: {sent} bytes sent")


if __name__ == "__main__":
    main()
