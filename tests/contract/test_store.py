"""One suite for both stores: what ports.Store promises, in memory and on DynamoDB (moto, in process)."""

import json
import secrets
import typing
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields, replace

from chalicelib import model
from chalicelib.errors import CodeRefused
from chalicelib.model import (
    Code,
    Copy,
    Host,
    Kind,
    LastBackup,
    Marks,
    Outcome,
    Phase,
    PointState,
    RestorePoint,
    RetentionLook,
    Slot,
    Vault,
    Window,
)
from chalicelib.ports import Conflict, Store
from chalicelib.store import DynamoStore
from tests.contract.conftest import make_table
from tests.fakes.store import MemoryStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOW = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
KEY = "ssh-ed25519 " + "A" * 68


@pytest.fixture
def dynamodb(mocked: "DynamoDBClient") -> Iterator["DynamoDBClient"]:
    make_table(mocked, "table")
    yield mocked
    mocked.delete_table(TableName="table")


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return DynamoStore(request.getfixturevalue("dynamodb"), "table")


@pytest.fixture
def dynamo(dynamodb: "DynamoDBClient") -> DynamoStore:
    return DynamoStore(dynamodb, "table")


def window(number: int = 1, vault_id: str = "vault-1") -> Window:
    opened_at = NOW + timedelta(days=number)
    return Window(
        window_id=f"{vault_id}-{opened_at:%Y%m%dT%H%M%S}.000Z", vault_id=vault_id, opened_at=opened_at, ceilings={}
    )


def code(name: str = "C", code_hash: str = "c" * 64) -> Code:
    return Code(code_hash=code_hash, name=name, expires_at=NOW + timedelta(hours=24), size_gib=5, every_seconds=86400)


def host(name: str = "C", token_hash: str = "1" * 64) -> Host:
    return Host(
        name=name,
        vault_id="vault-1",
        token_hash=token_hash,
        uid=20001,
        size_gib=5,
        every_seconds=86400,
        enrolled_at=NOW,
    )


def last(minutes: int) -> LastBackup:
    return LastBackup(
        run_id=f"run-{minutes}",
        window_id="w",
        snapshot_id=f"snap-{minutes}",
        started_at=NOW + timedelta(minutes=minutes),
        completed_at=NOW + timedelta(minutes=minutes + 5),
    )


LAST_1 = {"last_backup": last(1), "points_since": last(1).completed_at}  # of a host's record, after its first


def point(name: str = "C", minutes: int = 0) -> RestorePoint:
    return RestorePoint(
        host=name,
        vault_id="vault-1",
        window_id="w",
        volume_id="vol-1",
        run_id="r",
        run_started_at=NOW,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id=f"snap-{minutes}",
        made_at=NOW + timedelta(minutes=minutes),
    )


def with_host(vault: Vault, name: str = "C") -> Vault:
    slot = Slot(number=0, uid=20001, public_key=KEY, size_gib=5, every_seconds=86400)
    return replace(vault, hosts={**vault.hosts, name: slot})


def enrolled(store: Store, name: str = "C") -> None:
    invitation = code(name, name.rjust(64, "0"))
    store.put_code(invitation)
    vault = store.vault("vault-1") or Vault(vault_id="vault-1")
    store.redeem(invitation, with_host(vault, name), host(name), NOW)


# --- vaults ---------------------------------------------------------------------------------------------


def test_nothing_is_there_at_first(store: Store) -> None:
    assert store.vault("vault-1") is None
    assert store.vaults() == []
    assert store.hosts() == []
    assert store.host("C") is None
    assert store.code("0" * 64) is None
    assert store.windows("vault-1", 5) == []
    assert store.points("C") == []


def test_a_saved_vault_is_read_back_with_its_new_version(store: Store) -> None:
    saved = store.save(Vault(vault_id="vault-1", phase=Phase.WAKING))
    assert saved.version == 1
    assert store.vault("vault-1") == saved
    again = store.save(replace(saved, phase=Phase.OPEN))
    assert again.version == 2
    assert store.vaults() == [again]


@pytest.mark.parametrize("known", [False, True], ids=["first save", "later save"])
def test_of_two_writers_one_loses_and_gets_the_winning_record(store: Store, known: bool) -> None:
    vault = Vault(vault_id="vault-1")
    if known:
        vault = store.save(vault)
    winner = store.save(replace(vault, instance_id="i-winner"))
    with pytest.raises(Conflict) as conflict:
        store.save(replace(vault, instance_id="i-loser"))
    assert conflict.value.current == winner
    assert store.vault("vault-1") == winner


def test_a_vault_that_is_not_there_cannot_be_saved_as_a_later_version(store: Store) -> None:
    with pytest.raises(Conflict) as conflict:
        store.save(Vault(vault_id="vault-1", version=3))
    assert conflict.value.current is None
    assert store.vaults() == []


def test_a_vault_and_its_archived_window_are_saved_together_or_not_at_all(store: Store) -> None:
    stale = store.save(Vault(vault_id="vault-1"))
    winner = store.save(replace(stale, instance_id="i-1"), window(1))
    assert winner.version == 2
    assert store.windows("vault-1", 5) == [window(1)]
    with pytest.raises(Conflict) as conflict:
        store.save(replace(stale, instance_id="i-2"), window(2))
    assert conflict.value.current == winner
    assert store.windows("vault-1", 5) == [window(1)]
    assert store.vault("vault-1") == winner


def test_a_vault_and_a_hosts_record_are_saved_together_or_not_at_all(store: Store) -> None:
    enrolled(store)
    assert store.move_last_backup("C", last(1))
    stale = store.vault("vault-1")
    assert stale
    retired = replace(host(), retired_at=NOW, token_hash="", last_backup=None)
    winner = store.save(replace(stale, hosts={}), host=retired)
    assert store.vault("vault-1") == winner
    assert store.host("C") == replace(retired, **LAST_1), "its last backup is not what is being saved"
    with pytest.raises(Conflict) as conflict:
        store.save(replace(stale, instance_id="i-2"), host=host())
    assert conflict.value.current == winner
    assert store.host("C") == replace(retired, **LAST_1)
    both = store.save(winner, window(1), retired)
    assert both.version == winner.version + 1
    assert store.windows("vault-1", 5) == [window(1)]


def test_vaults_are_apart(store: Store) -> None:
    one = store.save(Vault(vault_id="vault-1"), window(1))
    two = store.save(Vault(vault_id="vault-2"), window(1, "vault-2"))
    assert store.vaults() == [one, two]
    assert store.windows("vault-2", 5) == [window(1, "vault-2")]


def test_sixteen_writers_one_winner_a_round(store: Store) -> None:
    vault = store.save(Vault(vault_id="vault-1"))
    barrier = Barrier(16)

    def write(writer: int) -> Vault | None:
        barrier.wait()
        try:
            return store.save(replace(vault, instance_id=f"i-{writer}"))
        except Conflict as conflict:
            assert conflict.current
            assert conflict.current.version == vault.version + 1
            return None

    with ThreadPoolExecutor(16) as threads:
        for _ in range(8):
            winners = [saved for saved in threads.map(write, range(16)) if saved]
            assert len(winners) == 1
            assert store.vault("vault-1") == winners[0]
            vault = winners[0]


# --- enrolment ------------------------------------------------------------------------------------------


def test_a_code_enrols_a_host_with_its_vault_once(store: Store) -> None:
    store.put_code(code())
    assert store.code("c" * 64) == code()
    vault = store.redeem(code(), with_host(Vault(vault_id="vault-1")), host(), NOW)
    assert vault.version == 1
    assert store.vault("vault-1") == vault
    assert store.host("C") == host()
    used = store.code("c" * 64)
    assert used
    assert used.used_at
    with pytest.raises(CodeRefused):
        store.redeem(code(), with_host(vault, "H"), host("H"), NOW)
    assert store.vault("vault-1") == vault
    assert store.host("H") is None


def test_a_code_that_is_there_is_not_written_again(store: Store) -> None:
    store.put_code(code("@vault-1"))
    vault = store.save(Vault(vault_id="vault-1"))
    store.redeem(code("@vault-1"), vault, None, NOW)
    store.put_code(code("@vault-1"))
    kept = store.code("c" * 64)
    assert kept
    assert kept.used_at


@pytest.mark.parametrize("case", ["unknown", "expired", "expires now"])
def test_a_code_that_is_no_good_changes_nothing(store: Store, case: str) -> None:
    if case != "unknown":
        store.put_code(code())
    now = NOW + {"unknown": timedelta(0), "expired": timedelta(hours=25), "expires now": timedelta(hours=24)}[case]
    vault = store.save(Vault(vault_id="vault-1"))
    with pytest.raises(CodeRefused):
        store.redeem(code(), with_host(vault), host(), now)
    assert store.vault("vault-1") == vault
    assert store.host("C") is None
    assert store.hosts() == []
    known = store.code("c" * 64)
    assert known is None or known.used_at is None


def test_a_lost_race_uses_no_code_up(store: Store) -> None:
    store.put_code(code())
    stale = store.save(Vault(vault_id="vault-1"))
    winner = store.save(replace(stale, instance_id="i-1"))
    with pytest.raises(Conflict) as conflict:
        store.redeem(code(), with_host(stale), host(), NOW)
    assert conflict.value.current == winner
    assert store.host("C") is None
    assert store.code("c" * 64) == code()
    assert store.redeem(code(), with_host(winner), host(), NOW).version == 3


def test_a_used_code_is_final_though_the_race_is_lost_too(store: Store) -> None:
    store.put_code(code())
    vault = store.redeem(code(), with_host(Vault(vault_id="vault-1")), host(), NOW)
    store.save(vault)
    with pytest.raises(CodeRefused):
        store.redeem(code(), with_host(vault), host(), NOW)


def test_a_host_that_enrols_again_keeps_its_last_backup(store: Store) -> None:
    enrolled(store)
    assert store.move_last_backup("C", last(1))
    again = code("C", "d" * 64)
    store.put_code(again)
    vault = store.vault("vault-1")
    assert vault
    store.redeem(again, vault, host("C", "2" * 64), NOW)
    assert store.host("C") == replace(host("C", "2" * 64), **LAST_1)


def test_sixteen_users_of_one_code_one_enrols(store: Store) -> None:
    store.put_code(code())
    vault = store.save(Vault(vault_id="vault-1"))
    barrier = Barrier(16)

    def use(user: int) -> str:
        barrier.wait()
        try:
            store.redeem(code(), with_host(vault), host("C", str(user)), NOW)
        except (CodeRefused, Conflict) as refused:
            return type(refused).__name__
        return "enrolled"

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(use, range(16)))
    assert answers.count("enrolled") == 1
    found = store.vault("vault-1")
    assert found
    assert found.version == 2


# --- what counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_the_newest_last_backup_wins_in_any_order(store: Store, order: tuple[int, ...]) -> None:
    enrolled(store)
    best = 0
    for minutes in order:
        assert store.move_last_backup("C", last(minutes)) is (minutes > best)
        best = max(best, minutes)
    assert not store.move_last_backup("C", last(3)), "a repeat moves nothing"
    found = store.host("C")
    assert found
    assert found.last_backup == last(3)
    assert found.points_since == last(order[0]).completed_at


def test_fractions_of_a_second_are_ordered_too(store: Store) -> None:
    enrolled(store)
    for microseconds, moves in ((0, True), (900000, True), (100000, False), (900001, True)):
        moment = replace(last(1), started_at=NOW + timedelta(microseconds=microseconds))
        assert store.move_last_backup("C", moment) is moves


def test_a_host_that_was_retired_has_no_last_backup(store: Store) -> None:
    assert not store.move_last_backup("C", last(1))
    assert store.host("C") is None
    assert store.hosts() == []


def test_windows_come_newest_first_and_limited(store: Store) -> None:
    vault = Vault(vault_id="vault-1")
    for number in (2, 1, 3):
        vault = store.save(vault, window(number))
    assert store.windows("vault-1", 2) == [window(3), window(2)]
    assert store.windows("vault-1", 50) == [window(3), window(2), window(1)]
    assert store.windows("vault-1") == [window(3), window(2), window(1)]
    assert store.windows("vault-1", since=window(2).opened_at) == [window(3), window(2)]
    assert store.windows("vault-1", 1, since=window(1).opened_at) == [window(3)]


def test_restore_points_come_oldest_first_and_a_repeat_replaces(store: Store) -> None:
    for minutes in (2, 1):
        store.put_point(point("C", minutes))
    store.put_point(point("H", 1))
    settled = replace(point("C", 2), state=model.PointState.COMPLETED)
    store.put_point(settled)
    assert store.points("C") == [point("C", 1), settled]


def test_marks_are_written_over_the_version_that_was_read(store: Store) -> None:
    store.put_point(point("C", 1))
    (read,) = store.points("C")
    assert store.mark(read, Marks(fit=True))
    assert not store.mark(read, Marks(held_at=NOW)), "somebody else has marked it since"
    (again,) = store.points("C")
    assert again.marks == Marks(version=1, fit=True)
    assert store.mark(again, replace(again.marks, held_at=NOW))
    assert store.points("C")[0].marks == Marks(version=2, fit=True, held_at=NOW)


def test_a_record_that_is_written_again_keeps_its_marks(store: Store) -> None:
    store.put_point(point("C", 1))
    assert store.mark(point("C", 1), Marks(held_at=NOW))
    settled = replace(point("C", 1), state=model.PointState.COMPLETED)
    store.put_point(settled)
    assert store.points("C") == [replace(settled, marks=Marks(version=1, held_at=NOW))]


def test_the_marks_that_a_point_is_first_recorded_with_are_its_first(store: Store) -> None:
    flagged = replace(point("C", 1), marks=Marks(unusual="90 %"))
    for _ in range(2):
        store.put_point(flagged)
    (read,) = store.points("C")
    assert read.marks == Marks(version=1, unusual="90 %")
    assert not store.mark(flagged, Marks(held_at=NOW)), "that was another version"
    assert store.mark(read, replace(read.marks, unusual=""))
    store.put_point(flagged)
    assert store.points("C")[0].marks == Marks(version=2)


def test_a_buried_point_leaves_with_its_marks_and_is_marked_no_more(store: Store) -> None:
    for minutes in (1, 2):
        store.put_point(point("C", minutes))
    gone = replace(point("C", 1), marks=Marks(version=1, dropped_for="thinned", deleted_at=NOW))
    for _ in range(2):
        store.bury(gone)
        assert store.points("C") == [point("C", 2)]
        assert store.buried("C") == [gone]
    assert not store.mark(gone, Marks())
    assert store.buried("H") == []


def test_when_a_host_was_retained_is_kept_beside_its_record(store: Store) -> None:
    enrolled(store)
    retained = RetentionLook(at=NOW, next_at=NOW + timedelta(days=1))
    store.put_retention_look("C", retained)
    store.put_retention_look("nobody", retained)
    host = store.host("C")
    assert host
    assert host.retention_look == retained
    assert [each.name for each in store.hosts()] == ["C"]
    vault = store.vault(host.vault_id)
    assert vault
    store.save(vault, host=replace(host, retention_look=None, every_seconds=1))
    assert store.host("C") == replace(host, every_seconds=1)
    store.put_retention_look("C", None)
    assert store.host("C") == replace(host, every_seconds=1, retention_look=None)


# --- only on DynamoDB -----------------------------------------------------------------------------------


def _item(client: "DynamoDBClient", pk: str, sk: str) -> dict[str, Any]:
    return client.get_item(TableName="table", Key={"pk": {"S": pk}, "sk": {"S": sk}})["Item"]


def test_copies_are_written_over_the_version_that_was_read_and_kept_beside_the_record(store: Store) -> None:
    vault = store.save(Vault(vault_id="vault-1"), host=host())
    one = Copy(point_id="snap-1", taken_at=NOW, region="eu-west-1", asked_at=NOW)
    two = replace(one, copy_id="snap-c", state=PointState.COMPLETED, completed_at=NOW, used_bytes=7, fit=True)
    read = store.host("C")
    assert read
    assert store.put_copies(read, (one,))
    assert not store.put_copies(read, (two,)), "somebody else has written since"
    again = store.host("C")
    assert again == replace(read, copies=(one,), copies_version=1)
    assert store.put_copies(again, (two, one))
    store.save(vault, host=replace(read, every_seconds=1))
    assert store.host("C") == replace(read, every_seconds=1, copies=(two, one), copies_version=2)
    assert not store.put_copies(replace(read, name="nobody"), ())
    assert store.host("nobody") is None


def test_windows_expire_after_400_days_and_codes_when_they_do(dynamodb: "DynamoDBClient", dynamo: DynamoStore) -> None:
    dynamo.save(Vault(vault_id="vault-1"), window(1))
    dynamo.put_code(code())
    stored = _item(dynamodb, "WINDOW#vault-1", window(1).window_id)
    assert int(stored["expires_at"]["N"]) == (window(1).opened_at + timedelta(days=400)).timestamp()
    assert int(_item(dynamodb, "CODE", "c" * 64)["expires_at"]["N"]) == code().expires_at.timestamp()
    assert "expires_at" not in _item(dynamodb, "VAULT", "vault-1")
    expiry = dynamodb.describe_time_to_live(TableName="table")["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_what_is_known_of_a_deleted_point_expires_after_400_days(
    dynamodb: "DynamoDBClient", dynamo: DynamoStore
) -> None:
    dynamo.put_point(point("C", 1))
    dynamo.bury(replace(point("C", 1), marks=Marks(deleted_at=NOW)))
    (stored,) = dynamodb.query(
        TableName="table", KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": "GONE#C"}}
    )["Items"]
    assert int(stored["expires_at"]["N"]) == (NOW + timedelta(days=400)).timestamp()


def test_no_secret_is_stored(dynamodb: "DynamoDBClient", dynamo: DynamoStore) -> None:
    """Codes and tokens by their hashes; the one code in clear is a launch's, until EC2 has answered."""
    enrolled(dynamo)
    assert {f.name for f in fields(Host)} & {"token", "secret"} == set()
    assert {f.name for f in fields(Code)} & {"code", "secret"} == set()


@pytest.mark.parametrize("where", ["top", "in a host", "in a run"])
def test_fields_of_a_newer_version_are_passed_over(dynamodb: "DynamoDBClient", dynamo: DynamoStore, where: str) -> None:
    """So that an older version runs on after a rollback."""
    run = model.Run(run_id="r", host="C", kind=Kind.BACKUP, started_at=NOW, source_address="192.0.2.1", lease_until=NOW)
    vault = dynamo.save(replace(with_host(Vault(vault_id="vault-1")), window=replace(window(1), runs={"r": run})))
    document = json.loads(zlib.decompress(_item(dynamodb, "VAULT", "vault-1")["doc"]["B"]))
    place = {"top": document, "in a host": document["hosts"]["C"], "in a run": document["window"]["runs"]["r"]}
    place[where]["of_a_newer_version"] = {"x": [1]}
    dynamodb.update_item(
        TableName="table",
        Key={"pk": {"S": "VAULT"}, "sk": {"S": "vault-1"}},
        UpdateExpression="SET doc = :doc, newer = :doc",
        ExpressionAttributeValues={":doc": {"B": zlib.compress(json.dumps(document).encode())}},
    )
    assert dynamo.vault("vault-1") == vault


def test_more_than_a_page_of_windows_is_read(dynamo: DynamoStore) -> None:
    """A query answers at most 1 MB at a time."""
    vault = Vault(vault_id="vault-1")
    for number in range(30):
        vault = dynamo.save(vault, replace(window(number), close_reason=secrets.token_hex(50_000)))
    assert len(dynamo.windows("vault-1", 25)) == 25
    assert len(dynamo.windows("vault-1", 100)) == 30


# --- whatever the model holds ---------------------------------------------------------------------------

_moments = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_whole = st.integers(0, 2**53)
_text = st.text(max_size=10)


def full(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a struct of the model, no field left at its default."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{field.name: _of(hints[field.name]) for field in fields(kind)})


def _of(hint: Any) -> st.SearchStrategy[Any]:
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        (inner,) = [each for each in arguments if each is not type(None)]
        return st.none() | _of(inner)
    if typing.get_origin(hint) is tuple:
        return st.lists(_of(arguments[0]), max_size=2).map(tuple)
    if typing.get_origin(hint) is dict:
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=2)
    if isinstance(hint, type) and issubclass(hint, Struct):
        return full(hint)
    plain: dict[Any, st.SearchStrategy[Any]] = {datetime: _moments, int: _whole, str: _text, bool: st.booleans()}
    return plain[hint] if hint in plain else st.sampled_from(list(hint))


@given(vault=full(Vault), archived=full(Window))
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_vault_with_every_field_is_read_back_as_it_was(
    dynamodb: "DynamoDBClient", dynamo: DynamoStore, vault: Vault, archived: Window
) -> None:
    vault = replace(vault, vault_id="vault-1", version=0)
    archived = replace(archived, vault_id="vault-1", window_id="w-1")
    dynamodb.delete_item(TableName="table", Key={"pk": {"S": "VAULT"}, "sk": {"S": "vault-1"}})
    saved = dynamo.save(vault, archived)
    assert saved == replace(vault, version=1)
    assert dynamo.vault("vault-1") == saved
    assert dynamo.windows("vault-1", 1) == [archived]
