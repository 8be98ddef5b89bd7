"""How fast bytes come into a vault, by ssh cipher and by the instance's memory; what default follows.

    python -m benchmarks.throughput [--mib 32] [--rounds 3]

Whole files pushed by rsync through sshd and gate, as the client does it, until they are flushed to the volume: into a
booted vault with the memory of t4g.nano, micro and small; and, in the same run, natively into a process machine's sshd
on this machine, eight times as much. And how much memory one push takes there, of many small files: so many hosts fit
at once. Emulation says nothing of AES instructions, so the native figures are those for
ciphers; the emulated ones are for memory, whose want shows there too.
Needs root, and `tools/prepare vm`.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.vm import Client, Vault, default_type, load, need_root
from tests.vault import vaults

MIB = 1024 * 1024
TYPES = {512: "t4g.nano", 1024: "t4g.micro", 2048: "t4g.small"}  # by MiB of memory
NATIVELY = "natively"
SLOWER = 0.9  # of the best: as good as that
_NATIVE_TIMES = 8
# MiB per second, of each round.
Speeds = dict[str, list[float]]


def offered() -> list[str]:
    """The vault's ciphers, in its own order."""
    (line,) = re.findall(r"^Ciphers (\S+)$", (vaults.IMAGE / "sshd_config").read_text(), re.MULTILINE)
    return str(line).split(",")


class Pushes:
    """Pushes one file after another, each under a name of its own, so that all of it is sent each time."""

    def __init__(self, client: Client, folder: Path, mib: int, flush: Callable[[], object]) -> None:
        self._client, self._mib, self._flush = client, mib, flush
        self._source = folder / "source"
        self._source.mkdir()
        self._names: Iterator[Path] = (self._source / f"file {number}" for number in count())
        self._file = next(self._names)
        with self._file.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))

    def speeds(self, ciphers: list[str], rounds: int) -> Speeds:
        found: Speeds = {cipher: [] for cipher in ciphers}
        for _ in range(rounds):
            for cipher in ciphers:
                self._client.cipher = cipher
                self._file = self._file.rename(next(self._names))
                self._client.begin()
                began = time.monotonic()
                self._client.send(self._source)
                self._flush()
                found[cipher].append(self._mib / (time.monotonic() - began))
        return found


def memory_of_a_push(client: Client, folder: Path, files: int) -> int:
    """Most bytes that the processes of a host (sshd's two, the gate, rsync's) held while `files` new ones were pushed.

    Proportional set size, so that what they share counts once: https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html
    """
    source = folder / "many"
    for number in range(files):
        place = source / f"{number // 1000}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:0100}").write_bytes(b"1")
    client.begin()
    most = 0
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.send, source)
        while not sent.done():
            most = max(most, _held(client))
            wait([sent], 0.05)
        sent.result()
    return most


def _held(client: Client) -> int:
    held = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # sshd's say "sshd: nv20001"; /proc shows those that changed their user as root's.
            if (
                process.stat().st_uid == client.uid
                or f"sshd: {client.user}".encode() in (process / "cmdline").read_bytes()
            ):
                (kib,) = re.findall(r"^Pss: +(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                held += int(kib) * 1024
    return held


def natively(folder: Path, ciphers: list[str], mib: int, rounds: int, files: int) -> tuple[Speeds, str, int]:
    """And the cipher that the client's ssh and the vault agree on when nobody asks for one, and memory of a push."""
    folder.mkdir()
    with vaults.vault_of(vaults.Machine, folder) as vault:
        made = vault.host("T")
        client = Client("T", made.uid, made.volume_id, made.key, made.user, vault.port, folder / "known")
        client.trust(vault.host_key.with_suffix(".pub").read_text())
        vault.attach(client.volume_id, 512 + 3 * mib + files // 100)
        vault.cloud.order(client)
        vault.start_agent()
        vault.cloud.wait_mounted(client)
        agreed = client.begin()
        speeds = Pushes(client, folder, mib, lambda: vault.run("sync", "-f", "/mnt/T")).speeds(ciphers, rounds)
        client.cipher = ""
        held = memory_of_a_push(client, folder, files)
    return speeds, agreed, held


def emulated(folder: Path, ciphers: list[str], mib: int, rounds: int) -> tuple[dict[int, Speeds], dict[int, str]]:
    """By memory: speeds, and what was left of it after the pushes."""
    found, left = {}, {}
    with Vault(folder) as vault:
        pushes = Pushes(vault.host, folder, mib, lambda: vault.inside("sync -f /mnt/T"))
        for memory in TYPES:
            vault.power_on(memory)
            vault.wait_ready()
            vault.inside(
                "systemctl stop nightvault-upkeep.timer nightvault-upkeep.service; systemctl start multi-user.target"
            )
            found[memory] = pushes.speeds(ciphers, rounds)
            left[memory] = vault.inside("awk '/^Mem(Total|Available)/ { print int($2 / 1024) }' /proc/meminfo")
            vault.power_off()
            sys.stderr.write(f"{memory} MiB of memory: done; {load()}\n")
    return found, left


def show(console: Console, native: Speeds, by_memory: dict[int, Speeds], rounds: int) -> None:
    table = Table(title=f"MiB/s into the vault, medians of {rounds} (÷: to the first cipher)", title_justify="left")
    columns = {NATIVELY: native} | {f"emulated, {memory / 1024:g} GiB": each for memory, each in by_memory.items()}
    for name in ("cipher", *columns):
        table.add_column(name, justify="left" if name == "cipher" else "right")
    for cipher in native:
        cells = []
        for speeds in columns.values():
            ratio = median(a / b for a, b in zip(speeds[cipher], next(iter(speeds.values())), strict=True))
            cells.append(f"{median(speeds[cipher]):.1f} ÷ {ratio:.2f}")
        table.add_row(cipher, *cells)
    console.print(table)


def argue(console: Console, native: Speeds, by_memory: dict[int, Speeds], agreed: str) -> None:
    """What the figures say of the defaults."""
    order = sorted(native, key=lambda cipher: -median(native[cipher]))
    same = median(native[offered()[0]]) >= SLOWER * median(native[order[0]])
    console.print(f"\nCiphers, fastest first: {', '.join(order)}.")
    console.print(
        f"  The first that the vault offers is {'as fast as any' if same else 'NOT the fastest'}: {offered()[0]}."
    )
    wins = median(native[agreed]) / median(native[order[0]])
    console.print(f"  ssh and vault agree on {agreed} when the client names none: {wins:.2f} of the fastest.")
    console.print("  (The client's list decides, not the vault's: RFC 4253, 7.1.)")
    speed = {memory: median(median(each) for each in speeds.values()) for memory, speeds in by_memory.items()}
    best = max(speed.values())
    enough = min(memory for memory in speed if speed[memory] >= SLOWER * best)
    console.print(
        f"Memory: {enough / 1024:g} GiB ({TYPES[enough]}) is enough for one host's push: within a tenth of the best."
    )
    console.print(f"  Deployed by default: {default_type()}. Networks of instance types are not measured here.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.throughput", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=32, help="of each push into the emulated vault (default 32)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=100_000, help="of the push whose memory is looked at")
    chosen = parser.parse_args()
    need_root()
    console = Console(width=120)
    console.print(load())
    ciphers = offered()
    with tempfile.TemporaryDirectory(prefix="nightvault-throughput-") as scratch:
        mib = _NATIVE_TIMES * chosen.mib
        native, agreed, held = natively(Path(scratch, NATIVELY), ciphers, mib, chosen.rounds, chosen.files)
        by_memory, left = emulated(Path(scratch, "emulated"), ciphers, chosen.mib, chosen.rounds)
    show(console, native, by_memory, chosen.rounds)
    for memory, text in left.items():
        total, available = text.split()
        console.print(f"{memory / 1024:g} GiB: {available} of {total} MiB available after the pushes")
    console.print(f"A push of {chosen.files} new small files held {held / MIB:.0f} MiB on the vault (natively).")
    argue(console, native, by_memory, agreed)
    console.print(load())


if __name__ == "__main__":
    main()
