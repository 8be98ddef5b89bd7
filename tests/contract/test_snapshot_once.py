"""CreateSnapshot and CopySnapshot know no client token: they are asked again only when EC2 said that it did nothing.

Over real HTTP, with botocore's own retries.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from botocore.config import Config

from chalicelib.cloud import Ec2Cloud
from chalicelib.copier import Ec2Copier
from chalicelib.errors import CloudRefused
from chalicelib.model import Outcome, RestorePoint
from tests.localcloud.interposer import dead_session

POINT = RestorePoint(
    host="C",
    vault_id="vault-1",
    window_id="w-1",
    volume_id="vol-1",
    run_id="r-1",
    run_started_at=datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC),
    outcome=Outcome.COMPLETE,
    complete=True,
)
ERROR = "<Response><Errors><Error><Code>{}</Code><Message>no</Message></Error></Errors></Response>"
FINE = "<{0}Response><snapshotId>snap-1</snapshotId></{0}Response>"


class Ec2:
    """Treats its first call as `first` says (`lost`, `late` or a status and a code), all later ones well."""

    def __init__(self, first: str) -> None:
        self.calls: list[str] = []
        self._over = threading.Event()
        calls, over = self.calls, self._over

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                calls.append(parse_qs(body)["Action"][0])
                if len(calls) > 1:
                    self._answer(200, FINE.format(calls[-1]))
                elif first == "late":
                    over.wait()
                elif first != "lost":
                    status, code = first.split()
                    self._answer(int(status), ERROR.format(code))

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        client = dead_session().client(
            "ec2",
            endpoint_url=f"http://127.0.0.1:{self._server.server_address[1]}",
            config=Config(read_timeout=0.5, retries={"mode": "standard", "total_max_attempts": 3}),
        )
        cloud = Ec2Cloud(client, stack="s", launch_template="lt", subnet="sub", kms_key="", control_url=str)
        self.stop = cloud.stop
        copier = Ec2Copier(lambda: client, stack="s", home="eu-central-1", region="eu-west-1", kms_key="")
        self.make = {"CreateSnapshot": cloud.snapshot, "CopySnapshot": copier.copy}

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def ec2(request: pytest.FixtureRequest) -> Iterator[Ec2]:
    server = Ec2(request.param)
    yield server
    server.close()


calls = pytest.mark.parametrize("call", ["CreateSnapshot", "CopySnapshot"])


@pytest.mark.parametrize(
    ("ec2", "code"),
    [
        ("lost", "ConnectionClosedError"),
        ("late", "ReadTimeoutError"),
        ("500 InternalError", "InternalError"),
        ("503 Unavailable", "Unavailable"),
        ("400 SnapshotCreationPerVolumeRateExceeded", "SnapshotCreationPerVolumeRateExceeded"),
    ],
    indirect=["ec2"],
)
@calls
def test_what_may_have_been_done_is_not_asked_again(ec2: Ec2, code: str, call: str) -> None:
    with pytest.raises(CloudRefused) as refused:
        ec2.make[call](POINT)
    assert refused.value.aws_code == code
    assert ec2.calls == [call]


@pytest.mark.parametrize("ec2", ["503 RequestLimitExceeded", "400 Throttling"], indirect=True)
@calls
def test_a_throttled_snapshot_is_asked_for_again(ec2: Ec2, call: str) -> None:
    assert ec2.make[call](POINT) == "snap-1"
    assert ec2.calls == [call] * 2


@pytest.mark.parametrize("ec2", ["lost", "late", "500 InternalError"], indirect=True)
def test_what_may_be_repeated_is(ec2: Ec2) -> None:
    ec2.stop("i-1", force=False)
    assert ec2.calls == ["StopInstances"] * 2
