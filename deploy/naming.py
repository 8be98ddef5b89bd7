"""Names that are decided before there is a stack."""

import re

# The longest function's name must fit Lambda's 64 characters: nightvault-STAGE-snapshot-changed.
_STAGE = re.compile(r"[a-z][a-z0-9-]{0,28}[a-z0-9]|[a-z]")


class BadName(Exception):
    """The stage can't be used; the message says what can."""


def stack_name(stage: str) -> str:
    """`nightvault` for `prod`, else `nightvault-STAGE`. Raises BadName."""
    if not _STAGE.fullmatch(stage):
        raise BadName(
            f"STAGE={stage!r}: at most 30 small letters, digits and hyphens, a letter first and no hyphen last"
        )
    return "nightvault" if stage == "prod" else f"nightvault-{stage}"


def bucket_name(account: str, region: str) -> str:
    """One bucket for all stages of an account and region. At most 63 characters, which S3 allows."""
    return f"nightvault-artifacts-{account}-{region}"
