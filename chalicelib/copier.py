"""Copies of restore points in another region: the adapter behind ports.Copier, with an EC2 client of that region.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-copy-snapshot.html: tags are not copied, so each copy is given its
own; its volume id means nothing; a copy holds what changed since the one before it as long as that one is still there
and all are encrypted with the same key. A key that may not be used does not refuse the call: the copy ends in `error`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chalicelib.calling import ask_once, calling
from chalicelib.errors import CloudRefused
from chalicelib.model import PointState, RestorePoint
from chalicelib.points import taken_at
from chalicelib.ports import CopyShot

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_STATES: dict[str, PointState] = {state.value: state for state in PointState}
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


class Ec2Copier:
    """ports.Copier on EC2. `kms_key`: of `region`, an ARN; empty: the account's EBS default key there.

    `client` makes the client of `region` when it is first needed.
    """

    def __init__(self, client: Callable[[], "EC2Client"], *, stack: str, home: str, region: str, kms_key: str) -> None:
        self.region = region
        self._make_client = client
        # Not the stack's own tag: a stack of the same name in that region would take copies for its restore points.
        self._stack = f"{stack}@{home}"
        self._home = home
        self._kms_key = kms_key

    @cached_property
    def _client(self) -> "EC2Client":
        client = self._make_client()
        ask_once(client, "CopySnapshot")
        return client

    def copies(self) -> list[CopyShot]:
        filters: Any = [
            {"Name": "tag:nightvault:stack", "Values": [self._stack]},
            {"Name": "tag-key", "Values": ["nightvault:copy-of"]},
        ]
        found = []
        with calling("DescribeSnapshots"):
            pages = self._client.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
            for page in pages:
                for snapshot in page["Snapshots"]:
                    tags = _tags(snapshot)
                    found.append(
                        CopyShot(
                            copy_id=snapshot["SnapshotId"],
                            host=tags.get("nightvault:host", ""),
                            point_id=tags["nightvault:copy-of"],
                            taken_at=_instant(tags.get("nightvault:taken", "")) or snapshot["StartTime"],
                            # `recoverable` and `recovering` (Recycle Bin) do not count.
                            state=_STATES.get(snapshot["State"], PointState.PENDING),
                            detail=snapshot.get("StateMessage", ""),
                        )
                    )
        return found

    def copy(self, point: RestorePoint) -> str:
        tags = {
            "Name": f"{self._stack} {point.host} copy",
            "nightvault:stack": self._stack,
            "nightvault:vault": point.vault_id,
            "nightvault:host": point.host,
            "nightvault:window": point.window_id,
            "nightvault:run": point.run_id,
            "nightvault:label": "complete",
            "nightvault:copy-of": str(point.snapshot_id),
            "nightvault:taken": taken_at(point).astimezone(UTC).strftime(_STAMP),
        }
        key: Any = {"KmsKeyId": self._kms_key} if self._kms_key else {}
        with calling("CopySnapshot"):
            made = self._client.copy_snapshot(
                SourceRegion=self._home,
                SourceSnapshotId=str(point.snapshot_id),
                Encrypted=True,
                # Another account that it is shared with sees this and no tags: docs/copies.md.
                Description=f"nightvault {point.host} {point.window_id} complete, copy of {point.snapshot_id}",
                TagSpecifications=[
                    {"ResourceType": "snapshot", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
                ],
                **key,
            )
        return made["SnapshotId"]

    def delete(self, copy_id: str, host: str) -> None:
        filters: Any = [{"Name": "snapshot-id", "Values": [copy_id]}]
        with calling("DescribeSnapshots"):
            found = self._client.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        if not found:
            return
        tags = _tags(found[0])
        ours = (tags.get("nightvault:stack"), tags.get("nightvault:host")) == (self._stack, host)
        if not ours or "nightvault:copy-of" not in tags:
            raise CloudRefused("DeleteSnapshot", "NotOurs", f"the tags of {copy_id} do not say that it copies {host}'s")
        with calling("DeleteSnapshot", "InvalidSnapshot.NotFound"):
            self._client.delete_snapshot(SnapshotId=copy_id)


def _tags(snapshot: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in snapshot.get("Tags", [])}


def _instant(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
