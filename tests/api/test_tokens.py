"""Who may call what: 401 without a token, 403 with a wrong one, and nothing ever changes."""

import pytest

from tests.api.conftest import KEY, R1, Api

ROUTES = [("POST", "/start"), ("GET", "/status"), ("GET", "/points"), ("POST", "/finish"), ("POST", "/report")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_token(api: Api, method: str, path: str) -> None:
    before = api.everything()
    assert api.call(method, path, {"run_id": R1, "kind": "backup"} if method == "POST" else None).status == 401
    assert api.everything() == before


WRONG = {
    "another secret": "nv1.C." + "x" * 43,
    "a short secret": "nv1.C.x",
    "no secret": "nv1.C.",
    "an unknown host": "nv1.nobody." + "x" * 43,
    "an unknown vault": "nv1.@vault-9." + "x" * 43,
    "a vault without an agent": "nv1.@vault-1." + "x" * 43,
    "another scheme's version": "nv2.C." + "x" * 43,
    "a name with ../": "nv1.../../C." + "x" * 43,
    "a name with a space": "nv1.C D." + "x" * 43,
    "a name of 33 characters": "nv1." + "C" * 33 + "." + "x" * 43,
    "an empty name": "nv1.." + "x" * 43,
    "a long one": "nv1.C." + "x" * 5000,
    "nonsense": "%00%0a",
    "empty": "",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_wrong_token(api: Api, name: str, method: str, path: str) -> None:
    before = api.everything()
    body = {"run_id": R1, "kind": "backup"} if method == "POST" else None
    assert api.call(method, path, body, token=WRONG[name]).status in (401, 403)
    assert api.everything() == before


@pytest.mark.parametrize("name", ["H\u00f6st", "\u6c34"])
def test_a_token_that_is_no_ascii(api: Api, name: str) -> None:
    header = f"Bearer nv1.{name}.{'x' * 43}".encode().decode("latin-1")
    assert api.call("GET", "/status", headers={"Authorization": header}).status in (401, 403)


def test_a_token_with_anything_around_it(api: Api) -> None:
    token = api.tokens["C"]
    for header in (token, f"bearer {token}", f"Basic {token}", f"Bearer  {token}", f"Bearer {token} x"):
        assert api.call("GET", "/status", headers={"Authorization": header}).status == 403


def test_a_hosts_token_is_no_vaults_and_the_other_way_round(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    before = api.everything()
    assert api.call("POST", "/report", api.report_body(), token=api.tokens["C"]).status == 403
    vault = api.tokens["@vault-1"]
    assert api.call("POST", "/start", {"run_id": R1, "kind": "backup"}, token=vault).status == 403
    assert api.call("GET", "/status", token=vault).status == 403
    assert api.call("GET", "/points", token=vault).status == 403
    finish = {"run_id": R1, "outcome": "failed", "exit_code": 1}
    assert api.call("POST", "/finish", finish, token=vault).status == 403
    assert api.everything() == before


def test_the_old_token_of_a_host_that_enrolled_again_is_refused(api: Api) -> None:
    old = api.tokens["C"]
    assert api.call("GET", "/status", token=old).status == 200
    api.enrol("C")
    assert api.call("GET", "/status", token=old).status == 403
    assert api.status("C").status == 200


def test_the_token_of_a_machine_that_was_replaced_is_refused(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.world.cloud.terminate(api.world.vault.instance_id or "")
    api.world.pass_minutes(1)
    assert api.report().status == 403


# --- enrolment ------------------------------------------------------------------------------------------


def test_enrolment_answers_name_and_token_once(api: Api) -> None:
    code = api.world.enrolment.invite("N", 5, 86400).code
    answer = api.call("POST", "/enroll", {"code": code, "public_key": f"{KEY} root@n"})
    assert answer.status == 200
    assert set(answer.json) == {"name", "token"}
    assert answer.json["name"] == "N"
    assert answer.json["token"].startswith("nv1.N.")
    before = api.everything()
    replayed = api.call("POST", "/enroll", {"code": code, "public_key": KEY})
    assert (replayed.status, replayed.code) == (403, "CodeRefused")
    assert api.everything() == before


def test_expired_and_unknown_codes_are_answered_alike(api: Api) -> None:
    code = api.world.enrolment.invite("N", 5, 86400).code
    api.world.clock.advance(24 * 3600)
    before = api.everything()
    expired = api.call("POST", "/enroll", {"code": code, "public_key": KEY})
    unknown = api.call("POST", "/enroll", {"code": "x" * 43, "public_key": KEY})
    assert (expired.status, expired.text) == (unknown.status, unknown.text)
    assert expired.code == "CodeRefused"
    assert api.everything() == before


def test_a_token_is_stored_as_a_hash_only(api: Api) -> None:
    secret = api.tokens["C"].rsplit(".", 1)[1]
    assert secret not in repr(api.everything())
