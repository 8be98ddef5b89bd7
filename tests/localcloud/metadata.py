"""The instance metadata service of one machine, version 2 only: without a session token nothing is told.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_VERSIONED = re.compile(r"/(?:latest|20\d\d-\d\d-\d\d)/(.*)")
_TOKEN = "X-aws-ec2-metadata-token"
_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_MOST_SECONDS = 21600


class MetadataService:
    """Serves what `answers` says at the moment of asking, on a free port of 127.0.0.1 instead of 169.254.169.254.

    `answers` by their paths below `latest/`; what is above one of them is a folder, and lists what it holds.
    """

    def __init__(self, answers: Callable[[], Mapping[str, str]], *, user_data: bytes | None = None) -> None:
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
                    self._answer(200, token.encode())

            def do_GET(self) -> None:
                if tokens.get(self.headers.get(_TOKEN, ""), 0.0) < time.monotonic():
                    self._answer(401)
                    return
                asked = _VERSIONED.fullmatch(self.path)
                name = asked[1].rstrip("/") if asked else ""
                if name == "user-data" and user_data is not None:
                    self._answer(200, user_data)
                    return
                items = answers()
                text = items.get(name) or "\n".join(_listing(items, f"{name}/" if name else ""))
                self._answer(200 if text and asked else 404, text.encode())

            def _answer(self, status: int, payload: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="metadata", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listing(items: Mapping[str, str], folder: str) -> list[str]:
    """What is in a folder; folders in it end in a slash."""
    inside = [path.removeprefix(folder) for path in items if path.startswith(folder)]
    return sorted({name if not deeper else f"{name}/" for name, _, deeper in (path.partition("/") for path in inside)})
