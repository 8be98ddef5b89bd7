"""AWS's refusals as our own: every call of AWS that may be refused is made inside `calling`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import THROTTLED, CloudRefused

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


@contextmanager
def calling(call: str, *fine: str) -> Iterator[None]:
    """Turn AWS's refusals into CloudRefused; codes in `fine` mean that what was asked for is already so."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in fine:
            raise CloudRefused(call, code, error.response["Error"].get("Message", "")) from error
    except BotoCoreError as error:
        raise CloudRefused(call, type(error).__name__, str(error)) from error


def ask_once(client: "EC2Client", call: str) -> None:
    """Let botocore repeat `call` only when it was throttled, since it knows no client token.

    A second one makes a second snapshot, which no record would name:
    https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
    After a lost answer, a timeout or a server's error, look for what it made by its tags before it is asked again: not
    before `claim_seconds` are over, since what was just made may not be shown yet:
    https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
    """

    def only_throttled_again(response: Any, caught_exception: Exception | None, **_: object) -> None:
        """botocore's `needs-retry` hook, which runs before its own: end the call, or have no opinion."""
        if caught_exception:
            raise caught_exception
        answer = response[1]
        if "Error" in answer and answer["Error"].get("Code") not in THROTTLED:
            raise ClientError(answer, call)

    client.meta.events.register(f"needs-retry.ec2.{call}", only_throttled_again)
