"""API Gateway's part: the Chalice application over real HTTP on a free port of 127.0.0.1."""

import functools
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from chalice.app import Chalice
from chalice.config import Config
from chalice.local import ChaliceRequestHandler, LambdaContext, LocalChalice, LocalDevServer, ThreadedHTTPServer

from chalicelib import http, model

_USER = re.compile(r'"user":"nv\d+"')


class _Handler(ChaliceRequestHandler):
    """Quiet, prompt, and honest about who calls: Chalice's own says 127.0.0.1 for every caller.

    `single_user`: rootless machines have one account; hosts are told its name instead of theirs.
    """

    single_user: str | None = None
    disable_nagle_algorithm = True  # headers and body are two writes; a delayed ACK between costs 40 ms

    def setup(self) -> None:
        super().setup()
        converter: Any = self.local_gateway.event_converter
        converter.LOCAL_SOURCE_IP = self.client_address[0]

    def _send_http_response(self, code: int, headers: Any, body: Any) -> None:
        if self.single_user and body and self.path.split("?")[0] in ("/start", "/status", "/finish"):
            text = body.decode() if isinstance(body, bytes) else body
            body = _USER.sub(json.dumps({"user": self.single_user}, separators=(",", ":"))[1:-1], text)
        super()._send_http_response(code, headers, body)

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the base class's name


class _Server(ThreadedHTTPServer):
    request_queue_size = 256  # all of a vault's hosts in the same second; 5 would drop some into a 1 s SYN retry
    answers = True

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the base class's names
        """False: the connection is closed without a word."""
        return self.answers

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has gone (a machine without power, a killed client) is no failure of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Front:
    """Serves from `__init__` to `close`; requests are served beside each other."""

    def __init__(self, app: Chalice, *, single_user: str | None = None) -> None:
        _make_decoders()
        # As `chalice local` does it: `current_request` must be each thread's own.
        app.__class__ = LocalChalice
        config = Config.create(lambda_timeout=29, lambda_memory_size=512)
        handler = type("Handler", (_Handler,), {"single_user": single_user})
        self._server = LocalDevServer(app, config, "127.0.0.1", 0, handler_cls=handler, server_cls=_Server)
        self.port: int = self._server.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        serve = functools.partial(self._server.server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="front", daemon=True)
        self._thread.start()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Meanwhile nobody who calls is answered."""
        self._server.server.answers = False
        try:
            yield
        finally:
            self._server.server.answers = True

    def close(self) -> None:
        self._server.server.shutdown()
        self._server.server.server_close()
        self._thread.join()


def _make_decoders() -> None:
    """Of every type that is decoded: msgspec makes each at its first use, and two threads that are first at the same
    time crash the process (SIGSEGV, in 2 of 30 tries with eight threads; msgspec 0.22). A Lambda has one thread.
    """
    for module in (model, http):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                msgspec.json.Decoder(kind)


def lambda_context(function: str) -> LambdaContext:
    """What Lambda hands to a handler beside the event."""
    return LambdaContext(function, 512, max_runtime_ms=60_000)
