"""24 hosts in the same second, over real HTTP: one stop, one snapshot a host and window, no 5xx for anyone."""

import functools
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chalicelib.model import MAX_HOSTS
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost

POLICY = {
    "window_seconds": 3600,
    "minimum_window_seconds": 1,
    "linger_seconds": 0,
    "lease_seconds": 60,
    "claim_seconds": 30,
    "report_seconds": 1,
}

# Before a window counts as stuck. Alone on two cores it takes ten; on a busy machine many times that.
PATIENCE_SECONDS = 300


def at_once(hosts: list[FakeHost], action: Callable[[FakeHost], Any]) -> list[Any]:
    """Every host does it at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(hosts))

    def go(host: FakeHost) -> Any:
        gate.wait()
        return action(host)

    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(go, hosts))


def night(cloud: LocalCloud, hosts: list[FakeHost]) -> list[int]:
    """One window; returns every status that was answered."""
    runs = {host.name: str(uuid.uuid4()) for host in hosts}
    statuses = [reply.status for reply in at_once(hosts, lambda host: host.start(runs[host.name]))]

    def ready(host: FakeHost) -> bool:
        reply = host.status(runs[host.name])
        statuses.append(reply.status)
        return bool(reply.document.get("ready"))

    for host in hosts:
        cloud.wait_until(functools.partial(ready, host), PATIENCE_SECONDS, what=f"{host.name} may push")
    for host in hosts:
        cloud.vaults.commit(host.name, runs[host.name])
    statuses += [reply.status for reply in at_once(hosts, lambda host: host.finish(runs[host.name]))]
    cloud.wait_until(lambda: _asleep(cloud), PATIENCE_SECONDS, what="the vault sleeps and its restore points count")
    return statuses


def _asleep(cloud: LocalCloud) -> bool:
    (vault,) = cloud.operate("vaults")["vaults"]
    return vault["phase"] == "asleep" and not vault["pending_points"]


def play(folder: Path, windows: int) -> None:
    with LocalCloud(folder, policy=POLICY, machines=False, sweep_every=1.0) as cloud:
        hosts = [cloud.enroll(f"host-{n}") for n in range(MAX_HOSTS)]
        statuses: Counter[int] = Counter()
        for _ in range(windows):
            statuses.update(night(cloud, hosts))
            cloud.clock.advance(seconds=86400)
        archived = cloud.operate("windows", vault_id="vault-1", days=windows + 5)["windows"]
        tags = [each["tags"] for each in cloud.snapshots()]
        by_window = Counter(tag["nightvault:window"] for tag in tags)
        by_host = Counter((tag["nightvault:window"], tag["nightvault:host"]) for tag in tags)
        assert set(statuses) <= {200, 202}, statuses
        assert len(archived) == windows, "hosts of one second share a window"
        assert len(cloud.calls("StopInstances")) == windows
        assert len(cloud.calls("CreateSnapshot")) == windows * MAX_HOSTS
        assert sorted(by_window) == sorted(window["window_id"] for window in archived)
        assert set(by_host.values()) == {1}
        assert {tag["nightvault:label"] for tag in tags} == {"complete"}
        assert {each["last"]["window_id"] for each in cloud.operate("hosts")["hosts"]} == {max(by_window)}
        assert not cloud.failures


def test_24_hosts_in_the_same_second(tmp_path: Path) -> None:
    play(tmp_path, windows=2)  # one that launches the machine and makes the volumes, one like all later ones


@pytest.mark.soak
@pytest.mark.parametrize("part", range(8))
def test_200_windows_of_24_hosts(tmp_path: Path, part: int) -> None:
    """In eight parts, so that they can run beside each other."""
    play(tmp_path, windows=25)
