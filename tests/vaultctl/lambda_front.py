"""Lambda's Invoke over HTTP, as botocore speaks it, so that the real command runs with the real client.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.localcloud.paths import REPOSITORY

Invoke = Callable[[bytes], tuple[bytes, str | None]]


@dataclass
class LambdaFront:
    """Answers from `url` for functions by their name; `refuse` makes AWS itself say no."""

    functions: dict[str, Invoke]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    refusal: tuple[int, str, dict[str, Any]] | None = None
    silent: threading.Event | None = None  # while it is set and not released, nobody answers

    def refuse(self, status: int, code: str, message: str = "said AWS", **more: Any) -> None:
        self.refusal = (status, code, {"Message": message, **more})

    @property
    def environment(self) -> dict[str, str]:
        """What makes a command talk to it, and know nothing else of AWS."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
        return {
            **kept,
            "AWS_ENDPOINT_URL_LAMBDA": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "an example, as in AWS's own documents",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "TZ": "UTC",
            "HOME": "/nonexistent",
        }


@contextmanager
def lambda_front(functions: Mapping[str, Invoke]) -> Iterator[LambdaFront]:
    front = LambdaFront(dict(functions))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            name = self.path.split("/")[3]
            front.asked.append(name)
            if front.silent:
                front.silent.wait(30)
                return
            if front.refusal:
                status, code, document = front.refusal
                self._send(status, json.dumps(document).encode(), {"x-amzn-ErrorType": code})
            elif name not in front.functions:
                document = {"Type": "User", "Message": f"Function not found: arn:aws:lambda:…:function:{name}"}
                self._send(404, json.dumps(document).encode(), {"x-amzn-ErrorType": "ResourceNotFoundException"})
            else:
                payload, failed = front.functions[name](body)
                self._send(200, payload, {"X-Amz-Function-Error": failed} if failed else {})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 (the base class's name)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        if front.silent:
            front.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()


def command(*arguments: str) -> list[str]:
    """The real command, in a process of its own."""
    return [sys.executable, "-m", "vaultctl", *arguments]


def run(
    *arguments: str, environment: Mapping[str, str], cwd: Path = REPOSITORY, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=dict(environment), cwd=cwd, input=stdin, capture_output=True, text=True, check=False
    )
