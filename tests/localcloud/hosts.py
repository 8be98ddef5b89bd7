"""A host played by a test: it enrols, starts, asks and finishes over real HTTP, and pushes nothing."""

from dataclasses import dataclass
from typing import Any

from .wire import Reply, call, made_up_key


@dataclass(frozen=True)
class FakeHost:
    """`source` is the address that the control plane sees, if not 127.0.0.1."""

    url: str
    name: str
    token: str
    source: str | None = None

    @classmethod
    def enrolled(cls, url: str, name: str, code: str, *, source: str | None = None) -> "FakeHost":
        body = {"code": code, "public_key": made_up_key(name)}
        reply = call(url, "POST", "/enroll", body=body, source=source)
        if reply.status != 200:
            raise RuntimeError(f"{name} may not enrol: {reply.status} {reply.document}")
        return cls(url, name, reply.document["token"], source)

    def start(self, run_id: str, kind: str = "backup", point: str | None = None) -> Reply:
        named = {"point": point} if point else {}
        return self._call("POST", "/start", {"run_id": run_id, "kind": kind, **named})

    def points(self) -> list[dict[str, Any]]:
        """Its restore points, newest first."""
        listed: list[dict[str, Any]] = self._call("GET", "/points").document["points"]
        return listed

    def status(self, run_id: str | None = None) -> Reply:
        return self._call("GET", f"/status?run_id={run_id}" if run_id else "/status")

    def finish(self, run_id: str, outcome: str = "complete", exit_code: int = 0, **stats: int) -> Reply:
        body: dict[str, Any] = {"run_id": run_id, "outcome": outcome, "exit_code": exit_code}
        return self._call("POST", "/finish", {**body, "stats": stats} if stats else body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Reply:
        return call(self.url, method, path, token=self.token, body=body, source=self.source)
