"""How fast, and how much is sent: our client, plain rsync, restic and borg push the same nights to the same sshd.

    python -m benchmarks.push            500 MB in 10,000 files, three kinds of change, three runs: some 20 minutes
    python -m benchmarks.push --quick    the same in small, to see that all of it works: a minute or two

Each contender first pushes the whole tree. That state, of its own disk and of its volume, is kept; every night
begins from a copy of it. docs/measurements.md says what the columns mean. As root the disks are loop-mounted.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import trees
from benchmarks.disks import Disks, Folders, Images
from benchmarks.peers import Contender, PeerFailed, Site, contenders, missing, versions
from benchmarks.report import FIRST, LIMIT_NAME, Measured, Night, argument, tables, verdicts
from benchmarks.wire import Vault, wait_until

_ROOT = Path(__file__).resolve().parents[1]
_INSIDE = "NIGHTVAULT_BENCHMARK_INSIDE"


class NotTheSame(Exception):
    """A restored tree is not the one that was backed up."""


class Bench:
    """The disks, the vault and the live tree of one benchmark."""

    def __init__(self, folder: Path, size: trees.Size, disks: Disks, vault: Vault) -> None:
        client = folder / "nightvault"
        for script in ("nightvault", "nightvault-restore"):
            shutil.copy(_ROOT / "host-client" / script, client.with_name(script))
        self.site = Site(folder / "live", folder / "host", folder / "volume", vault, client)
        self._size, self._disks, self._vault = size, disks, vault
        self._empty_bytes = 0
        self.tree = ""

    def grow(self, changes: Sequence[str]) -> None:
        """Make the live tree, and for each kind of change the same disk with that change in it."""
        now = time.time()
        self._disks.make(_live(FIRST))
        with self._mounted(_live(FIRST), self.site.live):
            self._empty_bytes = self._disks.used_bytes(self.site.live)
            trees.grow(self.site.live, self._size, now)
            self.tree = trees.described(self.site.live)
        for change in changes:
            self._disks.clone(_live(FIRST), _live(change))
            with self._mounted(_live(change), self.site.live):
                trees.CHANGES[change](self.site.live, self._size, now)

    def first(self, contender: Contender, run: int) -> Night:
        """The whole tree, onto empty disks; their state is the base of the contender's nights."""
        host, volume = _disks_of(contender, "base")
        for disk in (host, volume):
            self._disks.drop(disk)
            self._disks.make(disk)
        with self._mounted(host, self.site.host), self._mounted(volume, self.site.volume):
            contender.prepare(self.site)
        return self._push(contender, run, FIRST, (host, volume), cloned=False, restore=False)

    def night(self, contender: Contender, run: int, change: str, *, restore: bool) -> Night:
        """One change, pushed from the base state. Raises NotTheSame, PeerFailed."""
        tonight = _disks_of(contender, "tonight")
        for disk, base in zip(tonight, _disks_of(contender, "base"), strict=True):
            self._disks.clone(base, disk)
        night = self._push(contender, run, change, tonight, cloned=True, restore=restore)
        for disk in tonight:
            self._disks.drop(disk)
        return night

    def _push(
        self, contender: Contender, run: int, change: str, disks: tuple[str, str], *, cloned: bool, restore: bool
    ) -> Night:
        host, volume = disks
        site, wire = self.site, self._vault.wire
        with self._mounted(_live(change), site.live, read_only=True), self._mounted(host, site.host):
            with self._mounted(volume, site.volume):
                before = self._disks.used_bytes(site.volume)
                wire.reset()
                pushed = contender.push(site)
                flushing = time.monotonic()
                subprocess.run(["sync", "-f", str(site.volume)], check=True)
                flushed = time.monotonic() - flushing
                sent, received = wire.counted()
                # The gate removes the former tree in the background, when the host has long been answered.
                wait_until(lambda: not any(site.volume.glob("trash.*")), "the gate to clean up")
            written = self._disks.snapshot_bytes(volume) if cloned else None
            on_host = self._disks.used_bytes(site.host) - self._empty_bytes
            # Mounted anew: XFS has then given back what it freed late, and a restore begins with cold caches.
            with self._mounted(volume, site.volume):
                growth = self._disks.used_bytes(site.volume) - before
                restored = self._restore(contender) if restore else None
        return Night(
            run=run,
            change=change,
            contender=contender.name,
            archive_seconds=pushed.archive_seconds,
            push_seconds=pushed.push_seconds,
            flush_seconds=flushed,
            sent_bytes=sent,
            received_bytes=received,
            growth_bytes=growth,
            snapshot_bytes=written,
            host_bytes=on_host,
            restore_seconds=restored,
            client_stats=pushed.stats,
        )

    def _restore(self, contender: Contender) -> float:
        target = self.site.host / "restored"
        target.mkdir()
        began = time.monotonic()
        tree = contender.restore(self.site, target)
        seconds = time.monotonic() - began
        found = trees.differences(self.site.live, tree)
        if found:
            raise NotTheSame(f"{contender.name}: {len(found)} differences, such as\n  " + "\n  ".join(found[:10]))
        return seconds

    @contextmanager
    def _mounted(self, disk: str, at: Path, *, read_only: bool = False) -> Iterator[None]:
        self._disks.mount(disk, at, read_only=read_only)
        yield
        # Not after a failure: it would be hidden by that of unmounting what is still in use. The end cleans up.
        self._disks.unmount(at)


def main() -> int:
    chosen = _arguments()
    everyone = [c for c in contenders() if not chosen.only or c.name in [LIMIT_NAME, *chosen.only]]
    lacking = missing(everyone)
    if lacking:
        _tell(f"not installed: {' '.join(lacking)} (Debian's packages have these names, restic and borgbackup too)")
        return 2
    if os.geteuid() == 0 and _INSIDE not in os.environ:
        # A mount namespace of its own: whatever ends us, the kernel takes every mount of ours away.
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "benchmarks.push", *sys.argv[1:]])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    low, high = chosen.edit_kib
    size = trees.Size(
        chosen.seed, chosen.size_mb * 1_000_000, chosen.files, chosen.change_mb * 1_000_000, (low * 1024, high * 1024)
    )
    facts: dict[str, Any] = {
        "began_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": versions(everyone),
        "code": _code(),
        "contenders": {contender.name: contender.how for contender in everyone},
        "runs": chosen.runs,
        "changes": chosen.changes,
        "edit_kib": chosen.edit_kib,
        "change_mb": chosen.change_mb,
        "seed": chosen.seed,
    }
    nights: list[Night] = []
    code = 0
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="nightvault-push-", dir=chosen.work))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disks = _disks(folder, size)
        stack.callback(disks.close)
        stack.callback(_unmount_fuse, folder)
        facts["disks"] = disks.kind
        vault = Vault(folder, _ROOT / "vault-image", folder / "volume")
        stack.callback(vault.close)
        bench = Bench(folder, size, disks, vault)
        try:
            _measure(bench, everyone, chosen, nights)
        except (NotTheSame, PeerFailed, OSError) as error:
            _tell(f"FAILED: {error}")
            code = 1
        except (KeyboardInterrupt, SystemExit) as ended:
            # What has been measured until then took long enough to be shown.
            code = int(ended.code or 0) if isinstance(ended, SystemExit) else 130
        facts["tree"] = bench.tree
    facts["took_seconds"] = round(time.monotonic() - began)
    facts["load_at_the_end"] = os.getloadavg()
    _print(facts, nights)
    if chosen.json:
        chosen.json.write_text(json.dumps(facts | {"nights": [asdict(night) for night in nights]}, indent=1) + "\n")
    return code


def _measure(bench: Bench, everyone: Sequence[Contender], chosen: argparse.Namespace, nights: list[Night]) -> None:
    bench.grow(chosen.changes)
    _tell(f"the tree: {bench.tree}")

    def note(night: Night) -> None:
        nights.append(night)
        restored = f", restored in {night.restore_seconds:.1f} s" if night.restore_seconds is not None else ""
        _tell(
            f"run {night.run}, {night.change}, {night.contender}: archive {night.archive_seconds:.1f} s, "
            f"push {night.push_seconds:.1f} s, {night.sent_bytes / 1e6:.1f} MB sent{restored}"
        )

    for run in range(chosen.first_runs):
        for contender in everyone:
            note(bench.first(contender, run))
    for run in range(chosen.runs):
        for change in chosen.changes:
            # Another order each time: no one is always the neighbour of whoever leaves the disk busy.
            turn = run % len(everyone)
            for contender in [*everyone[turn:], *everyone[:turn]]:
                note(bench.night(contender, run, change, restore=run < chosen.restores))


def _print(facts: dict[str, Any], nights: Sequence[Night]) -> None:
    for key, value in facts.items():
        print(f"{key}: {value}")
    if not nights:
        return
    measured = Measured(nights)
    ours = [name for name in measured.names() if "+" in name or name == "encfs"]
    print(tables(measured))
    print(verdicts(measured, ours))
    # encfs is not safe against who sees several snapshots, whatever its figures: no default.
    print(argument(measured, [name for name in ours if name != "encfs"]))


def _arguments() -> argparse.Namespace:
    names = [contender.name for contender in contenders()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.push", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="32 MB, 800 files, one run: a minute or two")
    parser.add_argument("--size-mb", type=int, help="of the tree; 500 by default")
    parser.add_argument("--files", type=int, help="in the tree; 10000 by default")
    parser.add_argument("--change-mb", type=int, help="edited, and added, in a night; 12 by default")
    parser.add_argument("--edit-kib", type=int, nargs=2, default=(4, 256), metavar=("MIN", "MAX"), help="of one edit")
    parser.add_argument("--runs", type=int, help="of each night; 3 by default")
    parser.add_argument("--first-runs", type=int, default=1, help="of the first push; the last is the nights' base")
    parser.add_argument("--restores", type=int, default=1, help="in how many runs every night is also restored")
    parser.add_argument("--changes", nargs="+", choices=list(trees.CHANGES), default=list(trees.CHANGES))
    parser.add_argument("--only", nargs="+", choices=names, help=f"these, and {LIMIT_NAME} always")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--work", type=Path, help="folder for the disks (about 20 times the tree)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    chosen = parser.parse_args()
    defaults = (32, 800, 2, 1) if chosen.quick else (500, 10_000, 12, 3)
    for name, value in zip(("size_mb", "files", "change_mb", "runs"), defaults, strict=True):
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def _disks(folder: Path, size: trees.Size) -> Disks:
    if os.geteuid() != 0:
        return Folders(folder)
    # mkfs.xfs wants 300 MB; a host's disk holds archive, ciphertext, and then the pulled and the restored tree.
    disk = 2**30 + 8 * size.total_bytes
    return Images(folder, disk, 40 * disk)


def _unmount_fuse(folder: Path) -> None:
    # What a failed contender left mounted would keep its disk busy.
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        at, kind = line.split()[1:3]
        if at.startswith(f"{folder}/") and kind.startswith("fuse"):
            subprocess.run(["fusermount", "-u", "-z", at], check=False, capture_output=True)


def _live(change: str) -> str:
    return f"live-{change.replace(' ', '-')}"


def _disks_of(contender: Contender, when: str) -> tuple[str, str]:
    name = contender.name.replace(" ", "-")
    return f"{name}-host-{when}", f"{name}-volume-{when}"


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} x {model}, {memory:.0f} GB, {platform.system()} {platform.release()}; load before: {load}"


def _code() -> str:
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def _tell(text: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
