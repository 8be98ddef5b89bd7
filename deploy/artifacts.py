"""The bucket through which the zip and the template reach CloudFormation."""

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from deploy.account import Aws
from deploy.console import Stopped
from deploy.naming import bucket_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A rollback fetches the code that it rolls back to, so the last few stay. 1.4 MB each.
KEPT = 20


class Bucket:
    """Private, encrypted, one for all stages of an account and region. Every method may be repeated.

    Its name can be guessed, and names are the whole world's: so each call says whose it must be.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
    """

    def __init__(self, aws: Aws) -> None:
        self._s3: S3Client = aws.s3
        self._region = aws.region
        self._partition = aws.partition
        self.name = bucket_name(aws.account, aws.region)
        self._ours: Any = {"Bucket": self.name, "ExpectedBucketOwner": aws.account}

    def exists(self) -> bool:
        """Raises Stopped when it is another account's."""
        try:
            self._s3.head_bucket(**self._ours)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
                return False
            if error.response["Error"]["Code"] in ("403", "AccessDenied"):
                raise Stopped(
                    f"the bucket {self.name} is not yours, or you may not use it",
                    "ask for s3:* on it; if another account made it first, AWS support can tell you",
                ) from error
            raise
        return True

    def ensure(self) -> bool:
        """Make it, and set it as it should be. True if it was not there."""
        new = not self.exists()
        if new:
            # us-east-1 is what S3 takes when nothing is said, and the one region that may not be named.
            place: Any = (
                {}
                if self._region == "us-east-1"
                else {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            )
            try:
                self._s3.create_bucket(Bucket=self.name, **place)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":  # another `make deploy` was quicker
                    raise
        self._s3.put_public_access_block(
            **self._ours,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        self._s3.put_bucket_encryption(
            **self._ours,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        # So that a zip which someone overwrote or deleted can be had back; what was deleted goes after a month.
        self._s3.put_bucket_versioning(**self._ours, VersioningConfiguration={"Status": "Enabled"})
        self._s3.put_bucket_lifecycle_configuration(
            **self._ours,
            LifecycleConfiguration={
                "Rules": [
                    {
                        "ID": "deleted",
                        "Status": "Enabled",
                        "Filter": {"Prefix": ""},
                        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                    }
                ]
            },
        )
        self._s3.put_bucket_policy(**self._ours, Policy=json.dumps(self._only_encrypted_connections()))
        return new

    def _only_encrypted_connections(self) -> dict[str, Any]:
        arn = f"arn:{self._partition}:s3:::{self.name}"
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "EncryptedConnectionsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }

    def upload(self, key: str, body: bytes) -> bool:
        """True if it was not there: a key names its content."""
        try:
            self._s3.head_object(**self._ours, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
        else:
            return False
        self._s3.put_object(**self._ours, Key=key, Body=body)
        return True

    def url(self, key: str) -> str:
        """For CloudFormation's TemplateURL."""
        plain = self._s3.generate_presigned_url("get_object", Params={"Bucket": self.name, "Key": key})
        return plain.split("?", 1)[0]

    def prune(self, keep: set[str]) -> int:
        """Delete all but the newest KEPT objects of each kind and those in `keep`. Gives how many."""
        found = [
            item for page in self._s3.get_paginator("list_objects_v2").paginate(**self._ours) for item in _items(page)
        ]
        old = []
        for ending in (".zip", ".json"):
            alike = sorted((i for i in found if i["Key"].endswith(ending)), key=lambda i: i["LastModified"])
            old += [item["Key"] for item in alike[:-KEPT] if item["Key"] not in keep]
        for key in old:
            self._s3.delete_object(**self._ours, Key=key)
        return len(old)

    def delete(self) -> None:
        """With all that is in it, old versions too."""
        for page in self._s3.get_paginator("list_object_versions").paginate(**self._ours):
            doomed: Any = [
                {"Key": item["Key"], "VersionId": item["VersionId"]}
                for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            ]
            if doomed:
                self._s3.delete_objects(**self._ours, Delete={"Objects": doomed, "Quiet": True})
        self._s3.delete_bucket(**self._ours)


def _items(page: Any) -> list[Any]:
    found: list[Any] = page.get("Contents", [])
    return found
