"""What IAM decides about each call: which actions, on which resources, with what in the request's context.

Which resource types an action is decided on, and which keys are there, is the Service Authorization Reference's:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html (and its sisters). An operation
that is not in these tables is an error, so that a new call must be looked up before a test of it can pass.

What AWS itself then asks in the caller's name (KMS, for a table, a topic, a volume) is listed with the call.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from tests.localcloud.interposer import tags_of
from tests.stack.iam import Context, Need

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where calls are made, and what can be known there.

    `tags`: of an EC2 resource by its id. `keys_of`: the ARNs of the KMS keys of a table or topic (by ARN), of a volume,
    or of all volumes of an instance. `template`: a launch template by its name.
    """

    region: str
    account: str
    tags: Callable[[str], Mapping[str, str]]
    keys_of: Callable[[str], Set[str]]
    template: Callable[[str], "Template"]

    def arn(self, service: str, resource: str, account: str | None = None) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account if account is None else account}:{resource}"

    def ec2(self, kind: str, resource: str) -> str:
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html#amazonec2-resources-for-iam-policies
        return self.arn("ec2", f"{kind}/{resource}", "" if kind in ("image", "snapshot") else None)


@dataclass(frozen=True)
class Template:
    template_id: str
    image_id: str
    key_arn: str | None  # of the volumes that it makes


def needs(service: str, operation: str, parameters: Parameters, place: Place) -> tuple[Need, ...]:
    """Everything that must be allowed for the call. NotImplementedError for a call that no one has looked up."""
    if service == "ec2":
        return tuple(_ec2(operation, parameters, place))
    action = f"{service}:{operation}"
    if action in _UNSCOPED:
        return (Need(action, "*", {}),)
    if service == "dynamodb":
        return tuple(_dynamodb(operation, parameters, place))
    if action in _BY_ARN:
        arn = _BY_ARN[action](parameters, place)
        return (Need(action, arn, {}), *(_key(place, arn, "sns", *_SNS_KEY) if operation == "Publish" else ()))
    raise NotImplementedError(f"which permissions {action} needs: look it up, and add it to {__name__}")


# --- EC2 ------------------------------------------------------------------------------------------------

# No resource types: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
_EC2_UNSCOPED = {
    "DescribeInstances",
    "DescribeLaunchTemplates",
    "DescribeLockedSnapshots",
    "DescribeSecurityGroups",
    "DescribeSnapshots",
    "DescribeSubnets",
    "DescribeVolumes",
    "DescribeVolumesModifications",
}
# Resource types, each with the parameter that names it.
_EC2_SCOPED: dict[str, dict[str, str]] = {
    "AttachVolume": {"instance": "InstanceId", "volume": "VolumeId"},
    "AuthorizeSecurityGroupIngress": {"security-group": "GroupId"},
    "CreateSnapshot": {"volume": "VolumeId"},
    "DeleteSnapshot": {"snapshot": "SnapshotId"},
    "DeleteVolume": {"volume": "VolumeId"},
    "DescribeSnapshotAttribute": {"snapshot": "SnapshotId"},
    "DetachVolume": {"instance": "InstanceId", "volume": "VolumeId"},
    "LockSnapshot": {"snapshot": "SnapshotId"},
    "ModifyVolume": {"volume": "VolumeId"},
    "RevokeSecurityGroupIngress": {"security-group": "GroupId"},
    "StartInstances": {"instance": "InstanceIds"},
    "StopInstances": {"instance": "InstanceIds"},
    "TerminateInstances": {"instance": "InstanceIds"},
    "UnlockSnapshot": {"snapshot": "SnapshotId"},
}
# What is made, of which types, by which no id is known yet.
_EC2_MADE: dict[str, tuple[str, ...]] = {
    "CreateSecurityGroup": ("security-group",),
    "CreateSnapshot": ("snapshot",),
    "CreateVolume": ("volume",),
    "RunInstances": ("instance", "volume", "network-interface"),
}


def _ec2(operation: str, parameters: Parameters, place: Place) -> Iterator[Need]:
    action = f"ec2:{operation}"
    if operation in _EC2_UNSCOPED:
        yield Need(action, "*", {})
        return
    if operation not in _EC2_SCOPED and operation not in _EC2_MADE:
        raise NotImplementedError(f"which permissions {action} needs: look it up, and add it to {__name__}")
    for kind, name in _EC2_SCOPED.get(operation, {}).items():
        named = parameters.get(name) or ()
        for each in [named] if isinstance(named, str) else named:
            yield Need(action, place.ec2(kind, each), _resource_tags(place.tags(each)))
    if operation == "CreateSecurityGroup":
        yield Need(action, place.ec2("vpc", parameters["VpcId"]), {})
    if operation == "CreateVolume" and parameters.get("SnapshotId"):
        snapshot = parameters["SnapshotId"]
        yield Need(action, place.ec2("snapshot", snapshot), _resource_tags(place.tags(snapshot)))
    if operation == "RunInstances":
        yield from _launched_with(parameters, place)
    for kind in _EC2_MADE.get(operation, ()):
        yield from _made(action, operation, kind, parameters, place)
    yield from _ec2_keys(operation, parameters, place)


def _launched_with(parameters: Parameters, place: Place) -> Iterator[Need]:
    template = place.template(parameters["LaunchTemplate"]["LaunchTemplateName"])
    used = [("launch-template", template.template_id), ("image", template.image_id)]
    for interface in parameters.get("NetworkInterfaces") or [parameters]:
        used.append(("subnet", interface["SubnetId"]))
        groups = interface.get("Groups") or interface.get("SecurityGroupIds") or ()
        used += [("security-group", each) for each in groups]
    for kind, each in used:
        yield Need("ec2:RunInstances", place.ec2(kind, each), _resource_tags(place.tags(each)))


def _made(action: str, operation: str, kind: str, parameters: Parameters, place: Place) -> Iterator[Need]:
    """A thing that is made, and its tags, for which `ec2:CreateTags` is decided too.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    """
    arn = place.ec2(kind, "*")
    tags = tags_of(parameters.get("TagSpecifications"), kind)
    context: dict[str, Any] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if tags:
        context["aws:TagKeys"] = tuple(tags)
    yield Need(action, arn, context)
    if tags:
        yield Need("ec2:CreateTags", arn, {**context, "ec2:CreateAction": operation})


def _ec2_keys(operation: str, parameters: Parameters, place: Place) -> Iterator[Need]:
    """What EC2 asks of KMS in the caller's name, for an encrypted volume.

    A data key where one is made (of a new volume, and of the root volume, which is made from an image that is not
    encrypted); a grant where it is attached, by a call or by the instance's start:
    https://docs.aws.amazon.com/kms/latest/developerguide/services-ebs.html
    """
    match operation:
        case "CreateVolume":
            keys: set[str | None] = {parameters.get("KmsKeyId")}
            actions: tuple[str, ...] = ("kms:GenerateDataKeyWithoutPlaintext",)
        case "RunInstances":
            keys = {place.template(parameters["LaunchTemplate"]["LaunchTemplateName"]).key_arn}
            actions = ("kms:GenerateDataKeyWithoutPlaintext", "kms:CreateGrant")
        case "AttachVolume":
            keys = {*place.keys_of(parameters["VolumeId"])}
            actions = ("kms:CreateGrant",)
        case "StartInstances":
            keys = {key for each in parameters["InstanceIds"] for key in place.keys_of(each)}
            actions = ("kms:CreateGrant",)
        case _:
            return
    for key in keys - {None}:
        for action in actions:
            # https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-grant-is-for-aws-resource
            given = {"kms:GrantIsForAWSResource": "true"} if action == "kms:CreateGrant" else {}
            yield Need(action, str(key), {**_via("ec2", place), **given})


def _resource_tags(tags: Mapping[str, str]) -> Context:
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


# --- the others -----------------------------------------------------------------------------------------

# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html and its sisters
_UNSCOPED = {"cloudwatch:GetMetricStatistics", "pricing:GetProducts", "servicequotas:GetServiceQuota"}
_BY_ARN: dict[str, Callable[[Parameters, Place], str]] = {
    "sns:Publish": lambda parameters, _: str(parameters["TopicArn"]),
    "sns:ListSubscriptionsByTopic": lambda parameters, _: str(parameters["TopicArn"]),
    "ssm:GetParameter": lambda parameters, place: place.arn("ssm", f"parameter/{parameters['Name'].lstrip('/')}"),
}
# https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html#sns-what-permissions-for-sse
_SNS_KEY = ("kms:GenerateDataKey", "kms:Decrypt")


def _dynamodb(operation: str, parameters: Parameters, place: Place) -> Iterator[Need]:
    """A transaction needs what its writes need, and no action of its own.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html
    """
    tables: set[str] = set()
    calls = [(operation, parameters)]
    if operation == "TransactWriteItems":
        calls = [
            ("ConditionCheckItem" if kind == "ConditionCheck" else f"{kind}Item", body)
            for item in parameters["TransactItems"]
            for kind, body in item.items()
        ]
    for name, body in calls:
        table = place.arn("dynamodb", f"table/{body['TableName']}")
        tables.add(table)
        yield Need(f"dynamodb:{name}", table, {})
    for table in tables:
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
        yield from _key(place, table, "dynamodb", "kms:Decrypt") if not operation.startswith("Describe") else ()


def _key(place: Place, resource: str, service: str, *actions: str) -> Iterator[Need]:
    for key in place.keys_of(resource):
        for action in actions:
            yield Need(action, key, _via(service, place))


def _via(service: str, place: Place) -> Context:
    """https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-via-service"""
    return {"kms:ViaService": f"{service}.{place.region}.amazonaws.com"}
