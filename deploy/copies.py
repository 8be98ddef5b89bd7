"""What the sweep may do in the region that restore points are copied to: nothing, unless the stack has such a region.

CopySnapshot is called there, and decided on the source too (since 2025, with the source's own tags):
https://aws.amazon.com/blogs/storage/enhancing-resource-level-permissions-for-copying-amazon-ebs-snapshots/
EBS decrypts with the stack's key and encrypts with the copy's for whoever asked, so the sweep needs both, through EC2:
https://docs.aws.amazon.com/ebs/latest/userguide/ebs-copy-snapshot.html. The account's EBS default key needs no policy
of ours: its own lets everyone of the account use it through EC2.
"""

from typing import Any

from deploy.functions import Function

Json = dict[str, Any]

_HOME = {"Fn::Sub": "arn:${AWS::Partition}:ec2:${AWS::Region}:*:snapshot/*"}
_THERE = {"Fn::Sub": "arn:${AWS::Partition}:ec2:${CopyRegion}:*:snapshot/*"}
_STACK = {"Ref": "AWS::StackName"}
# chalicelib/copier.py: another tag than that of restore points.
_COPIES = {"Fn::Sub": "${AWS::StackName}@${AWS::Region}"}
_SOURCE_KEY = {"Fn::GetAtt": ["Key", "Arn"]}
_COPY_KEY = {"Ref": "CopyKmsKey"}
_BECOMES_COPY = {"aws:RequestTag/nightvault:stack": _COPIES}
# Which region's EC2 asks KMS for the source's key, AWS's pages do not say.
_BOTH = [{"Fn::Sub": f"ec2.${{{region}}}.${{AWS::URLSuffix}}"} for region in ("AWS::Region", "CopyRegion")]
_THROUGH_EC2 = {"kms:ViaService": _BOTH}


def _allow(sid: str, actions: list[str], resource: Json, **conditions: Json) -> Json:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource, "Condition": conditions}


def _grant(sid: str, key: Json) -> Json:
    return _allow(sid, ["kms:CreateGrant"], key, StringEquals=_THROUGH_EC2, Bool={"kms:GrantIsForAWSResource": "true"})


COPIES = [
    _allow("CopyOurs", ["ec2:CopySnapshot"], _HOME, StringEquals={"aws:ResourceTag/nightvault:stack": _STACK}),
    _allow("CopyTagged", ["ec2:CopySnapshot"], _THERE, StringEquals=_BECOMES_COPY),
    _allow("TagCopies", ["ec2:CreateTags"], _THERE, StringEquals={"ec2:CreateAction": "CopySnapshot", **_BECOMES_COPY}),
    _allow(
        "DeleteOldCopies",
        ["ec2:DeleteSnapshot"],
        _THERE,
        StringEquals={"aws:ResourceTag/nightvault:stack": _COPIES},
    ),
    _allow(
        "SourceKey", ["kms:Decrypt", "kms:DescribeKey", "kms:ReEncryptFrom"], _SOURCE_KEY, StringEquals=_THROUGH_EC2
    ),
    _grant("SourceKeyGrant", _SOURCE_KEY),
]
COPY_KEY = [
    _allow(
        "CopyKey",
        [
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ],
        _COPY_KEY,
        StringEquals=_THROUGH_EC2,
    ),
    _grant("CopyKeyGrant", _COPY_KEY),
]


def copies() -> Json:
    """Two policies of the sweep's role, each made only when its parameters are given."""
    return {
        "Resources": {
            "CopyPolicy": _policy("copies", "CopiesOn", COPIES),
            "CopyKeyPolicy": _policy("copies-key", "CopiesHaveKey", COPY_KEY),
        }
    }


def _policy(name: str, condition: str, statements: list[Json]) -> Json:
    return {
        "Type": "AWS::IAM::Policy",
        "Condition": condition,
        "Properties": {
            "PolicyName": name,
            "Roles": [{"Ref": Function("sweep").role}],
            "PolicyDocument": {"Version": "2012-10-17", "Statement": statements},
        },
    }
