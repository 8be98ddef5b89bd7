"""What is left of a stack once it is gone: the data. Found by tag, so also after the stack."""

from dataclasses import dataclass
from typing import Any

from chalicelib.pricing.table import LISTED, Prices
from deploy.account import Aws
from deploy.console import Screen


@dataclass(frozen=True)
class Kept:
    """One thing that stays. `dollars` a month, before tax; `forget` is the command that would delete it for good."""

    what: str
    size: str
    dollars: float
    forget: str


def kept(aws: Aws, stack: str, prices: Prices = LISTED) -> list[Kept]:
    """Volumes, snapshots, tables and keys that carry the stack's tag."""
    tag: Any = [{"Name": "tag:nightvault:stack", "Values": [stack]}]
    pages = aws.ec2.get_paginator("describe_volumes").paginate(Filters=tag)
    found = [
        Kept(
            f"volume of {host}{', made for a restore' if _tags(volume).get('nightvault:purpose') else ''}",
            f"{volume['Size']} GiB",
            volume["Size"] * prices[volume.get("VolumeType", "gp3")],
            f"aws ec2 delete-volume --volume-id {volume['VolumeId']}",
        )
        for page in pages
        for volume in page["Volumes"]
        # A vault's root disk goes with its machine; it has no host.
        if (host := _tags(volume).get("nightvault:host"))
    ]
    found += _snapshots(aws, tag, prices)
    for arn in _tagged(aws, "dynamodb:table", stack):
        table = aws.client("dynamodb").describe_table(TableName=arn.rsplit("/", 1)[-1])["Table"]
        gigabytes = table.get("TableSizeBytes", 0) / 1e9
        found.append(
            Kept(
                f"table {table['TableName']}",
                f"{gigabytes * 1000:.1f} MB",
                gigabytes * (prices["table_storage"] + prices["table_recovery"]),
                f"aws dynamodb delete-table --table-name {table['TableName']}",
            )
        )
    for arn in _tagged(aws, "kms:key", stack):
        key = aws.client("kms").describe_key(KeyId=arn)["KeyMetadata"]
        if key["KeyState"] != "PendingDeletion":
            found.append(
                Kept(
                    "key, without which none of these can be read",
                    "",
                    prices["key"],
                    f"aws kms schedule-key-deletion --key-id {key['KeyId']}",
                )
            )
    return found


def _snapshots(aws: Aws, tag: Any, prices: Prices) -> list[Kept]:
    """One line a host: there are hundreds. Billed are the blocks of the newest, and what older ones have beside them.

    EC2 says only the first of these (in the field below), so it is the least that they cost.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Snapshot.html
    """
    by_host: dict[str, list[Any]] = {}
    for page in aws.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=tag):
        for snapshot in page["Snapshots"]:
            by_host.setdefault(_tags(snapshot).get("nightvault:host", "?"), []).append(snapshot)
    found = []
    for host, snapshots in sorted(by_host.items()):
        newest = max(snapshots, key=lambda snapshot: snapshot["StartTime"])
        gib = newest.get("FullSnapshotSizeInBytes", newest["VolumeSize"] * 2**30) / 2**30
        found.append(
            Kept(
                f"{len(snapshots)} restore points of {host}",
                f"{'at least ' if len(snapshots) > 1 else ''}{gib:.1f} GiB",
                gib * prices["snapshot"],
                f"aws ec2 delete-snapshot --snapshot-id …  (the newest is {newest['SnapshotId']})",
            )
        )
    return found


def _tagged(aws: Aws, kind: str, stack: str) -> list[str]:
    pages = (
        aws.client("resourcegroupstaggingapi")
        .get_paginator("get_resources")
        .paginate(TagFilters=[{"Key": "nightvault:stack", "Values": [stack]}], ResourceTypeFilters=[kind])
    )
    return [resource["ResourceARN"] for page in pages for resource in page["ResourceTagMappingList"]]


def _tags(resource: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}


def show(found: list[Kept], screen: Screen, prices: Prices = LISTED) -> None:
    """A table, its sum, and how to be rid of it."""
    if not found:
        screen.done("no data of it is left")
        return
    rows = [[item.what, item.size, f"${item.dollars:.2f}"] for item in found]
    rows.append(["together, about", "", f"${sum(item.dollars for item in found):.2f} a month"])
    screen.table("Kept, because it is data:", ["", "size", "a month"], rows)
    screen.say(
        f"Prices of {prices.region}, {prices.as_of}; other regions differ. To be rid of it all, and of every backup:"
    )
    for item in found:
        screen.say(f"  {item.forget}")
