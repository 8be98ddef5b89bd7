"""Nights without machines on the deployed stack: hosts are played, vaults' agents too, all else is as deployed."""

import uuid
from collections.abc import Callable

from tests.e2e.nights import vault
from tests.localcloud.hosts import FakeHost
from tests.localcloud.wire import Reply
from tests.stack.cloud import StackCloud

# Short enough to wait for, long enough that a cold start on a busy machine is no timeout.
POLICY = {
    "window_seconds": 3600,
    "minimum_window_seconds": 1,
    "linger_seconds": 0,
    "lease_seconds": 600,
    "claim_seconds": 5,
    "retry_seconds": 2,
    "report_seconds": 1,
    "wake_timeout_seconds": 120,
}
PATIENCE = 90.0


def start(cloud: StackCloud, host: FakeHost, run_id: str) -> None:
    """Asks until it is accepted, as the client does."""
    _insist(cloud, lambda: host.start(run_id), 202, f"{host.name} may start")


def finish(cloud: StackCloud, host: FakeHost, run_id: str, outcome: str = "complete") -> None:
    _insist(cloud, lambda: host.finish(run_id, outcome), 200, f"{host.name} may finish")


def ready(cloud: StackCloud, host: FakeHost, run_id: str) -> None:
    def look() -> bool:
        reply = host.status(run_id)
        return reply.status == 200 and bool(reply.document["ready"])

    cloud.wait_until(look, PATIENCE, what=f"{host.name} may push")


def asleep(cloud: StackCloud) -> None:
    def look() -> bool:
        found = vault(cloud)
        return found["phase"] == "asleep" and not found["pending_points"]

    cloud.wait_until(look, PATIENCE, what="the vault sleeps, and its restore points have settled")


def night(cloud: StackCloud, *hosts: FakeHost) -> None:
    """One window; returns when it is over and its restore points count."""
    runs = {host.name: str(uuid.uuid4()) for host in hosts}
    for host in hosts:
        start(cloud, host, runs[host.name])
    for host in hosts:
        ready(cloud, host, runs[host.name])
        cloud.vaults.transfer(host.name, 1_000_000)
        cloud.vaults.commit(host.name, runs[host.name])
    for host in hosts:
        finish(cloud, host, runs[host.name])
    asleep(cloud)


def _insist(cloud: StackCloud, call: Callable[[], Reply], status: int, what: str) -> None:
    cloud.wait_until(lambda: call().status == status, PATIENCE, what=what)
