"""AWS's refusals as our own: every call of AWS that may be refused is made inside `calling`."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import CloudRefused


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
