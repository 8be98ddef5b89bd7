"""A boto3 session whose every call passes through us: counted, made to fail on demand, held to EC2's rules.

botocore's `before-call` hook may answer a call itself. We always do: the call goes on to moto through a
second, plain session, under one lock a service, because moto's backends are not made for threads and a
conditional write must have one winner.
"""

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.session
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.model import OperationModel

from .calls import Call, Ledger, gist
from .faults import THROTTLED, Faults

REGION = "eu-central-1"
Answer = dict[str, Any]
Forward = Callable[[], Answer]
Ec2Handler = Callable[[str, dict[str, Any], Forward], Answer]

_PARAMETERS = "nightvault_parameters"
_SERVER_ERRORS = frozenset({"InsufficientInstanceCapacity", "InternalError", "ServiceUnavailable"})


class Refused(Exception):
    """AWS says no, with this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class _Http:
    """As much of an HTTP response as botocore looks at after a call."""

    status_code: int


def dead_session() -> boto3.session.Session:
    """A session with plainly dead credentials, which never reads the machine's own."""
    core = botocore.session.Session()
    core.register_component("data_loader", _shared_loader())  # EC2's model takes 0.2 s to read
    core.set_credentials("testing", "testing")
    return _Session(botocore_session=core, region_name=REGION)


@functools.cache
def _shared_loader() -> Any:
    return botocore.session.Session().get_component("data_loader")


@functools.cache
def plain_client(service: str, region: str = REGION) -> Any:
    """A client straight to moto; one for the process, of use only while an account is up."""
    session: Any = dead_session()
    return session.client(service, region_name=region)


class _Session(boto3.session.Session):
    """Makes clients one at a time: boto3's sessions are not made for threads, and Lambda has only one."""

    _making = threading.Lock()

    def client(self, *arguments: Any, **options: Any) -> Any:
        with self._making:
            return super().client(*arguments, **options)


class Interposer:
    """Makes `session`; hand it to the app. `ec2` gives the handler of a region."""

    def __init__(self, ledger: Ledger, faults: Faults, ec2: Callable[[str], Ec2Handler]) -> None:
        self.session = dead_session()
        self._ledger = ledger
        self._faults = faults
        self._ec2 = ec2
        self._service_locks: dict[str, threading.RLock] = defaultdict(threading.RLock)
        events: Any = self.session.events  # the stubs say that no handler answers
        events.register("before-parameter-build", self._remember_parameters)
        events.register("before-call", self._before_call)

    def _remember_parameters(self, params: Any, context: dict[str, Any], **_: Any) -> None:
        # By reference: later hooks (boto3's resources, botocore's idempotency tokens) change it in place.
        context[_PARAMETERS] = params

    def _before_call(self, model: OperationModel, context: dict[str, Any], **_: Any) -> tuple[_Http, Answer]:
        region = context["client_region"]
        return self.ask(model.service_model.service_name, model.name, context[_PARAMETERS], region)

    def ask(
        self, service: str, operation: str, parameters: dict[str, Any], region: str = REGION
    ) -> tuple[_Http, Answer]:
        """One call, as the application made it; ConnectionClosedError if its answer gets lost."""
        occasion = (operation, parameters)
        ended = "ok"
        try:
            if seconds := self._faults.strike("slow", occasion):
                time.sleep(seconds)
            if code := self._faults.strike("call", occasion):
                ended = THROTTLED[service] if code == "throttled" else code
                return _error(ended, "a fault that the test asked for")
            answer = self._forward(service, operation, parameters, region)
            if self._faults.strike("response", occasion):
                ended = "lost"
                raise ConnectionClosedError(endpoint_url=f"https://{service}.{region}.amazonaws.com")
        except Refused as refused:
            ended = refused.code
            return _error(refused.code, refused.message)
        except ClientError as error:
            ended = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return _Http(status), dict(error.response)
        finally:
            self._ledger.record(Call(service, operation, gist(parameters), ended))
        return _Http(200), answer

    def _forward(self, service: str, operation: str, parameters: dict[str, Any], region: str) -> Answer:
        client = plain_client(service, region)
        method = next(name for name, wire in client.meta.method_to_api_mapping.items() if wire == operation)

        def forward() -> Answer:
            with self._service_locks[service]:
                answer: Answer = getattr(client, method)(**parameters)
            return answer

        return self._ec2(region)(operation, parameters, forward) if service == "ec2" else forward()


def _error(code: str, message: str) -> tuple[_Http, Answer]:
    status = 500 if code in _SERVER_ERRORS else 503 if code == "RequestLimitExceeded" else 400
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RequestId": "", "RetryAttempts": 0},
    }
    return _Http(status), answer


def tags_of(specifications: Any, kind: str) -> Mapping[str, str]:
    """The tags that a call's TagSpecifications give to that kind of resource."""
    return {
        tag["Key"]: tag["Value"]
        for specification in specifications or ()
        if specification.get("ResourceType") == kind
        for tag in specification.get("Tags", ())
    }
