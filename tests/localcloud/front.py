"""API Gateway's part: the Chalice application over real HTTP on a free port of 127.0.0.1."""

import functools
import threading
from typing import Any

from chalice.app import Chalice
from chalice.config import Config
from chalice.local import ChaliceRequestHandler, LambdaContext, LocalChalice, LocalDevServer, ThreadedHTTPServer


class _Handler(ChaliceRequestHandler):
    """Quiet, prompt, and honest about who calls: Chalice's own says 127.0.0.1 for every caller."""

    disable_nagle_algorithm = True  # headers and body are two writes; a delayed ACK between costs 40 ms

    def setup(self) -> None:
        super().setup()
        converter: Any = self.local_gateway.event_converter
        converter.LOCAL_SOURCE_IP = self.client_address[0]

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the base class's name


class _Server(ThreadedHTTPServer):
    request_queue_size = 256  # all of a vault's hosts in the same second; 5 would drop some into a 1 s SYN retry


class Front:
    """Serves from `__init__` to `close`; requests are served beside each other."""

    def __init__(self, app: Chalice) -> None:
        # As `chalice local` does it: `current_request` must be each thread's own.
        app.__class__ = LocalChalice
        config = Config.create(lambda_timeout=29, lambda_memory_size=512)
        self._server = LocalDevServer(app, config, "127.0.0.1", 0, handler_cls=_Handler, server_cls=_Server)
        self.port: int = self._server.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        serve = functools.partial(self._server.server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="front", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.server.shutdown()
        self._server.server.server_close()
        self._thread.join()


def lambda_context(function: str) -> LambdaContext:
    """What Lambda hands to a handler beside the event."""
    return LambdaContext(function, 512, max_runtime_ms=60_000)
