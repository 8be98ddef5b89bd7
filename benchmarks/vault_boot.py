"""How long a vault's machine takes from power-on to the first byte pushed, and from the last finish to off; by part.

    python -m benchmarks.vault_boot [--rounds 3]

Each round boots two machines, one after the other and each twice (an instance's first boot, and a later one): the bare
image, which is the same image with cloud-init off and no user data, a network and an sshd that has its host key; and
the vault, given the user data of this checkout, a control plane that is always there and one host's volume.
Emulated, so that only ratios hold: the aim is that all that we add is at most a third of the bare image's boot.
Needs root, and `tools/prepare vm`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.vm import SECONDS, Vault, load, need_root
from tests.localcloud.vm import image
from tests.localcloud.vm.alone import Alone
from tests.localcloud.vm.machine import VirtualMachine

AIM = 1 / 3
_PARTITION_START = 1024**2  # in the image
BOOTS = ("first", "later")
# An end of a boot, or a part of it, and its seconds.
Times = dict[str, float]

_STAGES = ("cloud-init-local", "cloud-init", "cloud-config", "cloud-final")
_UNITS = " ".join(f"{name}.service" for name in (*_STAGES, "ssh", "nightvault-agent")) + " multi-user.target"
_STAMPS = "InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
# Waits until the boot is over (not is-system-running --wait: security updates may have begun, and take minutes).
# Microseconds since the kernel began, all of them. A transient unit that has ended is known to the journal alone.
_LOOK = f"""
systemctl start multi-user.target
until test -e /etc/cloud/cloud-init.disabled; do sleep 1; done
systemctl show --property=UserspaceTimestampMonotonic
for unit in {_UNITS}; do printf 'unit %s\\n' $unit; systemctl show --property={_STAMPS} $unit; done
for unit in nightvault-agent nightvault-first-boot; do
    printf 'journal %s\\n' $unit; journalctl -q -b -u $unit -o json --output-fields=MESSAGE
done
true
"""


def bare_image(folder: Path) -> image.Image:
    """A copy of the image that needs no cloud-init: what is written into it is what cloud-init would."""
    found = image.image()
    disk = folder / "bare.raw"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", found.disk, disk], check=True)
    key = folder / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / "cloud-init.disabled").write_text("")
    (folder / "10-eth0.network").write_text("[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n")
    places = {
        "/etc/cloud": ["cloud-init.disabled"],
        "/etc/systemd/network": ["10-eth0.network"],
        "/etc/ssh": [key.name, f"{key.name}.pub"],
    }
    script = folder / "debugfs"
    script.write_text(
        "".join(f"cd {to}\n" + "".join(f"write {folder / name} {name}\n" for name in of) for to, of in places.items())
    )
    command = ["/usr/sbin/debugfs", "-w", "-f", str(script), f"{disk}?offset={_PARTITION_START}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    if said.stdout.count("Allocated inode") != sum(map(len, places.values())):
        raise RuntimeError(f"debugfs did not write all files: {said.stdout}{said.stderr}")
    return image.Image(disk, found.kernel)


def looked(console: str, text: str) -> tuple[Times, Times, dict[str, float]]:
    """Ends of parts, in seconds since power-on; parts' own seconds; the agent's log by event, since power-on.

    The console has both clocks, its lines' and the kernel's: the line that was late the least tells how far apart.
    """
    both = re.findall(r"^ *([\d.]+) \[ *(\d+\.\d+)\]", console.rpartition("\n--- ")[2], re.MULTILINE)
    clocks = [(float(since_power_on), float(since_kernel)) for since_power_on, since_kernel in both]
    kernel_began = min(ours - its for ours, its in clocks if its > 1)  # before that its clock does not run, or jumps
    head, *units = re.split(r"^unit ", text.partition("\njournal ")[0], flags=re.MULTILINE)
    ends, own = {"kernel hands over": _stamp(head, "Userspace")}, {}
    for unit in units:
        name = unit.split(maxsplit=1)[0].rpartition(".")[0]
        if up := _stamp(unit, "ActiveEnter"):
            ends[name], own[name] = up, up - _stamp(unit, "InactiveExit")
    events: dict[str, float] = {}
    for journal in re.split(r"^journal ", text, flags=re.MULTILINE)[1:]:
        name, *lines = journal.splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        stamps = [int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 for entry in entries]
        if name == "nightvault-first-boot" and stamps:
            ends["program installed"], own["program fetched, installed"] = stamps[-1], stamps[-1] - stamps[0]
        for entry, stamp in zip(entries, stamps, strict=True):
            if found := re.match(r'{"event": "(\w+)"', str(entry["MESSAGE"])):
                events.setdefault(found[1], kernel_began + stamp)
    return {name: kernel_began + end for name, end in ends.items()}, own, events


def _stamp(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{name}TimestampMonotonic=(\d+)", text, re.MULTILINE)
    return int(found) / 1e6


def bare_boots(folder: Path, root_image: image.Image) -> dict[str, Times]:
    with Alone(folder, user_data=b"", root_image=lambda: root_image) as alone:
        return {boot: _bare_boot(alone.boot(), alone.console) for boot in BOOTS}


def _bare_boot(machine: VirtualMachine, console: Callable[[], str]) -> Times:
    text = machine.peephole.run(_LOOK, seconds=SECONDS).stdout
    ends, _, _ = looked(console(), text)
    began = time.monotonic()
    machine.power_button()
    return {
        "kernel hands over": ends["kernel hands over"],
        "sshd listens": ends["ssh"],
        "multi-user": ends["multi-user"],
        "off": time.monotonic() - began,
    }


def vault_boots(folder: Path) -> dict[str, tuple[Times, Times]]:
    with Vault(folder) as vault:
        source = folder / "source"
        source.mkdir()
        return {boot: _vault_boot(vault, source) for boot in BOOTS}


def _vault_boot(vault: Vault, source: Path) -> tuple[Times, Times]:
    """Ends of parts, and parts."""
    began = vault.power_on()
    first_report, ready = (came - began for came in vault.wait_ready())
    (source / "byte").write_bytes(b"1")
    vault.host.begin()
    vault.host.send(source)
    pushed = time.monotonic() - began
    ends, own, events = looked(vault.alone.console(), vault.inside(_LOOK))
    keys = events.get("keys_written")
    last_report, off = vault.power_off()
    return {
        "kernel hands over": ends["kernel hands over"],
        "sshd listens": ends["ssh"],
        "agent started": events["started"],
        "first report": first_report,
        "ready: the host may push": ready,
        "first byte pushed": pushed,
        "multi-user": ends["multi-user"],
        "off": off,
    }, {
        "kernel": ends["kernel hands over"],
        **{name: own[name] for name in own if name in _STAGES or name.startswith("program")},
        "sshd": own["ssh"],
        "agent: begun to its first line": events["started"] - ends["nightvault-agent"],
        "agent: first line to first report": first_report - events["started"],
        "answered with orders": events["orders"] - first_report,
        **({"account and key": keys - events["orders"]} if keys else {}),  # a later boot finds them as they were
        "mount": events["mount"] - (keys or events["orders"]),
        "told that it is ready": ready - events["mount"],
        "begin and push of one byte": pushed - ready,
        "last finish to the agent's last report": last_report,
        "last report to off": off - last_report,
    }


def middle(rounds: list[Times]) -> Times:
    """Medians, of what every round has."""
    return {name: median(each[name] for each in rounds) for name in rounds[0] if all(name in each for each in rounds)}


def show(console: Console, title: str, columns: dict[str, Times]) -> None:
    table = Table(title=title, title_justify="left")
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    for row in dict.fromkeys(row for times in columns.values() for row in times):
        table.add_row(row, *(f"{times[row]:.1f}" if row in times else "" for times in columns.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.vault_boot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    need_root()
    console = Console(width=110)
    console.print(load())
    bare: list[dict[str, Times]] = []
    ours: list[dict[str, tuple[Times, Times]]] = []
    with tempfile.TemporaryDirectory(prefix="nightvault-boot-") as scratch:
        root_image = bare_image(Path(scratch))
        for number in range(rounds):
            bare.append(bare_boots(Path(scratch, f"bare-{number}"), root_image))
            ours.append(vault_boots(Path(scratch, f"vault-{number}")))
            sys.stderr.write(f"round {number + 1} of {rounds}: {load()}\n")
    columns = {f"bare, {boot}": middle([each[boot] for each in bare]) for boot in BOOTS}
    columns |= {f"vault, {boot}": middle([each[boot][0] for each in ours]) for boot in BOOTS}
    show(console, f"seconds since power-on (off: since the last finish), medians of {rounds}", columns)
    parts = {f"vault, {boot}": middle([each[boot][1] for each in ours]) for boot in BOOTS}
    show(console, "by part, seconds; parts of a first boot overlap", parts)
    console.print(f"\nAll that we add, until the host may push, against the bare image's boot; the aim is {AIM:.2f}:")
    for boot in BOOTS:
        added = median(
            one[boot][0]["ready: the host may push"] / two[boot]["multi-user"] - 1
            for one, two in zip(ours, bare, strict=True)
        )
        console.print(f"  {'within' if added <= AIM else 'MISSED'}  {added:6.2f}  {boot} boot")
    console.print(load())


if __name__ == "__main__":
    main()
