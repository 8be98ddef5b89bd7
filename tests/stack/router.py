"""One address for all of AWS: what every Lambda here has for AWS_ENDPOINT_URL.

Each call is read, decided on by the policies of whoever signed it, written down, made to fail if a test asked for
that, and taken on: EC2 to the local cloud, everything else to ministack, as it came, with its signature.
"""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import ConnectionClosedError

from tests.localcloud.calls import Call, Ledger, gist
from tests.localcloud.faults import THROTTLED, Faults
from tests.localcloud.interposer import Interposer
from tests.stack.iam import Grant, Need, decide
from tests.stack.wire import Answer, Asked, denial, ec2_answer, read, refusal

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Decision:
    """What one call of a function needed, and what allowed it; `by` empty: denied."""

    function: str
    operation: str
    need: Need
    by: tuple[Grant, ...]


@dataclass(frozen=True)
class Caller:
    """Whoever an access key belongs to. `policies` None: the account's owner, who may do everything."""

    name: str
    policies: Callable[[], Iterable[Mapping[str, Any]]] | None


class Router:
    """Serves from `__init__` to `close`. `emulator`: ministack's port."""

    def __init__(
        self,
        *,
        emulator: int,
        interposer: Interposer,
        faults: Faults,
        ledger: Ledger,
        caller: Callable[[str], Caller],
        needs: Callable[[Asked], Iterable[Need]],
    ) -> None:
        self.decisions: list[Decision] = []
        self.surprises: list[
            str
        ] = []  # calls that are here allowed and at ministack denied, or that no one could judge
        self._emulator = emulator
        self._interposer = interposer
        self._faults = faults
        self._ledger = ledger
        self._caller = caller
        self._needs = needs
        router = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    answer = router.answer(self.path, dict(self.headers), body)
                except ConnectionError:
                    self.close_connection = True  # lost: the caller sees the connection break
                    return
                with contextlib.suppress(ConnectionError):  # it has gone: its stack is being taken down
                    self._send(answer)

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        serve = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serve.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Raises ConnectionError where the answer shall be lost."""
        asked = read(path, headers, body)
        if asked is None:
            return Answer(403, b"no signature", "text/plain")
        try:
            if denied := self._denied(asked):
                self._ledger.record(Call(asked.service, asked.operation, gist(asked.parameters), "denied"))
                return denied
        except NotImplementedError as unknown:
            self.surprises.append(str(unknown))
            return refusal(asked.service, 400, "NotImplemented", str(unknown))
        if asked.service == "ec2":
            return self._ec2(asked)
        return self._elsewhere(asked, path, headers, body)

    def _denied(self, asked: Asked) -> Answer | None:
        caller = self._caller(asked.access_key)
        if caller.policies is None:
            return None
        policies = list(caller.policies())
        decided = [Decision(caller.name, asked.operation, need, decide(need, policies)) for need in self._needs(asked)]
        self.decisions += decided
        for each in decided:
            if not each.by:
                return denial(asked.service, caller.name, each.need.action, each.need.resource)
        return None

    def _ec2(self, asked: Asked) -> Answer:
        try:
            status, answer = self._interposer.ask("ec2", asked.operation, asked.parameters)
        except ConnectionClosedError as lost:
            raise ConnectionAbortedError from lost
        if error := answer.get("Error"):
            return refusal("ec2", status.status_code, error["Code"], error.get("Message", ""))
        return ec2_answer(asked.operation, answer)

    def _elsewhere(self, asked: Asked, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        occasion = (asked.operation, asked.parameters)
        ended = "ok"
        try:
            if code := self._faults.strike("call", occasion):
                ended = THROTTLED[asked.service] if code == "throttled" else code
                return refusal(asked.service, 400, ended, "a fault that the test asked for")
            answer = self._forward(path, headers, body)
            if answer.status >= 400:
                ended = f"{answer.status}"
            if answer.status in (400, 403) and any(word in answer.body for word in _DENIALS):
                self.surprises.append(f"ministack denied {asked.service}:{asked.operation}: {answer.body.decode()}")
            if self._faults.strike("response", occasion):
                ended = "lost"
                raise ConnectionAbortedError
            return answer
        finally:
            self._ledger.record(Call(asked.service, asked.operation, gist(asked.parameters), ended))

    def _forward(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """As it came: the signature is over the Host that the caller knows, which is ours."""
        connection = http.client.HTTPConnection("127.0.0.1", self._emulator, timeout=30)
        try:
            connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            got = connection.getresponse()
            return Answer(got.status, got.read(), got.getheader("Content-Type", "text/plain"))
        finally:
            connection.close()


_DENIALS = (b"AccessDenied", b"AuthorizationError", b"SignatureDoesNotMatch", b"UnrecognizedClient")
