"""What the control plane orders, checked before any of it comes near a file or a command."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import registry
from gate_trees import RUN_ID

# Far above Debian's own accounts and people's, below `nobody`; the control plane counts from 20001.
UIDS = range(20000, 60000)
# Its last letter is no r: with one it is the name of the account that only reads.
_USER = re.compile(r"[a-z](?:[a-z0-9_-]{0,29}[a-qs-z0-9_-])?")
_VOLUME = re.compile(r"vol-[0-9a-f]{8,32}")
_RUN_ID = re.compile(RUN_ID)
_MOST_KEYS = 8
_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9-]+@openssh\.com) ([A-Za-z0-9+/]+={0,2})"
)


class BadOrders(Exception):
    """The answer to a report is not orders; the message names the member."""


@dataclass(frozen=True)
class HostOrder:
    """One host's place on this vault. `public_key` is "TYPE BASE64", its comment gone. `volume_id` is empty where
    there is but a restore of the host. `blank_ok`: a filesystem may be made on it, if it is blank."""

    host: str
    volume_id: str
    uid: int
    user: str
    public_key: str
    blank_ok: bool = True


@dataclass(frozen=True)
class DrillOrder:
    """A restore point is to be checked: the drill's own run, the run that the point is of, and what its manifest may
    be signed with."""

    run_id: str
    point_run_id: str
    public_keys: tuple[str, ...]


@dataclass(frozen=True)
class RestoreOrder:
    """A volume made from a restore point of a host that is ordered too: to be read, beside its own."""

    host: str
    volume_id: str
    drill: DrillOrder | None = None


@dataclass(frozen=True)
class Orders:
    """What the agent is to bring about, and until when. `faults` are orders that were not fit to obey."""

    report_every_seconds: float
    power_off: bool
    seconds_to_power_off: float
    hosts: tuple[HostOrder, ...]
    restores: tuple[RestoreOrder, ...] = ()
    faults: tuple[str, ...] = ()


def parse(document: Any) -> Orders:
    """Orders of a decoded answer. One bad host spoils none of the others. Raises BadOrders."""
    if not isinstance(document, dict):
        raise BadOrders("the answer is not an object")
    every = _number(document, "report_every_seconds")
    left = _number(document, "seconds_to_power_off")
    off = document.get("power_off")
    if not isinstance(off, bool):
        raise BadOrders("power_off is not true or false")
    hosts: list[HostOrder] = []
    restores: list[RestoreOrder] = []
    faults: list[str] = []
    for entry in _entries(document, "hosts"):
        with _noting(faults):
            order = _host(entry)
            _unlike(order, hosts)
            hosts.append(order)
    for entry in _entries({"restores": [], **document}, "restores"):
        with _noting(faults):
            restores.append(_restore(entry, hosts, restores))
    return Orders(max(every, 0.2), off, left, tuple(hosts), tuple(restores), tuple(faults))


@contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except BadOrders as fault:
        faults.append(str(fault))


def _entries(document: dict[str, Any], name: str) -> list[Any]:
    entries = document.get(name)
    if not isinstance(entries, list):
        raise BadOrders(f"{name} is not a list")
    return entries


def _number(document: dict[str, Any], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadOrders(f"{name} is not a number of seconds")
    return float(value)


def _host(entry: Any) -> HostOrder:
    host = _text(entry, "host", registry.HOST)
    uid = entry.get("uid")
    if isinstance(uid, bool) or not isinstance(uid, int) or uid not in UIDS:
        raise BadOrders(f"{host}: uid is not in {UIDS.start}..{UIDS.stop - 1}")
    volume_id = _text(entry, "volume_id", _VOLUME) if entry.get("volume_id") != "" else ""
    key, blank_ok = _key(host, entry.get("public_key")), entry.get("blank_ok", True)
    if not isinstance(blank_ok, bool):
        raise BadOrders(f"{host}: blank_ok is not true or false")
    return HostOrder(host, volume_id, uid, _text(entry, "user", _USER), key, blank_ok)


def _restore(entry: Any, hosts: list[HostOrder], others: list[RestoreOrder]) -> RestoreOrder:
    host = _text(entry, "host", registry.HOST)
    drill = _drill(host, entry["drill"]) if entry.get("drill") is not None else None
    order = RestoreOrder(host, _text(entry, "volume_id", _VOLUME), drill)
    if order.host not in [host.host for host in hosts]:
        raise BadOrders(f"{order.host}: a restore, yet the host itself is not ordered")
    if order.host in [other.host for other in others]:
        raise BadOrders(f"{order.host}: same host as another restore")
    if order.volume_id in {*(host.volume_id for host in hosts), *(other.volume_id for other in others)}:
        raise BadOrders(f"{order.host}: a restore with the same volume_id as another place")
    return order


def _text(entry: Any, name: str, shape: re.Pattern[str]) -> str:
    if not isinstance(entry, dict):
        raise BadOrders("an entry of hosts or restores, or a drill, is not an object")
    value = entry.get(name)
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise BadOrders(f"{name} {str(value)[:40]!r} is not of the right shape")
    return value


def _drill(host: str, entry: Any) -> DrillOrder:
    run_id, point_run_id = (_text(entry, name, _RUN_ID) for name in ("run_id", "point_run_id"))
    keys = entry.get("public_keys")
    if not isinstance(keys, list) or not 1 <= len(keys) <= _MOST_KEYS:
        raise BadOrders(f"{host}: public_keys is not a list of 1 to {_MOST_KEYS} keys")
    return DrillOrder(run_id, point_run_id, tuple(_key(host, key) for key in keys))


def _key(host: str, text: Any) -> str:
    # The comment may be anything on that line, and goes no further.
    words = text.split(" ")[:2] if isinstance(text, str) and len(text) < 4096 and text.isprintable() else []
    if _KEY.fullmatch(" ".join(words)):
        kind, data = words
        try:
            inner = base64.b64decode(data, validate=True)
        except ValueError:
            inner = b""
        if inner.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
            return f"{kind} {data}"
    raise BadOrders(f"{host}: public_key is not an ssh public key on one line")


def _unlike(order: HostOrder, others: list[HostOrder]) -> None:
    # Two hosts with one account, volume or key would be one host to sshd.
    for other in others:
        for name in ("host", "volume_id", "uid", "user", "public_key"):
            if getattr(order, name) == getattr(other, name) != "":
                raise BadOrders(f"{order.host}: same {name} as {other.host}")
