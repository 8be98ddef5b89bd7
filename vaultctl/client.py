"""Asking the `operate` Lambda: one question, one answer, errors as `Failure`."""

import json
from typing import Any, Protocol

from vaultctl.failures import Exit, Failure


class Invoke(Protocol):
    """Runs the function with a payload; gives its answer, and what Lambda calls FunctionError if it raised.

    Raises Failure when AWS does not let us, or does not answer.
    """

    def __call__(self, payload: bytes) -> tuple[bytes, str | None]: ...


class Operate:
    """`function` is its name, for messages."""

    def __init__(self, invoke: Invoke, function: str) -> None:
        self._invoke = invoke
        self.function = function

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """The answer. Fields that are None are left out, so that the function's default stands.

        Raises Failure: the control plane's own error (REFUSED), or that there was no sensible answer.
        """
        request = {"action": action, **{name: value for name, value in fields.items() if value is not None}}
        payload, function_error = self._invoke(json.dumps(request).encode())
        try:
            answer = json.loads(payload)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Failure(
                Exit.UNFORESEEN, "NoDocument", f"{self.function} answered with no document; is it nightvault's?"
            )
        if function_error:
            raise self._raised(answer)
        error = answer.get("error")
        if isinstance(error, dict):
            raise Failure(Exit.REFUSED, str(error.get("code")), str(error.get("message")))
        return answer

    def _raised(self, answer: dict[str, Any]) -> Failure:
        """https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html has the document's shape."""
        kind, message = str(answer.get("errorType", "")), str(answer.get("errorMessage", ""))
        if "Task timed out" in message or kind == "Sandbox.Timedout":
            return Failure(Exit.NO_ANSWER, "Timeout", f"{self.function} ran out of time; ask again, and see its log")
        said = " ".join(f"{kind}: {message}".split())[:200]
        log = f"aws logs tail /aws/lambda/{self.function} --since 10m"
        return Failure(Exit.UNFORESEEN, "FunctionError", f"{self.function} failed ({said}); its log: {log}")
