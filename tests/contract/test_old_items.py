"""A table that issue 2's version wrote is read, lived on and retired from by this one, and the other way round.

`items_of_issue_2.json` is what that version's own model encoded (commit 1d7c279): a vault asleep after a night of C.
"""

import json
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib.commands import BeginDrill, HostRetired, Release, Start
from chalicelib.errors import VolumeHoldsMore
from chalicelib.lifecycle import decide
from chalicelib.model import Code, Host, Kind, LastBackup, PointState, Policy, RestorePoint, Vault, Window
from chalicelib.operators.views import host_view, window_view
from chalicelib.store import DynamoStore
from tests.contract.conftest import make_table
from tests.contract.test_store import NOW

OLD: dict[str, Any] = json.loads((Path(__file__).parent / "items_of_issue_2.json").read_text())


@pytest.fixture
def old(mocked: Any) -> Any:
    """A table with those items, laid out as that version's store.py did it."""
    make_table(mocked, "old")

    def put(pk: str, sk: str, doc: dict[str, Any], **more: dict[str, str]) -> None:
        mocked.put_item(TableName="old", Item={"pk": {"S": pk}, "sk": {"S": sk}, "doc": doc, **more})

    def text(name: str) -> str:
        return json.dumps(OLD[name], separators=(",", ":"))

    put("VAULT", "vault-1", {"B": zlib.compress(text("vault").encode())}, version={"N": "9"}, phase={"S": "asleep"})
    put("WINDOW#vault-1", OLD["window"]["window_id"], {"B": zlib.compress(text("window").encode())})
    put("HOST", "C", {"S": text("host")})
    put("CODE", "c" * 64, {"S": text("code")}, expires_at={"N": str(int(NOW.timestamp()) + 86400)})
    put("POINT#C", "2026-11-23T01:02:00.000000Z#snap-1", {"S": text("point")})
    yield DynamoStore(mocked, "old")
    mocked.delete_table(TableName="old")


def test_old_items_are_read(old: DynamoStore) -> None:
    vault, host, code = old.vault("vault-1"), old.host("C"), old.code("c" * 64)
    assert vault
    assert host
    assert code
    assert host.retired_at is None
    slot = vault.hosts["C"]
    assert (slot.limit_gib, slot.ping_url, slot.wanted_gib, slot.pushed_at) == (50, "", 0, None)
    assert (slot.former_keys, slot.drilled_at, host.drill, vault.drilled) == ((), None, None, {})
    assert vault.retired == {}
    assert vault.held_until is None
    (window,) = old.windows("vault-1")
    view = host_view(host, vault, [window], NOW)
    assert (view.used_bytes, view.max_size_gib) == (4 * 2**30, 50)
    assert window_view(window, NOW).points[0].volume_gib is None


def test_a_host_of_the_version_before_drills_is_not_overdue_with_them_at_once(old: DynamoStore, mocked: Any) -> None:
    """Its restore points could be drilled since this version has seen one: its next."""

    def backed_up(days: int) -> LastBackup:
        at = NOW + timedelta(days=days)
        return LastBackup(run_id=f"r{days}", window_id="w", snapshot_id="snap-1", started_at=at, completed_at=at)

    last = msgspec.json.encode(backed_up(0)).decode()
    mocked.update_item(
        TableName="old",
        Key={"pk": {"S": "HOST"}, "sk": {"S": "C"}},
        UpdateExpression="SET last_backup = :last, last_backup_at = :at",
        ExpressionAttributeValues={":last": {"S": last}, ":at": {"S": "2026-11-23T00:00:00.000000+00:00"}},
    )

    def overdue(days: int) -> bool:
        host = old.host("C")
        assert host
        return host.drill_overdue(NOW + timedelta(days=days))

    assert not overdue(40)
    for days in (40, 41):
        assert old.move_last_backup("C", backed_up(days))
    assert [overdue(days) for days in (41, 70, 71)] == [False, False, True]


def test_an_old_vault_wakes_and_is_saved(old: DynamoStore) -> None:
    vault = old.vault("vault-1")
    assert vault
    start = Start(host="C", run_id="00000000-0000-4000-8000-0000000000aa", kind=Kind.BACKUP, source_address="192.0.2.1")
    saved = old.save(decide(vault, start, NOW, Policy()).vault)
    assert old.vault("vault-1") == saved


def test_an_old_slot_says_nothing_of_pushes_so_the_last_start_stands_for_one(old: DynamoStore) -> None:
    vault = old.vault("vault-1")
    (point,) = old.points("C")
    assert vault
    vault = msgspec.structs.replace(vault, pending_points={})
    done = msgspec.structs.replace(point, state=PointState.COMPLETED)
    earlier = msgspec.structs.replace(done, made_at=vault.hosts["C"].last_started_at)
    with pytest.raises(VolumeHoldsMore):
        decide(vault, HostRetired(host="C", delete_volume=True, newest=earlier), NOW, Policy())
    decision = decide(vault, HostRetired(host="C", delete_volume=True, newest=done), NOW, Policy())
    assert decision.vault.retired["C"].doomed == "snap-1"


# What each of that version's structs knew. It read by type, passing over what it did not know: so every value that
# it needs must still be there, under the same name, in what this version writes.
@pytest.mark.parametrize(
    ("name", "kind"),
    [("vault", Vault), ("window", Window), ("host", Host), ("code", Code), ("point", RestorePoint)],
)
def test_what_this_version_writes_the_older_one_can_read(name: str, kind: type[Any]) -> None:
    written = json.loads(msgspec.json.encode(msgspec.json.decode(json.dumps(OLD[name]), type=kind)))
    assert _covers(written, OLD[name]), name


def test_a_drill_is_kept_as_words_that_an_older_version_knows(mocked: Any) -> None:
    make_table(mocked, "mixed")
    try:
        store = DynamoStore(mocked, "mixed")
        old = msgspec.json.decode(json.dumps(OLD["vault"]), type=Vault)
        point = msgspec.json.decode(json.dumps(OLD["point"]), type=RestorePoint)
        vault = store.save(msgspec.structs.replace(old, version=0, owed_points={}))
        vault = store.save(decide(vault, BeginDrill(host="C", run_id="d1", point=point), NOW, Policy()).vault)
        assert store.vault("vault-1") == vault
        item = mocked.get_item(TableName="mixed", Key={"pk": {"S": "VAULT"}, "sk": {"S": "vault-1"}})["Item"]
        older = json.loads(zlib.decompress(item["doc"]["B"]))
        assert older["window"]["runs"]["d1"]["kind"] == "restore"
        assert list(older["window"]["ceilings"]) == ["restore"]
        assert vault.window
        ended = decide(vault, Release(cut=True), NOW, Policy()).vault
        archived = ended.window
        assert archived
        saved = store.save(msgspec.structs.replace(ended, window=None, recent=archived), archive=archived)
        assert store.vault("vault-1") == saved
        assert store.windows("vault-1") == [archived]
        for pk, sk in (("VAULT", "vault-1"), ("WINDOW#vault-1", archived.window_id)):
            item = mocked.get_item(TableName="mixed", Key={"pk": {"S": pk}, "sk": {"S": sk}})["Item"]
            assert b'"drill"' not in zlib.decompress(item["doc"]["B"])
    finally:
        mocked.delete_table(TableName="mixed")


def _covers(new: Any, before: Any) -> bool:
    """Every member of `before` is in `new` with the same value, whatever else is there."""
    if isinstance(before, dict):
        return isinstance(new, dict) and all(key in new and _covers(new[key], value) for key, value in before.items())
    return bool(new == before)
