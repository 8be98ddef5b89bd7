"""docs/protocol.md over real HTTP: statuses, shapes and headers of the routes (of /program: test_program.py)."""

from typing import Any

import pytest
from chalice.local import ChaliceRequestHandler

from chalicelib import operate
from chalicelib.errors import NightvaultError
from chalicelib.http import STATUS
from chalicelib.model import Change, Phase, Policy
from tests.api.conftest import KEY, R1, R2, R3, Answer, Api

DOCUMENT = {
    "run_id": str,
    "host": str,
    "kind": str,
    "outcome": str | None,
    "reason": str | None,
    "phase": str,
    "queued": bool,
    "ready": bool,
    "window": dict | None,
    "vault": dict | None,
    "progress": dict | None,
    "committed": bool,
    "restore": dict | None,
    "verify": bool,
    "retry_after_seconds": int,
    "last": dict | None,
    "now": str,
}


def check_document(answer: Answer) -> dict[str, Any]:
    """Every member of the run document is there, in its order, and of its type; JSON is compact."""
    document: dict[str, Any] = answer.json
    assert list(document) == list(DOCUMENT)
    for name, kind in DOCUMENT.items():
        assert isinstance(document[name], kind), (name, document[name])
    assert '": ' not in answer.text
    assert '", "' not in answer.text
    assert answer.headers["content-type"] == "application/json"
    assert document["now"].endswith("Z")
    return document


def test_a_night_over_http(api: Api) -> None:
    answer = api.start("C", R1)
    assert answer.status == 202
    document = check_document(answer)
    assert (document["run_id"], document["host"], document["kind"]) == (R1, "C", "backup")
    assert (document["phase"], document["ready"], document["vault"]) == ("waking", False, None)
    assert set(document["window"]) == {"window_id", "opened_at", "closes_at", "seconds_left"}
    assert document["window"]["seconds_left"] == 12960

    orders = api.boot()
    assert orders.status == 200
    assert list(orders.json) == [
        "vault_id",
        "report_every_seconds",
        "power_off",
        "seconds_to_power_off",
        "hosts",
        "restores",
    ]
    assert orders.json["power_off"] is False
    assert orders.json["seconds_to_power_off"] == 12960 + 600
    assert orders.json["hosts"][0] == {
        "host": "C",
        "volume_id": "vol-C",
        "uid": 20001,
        "user": "nv20001",
        "public_key": KEY,
        "live": True,
        "blank_ok": True,
    }
    assert [host["live"] for host in orders.json["hosts"]] == [True, False]

    document = check_document(api.status("C", R1))
    assert (document["phase"], document["ready"]) == ("open", True)
    assert document["vault"] == {
        "vault_id": "vault-1",
        "address": "203.0.113.9",
        "port": 22,
        "user": "nv20001",
        "host_keys": ["ssh-ed25519 " + "B" * 68],
    }

    api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 1048576}])
    document = check_document(api.status("C", R1))
    assert document["progress"]["transfer_bytes"] == 1048576
    assert set(document["progress"]) == {"transfer_bytes", "seen_at"}

    api.report(commits=[{"host": "C", "run_id": R1}])
    stats = {"files_total": 3, "files_sent": 1, "bytes_sent": 99, "archive_seconds": 0, "push_seconds": 2}
    answer = api.finish("C", R1, stats=stats)
    assert answer.status == 200
    document = check_document(answer)
    assert (document["outcome"], document["committed"], document["phase"]) == ("complete", True, "closing")
    assert api.finish("C", R1, stats=stats).text == answer.text
    api.world.arrive()
    document = check_document(api.status("C"))
    assert document["run_id"] == R1
    assert set(document["last"]) == {
        "backup_run_id",
        "backup_window_id",
        "snapshot_id",
        "completed_at",
        "age_seconds",
    }
    assert document["last"]["backup_run_id"] == R1
    assert document["window"] is None


def test_what_a_commit_changed_is_told_and_shown_to_operators(api: Api) -> None:
    change = dict(zip(Change.__struct_fields__, range(1, 9), strict=True))
    api.start("C", R1)
    api.boot()
    assert api.report(commits=[{"host": "C", "run_id": R1, "change": change}]).status == 200
    api.finish("C", R1)
    api.world.clock.advance(1)
    api.world.arrive()
    shown = operate.operate({"action": "host", "host": "C"})
    assert [each["change"] for each in (shown["runs"][0], shown["restore_points"][0])] == [change, change]
    assert api.points("C").json["points"][0]["unusual"] is False


def test_no_member_is_named_twice(api: Api) -> None:
    """sh reads the document with sed."""
    api.start("C", R1)
    api.boot()
    api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 1}], commits=[{"host": "C", "run_id": R1}])
    seen: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                seen.append(name)
                walk(each)

    walk(api.status("C", R1).json)
    assert len(seen) == len(set(seen))
    api.finish("C", R1)
    api.world.clock.advance(1)
    api.world.arrive()
    api.world.arrive()
    api.start("C", R2, "restore")
    api.world.commits["C"] = R1
    api.world.boot()
    seen.clear()
    document = api.status("C", R2).json
    assert document["restore"]
    assert document["vault"]
    walk(document)
    assert len(seen) == len(set(seen))


def test_a_restore_of_an_older_point_over_http(api: Api) -> None:
    first = api.world.backed_up("C", R1)
    second = api.world.backed_up("C", R2)
    listed = api.points("C")
    assert listed.status == 200
    assert list(listed.json) == ["host", "points", "now"]
    assert [point["point_id"] for point in listed.json["points"]] == [second, first]
    assert {name: type(value) for name, value in listed.json["points"][1].items()} == {
        "point_id": str,
        "taken_at": str,
        "point_run_id": str,
        "point_complete": bool,
        "point_state": str,
        "fit": bool,
        "locked": bool,
        "unusual": bool,
    }
    assert listed.text.count("},{") == 1, "sh splits it there"

    document = check_document(api.start("C", R3, "restore", point=first))
    assert document["restore"] == {
        "point_id": first,
        "taken_at": listed.json["points"][1]["taken_at"],
        "point_run_id": R1,
        "point_complete": True,
        "source": "point",
    }
    (order,) = api.world.boot().restores
    assert not check_document(api.status("C", R3))["ready"]
    api.world.report()
    document = check_document(api.status("C", R3))
    assert (document["ready"], document["vault"]["user"]) == (True, "nv20001")
    assert api.world.cloud.of_point[order.volume_id] == first
    assert check_document(api.finish("C", R3))["outcome"] == "complete"


def test_a_report_of_restores_is_taken_and_checked(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    seen = {"host": "C", "volume_id": "vol-1", "state": "mounted", "detail": ""}
    assert api.report(restores=[seen]).json["restores"] == []
    assert api.world.vault.agent
    assert api.world.vault.agent.restores["C"].state == "mounted"
    wrong = api.report(restores=[{**seen, "state": "perhaps"}])
    assert (wrong.status, wrong.code) == (400, "BadRequest")
    assert "restores[0].state" in wrong.json["error"]["message"]


def test_errors_of_restores(api: Api) -> None:
    nothing = api.start("C", R1, "restore")
    assert (nothing.status, nothing.code) == (404, "NothingToRestore")
    others = api.world.backed_up("H", R1)
    unknown = api.start("C", R2, "restore", point=others)
    assert (unknown.status, unknown.code) == (404, "UnknownPoint")
    assert others in unknown.json["error"]["message"]
    for kind, point, names in (("backup", others, "point"), ("restore", "vol-1; x", "point"), ("restore", 7, "point")):
        refused = api.start("C", R2, kind, point=point)
        assert (refused.status, refused.code) == (400, "BadRequest")
        assert names in refused.json["error"]["message"]
    assert api.start("C", R2, "backup", point=None).status == 202


def test_start_is_idempotent(api: Api) -> None:
    assert api.start("C", R1).text == api.start("C", R1).text


def test_status_before_any_run(api: Api) -> None:
    document = api.status("C").json
    assert document["run_id"] is None
    assert document["kind"] is None
    assert document["phase"] == "asleep"


def test_a_run_id_is_known_however_it_is_written(api: Api) -> None:
    api.start("C", "ABCDEF00-0000-4000-8000-000000000001")
    assert api.status("C", "abcdef00-0000-4000-8000-000000000001").status == 200


def test_errors_of_hosts(api: Api) -> None:
    api.start("C", R1)
    unknown = api.status("C", R3)
    assert (unknown.status, unknown.code) == (404, "UnknownRun")
    assert (api.finish("C", R3).status, api.finish("C", R3).code) == (404, "UnknownRun")
    taken = api.start("H", R1)
    assert (taken.status, taken.code) == (409, "RunIdTaken")
    api.start("C", R2)
    superseded = api.finish("C", R1)
    assert (superseded.status, superseded.code) == (409, "RunSuperseded")
    assert "retry-after" not in superseded.headers


def test_a_spent_window_says_when_to_come_back(api: Api) -> None:
    api.start("C", R1)
    api.world.clock.advance(12960)
    api.world.control.sweep()
    api.world.arrive()
    api.world.pass_minutes(2)
    assert api.world.vault.phase is Phase.ASLEEP
    spent = api.start("C", R2)
    assert (spent.status, spent.code) == (429, "WindowSpent")
    assert int(spent.headers["retry-after"]) == pytest.approx(20 * 3600 - 12960 + 3 * 3600, abs=200)


def test_a_stale_machine_is_told_to_go(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    stale = api.report(instance_id="i-old")
    assert (stale.status, stale.code) == (409, "StaleVault")
    api.finish("C", R1, "failed", exit_code=3)
    assert api.report("stopping").json["power_off"] is True
    api.world.arrive()
    assert api.report().code == "StaleVault"


def test_when_ec2_refuses_start_is_accepted_all_the_same(api: Api) -> None:
    made = len(api.world.cloud.calls)
    api.world.cloud.refuse_calls = set(range(made + 1, made + 9))
    answer = api.start("C", R1)
    assert answer.status == 202
    assert answer.json["phase"] == "faulted"


def test_what_nobody_foresaw_is_a_500_that_says_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(api.world.control, "start", fail)
    answer = api.start("C", R1)
    assert (answer.status, answer.code) == (500, "Internal")
    assert "secret" not in answer.text
    assert api.world.told.faults[-1][0] == "view_failed"


def test_every_error_has_a_status() -> None:
    def all_of(kind: type[NightvaultError]) -> set[type[NightvaultError]]:
        return {kind}.union(*(all_of(each) for each in kind.__subclasses__()))

    assert set(STATUS) == all_of(NightvaultError) - {NightvaultError}


@pytest.mark.parametrize(("method", "path"), [("GET", "/start"), ("POST", "/status"), ("GET", "/report"), ("GET", "/")])
def test_other_methods_and_paths_are_not_served(api: Api, method: str, path: str) -> None:
    assert api.call(method, path, token=api.tokens["C"]).status in (403, 404, 405)


@pytest.mark.parametrize(
    ("seen", "admitted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:0DB8:0000:0000:0000:0000:0000:0007", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_an_address_is_admitted_in_the_form_that_ec2_gives_back(
    api: Api, monkeypatch: pytest.MonkeyPatch, seen: str, admitted: str
) -> None:
    """Else the sweep, which compares, would shut out who is in the middle of a push."""
    monkeypatch.setattr("chalice.local.LambdaEventConverter.LOCAL_SOURCE_IP", seen)
    monkeypatch.setattr("tests.localcloud.front._Handler.setup", ChaliceRequestHandler.setup)
    assert api.start("C", R1).status == 202
    assert api.world.cloud.ingress("sg-vault-1") == {admitted}


def test_an_address_that_is_none_starts_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """API Gateway's console says `test-invoke-source-ip`."""
    monkeypatch.setattr("chalice.local.LambdaEventConverter.LOCAL_SOURCE_IP", "test-invoke-source-ip")
    monkeypatch.setattr("tests.localcloud.front._Handler.setup", ChaliceRequestHandler.setup)
    before = api.everything()
    answer = api.start("C", R1)
    assert (answer.status, answer.code) == (400, "BadRequest")
    assert api.everything() == before


def test_a_drill_over_http(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.world.commit("C", R1)
    api.finish("C", R1)
    api.world.clock.advance(1)
    api.world.arrive()
    point_id = api.points("C").json["points"][0]["point_id"]
    api.world.control.policy = Policy()
    assert list(api.call("POST", "/start", {"run_id": R2, "kind": "drill"}, token=api.tokens["C"]).json) == ["error"]
    begun = operate.operate({"action": "drill", "host": "C"})
    assert (begun["point"], begun["run"]["kind"], begun["run"]["outcome"]) == (point_id, "drill", None)
    assert operate.operate({"action": "drill", "host": "C"}) == begun, "one that is under way is not begun again"
    api.world.boot()
    api.world.pass_minutes(1)
    for _ in range(2):
        api.world.report()
    ((order,),) = ([each for each in api.report().json["restores"] if "drill" in each],)
    assert order == {
        "host": "C",
        "volume_id": api.world.vault.point_volumes["C"].volume_id,
        "drill": {"run_id": begun["run"]["run_id"], "point_run_id": R1, "public_keys": [KEY]},
    }
    seen = {
        "host": "C",
        "volume_id": order["volume_id"],
        "run_id": begun["run"]["run_id"],
        "state": "failed",
        "files": 3,
        "checked_bytes": 70,
        "total_bytes": 90,
        "detail": "a/b: another content than listed",
    }
    for wrong in ({"state": "perhaps"}, {"run_id": "d1"}, {"files": -1}, {"detail": "x" * 201}, {"more": 1}):
        answer = api.report(drills=[{**seen, **wrong}])
        assert (answer.status, answer.code) == (400, "BadRequest")
        assert "drills[0]" in answer.json["error"]["message"]
    assert api.report(drills=[{**seen, "detail": f"{seen['detail']}\nAll is well."}]).status == 200
    api.world.arrive()
    api.world.pass_minutes(2)
    drill = operate.operate({"action": "host", "host": "C"})["host"]["drill"]
    assert drill.items() >= {"point_id": point_id, "state": "failed", "files": 3}.items()
    assert drill["detail"] == f"{seen['detail']}?All is well."
    assert api.status("C").json["verify"] is True
    assert not api.points("C").json["points"][0]["fit"]
    assert operate.operate({"action": "drill", "host": "nobody"})["error"]["code"] == "UnknownHost"
    assert operate.operate({"action": "drill", "host": "H"})["error"]["code"] == "NothingToRestore"
