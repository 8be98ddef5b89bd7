"""What the control plane costs: AWS calls of a night, imports of a cold start, latency of each endpoint.

    .venv/bin/python benchmarks/control_plane.py [--quick]

Everything runs on this machine, against moto (tests/localcloud): calls are exact, latencies are ours plus
moto's, without network and without AWS, and good for comparing one commit with another only.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import app as application  # noqa: E402
from chalicelib import wiring  # noqa: E402
from chalicelib.commands import Finish, Report, Start  # noqa: E402
from chalicelib.control import Control  # noqa: E402
from chalicelib.model import Kind, Mount, Outcome, Phase, Policy, Vault  # noqa: E402
from chalicelib.settings import Settings  # noqa: E402
from tests.fakes.told import Told  # noqa: E402
from tests.localcloud.aws import LocalAws  # noqa: E402
from tests.localcloud.clock import OffsetClock  # noqa: E402
from tests.localcloud.faults import Faults  # noqa: E402
from tests.localcloud.front import Front  # noqa: E402
from tests.localcloud.interposer import plain_client  # noqa: E402
from tests.localcloud.no_machines import NoMachines  # noqa: E402
from tests.localcloud.patience import wait_until  # noqa: E402
from tests.localcloud.states import Delays  # noqa: E402

KEY = "ssh-ed25519 " + "A" * 68
LIBRARIES = ("aws_lambda_powertools", "chalice.app", "msgspec")
DELAYS = Delays(boot=0.02, stop=0.02, terminate=0.02, volume=0.01, attach=0.01, detach=0.01, snapshot=0.05)


class Bench:
    """A stack in moto with `hosts` enrolled hosts; the ledger counts from a clean page."""

    def __init__(self, hosts: int) -> None:
        self.clock = OffsetClock()
        self.aws = LocalAws(hypervisor=NoMachines(), delays=DELAYS, clock=self.clock, faults=Faults())
        stack = self.aws.make_stack("bench")
        self.wiring = wiring.Wiring(
            Settings(
                stack="bench",
                table=stack.table,
                launch_template=stack.launch_template,
                subnet=stack.subnet,
                topic_arn=stack.topic_arn,
                kms_key="",
                url="https://bench.example.org/api",
                policy=Policy(drill_seconds=0),  # a night of pushes is measured
            ),
            session=self.aws.session,
            clock=self.clock,
        )
        # Logs are not what is measured, and would bury the tables.
        vars(self.wiring)["telemetry"] = Told()
        wiring.install(self.wiring)
        self.eyes = plain_client("ec2")  # what the bench looks at is not counted
        self.names = [f"h{number}" for number in range(hosts)]
        self.tokens = {name: self.enrol(name) for name in self.names}

    def enrol(self, name: str) -> str:
        enrolment = self.wiring.enrolment
        return enrolment.enroll(enrolment.invite(name, 5, 86400).code, KEY).token

    def close(self) -> None:
        wiring.install(None)
        self.aws.close()

    @property
    def control(self) -> Control:
        return self.wiring.control

    @property
    def vault(self) -> Vault:
        vault = self.wiring.store.vault("vault-1")
        assert vault
        return vault

    def report(self, commits: dict[str, str], transfers: dict[str, int]) -> None:
        vault = self.vault
        mounts = {host: Mount(volume_id=slot.volume_id or "", mounted=True) for host, slot in vault.hosts.items()}
        self.control.report(
            "vault-1",
            Report(
                instance_id=vault.instance_id or "",
                boot_id="b",
                state="ready",
                address="203.0.113.9",
                port=22,
                host_key=KEY,
                mounts=mounts,
                transfers=transfers,
                commits=commits,
            ),
        )

    def boot(self, code: str | None) -> None:
        """The machine runs, its event comes, its agent enrols (with a code, the first time) and reports."""
        instance_id = self.vault.instance_id or ""
        wait_until(lambda: self.state(instance_id) == "running")
        self.control.instance_changed(instance_id)
        if code:
            self.wiring.enrolment.enroll(code, KEY)
        self.report({}, {})

    def state(self, instance_id: str) -> str:
        found = self.eyes.describe_instances(InstanceIds=[instance_id])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def completed(self, snapshot_id: str) -> bool:
        found = self.eyes.describe_snapshots(SnapshotIds=[snapshot_id])
        return bool(found["Snapshots"][0]["State"] == "completed")

    def night(self, minutes: int = 10) -> None:
        """Every host starts, pushes for some minutes (a report and a sweep each), commits and finishes."""
        runs = {name: str(uuid.uuid4()) for name in self.names}
        code = self.remember_code()
        for name, run_id in runs.items():
            self.control.start(Start(host=name, run_id=run_id, kind=Kind.BACKUP, source_address="198.51.100.7"))
        launched = code() if self.vault.agent is None else None
        self.boot(launched)
        for _ in range(minutes):
            self.clock.advance(seconds=60)
            self.report({}, dict.fromkeys(runs, 1))
            self.control.sweep()
        for name, run_id in runs.items():
            self.report({name: run_id}, {})
            self.control.finish(Finish(host=name, run_id=run_id, outcome=Outcome.COMPLETE, exit_code=0))
        instance_id = self.vault.instance_id or ""
        wait_until(lambda: self.state(instance_id) == "stopped")
        self.control.instance_changed(instance_id)
        for snapshot_id in self.vault.pending_points:
            wait_until(partial(self.completed, snapshot_id))
            self.control.snapshot_changed(snapshot_id)
        assert self.vault.phase is Phase.ASLEEP
        assert all(host.last_backup for host in self.wiring.store.hosts())

    def remember_code(self) -> Callable[[], str]:
        codes: list[str] = []
        launch = self.wiring.ec2_cloud.launch

        def launching(vault: Vault) -> str:
            assert vault.launch
            codes.append(vault.launch.code)
            return launch(vault)

        self.wiring.ec2_cloud.launch = launching  # type: ignore[method-assign]
        return lambda: codes[-1]


def calls_of_a_night(hosts: int) -> Counter[str]:
    """AWS calls of the second night: what the first one makes once (volumes, group, launch) is there."""
    bench = Bench(hosts)
    try:
        bench.night()
        bench.clock.advance(seconds=86400 - 3600)
        bench.aws.ledger.forget()
        bench.night()
        return bench.aws.ledger.by_kind()
    finally:
        bench.close()


def calls(console: Console, sizes: tuple[int, ...]) -> None:
    counted = {size: calls_of_a_night(size) for size in sizes}
    table = Table(title="AWS calls of a night, ten minutes of pushing, a sweep and a report a minute (exact)")
    table.add_column("call")
    for size in sizes:
        table.add_column(f"{size} host{'s' if size > 1 else ''}", justify="right")
    kinds = sorted({kind for each in counted.values() for kind in each})
    for kind in kinds:
        table.add_row(kind, *(str(counted[size][kind]) for size in sizes))
    table.add_section()
    table.add_row("all", *(str(sum(counted[size].values())) for size in sizes))
    console.print(table)


def import_seconds(statement: str) -> float:
    """In a fresh interpreter without its start-up, by its own clock."""
    script = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def imports(console: Console, rounds: int) -> None:
    """Side by side: each round measures all, so that a busy machine slows all alike."""
    wanted = {
        "its libraries": "; ".join(f"import {name}" for name in LIBRARIES),
        "app.py, libraries and all": "import app",
        **{name: f"import {name}" for name in LIBRARIES},
        "boto3 (not imported by app)": "import boto3",
    }
    taken: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(rounds + 1):
        for name, statement in wanted.items():
            taken[name].append(import_seconds(statement))
    table = Table(title=f"import, fresh interpreters, {rounds} rounds side by side, ms")
    for column in ("what", "median", "least"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, seconds in taken.items():
        warm = seconds[1:]  # the first round fills the page cache and __pycache__
        table.add_row(name, f"{statistics.median(warm) * 1000:.0f}", f"{min(warm) * 1000:.0f}")
    ratios = [a / b for a, b in zip(taken["app.py, libraries and all"][1:], taken["its libraries"][1:], strict=True)]
    table.add_section()
    table.add_row("app.py / its libraries, of each round", f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}")
    console.print(table)


def latency(console: Console, requests: int) -> None:
    bench = Bench(4)
    front = Front(application.app)
    timings: dict[str, list[float]] = {}

    def call(label: str, method: str, path: str, token: str | None, body: object = None) -> None:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = None if body is None else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
        began = time.perf_counter()
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        answer = response.read()
        timings.setdefault(label, []).append(time.perf_counter() - began)
        connection.close()
        assert response.status in (200, 202), answer

    try:
        code = bench.remember_code()
        name = bench.names[0]
        token = bench.tokens[name]
        run_id = str(uuid.uuid4())
        call("POST /start (launches)", "POST", "/start", token, {"run_id": run_id, "kind": "backup"})
        instance_id = bench.vault.instance_id or ""
        wait_until(lambda: bench.state(instance_id) == "running")
        bench.control.instance_changed(instance_id)
        agent = bench.wiring.enrolment.enroll(code(), KEY).token
        body = {
            "instance_id": instance_id,
            "boot_id": "b",
            "state": "ready",
            "address": "203.0.113.9",
            "port": 22,
            "host_keys": [KEY],
            "transfers": [{"host": name, "live": True, "transfer_bytes": 1}],
        }
        for number in range(requests):
            started = {"run_id": str(uuid.uuid4()), "kind": "backup"}
            call("POST /start (joins)", "POST", "/start", bench.tokens[bench.names[1]], started)
            call("GET /status", "GET", f"/status?run_id={run_id}", token)
            body["transfers"] = [{"host": name, "live": True, "transfer_bytes": number}]
            call("POST /report", "POST", "/report", agent, body)
            ended = {"run_id": started["run_id"], "outcome": "failed", "exit_code": 1}
            call("POST /finish", "POST", "/finish", bench.tokens[bench.names[1]], ended)
            invitation = bench.wiring.enrolment.invite(bench.names[2], 5, 86400).code
            call("POST /enroll", "POST", "/enroll", None, {"code": invitation, "public_key": KEY})
    finally:
        front.close()
        bench.close()
    table = Table(title=f"latency over real HTTP, one caller, against moto: NOT AWS's, {requests} of each, ms")
    for column in ("endpoint", "median", "p95"):
        table.add_column(column, justify="left" if column == "endpoint" else "right")
    for label, seconds in sorted(timings.items()):
        ordered = sorted(seconds)
        p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        table.add_row(label, f"{statistics.median(ordered) * 1000:.0f}", f"{p95 * 1000:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: shows that it runs")
    quick = parser.parse_args().quick
    console = Console()
    calls(console, (1, 4) if quick else (1, 4, 24))
    imports(console, 3 if quick else 15)
    latency(console, 10 if quick else 100)


if __name__ == "__main__":
    main()
