"""The rules of EC2 that moto does not hold its callers to. Each names the page that states it.

A check looks at moto's backend before the call reaches it, and refuses with EC2's own code. The codes:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
Rules that moto enforces itself (InvalidPermission.Duplicate and .NotFound, RulesPerSecurityGroupLimitExceeded
at 60 rules, unknown ids) are not repeated here; tests/contract/test_localcloud_rules.py proves those too.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from .interposer import Refused, tags_of
from .locks import may_delete_snapshot

# Volumes, network interfaces and NVMe instance store share 28 attachments on most Nitro types:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html
ATTACHMENT_LIMIT = 28
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-creating-snapshot.html: five `pending` a volume
PENDING_SNAPSHOTS = 5
# https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GP3_LIMIT_GIB = 16384
MODIFICATIONS_A_DAY = 4

_METADATA_TAG = re.compile(r"[0-9a-zA-Z\-_+=,.@:]{1,255}")
_RESERVED_TAGS = frozenset({".", "..", "_index"})

Parameters = dict[str, Any]


def check(operation: str, parameters: Parameters, backend: Any, ever_ran: set[str], now: datetime) -> None:
    """Raises Refused where EC2 would refuse `operation`; `ever_ran` holds instances that were once running."""
    match operation:
        case "AttachVolume":
            may_attach(parameters, backend)
        case "DetachVolume":
            may_detach(parameters, backend)
        case "DeleteVolume":
            may_delete_volume(parameters, backend)
        case "ModifyVolume":
            may_modify_volume(parameters, backend, now)
        case "CreateVolume":
            may_create_volume(parameters, backend)
        case "CreateSnapshot":
            may_snapshot(parameters, backend)
        case "DeleteSnapshot":
            may_delete_snapshot(parameters, backend, now)
        case "StartInstances":
            for each in instances(parameters, backend):
                may_start(each)
        case "StopInstances":
            for each in instances(parameters, backend):
                may_stop(each, ever_ran)
        case "TerminateInstances":
            instances(parameters, backend)
        case "RunInstances":
            may_launch(parameters, backend)
        case "CreateTags":
            may_tag(parameters, backend)
        case _:
            pass


def instances(parameters: Parameters, backend: Any) -> list[Any]:
    """The instances that a call names, or InvalidInstanceID.NotFound."""
    found = []
    for instance_id in parameters["InstanceIds"]:
        instance = backend.get_instance_by_id(instance_id)
        if instance is None:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        found.append(instance)
    return found


def may_attach(parameters: Parameters, backend: Any) -> None:
    """The volume is `available` and in the instance's zone; the instance runs or is stopped, and has room.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AttachVolume.html and
    https://docs.aws.amazon.com/ebs/latest/userguide/ebs-attaching-volume.html (zone; encrypted and single
    attach). Duplicate device, as seen in the wild: https://github.com/nanovms/ops/pull/1189; zone, likewise:
    https://github.com/portworx/px-dev/issues/42.
    """
    volume_id, instance_id = parameters["VolumeId"], parameters["InstanceId"]
    device = parameters["Device"]
    volume = backend.volumes.get(volume_id)
    instance = backend.get_instance_by_id(instance_id)
    if volume is None or instance is None:
        return  # moto says NotFound
    if volume.attachment is not None:
        raise Refused("VolumeInUse", f"{volume_id} is already attached to an instance")
    if volume.status != "available":
        raise Refused("IncorrectState", f"{volume_id} is not 'available'.")
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if volume.availability_zone != instance.availability_zone:
        raise Refused(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
        )
    if device in instance.block_device_mapping:
        raise Refused(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )
    if len(instance.block_device_mapping) + len(instance.nics) >= ATTACHMENT_LIMIT:
        raise Refused("AttachmentLimitExceeded", f"{instance_id} has no room for another volume")


def may_detach(parameters: Parameters, backend: Any) -> None:
    """Only what is attached (IncorrectState otherwise), and from the instance that is named.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachVolume.html
    """
    volume = backend.volumes.get(parameters["VolumeId"])
    if volume is None:
        raise Refused("InvalidVolume.NotFound", f"The volume '{parameters['VolumeId']}' does not exist.")
    if volume.attachment is None:
        raise Refused("IncorrectState", f"Volume '{volume.id}' is in the '{volume.status}' state.")
    if parameters.get("InstanceId", volume.attachment.instance.id) != volume.attachment.instance.id:
        raise Refused("InvalidAttachment.NotFound", f"{volume.id} is not attached there")


def may_delete_volume(parameters: Parameters, backend: Any) -> None:
    """Only an `available` volume: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteVolume.html"""
    volume = backend.volumes.get(parameters["VolumeId"])
    if volume is not None and volume.status == "creating":
        raise Refused("IncorrectState", f"The volume '{volume.id}' is 'creating'")


def may_modify_volume(parameters: Parameters, backend: Any, now: datetime) -> None:
    """Larger only, of a volume that is there, after the change before it is completed, and four times in 24 hours.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVolume.html and
    https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html. Until 2026 it was once in six
    hours, with the same code: https://github.com/sodafoundation/strato/issues/1094; of a change that is not
    completed: https://repost.aws/knowledge-center/cloudformation-ebs-volume-error
    """
    volume = backend.volumes.get(parameters["VolumeId"])
    if volume is None:
        return  # moto says NotFound
    if volume.status not in ("available", "in-use"):
        raise Refused("IncorrectState", f"The volume '{volume.id}' is '{volume.status}'")
    size = parameters.get("Size", volume.size)
    if size < volume.size:
        raise Refused("InvalidParameterValue", f"New size cannot be smaller than existing size. {volume.id}")
    if size > GP3_LIMIT_GIB:
        raise Refused("InvalidParameterValue", f"Volume of {size}GiB is too large for volume type gp3")
    if any(each.modification_state != "completed" for each in volume.modifications):
        raise Refused("IncorrectModificationState", f"{volume.id} cannot be modified in modification state OPTIMIZING")
    day_ago = (now - timedelta(hours=24)).replace(tzinfo=None)
    if sum(each.start_time > day_ago for each in volume.modifications) >= MODIFICATIONS_A_DAY:
        raise Refused(
            "VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit."
        )


def may_create_volume(parameters: Parameters, backend: Any) -> None:
    """From a `completed` snapshot, and not smaller than it.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html
    """
    snapshot = backend.snapshots.get(parameters.get("SnapshotId"))
    if snapshot is None:
        return
    if snapshot.status != "completed":
        raise Refused("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
    if parameters.get("Size", snapshot.volume_size) < snapshot.volume_size:
        raise Refused("InvalidParameterValue", f"Volume is smaller than snapshot '{snapshot.id}'")


def may_snapshot(parameters: Parameters, backend: Any) -> None:
    """At most five `pending` snapshots a volume, and none of a volume that is still being made.

    https://docs.aws.amazon.com/ebs/latest/userguide/ebs-creating-snapshot.html
    """
    volume = backend.volumes.get(parameters["VolumeId"])
    if volume is None:
        return
    if volume.status == "creating":
        raise Refused("IncorrectState", f"The volume '{volume.id}' is 'creating'")
    pending = [s for s in backend.snapshots.values() if s.volume_id == volume.id and s.status == "pending"]
    if len(pending) >= PENDING_SNAPSHOTS:
        raise Refused(
            "ConcurrentSnapshotLimitExceeded",
            "Maximum allowed in-progress snapshots for a single volume exceeded.",
        )


def may_start(instance: Any) -> None:
    """Only a stopped instance starts; one that is up or coming up is left alone.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
    """
    if instance.state in ("stopping", "shutting-down", "terminated"):
        raise Refused(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be started.",
        )


def may_stop(instance: Any, ever_ran: set[str]) -> None:
    """Not a terminated one, and not before its first launch has reached `running`.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html; the second rule with its
    message: https://github.com/cloud-custodian/cloud-custodian/pull/6014
    """
    if instance.state in ("shutting-down", "terminated"):
        raise Refused(
            "IncorrectInstanceState",
            f"This instance '{instance.id}' is not in a state from which it can be stopped.",
        )
    if instance.state == "pending" and instance.id not in ever_ran:
        raise Refused(
            "IncorrectInstanceState",
            f"Instance '{instance.id}' cannot be stopped as it has never reached the 'running' state.",
        )


def may_launch(parameters: Parameters, backend: Any) -> None:
    """Tags must be readable from instance metadata, if that is enabled."""
    options = template_data(parameters, backend).get("MetadataOptions") or {}
    options = {**options, **parameters.get("MetadataOptions", {})}
    if options.get("InstanceMetadataTags") == "enabled":
        _check_tag_keys(tags_of(parameters.get("TagSpecifications"), "instance"))


def may_tag(parameters: Parameters, backend: Any) -> None:
    """The same rule for a tag that is added later."""
    for resource in parameters.get("Resources", ()):
        instance = backend.get_instance_by_id(resource)
        if instance is not None and instance.metadata_options.instance_metadata_tags == "enabled":
            _check_tag_keys({tag["Key"]: "" for tag in parameters.get("Tags", ())})


def _check_tag_keys(keys: Any) -> None:
    """Which keys: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html; the message:
    https://github.com/seek-oss/aec/pull/411.
    """
    for key in keys:
        if not _METADATA_TAG.fullmatch(key) or key in _RESERVED_TAGS:
            raise Refused(
                "InvalidParameterValue",
                f"'{key}' is not a valid tag key. Tag keys must match pattern "
                f"({_METADATA_TAG.pattern}), and must not be a reserved name ('.', '..', '_index')",
            )


def template_data(parameters: Parameters, backend: Any) -> dict[str, Any]:
    """The launch template's data, whichever version the call names; empty without a template."""
    named = parameters.get("LaunchTemplate")
    if not named:
        return {}
    data: dict[str, Any] = backend._get_template_from_args(dict(named)).data
    return data
