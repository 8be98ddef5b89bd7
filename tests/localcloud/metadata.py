"""The instance metadata service of one machine, version 2 only: without a session token nothing is told.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TOKEN = "X-aws-ec2-metadata-token"
_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_MOST_SECONDS = 21600


class MetadataService:
    """Serves what `answers` says at the moment of asking, on a free port of 127.0.0.1 instead of 169.254.169.254."""

    def __init__(self, answers: Callable[[], Mapping[str, str]]) -> None:
        tokens: dict[str, float] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                seconds = self.headers.get(_TTL, "")
                if self.path != "/latest/api/token" or self.headers.get("X-Forwarded-For"):
                    self._answer(403 if self.path == "/latest/api/token" else 404)
                elif not seconds.isdecimal() or not 1 <= int(seconds) <= _MOST_SECONDS:
                    self._answer(400)
                else:
                    token = secrets.token_urlsafe(32)
                    tokens[token] = time.monotonic() + int(seconds)
                    self._answer(200, token)

            def do_GET(self) -> None:
                if tokens.get(self.headers.get(_TOKEN, ""), 0.0) < time.monotonic():
                    self._answer(401)
                    return
                text = answers().get(self.path.removeprefix("/latest/").rstrip("/"))
                self._answer(404 if text is None else 200, text or "")

            def _answer(self, status: int, text: str = "") -> None:
                payload = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="metadata", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
