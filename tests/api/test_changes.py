"""What operators can change: hosts' settings, keys and lives, and vaults that wake, sleep and get a new machine."""

from typing import Any

import pytest

from chalicelib.facts import VolumeGone, VolumeGrown, VolumeNearlyFull, VolumeRefused
from chalicelib.model import InstanceState, Phase
from tests.api.conftest import KEY, R1, R2, R3, Answer, Api
from tests.api.test_operate import ask, night, refused

OTHER_KEY = "ssh-ed25519 " + "D" * 68


def enroll(api: Api, host: str, code: str, key: str = OTHER_KEY) -> Answer:
    answer = api.call("POST", "/enroll", {"code": code, "public_key": key})
    if answer.status == 200:
        api.tokens[host] = answer.json["token"]
    return answer


def ordered(api: Api) -> dict[str, str]:
    """The key of each host that the vault lets in, by the orders that its agent gets."""
    return {order["host"]: order["public_key"] for order in api.report().json["hosts"]}


def minutes(api: Api, number: int) -> None:
    api.world.cloud.settle()
    for _ in range(number):
        api.world.pass_minutes(1)
        api.world.cloud.settle()


# --- settings -------------------------------------------------------------------------------------------


def test_settings_are_changed_one_by_one(api: Api) -> None:
    assert ask("change_host", host="C", every_seconds=3600)["host"]["every_seconds"] == 3600
    assert ask("change_host", host="C", max_size_gib=7)["host"]["max_size_gib"] == 7
    host = ask("change_host", host="C", ping_url="https://hc-ping.com/x")["host"]
    assert (host["every_seconds"], host["max_size_gib"], host["ping_url"]) == (3600, 7, "https://hc-ping.com/x")
    assert ask("change_host", host="C", ping_url="")["host"]["ping_url"] == ""
    assert ask("host", host="H")["host"]["every_seconds"] == 86400
    api.world.clock.advance(2 * 3600 + 1)
    assert ask("host", host="C")["host"]["overdue"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "every_seconds"),
        ({"every_seconds": 0}, "every_seconds"),
        ({"max_size_gib": 4}, "max_size_gib"),
        ({"max_size_gib": 16385}, "max_size_gib"),
        ({"ping_url": "http://hc-ping.com/x"}, "ping_url"),
        ({"size_gib": 9}, "size_gib"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(api: Api, fields: dict[str, Any], named: str) -> None:
    before = api.everything()
    code, message = refused("change_host", host="C", **fields)
    assert code == "BadRequest"
    assert named in message
    assert api.everything() == before


@pytest.mark.parametrize("action", ["change_host", "rotate", "retire"])
def test_nobody_is_nobody(api: Api, action: str) -> None:
    before = api.everything()
    fields = {"every_seconds": 60} if action == "change_host" else {}
    assert refused(action, host="nobody", **fields)[0] == "UnknownHost"
    assert api.everything() == before


@pytest.mark.parametrize("action", ["wake", "sleep", "rebuild_vault"])
def test_no_vault_is_no_vault(api: Api, action: str) -> None:
    assert refused(action, vault_id="vault-7")[0] == "UnknownVault"


# --- keys and tokens ------------------------------------------------------------------------------------


def test_rotate_lets_the_old_ones_work_until_the_code_is_used(api: Api) -> None:
    ask("change_host", host="C", every_seconds=3600, max_size_gib=9)
    code = ask("rotate", host="C")["code"]
    api.start("C", R1)
    api.boot()
    assert ordered(api)["C"] == KEY
    old = api.tokens["C"]
    assert enroll(api, "C", code).status == 200
    assert ordered(api)["C"] == OTHER_KEY
    assert api.call("GET", "/status", token=old).status == 403
    assert api.status("C").status == 200
    host = ask("host", host="C")["host"]
    assert (host["every_seconds"], host["max_size_gib"]) == (3600, 9), "settings stay"
    assert host["volume_id"] == "vol-C"


def test_rotate_now_makes_them_worthless_at_once(api: Api) -> None:
    night(api)
    api.start("C", R2)
    api.start("H", R3)
    api.boot()
    code = ask("rotate", host="C", revoke_now=True)["code"]
    assert set(ordered(api)) == {"H"}
    assert api.status("C").status == 403
    run = ask("host", host="C")["runs"][0]
    assert (run["outcome"], run["reason"]) == ("abandoned", "its key was revoked")
    assert enroll(api, "C", code).status == 200
    assert set(ordered(api)) == {"C", "H"}
    assert ask("host", host="C")["host"]["last"]["run_id"] == R1, "its history stays"


def test_a_token_that_the_gateway_still_believes_is_refused(api: Api) -> None:
    """The authorizer's answer is cached for a minute, so the use cases look themselves."""
    ask("rotate", host="C", revoke_now=True)
    with pytest.raises(Exception, match="revoked") as refusal:
        api.world.start("C", R1)
    assert type(refusal.value).__name__ == "NotForThisToken"


# --- retiring -------------------------------------------------------------------------------------------


def test_a_retired_host_leaves_its_volume_and_its_restore_points(api: Api) -> None:
    night(api)
    answer = ask("retire", host="C")
    assert answer == {
        "host": "C",
        "kept": {"volume_id": "vol-C", "volume_gib": 5, "restore_points": 1, "stored_bytes": 4},
        "deleted": None,
    }
    assert ask("retire", host="C") == answer, "asked again"
    assert api.status("C").status == 403
    host = ask("host", host="C")["host"]
    assert host["retired_at"] == "2026-11-23T01:00:00Z"
    assert (host["volume_id"], host["overdue"], host["next_expected_at"]) == ("vol-C", False, None)
    assert len(ask("restore_points", host="C")["restore_points"]) == 1
    assert ask("vaults")["vaults"][0]["hosts"] == ["H"]
    minutes(api, 3)
    assert "vol-C" not in api.world.cloud.attached
    assert refused("rotate", host="C")[0] == "BadRequest"


def test_it_comes_back_to_what_it_left(api: Api) -> None:
    night(api)
    ask("retire", host="C")
    minutes(api, 3)
    assert enroll(api, "C", ask("invite", host="C", size_gib=5)["code"]).status == 200
    host = ask("host", host="C")["host"]
    assert (host["retired_at"], host["volume_id"]) == (None, "vol-C")
    assert host["last"]["run_id"] == R1
    api.world.clock.advance(86400)
    night(api, R2)
    assert ask("host", host="C")["host"]["last"]["run_id"] == R2


def test_a_host_that_is_retired_in_the_middle_of_its_push(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 7}])
    code, message = refused("retire", host="C", delete_volume=True)
    assert code == "VolumeHoldsMore"
    assert "Nothing has changed" in message
    assert ask("host", host="C")["host"]["retired_at"] is None
    ask("retire", host="C")
    assert api.world.vault.phase is Phase.CLOSING
    api.world.arrive()
    (point,) = ask("restore_points", host="C")["restore_points"] or ask("windows")["windows"][0]["points"]
    assert (point["complete"], point["outcome"]) == (False, "abandoned"), "what it had pushed is kept as it is"


def test_its_volume_is_deleted_if_its_newest_restore_point_holds_it_all(api: Api) -> None:
    night(api, stops_in=40)
    answer = ask("retire", host="C", delete_volume=True)
    assert answer["deleted"] == {"volume_id": "vol-C"}
    assert answer["kept"]["volume_id"] is None
    assert answer["kept"]["restore_points"] == 1
    assert "vol-C" in api.world.cloud.attached, "it waits until the machine is seen at rest"
    minutes(api, 3)
    assert api.world.cloud.deleted == {"vol-C"}
    assert [f.volume_id for f in api.world.told.facts if isinstance(f, VolumeGone)] == ["vol-C"]
    assert ask("retire", host="C", delete_volume=True)["kept"]["restore_points"] == 1, "asked again"
    assert enroll(api, "C", ask("invite", host="C", size_gib=5)["code"]).status == 200
    assert ask("host", host="C")["host"]["volume_id"] == "vol-C-1", "it begins with a new one"


def test_a_volume_that_was_never_pushed_to_holds_nothing(api: Api) -> None:
    assert ask("retire", host="H", delete_volume=True)["deleted"] == {"volume_id": "vol-H"}
    assert api.world.cloud.deleted == {"vol-H"}, "attached to nothing, it goes at once"


@pytest.mark.parametrize(
    "case", ["snapshot gone", "snapshot under way", "pushed since", "let in since", "incomplete since"]
)
def test_a_volume_that_may_hold_more_is_not_deleted(api: Api, case: str) -> None:
    night(api, stops_in=40)
    if case == "snapshot gone":
        api.world.cloud.snapshots.clear()
    else:
        api.world.clock.advance(86400)
        api.start("C", R2)
        api.boot()
        if case in ("pushed since", "incomplete since"):
            api.report(transfers=[{"host": "C", "live": True, "transfer_bytes": 7}])
        if case == "snapshot under way":
            api.report(commits=[{"host": "C", "run_id": R2}])
        if case == "pushed since":
            assert refused("retire", host="C", delete_volume=True)[0] == "VolumeHoldsMore"
        outcome = "complete" if case == "snapshot under way" else "failed"
        api.finish("C", R2, outcome)
        api.world.cloud.settle()
        api.world.control.instance_changed(api.world.vault.instance_id or "")
        if case != "snapshot under way":
            api.world.arrive()
    before = api.world.vault
    code, message = refused("retire", host="C", delete_volume=True)
    assert code == "VolumeHoldsMore"
    assert message.startswith("delete_volume: ")
    assert api.world.vault == before
    ask("retire", host="C")
    minutes(api, 5)
    assert api.world.cloud.deleted == set()


def test_a_snapshot_that_disappears_before_its_volume_does_saves_the_volume(api: Api) -> None:
    night(api, stops_in=40)
    ask("retire", host="C", delete_volume=True)
    api.world.cloud.snapshots.clear()
    minutes(api, 5)
    assert api.world.cloud.deleted == set()
    assert "volume_not_deleted" in {name for name, _ in api.world.told.faults}


# --- waking and sleeping --------------------------------------------------------------------------------


def test_awake_without_a_run_until_the_time_is_over(api: Api) -> None:
    vault = ask("wake", vault_id="vault-1", minutes=30)["vault"]
    assert vault["phase"] == "waking"
    assert vault["held_until"] == "2026-11-23T01:30:00Z"
    api.boot()
    for _ in range(29):
        api.report()
        api.world.pass_minutes(1)
    assert ask("vaults")["vaults"][0]["phase"] == "open"
    api.world.pass_minutes(1)
    vault = ask("vaults")["vaults"][0]
    assert (vault["phase"], vault["held_until"]) == ("closing", None)
    api.world.arrive()
    assert ask("vaults")["vaults"][0]["spent_seconds"] == {"backup": 0, "restore": 1800, "drill": 0}
    assert ask("windows")["windows"][0]["runs"] == []


def test_it_sleeps_when_told_and_its_budget_pays_for_what_it_was_awake(api: Api) -> None:
    ask("wake", vault_id="vault-1")
    api.boot()
    api.world.clock.advance(600)
    vault = ask("sleep", vault_id="vault-1")["vault"]
    assert (vault["phase"], vault["held_until"]) == ("closing", None)
    api.world.arrive()
    assert ask("vaults")["vaults"][0]["spent_seconds"]["restore"] == 600
    assert ask("sleep", vault_id="vault-1")["vault"]["phase"] == "asleep", "asked again"


def test_live_runs_go_on_unless_they_are_cut(api: Api) -> None:
    ask("wake", vault_id="vault-1")
    api.boot()
    api.start("C", R1)
    assert ask("sleep", vault_id="vault-1")["vault"]["phase"] == "open"
    assert ask("sleep", vault_id="vault-1", cut=True)["vault"]["phase"] == "closing"
    run = ask("host", host="C")["runs"][0]
    assert (run["outcome"], run["reason"]) == ("cut", "an operator put the vault to sleep")


def test_a_hold_outlives_the_run_beside_it(api: Api) -> None:
    api.start("C", R1)
    api.boot()
    ask("wake", vault_id="vault-1", minutes=20)
    api.finish("C", R1)
    vault = ask("vaults")["vaults"][0]
    assert vault["phase"] == "open"
    api.world.clock.advance(1200)
    api.world.control.sweep()
    api.world.arrive()
    spent = ask("vaults")["vaults"][0]["spent_seconds"]
    assert spent == {"backup": 0, "restore": 1200, "drill": 0}


def test_a_hold_that_comes_while_it_closes_wakes_it_again(api: Api) -> None:
    night(api)
    api.world.clock.advance(86400)
    api.start("C", R2)
    api.boot()
    api.report(commits=[{"host": "C", "run_id": R2}])
    api.finish("C", R2)
    vault = ask("wake", vault_id="vault-1", minutes=30)["vault"]
    assert vault["phase"] == "closing"
    assert vault["held_until"] == "2026-11-24T01:30:00Z"
    api.world.arrive()
    vault = ask("vaults")["vaults"][0]
    assert (vault["phase"], vault["held_until"]) == ("waking", "2026-11-24T01:30:00Z")
    assert len(ask("windows")["windows"]) == 3


def test_a_days_budget_of_holding_is_that_of_restores(api: Api) -> None:
    assert ask("wake", vault_id="vault-1", minutes=1440)["vault"]["held_until"] == "2026-11-23T13:00:00Z"
    api.boot()
    for _ in range(12 * 60):
        api.world.pass_minutes(1)
    assert api.world.vault.phase is Phase.CLOSING
    api.world.arrive()
    code, message = refused("wake", vault_id="vault-1")
    assert code == "WindowSpent"
    assert "restore" in message
    api.start("C", R1)
    assert ask("vaults")["vaults"][0]["phase"] == "waking", "backups have a budget of their own"


# --- a new machine --------------------------------------------------------------------------------------


def test_a_rebuilt_vault_wakes_as_a_new_machine_with_the_old_volumes(api: Api) -> None:
    night(api)
    old = api.world.vault.instance_id or ""
    vault = ask("rebuild_vault", vault_id="vault-1")["vault"]
    assert (vault["phase"], vault["instance_id"]) == ("asleep", None)
    assert api.world.cloud.instances[old].state is InstanceState.TERMINATED
    ask("rebuild_vault", vault_id="vault-1")
    api.world.clock.advance(86400)
    del api.tokens["@vault-1"]
    night(api, R2)
    assert api.world.vault.instance_id != old
    assert ask("host", host="C")["host"]["last"]["run_id"] == R2
    assert ask("host", host="C")["host"]["volume_id"] == "vol-C"


def test_a_vault_that_is_not_asleep_is_not_rebuilt(api: Api) -> None:
    api.start("C", R1)
    before = api.everything()
    code, message = refused("rebuild_vault", vault_id="vault-1")
    assert code == "VaultBusy"
    assert "waking" in message
    assert api.everything() == before


# --- volumes that grow ----------------------------------------------------------------------------------

GIB = 2**30


def filled(api: Api, run_id: str, gib: float, size_gib: int = 5) -> None:
    """A night of C after which so much of its volume is used."""
    api.start("C", run_id)
    api.boot()
    size = size_gib * GIB
    mount = {"host": "C", "volume_id": "vol-C", "state": "mounted", "size_bytes": size}
    api.report(mounts=[{**mount, "free_bytes": size - round(gib * GIB)}], commits=[{"host": "C", "run_id": run_id}])
    api.finish("C", run_id)
    api.report("stopping", mounts=[])  # as the agent does, which has let go of everything by then
    api.world.arrive()
    api.world.arrive()


def grown(api: Api) -> list[tuple[int, int]]:
    return [(fact.from_gib, fact.to_gib) for fact in api.world.told.facts if isinstance(fact, VolumeGrown)]


def test_a_volume_over_four_fifths_full_grows_by_half_when_the_vault_sleeps(api: Api) -> None:
    filled(api, R1, 4.0)
    assert grown(api) == []
    api.world.clock.advance(86400)
    filled(api, R2, 4.1)
    assert grown(api) == [(5, 8)]
    assert api.world.cloud.sizes["vol-C"] == 8
    assert ask("host", host="C")["host"]["size_gib"] == 8
    assert any("has grown" in subject for subject, _ in api.world.told.alerts)
    assert ask("host", host="C")["restore_points"][0]["volume_gib"] == 5, "it was snapshotted before"


def test_what_has_not_yet_grown_inside_is_not_grown_again(api: Api) -> None:
    filled(api, R1, 4.5)
    api.world.clock.advance(86400)
    filled(api, R2, 4.6)  # the agent could not grow the filesystem: it still says 5 GiB
    assert grown(api) == [(5, 8)]


def test_it_grows_no_further_than_its_settings_say_and_that_is_told(api: Api) -> None:
    ask("change_host", host="C", max_size_gib=6)
    filled(api, R1, 4.5)
    assert grown(api) == [(5, 6)]
    api.world.clock.advance(86400)
    filled(api, R2, 5.5, size_gib=6)
    assert grown(api) == [(5, 6)]
    (full,) = [fact for fact in api.world.told.facts if isinstance(fact, VolumeNearlyFull)]
    assert (full.size_gib, full.max_size_gib) == (6, 6)
    assert any("nearly full" in subject for subject, _ in api.world.told.alerts)
    ask("change_host", host="C", max_size_gib=20)
    api.world.clock.advance(86400)
    filled(api, R3, 5.5, size_gib=6)
    assert grown(api) == [(5, 6), (6, 10)]


def test_what_aws_takes_later_only_is_asked_later(api: Api) -> None:
    api.world.cloud.enlarging_is_too_soon.add("vol-C")
    filled(api, R1, 4.5)
    asked = api.world.cloud.calls.count("enlarge vol-C")
    assert asked == 1
    assert grown(api) == []
    minutes(api, 5 * 60)
    assert api.world.cloud.calls.count("enlarge vol-C") == asked, "not before six hours"
    api.world.cloud.enlarging_is_too_soon.clear()
    minutes(api, 90)
    assert grown(api) == [(5, 8)]
    assert "call_refused" not in {name for name, _ in api.world.told.faults}


# --- volumes that hold something else --------------------------------------------------------------------


def test_a_disk_that_holds_something_else_is_told_once_a_night_and_shown_until_it_is_mounted(api: Api) -> None:
    detail = "holds ext4 labelled 'photos', not xfs labelled 'nv0123456789'; attach the right one"
    stranger = {"host": "C", "volume_id": "vol-C", "state": "refused", "detail": detail}
    for run_id in (R1, R2):
        api.start("C", run_id)
        api.boot()
        for _ in range(3):
            api.report(mounts=[stranger])
            assert api.status("C", run_id).json["ready"] is False
        api.finish("C", run_id, outcome="failed", exit_code=10)
        api.report("stopping", mounts=[])
        api.world.arrive()
        api.world.arrive()
        assert ask("host", host="C")["host"]["volume_trouble"] == detail, "also while the vault sleeps"
        api.world.clock.advance(86400)
    told = [fact.volume_id for fact in api.world.told.facts if isinstance(fact, VolumeRefused)]
    assert told == ["vol-C"] * 2
    alerts = [message for subject, message in api.world.told.alerts if subject.endswith("the volume of C is not C's")]
    assert len(alerts) == 2
    assert all(detail in message for message in alerts)
    night(api, R3)
    assert ask("host", host="C")["host"]["volume_trouble"] == ""
