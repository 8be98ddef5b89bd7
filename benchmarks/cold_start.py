"""What a cold start takes, for each Lambda function: its import and its first request, against the floor.

    python -m benchmarks.cold_start [--rounds 15] [--json FILE]

The zip is built as `make deploy` builds it (for this machine's architecture), unpacked where nothing can be written,
as on Lambda, and each round runs every function in a fresh interpreter, side by side. AWS is moto behind a proxy
that answers what it has seen before in well under a millisecond; there is no TLS and no network. The floor is the
same interpreter with the function's libraries alone: imported, and the clients made that the request needs.

What is measured is the process's CPU time, which a busy machine blurs less than the clock, and in which waiting for
the stand-in of AWS does not count. Lambda has a third of a core at 512 MB, so a start takes longer there; ratios hold.
"""

import argparse
import http.client
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from deploy.packaging import package
from tests.fakes.told import Told

REGION = "eu-central-1"
STACK = "cold"
AIM = 1.2
KEY = "ssh-ed25519 " + "A" * 68
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
}
# A minute in which the sweep has nothing to do: fourteen of fifteen are such.
CLOCK = "datetime(2026, 11, 24, 3, 7, tzinfo=UTC)"

OURS = """
import json, os, sys, time
began = time.process_time()
import app
imported = time.process_time()
from datetime import UTC, datetime
from chalicelib import wiring
wiring.SystemClock.now = lambda self: {clock}
event = json.loads(os.environ["EVENT"])
class Context:
    function_name, memory_limit_in_mb, aws_request_id = "f", 512, "r"
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:f"
    log_group_name = log_stream_name = function_version = ""
    def get_remaining_time_in_millis(self): return 10000
saved, sys.stdout = sys.stdout, open(os.devnull, "w")
asked = time.process_time()
answer = {handler}(event, Context())
answered = time.process_time()
sys.stdout = saved
ec2 = any(name.startswith("chalicelib.cloud") for name in sys.modules)
print(json.dumps([imported - began, answered - asked, repr(answer)[:300], ec2]))
"""
FLOOR = """
import json, time
began = time.process_time()
{imports}
imported = time.process_time()
import boto3.session
from botocore.config import Config
config = Config(connect_timeout=3, read_timeout=10, retries={{"mode": "standard", "total_max_attempts": 3}})
session = boto3.session.Session()
clients = [session.client(name, config=config) for name in {clients}]
made = time.process_time()
print(json.dumps([imported - began, made - imported, "", False]))
"""


@dataclass(frozen=True)
class Subject:
    """A function and its first request. `libraries` are imported by it at the latest while it answers."""

    name: str
    handler: str
    event: dict[str, Any]
    libraries: tuple[str, ...]
    clients: tuple[str, ...]
    expect: str  # in the answer's text: else the request failed, and its time means nothing


POWERTOOLS = ("aws_lambda_powertools", "aws_lambda_powertools.metrics")
BASE = ("chalice.app", "msgspec")


def subjects(token: str, instance_id: str) -> list[Subject]:
    """Every function of the template, with a first request that reads only."""
    arn = f"arn:aws:execute-api:{REGION}:123456789012:api/api/GET/status"
    api = {
        "resource": "/status",
        "path": "/status",
        "httpMethod": "GET",
        "headers": {"Authorization": f"Bearer {token}"},
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
        "requestContext": {
            "resourcePath": "/status",
            "httpMethod": "GET",
            "identity": {"sourceIp": "198.51.100.7"},
            "authorizer": {"principalId": "h0"},
            "requestId": "r",
            "path": "/api/status",
            "stage": "api",
        },
    }
    changed = {"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "region": REGION}
    changed |= {"version": "0", "id": "e", "account": "123456789012", "time": "2026-11-24T03:07:00Z", "resources": []}  # type: ignore[dict-item]
    scheduled = {**changed, "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
    everything = (*BASE, *POWERTOOLS)
    return [
        Subject("api", "app.app", api, everything, ("dynamodb",), "200"),
        Subject(
            "bearer",
            "app.bearer",
            {"type": "TOKEN", "authorizationToken": f"Bearer {token}", "methodArn": arn},
            BASE,
            ("dynamodb",),
            "Allow",
        ),
        Subject("sweep", "app.sweep", scheduled, everything, ("dynamodb",), "None"),
        Subject(
            "instance-changed",
            "app.instance_changed",
            {**changed, "detail": {"instance-id": instance_id, "state": "stopped"}},
            everything,
            ("dynamodb", "ec2"),
            "None",
        ),
        Subject(
            "snapshot-changed",
            "app.snapshot_changed",
            {
                **changed,
                "detail": {"snapshot_id": "arn:aws:ec2::eu-central-1:snapshot/snap-1", "event": "createSnapshot"},
            },
            BASE,
            ("dynamodb",),
            "None",
        ),
        Subject("operate", "app.operate", {"action": "hosts"}, BASE, ("dynamodb",), "'h0'"),
        Subject("timeline-widget", "app.timeline_widget", {"show": "timeline"}, BASE, ("dynamodb",), "<"),
    ]


# --- AWS, quick -------------------------------------------------------------------------------------------


class _Proxy(BaseHTTPRequestHandler):
    """To moto, once for each different request."""

    protocol_version = "HTTP/1.1"
    moto = 0
    seen: dict[tuple[str, bytes], tuple[int, list[tuple[str, str]], bytes]] = {}  # noqa: RUF012 - of the one server
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = (self.headers.get("X-Amz-Target", ""), body)
        if key not in self.seen:
            connection = http.client.HTTPConnection("127.0.0.1", self.moto, timeout=30)
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() in ("content-type", "x-amzn-requestid", "date")]
            self.seen[key] = (answer.status, kept, answer.read())
        status, headers, content = self.seen[key]
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def quick_aws() -> Iterator[tuple[str, dict[str, str], str, str]]:
    """Its URL, the functions' environment, a host's token and the vault's instance: a host that has slept a night."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes a second, and --help shall not

    os.environ.update(ACCOUNT)
    with ExitStack() as undo:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        undo.callback(moto.stop)
        _, port = moto.get_host_and_port()
        _Proxy.moto = port
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(server.shutdown)
        environment, token, instance_id = _populate(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{server.server_port}", environment, token, instance_id


def _populate(moto: str) -> tuple[dict[str, str], str, str]:
    import boto3  # noqa: PLC0415

    from chalicelib import wiring  # noqa: PLC0415
    from chalicelib.settings import Settings  # noqa: PLC0415

    os.environ["AWS_ENDPOINT_URL"] = moto
    session = boto3.session.Session(region_name=REGION)
    ec2: Any = session.client("ec2")
    dynamodb: Any = session.client("dynamodb")
    keys = [{"AttributeName": name, "KeyType": kind} for name, kind in (("pk", "HASH"), ("sk", "RANGE"))]
    attributes = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
    dynamodb.create_table(
        TableName=STACK, KeySchema=keys, AttributeDefinitions=attributes, BillingMode="PAY_PER_REQUEST"
    )
    tags = [{"Key": "nightvault:stack", "Value": STACK}, {"Key": "nightvault:vault", "Value": "vault-1"}]
    image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    instance = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="t4g.small",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"][0]["InstanceId"]
    ec2.stop_instances(InstanceIds=[instance])
    environment = {
        "NIGHTVAULT_STACK": STACK,
        "NIGHTVAULT_TABLE": STACK,
        "NIGHTVAULT_LAUNCH_TEMPLATE": f"{STACK}-vault",
        "NIGHTVAULT_SUBNET": "subnet-1",
        "NIGHTVAULT_TOPIC_ARN": f"arn:aws:sns:{REGION}:123456789012:{STACK}",
        "NIGHTVAULT_URL": "https://cold.example.org/api",
    }
    made = wiring.Wiring(Settings.from_environment(environment), session=session)
    vars(made)["telemetry"] = Told()
    token = made.enrolment.enroll(made.enrolment.invite("h0", 5, 86400).code, KEY).token
    vault = made.store.vault("vault-1")
    assert vault
    # With its volume: whoever looks at a vault that lacks one makes it, and a first request here reads only.
    hosts = {name: replace(slot, volume_id="vol-1") for name, slot in vault.hosts.items()}
    made.store.save(replace(vault, instance_id=instance, hosts=hosts))
    del os.environ["AWS_ENDPOINT_URL"]
    return environment, token, instance


# --- the zip ----------------------------------------------------------------------------------------------


def unpacked(folder: Path) -> tuple[Path, Path]:
    """The zip, and it unpacked. Built for this machine, so that its wheels run here."""
    architecture = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
    made = package(folder / "package", architecture=architecture)
    task = folder / "task"
    with zipfile.ZipFile(made.zip_path) as archive:
        archive.extractall(task)
    return made.zip_path, task


def without_bytecode(task: Path, folder: Path) -> Path:
    """A copy that has to be compiled at each start, as every zip without bytecode has."""
    copy = folder / "sources"
    shutil.copytree(task, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def parts(zip_path: Path) -> tuple[Counter[str], Counter[str]]:
    """Bytes in the zip by its parts, all of them and those of bytecode."""
    sizes: Counter[str] = Counter()
    bytecode: Counter[str] = Counter()
    with zipfile.ZipFile(zip_path) as archive:
        for member in archive.infolist():
            first = member.filename.split("/")[0]
            part = "app.py, single modules" if first.endswith((".py", "__pycache__")) else first.split("-")[0]
            sizes[part] += member.compress_size
            if member.filename.endswith(".pyc"):
                bytecode[part] += member.compress_size
    return sizes, bytecode


# --- measuring --------------------------------------------------------------------------------------------


@dataclass
class Times:
    """Seconds of each round."""

    imports: list[float]
    first: list[float]
    loads_ec2: bool = False

    @property
    def whole(self) -> list[float]:
        return [a + b for a, b in zip(self.imports, self.first, strict=True)]


def run(script: str, task: Path, environment: dict[str, str]) -> tuple[float, float, str, bool]:
    """In a fresh interpreter that writes no bytecode, by its own clock."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=task,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(task), **ACCOUNT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    imported, first, answer, ec2 = json.loads(done.stdout.splitlines()[-1])
    return imported, first, answer, ec2


def measure(rounds: int, tasks: dict[str, Path], of: list[Subject], environment: dict[str, str]) -> dict[str, Times]:
    """Times by `task/function` and `floor/function`, all of them once in each round."""
    times: dict[str, Times] = {}
    for number in range(rounds + 1):
        for subject in of:
            imports = "\n".join(f"import {name}" for name in subject.libraries)
            scripts = {
                f"{name}/{subject.name}": (OURS.format(clock=CLOCK, handler=subject.handler), task)
                for name, task in tasks.items()
            }
            floor = FLOOR.format(imports=imports, clients=repr(subject.clients))
            scripts |= {f"floor {name}/{subject.name}": (floor, task) for name, task in tasks.items()}
            for key, (script, task) in scripts.items():
                given = {**environment, "EVENT": json.dumps(subject.event)}
                imported, first, answer, ec2 = run(script, task, given)
                if not key.startswith("floor") and subject.expect not in answer:
                    raise RuntimeError(f"{key}: the request failed, so its time means nothing: {answer}")
                if number:  # the first round fills the page cache and the proxy
                    mine = times.setdefault(key, Times([], []))
                    mine.imports.append(imported)
                    mine.first.append(first)
                    mine.loads_ec2 = ec2
    return times


def ratio(times: dict[str, Times], kind: str, name: str) -> float:
    """Median over the rounds of ours through the floor's of the same round."""
    pairs = zip(times[f"{kind}/{name}"].whole, times[f"floor {kind}/{name}"].whole, strict=True)
    return statistics.median(ours / floor for ours, floor in pairs)


def show(console: Console, times: dict[str, Times], of: list[Subject], kind: str) -> None:
    table = Table(title=f"cold starts, {kind}; medians, ms of CPU", title_justify="left")
    for column in ("function", "import", "first request", "floor: import", "floor: clients", "÷ floor", "EC2 adapter"):
        table.add_column(column, justify="left" if column == "function" else "right")
    for subject in of:
        ours, floor = times[f"{kind}/{subject.name}"], times[f"floor {kind}/{subject.name}"]
        cells = [
            f"{statistics.median(each) * 1000:.0f}" for each in (ours.imports, ours.first, floor.imports, floor.first)
        ]
        against = ratio(times, kind, subject.name)
        mark = "" if against <= AIM else " !"
        table.add_row(subject.name, *cells, f"{against:.2f}{mark}", "loaded" if ours.loads_ec2 else "no")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write every single figure there")
    chosen = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="nightvault-cold-") as temporary, quick_aws() as quick:
        url, environment, token, instance_id = quick
        folder = Path(temporary)
        zip_path, task = unpacked(folder)
        tasks = {"as deployed": task, "without the zip's bytecode": without_bytecode(task, folder)}
        of = subjects(token, instance_id)
        times = measure(chosen.rounds, tasks, of, {**environment, "AWS_ENDPOINT_URL": url})
        for kind in tasks:
            show(console, times, of, kind)
        sizes = Table(title=f"the zip: {zip_path.stat().st_size / 1024:,.0f} KiB", title_justify="left")
        for column in ("part", "KiB", "of it bytecode"):
            sizes.add_column(column, justify="left" if column == "part" else "right")
        whole, bytecode = parts(zip_path)
        for part, size in whole.most_common():
            sizes.add_row(part, f"{size / 1024:,.0f}", f"{bytecode[part] / 1024:,.0f}")
        console.print(sizes)
        if chosen.json:
            figures = {key: {"import": each.imports, "first": each.first} for key, each in times.items()}
            chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
