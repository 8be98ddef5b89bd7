"""The one thing that user data brings: fetches the vault's program, and hands over to its install.sh.

    first_boot.py SHA256

EC2 allows 16 KiB of user data, which the program has outgrown. So the control plane has it (docs/protocol.md,
"GET /program"), and user data says which one is right: whoever answers in the control plane's place, or breaks into
it, cannot put another program on a vault. Runs as root, on each boot until install.sh has switched cloud-init off.
"""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request

METADATA = "http://169.254.169.254"
GIVE_UP_SECONDS = 3600.0  # as the agent does without orders: a machine that nobody can use must not stay awake


def fetch(sha256: str, metadata: str = METADATA) -> bytes:
    """The program with this SHA-256, from where the instance's tag nightvault-url says. Raises OSError, ValueError."""
    session = _get(f"{metadata}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    headers = {"X-aws-ec2-metadata-token": session.decode("ascii")}
    url = _get(f"{metadata}/latest/meta-data/tags/instance/nightvault-url", headers=headers).decode("ascii").strip()
    program = base64.b64decode(json.loads(_get(f"{url.rstrip('/')}/program?sha256={sha256}"))["program"])
    if hashlib.sha256(program).hexdigest() != sha256:
        raise ValueError("the control plane gave another program than user data names")
    return program


def _get(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> bytes:
    ask = urllib.request.Request(url, method=method, headers=headers or {})  # noqa: S310
    # No proxy: metadata is link-local, and a new machine's environment is nobody's to set.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask, timeout=20) as answer:
        data: bytes = answer.read(4 * 1024 * 1024)
    return data


def main(sha256: str) -> None:
    """Returns only if there was nothing to be had for GIVE_UP_SECONDS, with the machine powering off."""
    end = time.monotonic() + GIVE_UP_SECONDS
    wait = 0.5
    while True:
        try:
            program = fetch(sha256)
            break
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.stdout.write(f"no program yet: {error!r}\n")
            sys.stdout.flush()
        if time.monotonic() > end:
            subprocess.run(["systemctl", "poweroff"], check=True)
            return
        time.sleep(wait)
        wait = min(2 * wait, 15.0)
    with tarfile.open(fileobj=io.BytesIO(program)) as archive:
        archive.extractall("/")  # noqa: S202 # it is the one that was pinned
    os.execv("/bin/sh", ["sh", "/opt/nightvault/install.sh"])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1])
