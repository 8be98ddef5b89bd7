"""How fast, and how much is sent: our client, plain rsync, restic and borg push the same nights to the same sshd.

    python -m benchmarks.push            500 MB in 10,000 files, three kinds of change, three runs: some 20 minutes
    python -m benchmarks.push --quick    the same in small, to see that all of it works: a minute or two

Each contender first pushes the whole tree. That state, of its own disk and of its volume, is kept; every night
begins from a copy of it. docs/measurements.md says what the columns mean. As root the disks are loop-mounted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import trees
from benchmarks.peers import Contender, PeerFailed, contenders, missing, versions
from benchmarks.report import FIRST, LIMIT_NAME, Measured, Night, argument, tables, verdicts
from benchmarks.stage import (
    NotTheSame,
    Stage,
    code,
    disks_of,
    live_disk,
    machine,
    mounts_of_its_own,
    stage,
    tell,
)


class Bench:
    """First pushes and nights on one stage."""

    def __init__(self, staged: Stage) -> None:
        self._stage, self._disks, self._site = staged, staged.disks, staged.site

    def first(self, contender: Contender, run: int) -> Night:
        """The whole tree, onto empty disks; their state is the base of the contender's nights."""
        host, volume = disks_of(contender, "base")
        for disk in (host, volume):
            self._disks.drop(disk)
            self._disks.make(disk)
        with self._stage.mounted(host, self._site.host), self._stage.mounted(volume, self._site.volume):
            contender.prepare(self._site)
        return self._push(contender, run, FIRST, (host, volume), cloned=False, restore=False)

    def night(self, contender: Contender, run: int, change: str, *, restore: bool) -> Night:
        """One change, pushed from the base state. Raises NotTheSame, PeerFailed."""
        tonight = disks_of(contender, "tonight")
        for disk, base in zip(tonight, disks_of(contender, "base"), strict=True):
            self._disks.clone(base, disk)
        night = self._push(contender, run, change, tonight, cloned=True, restore=restore)
        for disk in tonight:
            self._disks.drop(disk)
        return night

    def _push(
        self, contender: Contender, run: int, change: str, disks: tuple[str, str], *, cloned: bool, restore: bool
    ) -> Night:
        host, volume = disks
        site, wire, mounted = self._site, self._site.vault.wire, self._stage.mounted
        with mounted(live_disk(change), site.live, read_only=True), mounted(host, site.host):
            with mounted(volume, site.volume):
                before = self._disks.used_bytes(site.volume)
                wire.reset()
                pushed = contender.push(site)
                flushing = time.monotonic()
                subprocess.run(["sync", "-f", str(site.volume)], check=True)
                flushed = time.monotonic() - flushing
                sent, received = wire.counted()
                site.vault.settled()
            written = self._disks.snapshot_bytes(volume) if cloned else None
            on_host = self._disks.used_bytes(site.host) - self._stage.empty_bytes
            # Mounted anew: XFS has then given back what it freed late, and a restore begins with cold caches.
            with mounted(volume, site.volume):
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
        target = self._site.host / "restored"
        target.mkdir()
        began = time.monotonic()
        contender.restore(self._site, target)
        seconds = time.monotonic() - began
        found = trees.differences(self._site.live, contender.restored(self._site, target))
        if found:
            raise NotTheSame(f"{contender.name}: {len(found)} differences, such as\n  " + "\n  ".join(found[:10]))
        return seconds


def main() -> int:
    chosen = _arguments()
    everyone = [c for c in contenders() if not chosen.only or c.name in [LIMIT_NAME, *chosen.only]]
    lacking = missing(everyone)
    if lacking:
        tell(f"not installed: {' '.join(lacking)} (Debian's packages have these names, restic and borgbackup too)")
        return 2
    mounts_of_its_own("benchmarks.push")
    low, high = chosen.edit_kib
    size = trees.Size(
        chosen.seed, chosen.size_mb * 1_000_000, chosen.files, chosen.change_mb * 1_000_000, (low * 1024, high * 1024)
    )
    facts: dict[str, Any] = {
        "began_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(everyone),
        "code": code(),
        "contenders": {contender.name: contender.how for contender in everyone},
        "runs": chosen.runs,
        "changes": chosen.changes,
        "edit_kib": chosen.edit_kib,
        "change_mb": chosen.change_mb,
        "seed": chosen.seed,
    }
    nights: list[Night] = []
    failed = 0
    began = time.monotonic()
    with stage("push", size, chosen.work) as staged:
        facts["disks"] = staged.disks.kind
        try:
            _measure(staged, everyone, chosen, nights)
        except (NotTheSame, PeerFailed, OSError) as error:
            tell(f"FAILED: {error}")
            failed = 1
        except (KeyboardInterrupt, SystemExit) as ended:
            # What has been measured until then took long enough to be shown.
            failed = int(ended.code or 0) if isinstance(ended, SystemExit) else 130
        facts["tree"] = staged.tree
    facts["took_seconds"] = round(time.monotonic() - began)
    facts["load_at_the_end"] = os.getloadavg()
    _print(facts, nights)
    if chosen.json:
        chosen.json.write_text(json.dumps(facts | {"nights": [asdict(night) for night in nights]}, indent=1) + "\n")
    return failed


def _measure(staged: Stage, everyone: Sequence[Contender], chosen: argparse.Namespace, nights: list[Night]) -> None:
    staged.grow(chosen.changes)
    bench = Bench(staged)

    def note(night: Night) -> None:
        nights.append(night)
        restored = f", restored in {night.restore_seconds:.1f} s" if night.restore_seconds is not None else ""
        tell(
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


if __name__ == "__main__":
    sys.exit(main())
