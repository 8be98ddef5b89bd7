"""What is on record against what EC2 has: volumes, snapshots, and how they are kept."""

from collections.abc import Iterator

from chalicelib.model import PointState
from chalicelib.operators.checks.findings import Facts, Finding
from chalicelib.ports import RESTORE_PURPOSE


def volumes(facts: Facts) -> Iterator[Finding]:
    named = {slot.volume_id: host for vault in facts.vaults for host, slot in vault.hosts.items() if slot.volume_id}
    there = {disk.volume_id for disk in facts.estate.disks}
    for volume_id, host in named.items():
        if volume_id not in there:
            yield Finding(
                level="wrong",
                what=f"the volume {volume_id} of host {host} is gone",
                remedy="nothing to do: its next backup makes one of its newest restore point; find out in CloudTrail"
                " who deleted it (DeleteVolume)",
                resource=volume_id,
            )
    lent = {volume.volume_id for vault in facts.vaults for volume in vault.point_volumes.values()}
    for disk in facts.estate.disks:
        if disk.volume_id in named or disk.volume_id in lent or disk.attached_to or not facts.settled(disk.made_at):
            continue
        if disk.purpose == RESTORE_PURPOSE:
            yield Finding(
                level="warning",
                what=f"volume {disk.volume_id} ({disk.gib} GiB) was made for a restore of {disk.host} that is over",
                remedy="the sweep removes it within a quarter of an hour; if it does not:"
                f" aws ec2 delete-volume --volume-id {disk.volume_id} (the restore point stays)",
                resource=disk.volume_id,
            )
            continue
        whose = f"host {disk.host}, which is retired or has another" if disk.host else "a vault that is gone"
        yield Finding(
            level="warning",
            what=f"volume {disk.volume_id} ({disk.gib} GiB) was of {whose}; it costs and nobody uses it",
            remedy=f"if you want nothing from it: aws ec2 delete-volume --volume-id {disk.volume_id}",
            resource=disk.volume_id,
        )


def points(facts: Facts) -> Iterator[Finding]:
    there = {shot.snapshot_id for shot in facts.estate.shots}
    listed = {point.snapshot_id for point in facts.points}
    coming = {i for vault in facts.vaults for i in vault.pending_points}
    for point in facts.points:
        expected = point.snapshot_id and point.state is PointState.COMPLETED and not point.marks.dropped_at
        if expected and point.snapshot_id not in there:
            yield Finding(
                level="wrong",
                what=f"host {point.host}'s restore point {point.snapshot_id} is listed, and EC2 has no such snapshot",
                remedy="find out in CloudTrail who deleted it (DeleteSnapshot); the next night makes a new one",
                resource=point.snapshot_id,
            )
    for shot in facts.estate.shots:
        known = shot.snapshot_id in listed | coming or shot.state == PointState.ERROR
        if not known and facts.settled(shot.started_at):
            yield Finding(
                level="warning",
                what=f"snapshot {shot.snapshot_id} of host {shot.host or 'nobody'} carries our tag; no record names it",
                remedy=f"if you want nothing from it: aws ec2 delete-snapshot --snapshot-id {shot.snapshot_id}",
                resource=shot.snapshot_id,
            )


def encryption(facts: Facts) -> Iterator[Finding]:
    plain = [disk.volume_id for disk in facts.estate.disks if not disk.encrypted]
    plain += [shot.snapshot_id for shot in facts.estate.shots if not shot.encrypted]
    for resource in plain:
        yield Finding(
            level="wrong",
            what=f"{resource} is not encrypted by EBS (what hosts put there is, by themselves)",
            remedy="copy it encrypted (aws ec2 copy-snapshot --encrypted) and delete this one;"
            " `aws ec2 enable-ebs-encryption-by-default` keeps it from happening again",
            resource=resource,
        )


def public(facts: Facts) -> Iterator[Finding]:
    for snapshot_id in facts.public:
        yield Finding(
            level="wrong",
            what=f"snapshot {snapshot_id} is shared with every AWS account",
            remedy=f"aws ec2 modify-snapshot-attribute --snapshot-id {snapshot_id} --attribute createVolumePermission"
            " --operation-type remove --group-names all; and forbid it: aws ec2 enable-snapshot-block-public-access"
            " --state block-all-sharing",
            resource=snapshot_id,
        )
