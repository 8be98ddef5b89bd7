"""AWS's wire formats, as far as this project's calls go: what is asked, and how to answer it."""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import parse_qsl

from moto.core.parse import EC2QueryParser, QueryParser
from moto.core.serialize import EC2Serializer
from moto.core.utils import get_service_model

Parameters = dict[str, Any]
_SCOPE = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
_CBOR_PATH = re.compile(r"/service/[^/]+/operation/(\w+)")
# A service's name in a signature, where it is not the one of its IAM actions and of botocore.
_SIGNED_AS = {"monitoring": "cloudwatch"}


@dataclass(frozen=True)
class Asked:
    """A signed request. `parameters` as botocore names them; empty where they are not read (CBOR)."""

    access_key: str
    service: str
    operation: str
    parameters: Parameters


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: str


def _parsed(parser: Any, model: Any, values: Mapping[str, str]) -> Parameters:
    """Of the request, moto's parsers look at the form's values only."""
    parameters: Parameters = parser(model).parse({"values": values})
    return parameters


@functools.cache
def _model(service: str, operation: str) -> Any:
    return _service(service).operation_model(operation)


@functools.cache
def _service(service: str) -> Any:
    return get_service_model(service)


def read(method_path: str, headers: Mapping[str, str], body: bytes) -> Asked | None:
    """None for a request that is not signed."""
    scope = _SCOPE.search(headers.get("Authorization", ""))
    if scope is None:
        return None
    access_key, _, signed_as = scope.groups()
    service = _SIGNED_AS.get(signed_as, signed_as)
    if target := headers.get("X-Amz-Target"):
        return Asked(access_key, service, target.rpartition(".")[2], json.loads(body or b"{}"))
    if cbor := _CBOR_PATH.match(method_path):
        return Asked(access_key, service, cbor[1], {})
    values = dict(parse_qsl(body.decode(), keep_blank_values=True))
    operation = values["Action"]
    parser = EC2QueryParser if service == "ec2" else QueryParser
    return Asked(access_key, service, operation, _parsed(parser, _model(service, operation), values))


def ec2_answer(operation: str, answer: Mapping[str, Any]) -> Answer:
    """What botocore parsed, as EC2 writes it."""
    made = EC2Serializer(_model("ec2", operation)).serialize(answer)
    return Answer(200, str(made["body"]).encode(), "text/xml;charset=UTF-8")


def refusal(service: str, status: int, code: str, message: str) -> Answer:
    """An error in the service's own protocol.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html (EC2's XML)
    """
    if service == "ec2":
        error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        text = f"<Response><Errors>{error}</Errors><RequestID>none</RequestID></Response>"
        return Answer(status, text.encode(), "text/xml;charset=UTF-8")
    if service == "sns":
        error = f"<Type>Sender</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        text = f"<ErrorResponse><Error>{error}</Error><RequestId>none</RequestId></ErrorResponse>"
        return Answer(status, text.encode(), "text/xml")
    text = json.dumps({"__type": code, "message": message})
    return Answer(status, text.encode(), "application/x-amz-json-1.0")


def denial(service: str, who: str, action: str, resource: str) -> Answer:
    """IAM's no, with the code and status of the service."""
    message = f"User: {who} is not authorized to perform: {action} on resource: {resource}"
    match service:
        case "ec2":
            return refusal(service, 403, "UnauthorizedOperation", message)
        case "sns":
            return refusal(service, 403, "AuthorizationError", message)
        case _:
            return refusal(service, 400, "AccessDeniedException", message)
