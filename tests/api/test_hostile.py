"""Hostile input over real HTTP: each a 4xx, and nothing has changed."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib import operate
from chalicelib.model import Change
from tests.api.conftest import KEY, R1, R2, Api

START = {"run_id": R1, "kind": "backup"}
CHANGE = dict.fromkeys(Change.__struct_fields__, 1)
FINISH = {"run_id": R1, "outcome": "complete", "exit_code": 0}


@pytest.fixture
def open_api(api: Api) -> Api:
    """A vault that is open, with a live run of C; H has none."""
    api.start("C", R1)
    api.boot()
    return api


def refused(api: Api, method: str, path: str, who: str, *statuses: int, **how: Any) -> None:
    """That request is answered with one of these statuses (any 4xx if none is given), and changes nothing."""
    before = api.everything()
    answer = api.call(method, path, token=api.tokens[who], **how)
    assert answer.status in (statuses or range(400, 500)), answer
    assert api.everything() == before, "it was refused, and changed something"


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a single quote": b"{'run_id': 1}",
    "trailing": json.dumps(START).encode() + b"{}",
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"x"',
    "invalid UTF-8": b'{"run_id":"\xff\xfe","kind":"backup"}',
    "UTF-16": json.dumps(START).encode("utf-16"),
    "a NUL": b'{"run_id":"\x00","kind":"backup"}',
    "half a surrogate": b'{"run_id":"\\ud800","kind":"backup"}',
    "deep arrays": b"[" * 8000,
    "deep objects": b'{"run_id":' * 1400 + b"1" + b"}" * 1400,
    "deep in an unknown field": b'{"x":' + b"[" * 7000 + b"]" * 7000 + b"}",
    "NaN": b'{"run_id":NaN,"kind":"backup"}',
    "twice the same field": b'{"run_id":"x","run_id":"y","kind":"backup"}',
}


@pytest.mark.parametrize("name", NOT_JSON)
@pytest.mark.parametrize(
    ("path", "who"), [("/start", "H"), ("/finish", "C"), ("/report", "@vault-1"), ("/enroll", "C")]
)
def test_bodies_that_are_no_json_of_ours(open_api: Api, name: str, path: str, who: str) -> None:
    refused(open_api, "POST", path, who, 400, raw=NOT_JSON[name])


@pytest.mark.parametrize(
    ("path", "who"), [("/start", "H"), ("/finish", "C"), ("/report", "@vault-1"), ("/enroll", "C")]
)
def test_a_body_over_16_kib(open_api: Api, path: str, who: str) -> None:
    refused(open_api, "POST", path, who, 413, raw=json.dumps({**START, "x": "y" * 16384}).encode())
    padded = json.dumps(START).encode()
    refused(open_api, "POST", path, who, 413, raw=padded + b" " * (16 * 1024 + 1 - len(padded)))


def test_a_body_of_exactly_16_kib_is_taken(api: Api) -> None:
    padded = json.dumps(START).encode().ljust(16 * 1024)
    assert api.call("POST", "/start", raw=padded, token=api.tokens["C"]).status == 202


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/octet-stream", ""],
)
def test_another_content_type(open_api: Api, content_type: str | None) -> None:
    refused(open_api, "POST", "/start", "H", 400, 415, raw=json.dumps(START).encode(), content_type=content_type)


def test_a_charset_is_fine(api: Api) -> None:
    kind = "Application/JSON; charset=utf-8"
    raw = json.dumps(START).encode()
    assert api.call("POST", "/start", raw=raw, content_type=kind, token=api.tokens["C"]).status == 202


HUGE = int("9" * 400)
BAD_STARTS: dict[str, dict[str, Any]] = {
    "no run_id": {"kind": "backup"},
    "no kind": {"run_id": R2},
    "no uuid": {"run_id": "../../etc/passwd", "kind": "backup"},
    "a uuid with a newline": {"run_id": R2 + "\n", "kind": "backup"},
    "a number": {"run_id": 1, "kind": "backup"},
    "a list": {"run_id": [R2], "kind": "backup"},
    "null": {"run_id": None, "kind": "backup"},
    "another kind": {"run_id": R2, "kind": "delete"},
    "a kind in capitals": {"run_id": R2, "kind": "BACKUP"},
    "a kind that is a list": {"run_id": R2, "kind": ["backup"]},
    "an unknown field": {"run_id": R2, "kind": "backup", "hots": "C"},
    "another's name": {"run_id": R2, "kind": "backup", "host": "H"},
    "a run of another": {"run_id": R1, "kind": "backup"},
    "a point of a backup": {"run_id": R2, "kind": "backup", "point": "snap-1"},
    "a point that is none": {"run_id": R2, "kind": "restore", "point": "vol-1"},
    "a point with a newline": {"run_id": R2, "kind": "restore", "point": "snap-1\n"},
    "a point that is a list": {"run_id": R2, "kind": "restore", "point": ["snap-1"]},
    "a point of 50 characters": {"run_id": R2, "kind": "restore", "point": "snap-" + "1" * 45},
}
BAD_FINISHES: dict[str, dict[str, Any]] = {
    "another's run": FINISH,
    "abandoned": {**FINISH, "outcome": "abandoned"},
    "another outcome": {**FINISH, "outcome": "won"},
    "no outcome": {"run_id": R1, "exit_code": 0},
    "an exit code of 256": {**FINISH, "exit_code": 256},
    "a negative exit code": {**FINISH, "exit_code": -1},
    "an exit code that is a text": {**FINISH, "exit_code": "0"},
    "an exit code that is true": {**FINISH, "exit_code": True},
    "an exit code with a fraction": {**FINISH, "exit_code": 0.5},
    "huge stats": {**FINISH, "stats": {"bytes_sent": HUGE}},
    "negative stats": {**FINISH, "stats": {"bytes_sent": -1}},
    "stats with a fraction": {**FINISH, "stats": {"bytes_sent": 1.5}},
    "stats as text": {**FINISH, "stats": {"bytes_sent": "1"}},
    "unknown stats": {**FINISH, "stats": {"bytes": 1}},
    "stats as a list": {**FINISH, "stats": [1]},
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_bad_starts(open_api: Api, name: str) -> None:
    refused(open_api, "POST", "/start", "H", 400, 409, body=BAD_STARTS[name])


@pytest.mark.parametrize("name", BAD_FINISHES)
def test_bad_finishes(open_api: Api, name: str) -> None:
    refused(open_api, "POST", "/finish", "H" if name == "another's run" else "C", 400, 404, body=BAD_FINISHES[name])


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b"-0.0001", b"9" * 400, b"18446744073709551616"])
def test_numbers_that_are_none(open_api: Api, value: bytes) -> None:
    body = json.dumps(FINISH).encode()[:-1] + b',"stats":{"bytes_sent":' + value + b"}}"
    refused(open_api, "POST", "/finish", "C", 400, raw=body)


def test_the_error_names_the_field(open_api: Api) -> None:
    answer = open_api.finish("C", R1, stats={"bytes_sent": "many"})
    assert answer.code == "BadRequest"
    assert "$.stats.bytes_sent" in answer.json["error"]["message"]
    answer = open_api.call("POST", "/start", {**START, "hots": 1}, token=open_api.tokens["C"])
    assert "hots" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "run_id=x",
        "run_id=",
        f"run_id={R1}%0a",
        "run_id=../../x",
        f"run_id={R1}&host=H",
        "host=H",
        "x",
        "run_id[]=1",
        f"run_id={R2}",
        "run_id=%ff",
        "%ff=1",
    ],
)
def test_bad_queries(open_api: Api, query: str) -> None:
    before = open_api.everything()
    answer = open_api.call("GET", f"/status?{query}", token=open_api.tokens["C"])
    # `x` without `=` is no field at all to Chalice's server.
    assert answer.status in ((200, 400) if query == "x" else (400, 404))
    assert open_api.everything() == before


def test_another_hosts_run_is_unknown(open_api: Api) -> None:
    refused(open_api, "GET", f"/status?run_id={R1}", "H", 404)


BAD_KEYS = {
    "a newline at the end": f"{KEY}\n",
    "a second line": f"{KEY}\n{KEY}",
    "a carriage return": f"{KEY} x\r",
    "options": f'command="sh" {KEY}',
    "options without a blank": f"no-pty,{KEY}",
    "an rsa key": "ssh-rsa " + "A" * 372,
    "an ecdsa key": "ecdsa-sha2-nistp256 " + "A" * 140,
    "a certificate": "ssh-ed25519-cert-v01@openssh.com " + "A" * 68,
    "too short": "ssh-ed25519 " + "A" * 67,
    "too long": "ssh-ed25519 " + "A" * 69,
    "other characters": "ssh-ed25519 " + "A" * 67 + "'",
    "a NUL": f"{KEY} \x00",
    "a comment that is no ASCII": f"{KEY} \u6c34",
    "a long comment": f"{KEY} " + "x" * 101,
    "a separator line": f"{KEY} x\u2028{KEY}",
    "a blank before it": f" {KEY}",
    "empty": "",
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_public_keys(api: Api, name: str) -> None:
    code = api.world.enrolment.invite("N", 5, 86400).code
    before = api.everything()
    answer = api.call("POST", "/enroll", {"code": code, "public_key": BAD_KEYS[name]})
    assert (answer.status, answer.code) == (400, "BadRequest")
    assert api.everything() == before
    assert api.call("POST", "/enroll", {"code": code, "public_key": KEY}).status == 200, "the code is not used up"


def test_bad_keys_of_a_vault(open_api: Api) -> None:
    for key in BAD_KEYS.values():
        refused(open_api, "POST", "/report", "@vault-1", 400, body=open_api.report_body(host_keys=[key]))


BAD_NAMES = [
    "",
    "../C",
    "C/../H",
    "a b",
    "C\n",
    "\u6c34",
    "H\u00f6st",
    "-C",
    "_C",
    ".",
    "..",
    "C" * 33,
    "@vault-1",
    "C.D",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_host_names_are_not_invited(api: Api, name: str) -> None:
    before = api.everything()
    answer = operate.operate({"action": "invite", "host": name, "size_gib": 5})
    assert answer["error"]["code"] == "BadRequest"
    assert api.everything() == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_host_names_in_reports(open_api: Api, name: str) -> None:
    mount = {"host": name, "volume_id": "vol-1", "state": "mounted"}
    refused(open_api, "POST", "/report", "@vault-1", 400, body=open_api.report_body(mounts=[mount]))
    refused(
        open_api,
        "POST",
        "/report",
        "@vault-1",
        400,
        body=open_api.report_body(transfers=[{"host": name, "live": True, "transfer_bytes": 1}]),
    )


@pytest.mark.parametrize("name", ["C", "a", "0", "C" * 32, "web-1_b"])
def test_good_host_names_are_invited(api: Api, name: str) -> None:
    assert "code" in operate.operate({"action": "invite", "host": name, "size_gib": 5})


BAD_REPORTS: dict[str, dict[str, Any]] = {
    "another state": {"state": "well"},
    "a state with a newline": {"state": "ready\n"},
    "port 0": {"port": 0},
    "port 65536": {"port": 65536},
    "no host key": {"host_keys": []},
    "an address that is a list": {"address": ["1"]},
    "a long address": {"address": "x" * 201},
    "an address with a newline": {"address": "203.0.113.9\n-oProxyCommand=x"},
    "an address that is a name": {"address": "-oProxyCommand=x"},
    "too many mounts": {"mounts": [{"host": "C", "volume_id": "v", "state": "mounted"}] * 65},
    "an unknown mount state": {"mounts": [{"host": "C", "volume_id": "v", "state": "fine"}]},
    "an unknown field": {"secrets": 1},
    "negative bytes": {"transfers": [{"host": "C", "live": True, "transfer_bytes": -1}]},
    "live as text": {"transfers": [{"host": "C", "live": "yes", "transfer_bytes": 1}]},
    "a commit of no uuid": {"commits": [{"host": "C", "run_id": "x"}]},
    **{
        f"a change with {name}": {"commits": [{"host": "C", "run_id": R1, "change": change}]}
        for name, change in {
            "half of it": {"files_before": 1},
            "an unknown member": {**CHANGE, "files_renamed": 1},
            "a negative number": {**CHANGE, "files_deleted": -1},
            "a fraction": {**CHANGE, "bytes_changed": 0.5},
        }.items()
    },
}


@pytest.mark.parametrize("name", BAD_REPORTS)
def test_bad_reports(open_api: Api, name: str) -> None:
    refused(open_api, "POST", "/report", "@vault-1", 400, body=open_api.report_body(**BAD_REPORTS[name]))


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"action": "drop"},
        {"action": "invite"},
        {"action": "invite", "host": "N", "size_gib": 0},
        {"action": "invite", "host": "N", "size_gib": "5"},
        {"action": "invite", "host": "N", "size_gib": 5, "every_seconds": 0},
        {"action": "invite", "host": "N", "size_gib": 5, "force": True},
        {"action": "invite", "host": "N", "size_gib": 5, "max_size_gib": 4},
        {"action": "invite", "host": "N", "size_gib": 5, "max_size_gib": 16385},
        {"action": "windows", "days": 0},
        {"action": "windows", "vault_id": "vault-9"},
        {"action": "windows", "limit": 3},
        {"action": "host", "host": "nobody"},
        {"action": "host", "host": "C", "limit": 0},
        {"action": "restore_points", "host": "nobody"},
    ],
)
def test_bad_operations(api: Api, event: dict[str, Any]) -> None:
    before = api.everything()
    assert operate.operate(event)["error"]["code"] in ("BadRequest", "UnknownHost", "UnknownVault")
    assert api.everything() == before


# --- fuzzing --------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_fields = st.sampled_from(["run_id", "kind", "outcome", "exit_code", "stats", "code", "public_key", "host", "mounts"])
_bodies = st.binary(max_size=60) | st.dictionaries(_fields, _json, max_size=5).map(
    lambda body: json.dumps(body).encode()
)


@given(path=st.sampled_from(["/start", "/finish", "/report", "/enroll"]), raw=_bodies)
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_fuzzed_bodies_change_nothing(api: Api, path: str, raw: bytes) -> None:
    """No body of random members is a whole request: a run_id is a UUID, a code is known to its owner."""
    if "@vault-1" not in api.tokens:
        api.start("C", R1)
        api.boot()
    refused(api, "POST", path, "@vault-1" if path == "/report" else "H", raw=raw)


@given(header=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_tokens_are_refused(api: Api, header: str) -> None:
    assert api.call("GET", "/status", headers={"Authorization": header}).status in (400, 401, 403)
