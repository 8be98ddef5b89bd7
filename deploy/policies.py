"""What each function may do, and nothing more; `python -m deploy policies` prints it whole.

To let a function do more: add the action to a statement below, or a statement to its list in POLICIES. Rules that
tests/template holds this to: no wildcard in an action; a Resource of "*" only for an action in UNSCOPED, which says
why; what changes something in EC2 is tied to the stack's tag. docs/permissions.md explains it to operators.

Actions, resource types and condition keys are those of the Service Authorization Reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from typing import Any

from deploy.functions import Function

Json = dict[str, Any]
_STACK = {"Ref": "AWS::StackName"}
_KEY = {"Fn::GetAtt": ["Key", "Arn"]}

_REFERENCE = "https://docs.aws.amazon.com/service-authorization/latest/reference"
_EC2_REFERENCE = f"{_REFERENCE}/list_amazonec2.html"
# Actions for which AWS knows no narrower resource than "*", each with the page that says so. They only read.
UNSCOPED = {
    "cloudwatch:GetMetricStatistics": f"{_REFERENCE}/list_amazoncloudwatch.html",
    "ec2:DescribeInstances": _EC2_REFERENCE,
    "ec2:DescribeLaunchTemplates": _EC2_REFERENCE,
    "ec2:DescribeLockedSnapshots": _EC2_REFERENCE,
    "ec2:DescribeSecurityGroups": _EC2_REFERENCE,
    "ec2:DescribeSnapshots": _EC2_REFERENCE,
    "ec2:DescribeSubnets": _EC2_REFERENCE,
    "ec2:DescribeVolumes": _EC2_REFERENCE,
    "pricing:GetProducts": f"{_REFERENCE}/list_awspricelist.html",
    "servicequotas:GetServiceQuota": f"{_REFERENCE}/list_servicequotas.html",
}


def _arn(service: str, what: str, *, account: str = "${AWS::AccountId}") -> Json:
    return {"Fn::Sub": f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:{account}:{what}"}


def _allow(sid: str, actions: list[str], resources: Any, **conditions: Json) -> Json:
    statement: Json = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    if conditions:
        statement["Condition"] = conditions
    return statement


# Touching what is there: it must carry the stack's tag. Making something: it must be given it in the same call.
_IS_OURS = {"aws:ResourceTag/nightvault:stack": _STACK}
_BECOMES_OURS = {"aws:RequestTag/nightvault:stack": _STACK}

_INSTANCE = _arn("ec2", "instance/*")
_VOLUME = _arn("ec2", "volume/*")
_GROUP = _arn("ec2", "security-group/*")
# A snapshot's ARN has had an empty account, and in newer references the owner's; the tag is what ties it to us.
_SNAPSHOT = _arn("ec2", "snapshot/*", account="*")
_TEMPLATE = _arn("ec2", "launch-template/${VaultTemplate}")


# --- the table, the topic, the key ----------------------------------------------------------------------


def _table(*actions: str) -> Json:
    return _allow("Table", [f"dynamodb:{action}" for action in actions], {"Fn::GetAtt": ["Table", "Arn"]})


def _through(service: str) -> Json:
    """The key, only when that service uses it for us.

    https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-via-service
    """
    return {"kms:ViaService": {"Fn::Sub": f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}"}}


# DynamoDB asks KMS for the table's key as whoever reads or writes:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
_TABLE_KEY = _allow("TableKey", ["kms:Decrypt"], _KEY, StringEquals=_through("dynamodb"))

_ALERT = [
    _allow("Alert", ["sns:Publish"], {"Ref": "Topic"}),
    # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html#sns-what-permissions-for-sse
    _allow("AlertKey", ["kms:Decrypt", "kms:GenerateDataKey"], _KEY, StringEquals=_through("sns")),
]

# --- a vault's life -------------------------------------------------------------------------------------

_LAUNCH = [
    _allow("LaunchTagged", ["ec2:RunInstances"], [_INSTANCE, _VOLUME], StringEquals=_BECOMES_OURS),
    _allow(
        "LaunchFrom",
        ["ec2:RunInstances"],
        [
            _TEMPLATE,
            _arn("ec2", "network-interface/*"),  # made by the launch, with nothing to tie it to
            _arn("ec2", "subnet/${Subnet}"),
            _arn("ec2", "image/${Image}", account=""),
        ],
    ),
    _allow("LaunchIntoOurGroup", ["ec2:RunInstances"], _GROUP, StringEquals=_IS_OURS),
    _allow("TellTheMachineWhereToAsk", ["ssm:GetParameter"], _arn("ssm", "parameter/${AWS::StackName}/url")),
]

_MACHINE = [
    _allow(
        "RunOurMachine",
        ["ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"],
        _INSTANCE,
        StringEquals=_IS_OURS,
    ),
]

_VOLUMES = [
    _allow("MakeVolume", ["ec2:CreateVolume"], _VOLUME, StringEquals=_BECOMES_OURS),
    _allow("AttachOurs", ["ec2:AttachVolume"], [_INSTANCE, _VOLUME], StringEquals=_IS_OURS),
    # EC2 gets a grant on the key for each volume that it attaches, and a start attaches them all: without it the
    # instance goes from pending back to stopped, with no error to the caller. Only EC2 may be given one, through EC2.
    # https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
    # https://docs.aws.amazon.com/kms/latest/developerguide/services-ebs.html
    _allow(
        "VolumeKeyGrant",
        ["kms:CreateGrant"],
        _KEY,
        StringEquals=_through("ec2"),
        Bool={"kms:GrantIsForAWSResource": "true"},
    ),
    _allow(
        "VolumeKey",
        [
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ],
        _KEY,
        StringEquals=_through("ec2"),
    ),
]

# A volume grows by itself, when its window is sealed.
_GROW = _allow("GrowVolume", ["ec2:ModifyVolume"], _VOLUME, StringEquals=_IS_OURS)
# One is deleted only when a completed snapshot is known to hold all that it does, and either its host was retired and
# it was asked away too (chalicelib/operated.py), or the host rests as that snapshot, which is proven besides
# (chalicelib/volumes.py; the sweep alone begins that). IAM cannot be told which volume that is.
_RETIRED = [
    _allow("DetachRetired", ["ec2:DetachVolume"], [_INSTANCE, _VOLUME], StringEquals=_IS_OURS),
    _allow("DeleteRetired", ["ec2:DeleteVolume"], _VOLUME, StringEquals=_IS_OURS),
]

# A volume is made from a restore point by who begins a restore, or the backup of a host that has none, hears the
# vault's report, or sees to what was missed.
# Since 2025 that needs a right on the snapshot too, as AWS's own driver has it:
# https://github.com/kubernetes-sigs/aws-ebs-csi-driver/blob/master/docs/example-iam-policy.json
_FROM_POINT = _allow("MakeVolumeFromOurs", ["ec2:CreateVolume"], _SNAPSHOT, StringEquals=_IS_OURS)
# What was made for a restore goes when that is over; of other volumes, this lets nobody detach or delete any.
_RESTORED = [
    _allow("DetachFromOurs", ["ec2:DetachVolume"], _INSTANCE, StringEquals=_IS_OURS),
    _allow(
        "RemoveRestored",
        ["ec2:DetachVolume", "ec2:DeleteVolume"],
        _VOLUME,
        StringEquals={**_IS_OURS, "aws:ResourceTag/nightvault:purpose": "restore"},
    ),
]

_SNAPSHOTS = [
    _allow("SnapshotOurs", ["ec2:CreateSnapshot"], _VOLUME, StringEquals=_IS_OURS),
    _allow("SnapshotTagged", ["ec2:CreateSnapshot"], _SNAPSHOT, StringEquals=_BECOMES_OURS),
]

_LOOK_AT_LOCKS = _allow("LookAtLocks", ["ec2:DescribeLockedSnapshots"], "*")
# Retention deletes what our records name, after it has looked at the snapshot's own tags: chalicelib/retaining.py.
# Whose host it was, IAM cannot be told; that it is this stack's it holds us to.
_RETENTION = [
    _LOOK_AT_LOCKS,
    _allow("DeleteOldPoints", ["ec2:DeleteSnapshot"], _SNAPSHOT, StringEquals=_IS_OURS),
    _allow("BuryOldPoints", ["dynamodb:DeleteItem"], {"Fn::GetAtt": ["Table", "Arn"]}),
]
# An operator asks EBS itself to lock a restore point, for so many days.
_LOCKS = [
    _LOOK_AT_LOCKS,
    _allow("LockOurPoints", ["ec2:LockSnapshot", "ec2:UnlockSnapshot"], _SNAPSHOT, StringEquals=_IS_OURS),
]

_GROUPS = [
    _allow("MakeGroup", ["ec2:CreateSecurityGroup"], _GROUP, StringEquals=_BECOMES_OURS),
    _allow("MakeGroupInVpc", ["ec2:CreateSecurityGroup"], _arn("ec2", "vpc/${Vpc}")),
]
_DOOR = _allow(
    "OpenAndShutOurGroup",
    ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"],
    _GROUP,
    StringEquals=_IS_OURS,
)


def _tag(actions: list[str], resources: Any) -> Json:
    """Tags may be given only by the call that makes the thing, so no tag can make a stranger's thing ours.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    """
    return _allow(
        "TagWhatIsMade", ["ec2:CreateTags"], resources, StringEquals={"ec2:CreateAction": actions, **_BECOMES_OURS}
    )


_MAKES = {"RunInstances": _INSTANCE, "CreateVolume": _VOLUME, "CreateSnapshot": _SNAPSHOT}
# Whoever may decide about a vault may have to carry out its effects: what another began, it finishes. tests/stack shows
# each of them being carried out by each function that may.
_LIFE = [
    _table("GetItem", "PutItem", "Query", "UpdateItem"),
    _TABLE_KEY,
    _allow(
        "Look",
        [
            "ec2:DescribeInstances",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSnapshots",
            "ec2:DescribeSubnets",
            "ec2:DescribeVolumes",
        ],
        "*",
    ),
    *_LAUNCH,
    *_MACHINE,
    *_VOLUMES,
    _GROW,
    *_SNAPSHOTS,
    _DOOR,
    *_ALERT,
]
# A vault has its group before it has a machine, so news of a machine never finds it without one.
_WITH_GROUP = [
    *_LIFE,
    *_GROUPS,
    _tag([*_MAKES, "CreateSecurityGroup"], [*_MAKES.values(), _GROUP]),
]
_WITHOUT_GROUP = [*_LIFE, _tag(list(_MAKES), list(_MAKES.values()))]

# What `doctor` and `cost` look at, and what doctor mends: never a volume or a snapshot.
_DOCTOR_AND_COST = [
    _allow(
        "LookAtAll",
        [
            "cloudwatch:GetMetricStatistics",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSnapshots",
            "ec2:DescribeVolumes",
            "pricing:GetProducts",
            "servicequotas:GetServiceQuota",
        ],
        "*",
    ),
    _allow("LookAtWhoMayUseASnapshot", ["ec2:DescribeSnapshotAttribute"], _SNAPSHOT, StringEquals=_IS_OURS),
    _allow("LookAtRecovery", ["dynamodb:DescribeContinuousBackups"], {"Fn::GetAtt": ["Table", "Arn"]}),
    _allow("LookAtSubscriptions", ["sns:ListSubscriptionsByTopic"], {"Ref": "Topic"}),
    _allow("MendMachine", ["ec2:TerminateInstances"], _INSTANCE, StringEquals=_IS_OURS),
    _allow("MendDoor", ["ec2:RevokeSecurityGroupIngress"], _GROUP, StringEquals=_IS_OURS),
]

POLICIES: dict[str, list[Json]] = {
    "api_handler": [*_WITH_GROUP, _FROM_POINT, *_RESTORED],
    "sweep": [*_WITH_GROUP, _FROM_POINT, *_RETIRED, *_RETENTION],
    "instance_changed": [*_WITHOUT_GROUP, _FROM_POINT, *_RETIRED],
    "bearer": [_table("GetItem"), _TABLE_KEY],
    # A snapshot's news can end a sealing, never begin a waking: it launches, attaches and makes nothing else.
    "snapshot_changed": [
        _table("GetItem", "PutItem", "Query", "UpdateItem"),
        _TABLE_KEY,
        _allow(
            "Look",
            [
                "ec2:DescribeInstances",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSnapshots",
                "ec2:DescribeVolumes",
            ],
            "*",
        ),
        _GROW,
        _allow("StopOurMachine", ["ec2:StopInstances"], _INSTANCE, StringEquals=_IS_OURS),
        *_SNAPSHOTS,
        _DOOR,
        _tag(["CreateSnapshot"], _SNAPSHOT),
        *_ALERT,
    ],
    # An operator's wake or retirement is a change of the vault, so it may have any effect that those have.
    # The URL it is told by the stack.
    "operate": [
        *(each for each in _WITH_GROUP if each["Sid"] != "TellTheMachineWhereToAsk"),
        _FROM_POINT,
        *_RETIRED,
        *_LOCKS,
        *_DOCTOR_AND_COST,
    ],
    "timeline_widget": [_table("Query"), _TABLE_KEY],
}

FUNCTIONS = tuple(Function(name) for name in POLICIES)


def policy(function: Function) -> Json:
    """The whole policy document. Its log group is made by the stack, so it may write to it and make none."""
    logs = _allow(
        "Logs",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        _arn("logs", f"log-group:/aws/lambda/${{AWS::StackName}}-{function.suffix}:*"),
    )
    return {"Version": "2012-10-17", "Statement": [logs, *POLICIES[function.name]]}


def unscoped_rows() -> str:
    """The table of docs/permissions.md."""
    return "\n".join(f"| `{action}` | {page} |" for action, page in sorted(UNSCOPED.items()))
