"""How soon a vault serves a restore point, and how fast it is read: pulled by rsync, fetched by sftp, through sshfs.

    python -m benchmarks.reading            # a tree of 1,000 small files and one of 200 MB; --help for sizes

Through the real sshd, agent and gate on loopback; as root with accounts and XFS, then without, on plain folders.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.vm import Plane
from tests.vault import vaults


def turned(vault: Any, host: vaults.Host, restores: list[dict[str, str]]) -> float:
    """Seconds from the report that was answered with these orders to the one that says they are brought about."""
    first = vault.cloud.order(host, restores=restores)
    vault.poke()
    report = vault.cloud.wait_restores(*restores, after=first + 1)
    return float(report["came"] - vault.cloud.reports[first]["came"])


def took(do: Callable[[], Any]) -> float:
    began = time.monotonic()
    done = do()
    if isinstance(done, subprocess.CompletedProcess) and done.returncode:
        raise SystemExit(str(done.stderr))
    return time.monotonic() - began


def measure(kind: type[vaults.Machine] | type[vaults.Rootless], base: Path, big_mb: int, small: int) -> None:
    cloud = Plane()
    vault = kind(base, cloud)
    try:
        vault.start_sshd()
        host = vault.host("C")
        if isinstance(vault, vaults.Machine):
            vault.attach(host.volume_id, 512 + 2 * big_mb)
        else:
            vault.attach(host.volume_id)
        cloud.order(host)
        vault.start_agent()
        cloud.wait_mounted(host)
        source, far = base / "source", base / "far"
        source.mkdir()
        far.mkdir()
        (source / "big").write_bytes(os.urandom(big_mb * 1_000_000))
        for number in range(small):
            (source / f"small {number}").write_bytes(os.urandom(2_000))
        vaults.back_up(host, source, str(uuid.uuid4()))
        point = vault.restore_point(host)
        up, down = zip(*[(turned(vault, host, [point]), turned(vault, host, [])) for _ in range(5)], strict=True)
        figures = {"orders to mounted": median(up), "withdrawn to unmounted": median(down)}
        turned(vault, host, [point])
        figures["rsync, all"] = took(lambda: host.pull(base / "pulled"))
        figures["sftp, the big file"] = took(lambda: host.sftp(f"get big {base}/fetched"))
        mount = [*host.sftp_command("sshfs"), "-o", "ro", f"{host.reader}@127.0.0.1:", str(far)]
        figures["sshfs, mount"] = took(lambda: subprocess.run(mount, check=True))
        try:
            figures["sshfs, list all"] = took(lambda: [path.stat() for path in far.iterdir()])
            figures["sshfs, the big file"] = took(
                lambda: subprocess.run(["cp", far / "big", base / "copy"], check=True)
            )
            figures["sshfs, the small files"] = took(lambda: [path.read_bytes() for path in far.glob("small *")])
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(far)], check=True)
    finally:
        vault.close()
        cloud.close()
    for name, seconds in figures.items():
        sys.stdout.write(f"{kind.__name__.lower():9}{name:25}{seconds:8.2f} s\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.reading", description=__doc__)
    parser.add_argument("--big-mb", type=int, default=200, help="size of the one big file (default 200)")
    parser.add_argument("--small", type=int, default=1000, help="how many small ones (default 1000)")
    chosen = parser.parse_args()
    for kind in (vaults.Machine, vaults.Rootless) if os.geteuid() == 0 else (vaults.Rootless,):
        with tempfile.TemporaryDirectory(prefix="nightvault-reading-") as folder:
            measure(kind, Path(folder), chosen.big_mb, chosen.small)


if __name__ == "__main__":
    main()
