"""The process that stands for AWS's other services: ministack, in its own virtual environment."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.localcloud.events import ACCOUNT
from tests.localcloud.interposer import REGION
from tests.localcloud.paths import REPOSITORY
from tests.localcloud.patience import wait_until
from tests.localcloud.wire import call

PYTHON = REPOSITORY / ".venv-ministack" / "bin" / "python"
_INSIDE = Path(__file__).with_name("inside")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ministack:
    """Runs from `__init__` to `close`. Its workers have `workers` in their environment, and the clock of `folder`."""

    def __init__(self, folder: Path, port: int, workers: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "ministack.log"
        self._clients: dict[str, Any] = {}
        inside = {
            **workers,
            "PYTHONPATH": str(_INSIDE),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "AUTH": "true",
            "IOT_MTLS_ENABLED": "0",
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,  # whose API an unsigned request is for
            "NIGHTVAULT_WORKERS": json.dumps(inside),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PYTHON, _INSIDE / "ministack_here.py"],
                env=environment,
                stdin=subprocess.PIPE,  # its power: it ends when we do, however that is
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 60, what="ministack is up")

    def client(self, service: str) -> Any:
        """As the account's owner."""
        if service not in self._clients:
            self._clients[service] = self.client_as(service, ACCOUNT, "test")
        return self._clients[service]

    def client_as(self, service: str, access_key: str, secret_key: str) -> Any:
        return boto3.session.Session().client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(max_pool_connections=50, retries={"total_max_attempts": 1}),
        )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"ministack ended; `tools/prepare stack` installs it: {self.log()[-2000:]}")
        try:
            return call(self.url, "GET", "/_ministack/health", timeout=5).status == 200
        except OSError:
            return False
