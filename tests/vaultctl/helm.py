"""vaultctl at the helm of the local cloud: the real command, and a Lambda whose code is the real application."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.localcloud.cloud import LocalCloud
from vaultctl.main import main
from vaultctl.screen import Screen


class OnLocalCloud:
    """What Lambda does with an invocation: JSON in, JSON out, and an exception as a document of its own."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud

    def __call__(self, payload: bytes) -> tuple[bytes, str | None]:
        event = json.loads(payload)
        try:
            answer = self._cloud.operate(event.pop("action"), **event)
        except Exception as error:  # Lambda itself catches all of them
            document = {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": []}
            return json.dumps(document).encode(), "Unhandled"
        return json.dumps(answer).encode(), None


class Canned:
    """A function that gives prepared answers, by action; for what the screen makes of them."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def __call__(self, payload: bytes) -> tuple[bytes, str | None]:
        event = json.loads(payload)
        self.asked.append(event)
        return json.dumps(self.answers[event["action"]]).encode(), None


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def vaultctl(
    *arguments: str,
    invoke: Any = None,
    now: Callable[[], datetime] | None = None,
    terminal: bool = False,
    width: int = 100,
) -> Done:
    """Runs a command in this process, as on a terminal of `width` or in a pipe, in UTC."""
    out, err = io.StringIO(), io.StringIO()
    code = main(
        list(arguments),
        invoke=invoke,
        now=now,
        zone=UTC,
        screen=lambda as_json: Screen(as_json=as_json, terminal=terminal, width=width, out=out, err=err),
    )
    return Done(code, out.getvalue(), err.getvalue())
