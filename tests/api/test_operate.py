"""What operators are answered: every action of docs/operate.md, in the shapes that it promises."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import app
from chalicelib import VERSION, operate
from chalicelib.http import Wire
from tests.api.conftest import R1, R2, Api

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = (ROOT / "docs" / "operate.md").read_text()
LATER = "00000000-0000-4000-8000-0000000000aa"


def ask(action: str, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = app.operate({"action": action, **fields}, None)
    assert "error" not in answer, answer
    return answer


def refused(action: str, **fields: Any) -> tuple[str, str]:
    answer = app.operate({"action": action, **fields}, None)
    assert set(answer) == {"error"}
    return answer["error"]["code"], answer["error"]["message"]


def promised(shape: str) -> set[str]:
    """The members of HOST, RUN, POINT, VAULT or WINDOW as the contract lists them."""
    (text,) = re.findall(rf"^- {shape}: `(.*?)`", CONTRACT, re.DOTALL | re.MULTILINE)
    return set(re.findall(r"\w+", re.sub(r"\{[^}]*\}|\[\w+\]|:\w+|\|null", "", text)))


def night(api: Api, run_id: str = R1, used: int = 4, stops_in: int = 0) -> None:
    """C backs up; its volume of 10 bytes has `used` bytes in use; the machine takes `stops_in` seconds to stop."""
    api.start("C", run_id)
    mounts = [
        {"host": name, "volume_id": f"vol-{name}", "state": "mounted", "size_bytes": 10, "free_bytes": 10 - used}
        for name in ("C", "H")
    ]
    api.boot()
    api.report(mounts=mounts, commits=[{"host": "C", "run_id": run_id}])
    api.finish("C", run_id, stats={"bytes_sent": 9})
    api.world.clock.advance(stops_in)
    api.world.arrive()
    api.world.arrive()


def test_every_promised_shape(api: Api) -> None:
    night(api)
    api.start("C", R2)
    (vault,) = ask("vaults")["vaults"]
    assert set(vault) == promised("VAULT")
    assert set(vault["window"]) == promised("WINDOW")
    assert set(ask("hosts")["hosts"][0]) == promised("HOST")
    one = ask("host", host="C")
    assert set(one) == {"host", "runs", "restore_points"}
    assert set(one["runs"][0]) == promised("RUN")
    assert set(one["restore_points"][0]) == promised("POINT")


def test_every_action_of_the_contract_is_there(api: Api) -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", CONTRACT, re.MULTILINE))
    assert set(operate.ACTIONS) == documented
    assert {name: operate.action_of(name).__struct_config__.tag for name in operate.ACTIONS} == {
        name: name for name in operate.ACTIONS
    }


@pytest.mark.parametrize("name", operate.ACTIONS)
def test_unknown_fields_of_any_action_are_refused(name: str, api: Api) -> None:
    assert issubclass(operate.action_of(name), Wire)
    code, message = refused(name, hots="C")
    assert code == "BadRequest"
    assert "hots" in message or "required" in message


def test_about(api: Api) -> None:
    about = ask("about")
    assert about["stack"] == "s"
    assert about["region"] == "eu-central-1"
    assert about["url"] == "https://id.execute-api.eu-central-1.amazonaws.com/api"
    assert about["policy"]["window_seconds"] == 12960
    assert about["version"] == VERSION == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert about["dashboard_url"].endswith("#dashboards/dashboard/s")


def test_a_host_with_its_history(api: Api) -> None:
    night(api, R1, used=4)
    api.world.clock.advance(86400)
    night(api, R2, used=6)
    api.world.clock.advance(86400)
    host = ask("host", host="C")["host"]
    assert host["last"]["run_id"] == R2
    assert host["age_seconds"] == 86400
    assert host["next_expected_at"] == "2026-11-25T01:00:00Z"
    assert not host["overdue"]
    assert (host["used_bytes"], host["volume_bytes"]) == (6, 10)
    assert host["growth_bytes_per_day"] == 2
    assert (host["size_gib"], host["max_size_gib"]) == (5, 50)
    assert host["live_run_id"] is None
    one = ask("host", host="C")
    assert [run["run_id"] for run in one["runs"]] == [R2, R1]
    assert all(run["committed"] and run["outcome"] == "complete" for run in one["runs"])
    points = ask("restore_points", host="C")["restore_points"]
    assert points == one["restore_points"]
    assert [point["run_id"] for point in points] == [R2, R1]
    assert {(p["state"], p["complete"], p["volume_gib"]) for p in points} == {("completed", True, 5)}
    assert len(ask("host", host="C", limit=1)["runs"]) == 1
    newcomer = ask("host", host="H")["host"]
    assert newcomer["last"] is newcomer["age_seconds"] is newcomer["next_expected_at"] is None
    assert newcomer["growth_bytes_per_day"] is None


def test_a_vault_with_a_window_under_way(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 7}])
    api.world.clock.advance(60)
    (vault,) = ask("vaults")["vaults"]
    assert vault["phase"] == "open"
    assert vault["address"] == "203.0.113.9"
    assert vault["hosts"] == ["C", "H"]
    assert vault["spent_seconds"] == {"backup": 60, "restore": 0, "drill": 0}
    assert vault["window"]["awake_seconds"] == 60
    assert vault["window"]["closes_at"] == "2026-11-23T04:36:00Z"
    (run,) = vault["window"]["runs"]
    assert run["progress"]["transfer_bytes"] == 7
    assert run["window_id"] == vault["window"]["window_id"]
    assert ask("host", host="C")["host"]["live_run_id"] == R1
    assert ask("windows")["windows"] == [vault["window"]], "what is under way is among the windows"


def test_who_waits_for_the_next_waking(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.finish("C", R1)
    api.start("H", R2)
    (vault,) = ask("vaults")["vaults"]
    assert vault["phase"] == "closing"
    assert vault["queued"] == ["H"]
    assert ask("host", host="H")["runs"][0]["window_id"] is None


def test_windows_of_so_many_days_newest_first(api: Api) -> None:
    for number in range(3):
        night(api, f"00000000-0000-4000-8000-{number:012d}")
        api.world.clock.advance(86400)
    opened = [each["opened_at"] for each in ask("windows")["windows"]]
    assert opened == ["2026-11-25T01:00:00Z", "2026-11-24T01:00:00Z", "2026-11-23T01:00:00Z"]
    (window,) = ask("windows", days=1)["windows"]
    assert window["points"][0]["snapshot_id"]
    assert window["sealed_at"]
    assert ask("windows", vault_id="vault-1")["hosts"] == ["C", "H"]
    assert refused("windows", vault_id="vault-2")[0] == "UnknownVault"


def test_an_invitation_says_where_to_go(api: Api) -> None:
    invited = ask("invite", host="N")
    assert invited["url"] == "https://id.execute-api.eu-central-1.amazonaws.com/api"
    assert invited["expires_at"] == "2026-11-24T01:00:00Z"
    enrolled = api.call("POST", "/enroll", {"code": invited["code"], "public_key": "ssh-ed25519 " + "C" * 68})
    assert enrolled.status == 200
    host = ask("host", host="N")["host"]
    assert (host["size_gib"], host["max_size_gib"], host["every_seconds"]) == (20, 200, 86400)
    ask("invite", host="M", size_gib=3, max_size_gib=4, every_seconds=60)


def test_an_answer_that_lambda_would_not_carry_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "MAX_ANSWER_BYTES", 100)
    code, message = refused("hosts")
    assert code == "BadRequest"
    assert "too many" in message


def test_answers_are_plain_json(api: Api) -> None:
    night(api)
    answer = ask("host", host="C")
    assert msgspec.json.decode(msgspec.json.encode(answer)) == answer
