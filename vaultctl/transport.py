"""boto3's Lambda client as `client.Invoke`, and every way in which AWS says no, as one line with the remedy."""

import os
from typing import TYPE_CHECKING

import boto3.session
from botocore import exceptions
from botocore.config import Config

from vaultctl.failures import Exit, Failure

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

# Longer than the function may run (60 s), so that its own timeout is what we hear of.
READ_TIMEOUT_SECONDS = 70.0
CONNECT_TIMEOUT_SECONDS = 5.0

_BAD_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
)
_SIGN_IN = (exceptions.SSOError, exceptions.TokenRetrievalError)
_SILENT = (
    exceptions.HTTPClientError,  # every failure of the connection: DNS, refused, timed out, TLS, proxy
    exceptions.ConnectionError,
)
# Of every AWS API: https://docs.aws.amazon.com/lambda/latest/api/CommonErrors.html
_EXPIRED = {"ExpiredTokenException", "ExpiredToken", "RequestExpired"}
_UNKNOWN_KEYS = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
}
_DENIED = {"AccessDeniedException", "AccessDenied", "NotAuthorized", "OptInRequired"}
# Of Invoke: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_THROTTLED = {"TooManyRequestsException", "ThrottlingException", "Throttling", "EC2ThrottledException"}
_BEING_UPDATED = {"ResourceConflictException", "ResourceNotReadyException"}


class LambdaTransport:
    """`function` is a name; the region is the profile's or the environment's where it is not given.

    The client is made at the first call: `--help` and usage errors need neither credentials nor a region.
    """

    def __init__(
        self,
        function: str,
        *,
        profile: str | None = None,
        region: str | None = None,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        self._function = function
        self._profile = profile
        self._region = region
        self._read_timeout_seconds = read_timeout_seconds
        self._client: LambdaClient | None = None

    def __call__(self, payload: bytes) -> tuple[bytes, str | None]:
        """Raises Failure. Retried by botocore: every action may be repeated."""
        try:
            self._client = self._client or self._connect()
            answer = self._client.invoke(FunctionName=self._function, Payload=payload)
            return answer["Payload"].read(), answer.get("FunctionError")
        except exceptions.ClientError as error:
            raise self._told(error) from error
        except (exceptions.BotoCoreError, exceptions.HTTPClientError) as error:
            raise self._failed(error) from error

    def _connect(self) -> "LambdaClient":
        # The command line and the other SDKs know AWS_REGION; boto3 knows AWS_DEFAULT_REGION and the profile's only.
        region = self._region or os.environ.get("AWS_REGION") or None
        session = boto3.session.Session(profile_name=self._profile, region_name=region)
        self._region = session.region_name
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=self._read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        return session.client("lambda", config=config)

    def _failed(self, error: Exception) -> Failure:
        profile = f" --profile {self._profile}" if self._profile else ""
        match error:
            case exceptions.ProfileNotFound():
                return _no_access(
                    "ProfileNotFound",
                    f"profile: {_line(error)}; `aws configure list-profiles` names those there are (--profile)",
                )
            case exceptions.NoRegionError():
                return _no_access(
                    "NoRegion", "region: none is set; add --region (such as eu-central-1), or set AWS_REGION"
                )
            case exceptions.InvalidRegionError():
                return _no_access("BadRegion", f"region: {self._region!r} is no region; write it like eu-central-1")
            case _ if isinstance(error, _SIGN_IN):
                return _no_access("SignInExpired", f"your sign-in has expired; run: aws sso login{profile}")
            case _ if isinstance(error, _BAD_CREDENTIALS):
                return _no_access(
                    "NoCredentials",
                    f"no usable AWS credentials ({_line(error)}); name a profile with --profile, or run: aws configure",
                )
            case _ if isinstance(error, _SILENT):
                return Failure(
                    Exit.NO_ANSWER,
                    "NoAnswer",
                    f"AWS Lambda in {self._region} does not answer ({_line(error)}); look at the network and --region",
                )
            case _:
                return Failure(Exit.UNFORESEEN, type(error).__name__, _line(error))

    def _told(self, error: exceptions.ClientError) -> Failure:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = _line(said or code)
        if code in _EXPIRED:
            return _no_access("CredentialsExpired", f"your AWS credentials have expired; sign in again ({said})")
        if code in _UNKNOWN_KEYS:
            return _no_access(
                "CredentialsRefused", f"AWS does not know these credentials ({said}); check --profile and the clock"
            )
        if code in _DENIED:
            return _no_access(
                "AccessDenied",
                f"you may not ask {self._function}: its operators need lambda:InvokeFunction on it (AWS: {said})",
            )
        if code == "ResourceNotFoundException":
            return _no_access(
                "NoStack",
                f"there is no function {self._function} in {self._region}; check --stack, --region and --profile, "
                "or deploy it: make deploy",
            )
        if code in _THROTTLED:
            return Failure(Exit.NO_ANSWER, "Throttled", f"AWS asks us to slow down ({said}); try again in a minute")
        if code in _BEING_UPDATED:
            return Failure(Exit.NO_ANSWER, "BeingUpdated", f"{self._function} is being updated; try again in a minute")
        if status >= 500:
            return Failure(Exit.NO_ANSWER, "NoAnswer", f"AWS Lambda failed ({code}: {said}); try again in a minute")
        return Failure(Exit.UNFORESEEN, code, f"AWS refused: {code}: {said}")


def _no_access(code: str, message: str) -> Failure:
    return Failure(Exit.NO_ACCESS, code, message)


def _line(said: object) -> str:
    return " ".join(str(said).split()).rstrip(".")[:300]
