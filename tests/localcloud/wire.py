"""JSON over HTTP, as hosts and the agent speak it. For the fakes; real parties use curl and urllib."""

import base64
import http.client
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """`document` is the parsed body, whatever the status."""

    status: int
    document: dict[str, Any]
    headers: dict[str, str]


def call(
    url: str,
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: dict[str, Any] | None = None,
    source: str | None = None,
    timeout: float = 30.0,
) -> Reply:
    """One request, from the address `source` (any of 127.0.0.0/8) if given. Raises OSError without an answer."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"no host in {url}")
    connection = http.client.HTTPConnection(
        parts.hostname, parts.port, timeout=timeout, source_address=(source, 0) if source else None
    )
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    payload = None if body is None else json.dumps(body, separators=(",", ":"))
    try:
        connection.request(method, parts.path.rstrip("/") + path, payload, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return Reply(answer.status, json.loads(text or b"{}"), {k.lower(): v for k, v in answer.getheaders()})


def made_up_key(comment: str) -> str:
    """A well-formed ed25519 public key that nobody has the private half of."""
    kind = b"ssh-ed25519"
    blob = len(kind).to_bytes(4) + kind + (32).to_bytes(4) + secrets.token_bytes(32)
    return f"{kind.decode()} {base64.b64encode(blob).decode()} {comment}"
