"""Orders are checked before they come near a file or a command."""

import base64
from typing import Any

import agent_orders
import pytest

GOOD_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()


def host(**changes: Any) -> dict[str, Any]:
    plain = {"host": "C", "volume_id": "vol-0123456789abcdef0", "uid": 20001, "user": "nv20001", "live": True}
    return {**plain, "public_key": GOOD_KEY + ' root@c "odd" comment', **changes}


def orders(*hosts: Any, **changes: Any) -> dict[str, Any]:
    plain = {"vault_id": "v", "report_every_seconds": 5, "power_off": False, "seconds_to_power_off": 60}
    return {**plain, "hosts": list(hosts), "a_new_member": "is no reason to stop", **changes}


def test_good_orders() -> None:
    parsed = agent_orders.parse(orders(host()))
    assert (parsed.faults, parsed.power_off, parsed.seconds_to_power_off) == ((), False, 60.0)
    [order] = parsed.hosts
    assert (order.host, order.uid, order.user) == ("C", 20001, "nv20001")
    assert order.public_key == GOOD_KEY  # the comment stays behind
    assert order.blank_ok  # a control plane that does not say so made it blank
    assert not agent_orders.parse(orders(host(blank_ok=False))).hosts[0].blank_ok


@pytest.mark.parametrize(
    "changes",
    [
        {"host": ""},
        {"host": ".."},
        {"host": "a/b"},
        {"host": "a\nb"},
        {"host": "-rf"},
        {"host": "x" * 33},
        {"host": 5},
        {"volume_id": "../../etc"},
        {"volume_id": "vol-"},
        {"volume_id": "vol-0123456789abcdeg0"},
        {"uid": 0},
        {"uid": 1000},
        {"uid": 65534},
        {"uid": "20001"},
        {"uid": True},
        {"user": "root; id"},
        {"user": "-o"},
        {"user": "Root"},
        {"user": "nv20002r"},  # so the account that reads for nv20002 is called
        {"blank_ok": "no"},
        {"public_key": ""},
        {"public_key": None},
        {"public_key": GOOD_KEY + '\ncommand="id" ' + GOOD_KEY},
        {"public_key": 'command="id" ' + GOOD_KEY},
        {"public_key": "ssh-rsa " + GOOD_KEY.split()[1]},
        {"public_key": "ssh-ed25519 AAAA"},
        {"public_key": "ssh-dss " + GOOD_KEY.split()[1]},
    ],
)
def test_a_host_that_is_not_fit_spoils_no_other(changes: dict[str, Any]) -> None:
    other = host(host="H", volume_id="vol-0123456789abcdef1", uid=20002, user="nv20002")
    other["public_key"] = GOOD_KEY[:-2] + "E="
    parsed = agent_orders.parse(orders(host(**changes), other))
    assert [order.host for order in parsed.hosts] == ["H"]
    assert len(parsed.faults) == 1


def test_restores() -> None:
    point = {"host": "C", "volume_id": "vol-0123456789abcdef9", "a_new_member": 1}
    parsed = agent_orders.parse(orders(host(volume_id=""), restores=[point]))
    assert (parsed.faults, parsed.hosts[0].volume_id) == ((), "")
    assert parsed.restores == (agent_orders.RestoreOrder("C", "vol-0123456789abcdef9"),)
    assert agent_orders.parse(orders(host())).restores == ()  # of a control plane that knows of none


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {"host": "C"},
        {"host": "../C", "volume_id": "vol-0123456789abcdef9"},
        {"host": "C", "volume_id": ""},
        {"host": "C", "volume_id": "/dev/vda"},
        {"host": "C", "volume_id": host()["volume_id"]},  # its own
        {"host": "H", "volume_id": "vol-0123456789abcdef9"},  # not ordered
    ],
)
def test_a_restore_that_is_not_fit_spoils_no_host(bad: Any) -> None:
    parsed = agent_orders.parse(orders(host(), restores=[bad]))
    assert ([order.host for order in parsed.hosts], parsed.restores, len(parsed.faults)) == (["C"], (), 1)


DRILL = {
    "run_id": "00000000-0000-4000-8000-000000000001",
    "point_run_id": "00000000-0000-4000-8000-000000000002",
    "public_keys": [GOOD_KEY + " root@c"],
}


def test_drills() -> None:
    point = {"host": "C", "volume_id": "vol-0123456789abcdef9"}
    parsed = agent_orders.parse(orders(host(), restores=[{**point, "drill": {**DRILL, "a_new_member": 1}}]))
    assert parsed.faults == ()
    assert parsed.restores[0].drill == agent_orders.DrillOrder(DRILL["run_id"], DRILL["point_run_id"], (GOOD_KEY,))  # type: ignore[arg-type]
    assert agent_orders.parse(orders(host(), restores=[{**point, "drill": None}])).restores[0].drill is None


@pytest.mark.parametrize(
    "bad",
    [
        5,
        [],
        {},
        {**DRILL, "run_id": "../x"},
        {**DRILL, "point_run_id": None},
        {**DRILL, "public_keys": GOOD_KEY},
        {**DRILL, "public_keys": []},
        {**DRILL, "public_keys": [GOOD_KEY] * 9},
        {**DRILL, "public_keys": [5]},
        {**DRILL, "public_keys": [GOOD_KEY + "\n* " + GOOD_KEY]},
        {**DRILL, "public_keys": ["cert-authority " + GOOD_KEY]},
    ],
)
def test_a_drill_that_is_not_fit_spoils_its_restore_alone(bad: Any) -> None:
    other = host(
        host="H", volume_id="vol-0123456789abcdef1", uid=20002, user="nv20002", public_key=GOOD_KEY[:-2] + "E="
    )
    points = [{"host": name, "volume_id": f"vol-0123456789abcdef{n}"} for n, name in ((8, "C"), (9, "H"))]
    points[0]["drill"] = bad
    parsed = agent_orders.parse(orders(host(), other, restores=points))
    assert ([each.host for each in parsed.restores], len(parsed.faults)) == (["H"], 1)


def test_one_restore_a_host() -> None:
    points = [{"host": "C", "volume_id": f"vol-0123456789abcdef{n}"} for n in (8, 9)]
    parsed = agent_orders.parse(orders(host(), restores=points))
    assert (len(parsed.restores), len(parsed.faults)) == (1, 1)


@pytest.mark.parametrize("same", ["host", "volume_id", "uid", "user", "public_key"])
def test_two_hosts_share_nothing(same: str) -> None:
    other = host(host="H", volume_id="vol-0123456789abcdef1", uid=20002, user="nv20002")
    other["public_key"] = GOOD_KEY[:-2] + "E="
    other[same] = host()[same]
    parsed = agent_orders.parse(orders(host(), other))
    assert len(parsed.hosts) == 1
    assert same in parsed.faults[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"report_every_seconds": None},
        {"report_every_seconds": -1},
        {"seconds_to_power_off": "60"},
        {"seconds_to_power_off": float("inf")},
        {"seconds_to_power_off": True},
        {"power_off": 0},
        {"hosts": None},
        {"hosts": {}},
        {"restores": {}},
    ],
)
def test_orders_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(agent_orders.BadOrders, match=next(iter(changes))):
        agent_orders.parse(orders(**changes))


def test_an_answer_that_is_no_object() -> None:
    with pytest.raises(agent_orders.BadOrders):
        agent_orders.parse([])
