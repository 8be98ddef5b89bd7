"""A host's calls of the control plane (docs/protocol.md), for what the client has no command for."""

import json
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vaultctl.verify.steps import NotSo

TRIES = 5
TIMEOUT_SECONDS = 35.0  # API Gateway answers within 29


@dataclass(frozen=True)
class Api:
    """`url` and `token` as enrolment gave them."""

    url: str
    token: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer. Asked again when nobody answers, or when told to wait a moment. Raises NotSo."""
        # The scheme is the client's own rule: https, or 127.0.0.1; enrolment has seen to it.
        request = Request(  # noqa: S310
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        said = ""
        for attempt in range(TRIES):
            try:
                with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                    document: dict[str, Any] = json.load(answer)
                    return document
            except HTTPError as error:
                said = f"{error.code} {error.read(500).decode(errors='replace')}"
                if error.code < 500:
                    break
            except (URLError, HTTPException, TimeoutError, ValueError) as error:
                said = str(error)
            if attempt < TRIES - 1:
                time.sleep(2**attempt)
        raise NotSo(f"{method} {path.partition('?')[0]}: {' '.join(said.split())}")
