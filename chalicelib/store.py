"""DynamoDB: one table, string keys `pk` and `sk`, TTL on `expires_at`.

| pk | sk | holds |
|---|---|---|
| VAULT | vault id | the vault, `version` |
| HOST | name | the host; beside it what BESIDE names, and `last_backup_at` |
| CODE | SHA-256 | an enrolment code; `used` |
| WINDOW#vault id | window id | an archived window, kept 400 days |
| POINT#host | instant, snapshot id | a restore point; `marks` and `marks_version` beside it |
| GONE#host | instant, snapshot id | a restore point that was deleted, with its marks, kept 400 days |

Values are JSON in `doc`, decoded by type: a field that this version does not know is passed over, so an
older version can run on a newer one's table after a rollback. Where a word is new too, `whole` holds the value, and
`doc` what the older version can read (older.py). Vaults and windows are deflated (RFC 1950): a write costs a unit for
each KiB, and a vault with 24 runs is 47 KiB of very repetitive JSON, 4 KiB deflated.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-use-s3-too.html (large attribute values)
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from chalicelib.errors import CodeRefused
from chalicelib.model import Code, Copy, Drill, Host, LastBackup, Marks, RestorePoint, RetentionLook, Vault, Window
from chalicelib.older import for_older, has_drills, window_for_older
from chalicelib.ports import Conflict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WINDOW_HISTORY = timedelta(days=400)
Item = dict[str, Any]
# Of a host, these are beside its document; `copies` are versioned.
BESIDE: Item = {
    "last_backup": None,
    "points_since": None,
    "retention_look": None,
    "drill": None,
    "copies": (),
    "copies_version": 0,
}


def _doc(value: object) -> dict[str, str]:
    return {"S": msgspec.json.encode(value).decode()}


def _deflated(value: object) -> dict[str, bytes]:
    return {"B": zlib.compress(msgspec.json.encode(value))}


def _inflate(item: Item) -> bytes:
    return zlib.decompress((item["whole"] if "whole" in item else item["doc"])["B"])


def _both(value: Vault | Window) -> Item:
    """The document; where a drill is in it, whole, and beside it what an older version can read."""
    if not has_drills(value):
        return {"doc": _deflated(value)}
    older = for_older(value) if isinstance(value, Vault) else window_for_older(value)
    return {"doc": _deflated(older), "whole": _deflated(value)}


def _key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _epoch(instant: datetime) -> dict[str, str]:
    return {"N": str(int(instant.timestamp()))}


def _vault(item: Item) -> Vault:
    vault = msgspec.json.decode(_inflate(item), type=Vault)
    return replace(vault, version=int(item["version"]["N"]))


def _host(item: Item) -> Host:
    host = msgspec.json.decode(item["doc"]["S"], type=Host)
    if "last_backup" in item:
        host = replace(host, last_backup=msgspec.json.decode(item["last_backup"]["S"], type=LastBackup))
    if "points_since" in item:
        host = replace(host, points_since=datetime.fromisoformat(item["points_since"]["S"]))
    if "retention_look" in item:
        host = replace(host, retention_look=msgspec.json.decode(item["retention_look"]["S"], type=RetentionLook))
    if "drill" in item:
        host = replace(host, drill=msgspec.json.decode(item["drill"]["S"], type=Drill))
    if "copies" in item:
        copies = msgspec.json.decode(item["copies"]["S"], type=tuple[Copy, ...])
        host = replace(host, copies=copies, copies_version=int(item["copies_version"]["N"]))
    return host


def _point(item: Item) -> RestorePoint:
    point = msgspec.json.decode(item["doc"]["S"], type=RestorePoint)
    marks = msgspec.json.decode(item["marks"]["S"], type=Marks) if "marks" in item else Marks()
    return replace(point, marks=marks)


def _point_sk(point: RestorePoint) -> str:
    made_at = point.made_at or datetime.fromtimestamp(0, UTC)
    return f"{made_at:%Y-%m-%dT%H:%M:%S.%fZ}#{point.snapshot_id}"


class DynamoStore:
    """ports.Store on a DynamoDB table. Raises botocore's ClientError when DynamoDB itself fails."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def vault(self, vault_id: str) -> Vault | None:
        item = self._get("VAULT", vault_id)
        return _vault(item) if item else None

    def vaults(self) -> list[Vault]:
        return [_vault(item) for item in self._query("VAULT")]

    def save(self, vault: Vault, archive: Window | None = None, host: Host | None = None) -> Vault:
        put = self._vault_put(vault)
        others = [{"Put": self._window_put(archive)}] if archive else []
        others += [{"Update": self._host_update(host)}] if host else []
        if others:
            return self._transact([{"Put": put}, *others], vault)
        try:
            self._client.put_item(**put)
        except self._client.exceptions.ConditionalCheckFailedException as lost:
            item: Any = lost.response.get("Item")
            raise Conflict(_vault(item) if item else None) from None
        return replace(vault, version=vault.version + 1)

    def host(self, name: str) -> Host | None:
        item = self._get("HOST", name)
        return _host(item) if item else None

    def hosts(self) -> list[Host]:
        return [_host(item) for item in self._query("HOST")]

    def put_code(self, code: Code) -> None:
        item = {**_key("CODE", code.code_hash), "doc": _doc(code), "expires_at": _epoch(code.expires_at)}
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.put_item(TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)")

    def code(self, code_hash: str) -> Code | None:
        item = self._get("CODE", code_hash)
        if not item:
            return None
        code = msgspec.json.decode(item["doc"]["S"], type=Code)
        return replace(code, used_at=code.expires_at) if "used" in item else code

    def redeem(self, code: Code, vault: Vault, host: Host | None, now: datetime) -> Vault:
        use: Item = {
            "TableName": self._table,
            "Key": _key("CODE", code.code_hash),
            "UpdateExpression": "SET used = :now",
            # TTL deletes late (within days), so the expiry is a condition too:
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html
            "ConditionExpression": "attribute_exists(pk) AND attribute_not_exists(used) AND expires_at > :now",
            "ExpressionAttributeValues": {":now": _epoch(now)},
        }
        writes: list[Item] = [{"Update": use}, {"Put": self._vault_put(vault)}]
        if host:
            writes.append({"Update": self._host_update(host)})
        return self._transact(writes, vault)

    def put_point(self, point: RestorePoint) -> None:
        # Not a put: once it is recorded, its marks are others' to write.
        values: Item = {":doc": _doc(replace(point, marks=Marks()))}
        change = "SET doc = :doc"
        if point.marks != Marks():
            values |= {":marks": _doc(replace(point.marks, version=1)), ":one": {"N": "1"}}
            change += ", marks = if_not_exists(marks, :marks), marks_version = if_not_exists(marks_version, :one)"
        self._client.update_item(
            TableName=self._table,
            Key=_key(f"POINT#{point.host}", _point_sk(point)),
            UpdateExpression=change,
            ExpressionAttributeValues=values,
        )

    def points(self, host: str) -> list[RestorePoint]:
        return [_point(item) for item in self._query(f"POINT#{host}")]

    def mark(self, point: RestorePoint, marks: Marks) -> bool:
        read = point.marks.version
        unchanged = "marks_version = :read" if read else "attribute_not_exists(marks_version)"
        values: Item = {":marks": _doc(replace(marks, version=read + 1)), ":next": {"N": str(read + 1)}}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(f"POINT#{point.host}", _point_sk(point)),
                UpdateExpression="SET marks = :marks, marks_version = :next",
                ConditionExpression=f"attribute_exists(pk) AND {unchanged}",
                ExpressionAttributeValues={**values, ":read": {"N": str(read)}} if read else values,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def bury(self, point: RestorePoint) -> None:
        sk, deleted_at = _point_sk(point), point.marks.deleted_at
        if deleted_at is None:
            raise AssertionError("a point is deleted before it is buried")
        grave = {
            **_key(f"GONE#{point.host}", sk),
            "doc": _doc(replace(point, marks=Marks())),
            "marks": _doc(point.marks),
            "expires_at": _epoch(deleted_at + WINDOW_HISTORY),
        }
        writes: Item = {
            "TransactItems": [
                {"Put": {"TableName": self._table, "Item": grave}},
                {"Delete": {"TableName": self._table, "Key": _key(f"POINT#{point.host}", sk)}},
            ]
        }
        self._client.transact_write_items(**writes)

    def buried(self, host: str) -> list[RestorePoint]:
        return [_point(item) for item in self._query(f"GONE#{host}")]

    def put_retention_look(self, host: str, look: RetentionLook | None) -> None:
        change: Item = {"UpdateExpression": "REMOVE retention_look"}
        if look:
            change = {
                "UpdateExpression": "SET retention_look = :look",
                "ExpressionAttributeValues": {":look": _doc(look)},
            }
        self._change_host(host, change)

    def put_drill(self, host: str, drill: Drill) -> None:
        values = {":drill": _doc(drill)}
        self._change_host(host, {"UpdateExpression": "SET drill = :drill", "ExpressionAttributeValues": values})

    def _change_host(self, host: str, change: Item) -> None:
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._table,
                Key=_key("HOST", host),
                ConditionExpression="attribute_exists(pk)",
                **change,
            )

    def put_copies(self, host: Host, copies: tuple[Copy, ...]) -> bool:
        read = host.copies_version
        unchanged = "copies_version = :read" if read else "attribute_not_exists(copies_version)"
        values: Item = {":copies": _doc(copies), ":next": {"N": str(read + 1)}}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key("HOST", host.name),
                UpdateExpression="SET copies = :copies, copies_version = :next",
                ConditionExpression=f"attribute_exists(pk) AND {unchanged}",
                ExpressionAttributeValues={**values, ":read": {"N": str(read)}} if read else values,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def move_last_backup(self, host: str, last: LastBackup) -> bool:
        at = last.started_at.astimezone(UTC).isoformat(timespec="microseconds")
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key("HOST", host),
                UpdateExpression="SET last_backup = :last, last_backup_at = :at,"
                " points_since = if_not_exists(points_since, :now)",
                ConditionExpression="attribute_exists(pk) AND (attribute_not_exists(last_backup_at)"
                " OR last_backup_at < :at)",
                ExpressionAttributeValues={
                    ":last": _doc(last),
                    ":at": {"S": at},
                    ":now": {"S": last.completed_at.isoformat()},
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False  # a newer one got there first, or the host was retired: both ordinary
        return True

    def windows(self, vault_id: str, limit: int | None = None, *, since: datetime | None = None) -> list[Window]:
        # One query answers at most 1 MB: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html
        items = self._query(f"WINDOW#{vault_id}", forward=False, page_size=limit)
        newest_first = (msgspec.json.decode(_inflate(item), type=Window) for item in items)
        wanted = takewhile(lambda window: since is None or window.opened_at >= since, newest_first)
        return list(islice(wanted, limit))

    def _get(self, pk: str, sk: str) -> Item | None:
        answer = self._client.get_item(TableName=self._table, Key=_key(pk, sk), ConsistentRead=True)
        return answer.get("Item")

    def _query(self, pk: str, *, forward: bool = True, page_size: int | None = None) -> Iterator[Item]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
            ScanIndexForward=forward,
            PaginationConfig={"PageSize": page_size} if page_size else {},
        )
        for page in pages:
            yield from page["Items"]

    def _vault_put(self, vault: Vault) -> Any:
        item = {
            **_key("VAULT", vault.vault_id),
            **_both(vault),
            "version": {"N": str(vault.version + 1)},
            "phase": {"S": vault.phase},
        }
        put: Item = {"TableName": self._table, "Item": item, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if vault.version == 0:
            return {**put, "ConditionExpression": "attribute_not_exists(pk)"}
        return {
            **put,
            "ConditionExpression": "version = :version",
            "ExpressionAttributeValues": {":version": {"N": str(vault.version)}},
        }

    def _window_put(self, window: Window) -> Any:
        item = {
            **_key(f"WINDOW#{window.vault_id}", window.window_id),
            **_both(window),
            "expires_at": _epoch(window.opened_at + WINDOW_HISTORY),
        }
        return {"TableName": self._table, "Item": item}

    def _host_update(self, host: Host) -> Item:
        alone = replace(host, **BESIDE)
        # Not a put: a host that is enrolled again keeps last backup and copies, and what retention and drills know.
        return {
            "TableName": self._table,
            "Key": _key("HOST", host.name),
            "UpdateExpression": "SET doc = :doc",
            "ExpressionAttributeValues": {":doc": _doc(alone)},
        }

    def _transact(self, writes: list[Any], vault: Vault) -> Vault:
        """All writes or none; the first is the one whose refusal is final, if it is a code's.

        TransactionCanceledException carries one reason for each write, in their order:
        https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
        """
        try:
            self._client.transact_write_items(TransactItems=writes)
        except self._client.exceptions.TransactionCanceledException as cancelled:
            reasons: list[Any] = cancelled.response.get("CancellationReasons", [])
            codes = [reason.get("Code") for reason in reasons]
            if "Update" in writes[0] and codes[0] == "ConditionalCheckFailed":
                raise CodeRefused from None
            if {"ConditionalCheckFailed", "TransactionConflict"} & set(codes):
                raise Conflict(self.vault(vault.vault_id)) from None
            raise
        except self._client.exceptions.TransactionInProgressException:
            raise Conflict(self.vault(vault.vault_id)) from None
        return replace(vault, version=vault.version + 1)
