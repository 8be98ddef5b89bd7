"""The local cloud whole: the real application, and with machines the real agent, gate, ssh and rsync."""

import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.hosts import FakeHost
from tests.localcloud.machine import may_root
from tests.localcloud.states import Delays
from tests.localcloud.wire import call

POLICY = {"window_seconds": 600, "minimum_window_seconds": 1, "linger_seconds": 0, "report_seconds": 1}
# The control plane has its launch on record before the machine's first report, as with real boots.
DELAYS = Delays(boot=0.5)


def run_document(cloud: LocalCloud, host: FakeHost, run_id: str, wanted: str) -> dict[str, Any]:
    """The run's document as soon as that member of it is true."""

    def look() -> dict[str, Any] | None:
        document = host.status(run_id).document
        return document if document[wanted] else None

    document = cloud.wait_until(look, 30, what=f"{host.name} {wanted}")
    assert isinstance(document, dict)
    return document


def sleeps(cloud: LocalCloud) -> None:
    def look() -> bool:
        (vault,) = cloud.operate("vaults")["vaults"]
        return vault["phase"] == "asleep" and not vault["pending_points"]

    cloud.wait_until(look, 30, what="the vault sleeps, and its restore points have settled")


# without machines


def test_a_window_without_machines(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, machines=False, policy=POLICY, delays=DELAYS) as cloud:
        hosts = [cloud.enroll("C", source="127.0.0.3"), cloud.enroll("H", source="127.0.0.4")]
        runs = {host.name: str(uuid.uuid4()) for host in hosts}
        assert [host.start(runs[host.name]).status for host in hosts] == [202, 202]
        for host in hosts:
            run_document(cloud, host, runs[host.name], "ready")
            cloud.vaults.transfer(host.name, 4096)
        for host in hosts:
            assert run_document(cloud, host, runs[host.name], "progress")["progress"]["transfer_bytes"] == 4096
        addresses = [
            rule["CidrIp"]
            for each in cloud.calls("AuthorizeSecurityGroupIngress", ended="ok")
            for rule in each.gist["IpPermissions"][0]["IpRanges"]
        ]
        assert sorted(addresses) == ["127.0.0.3/32", "127.0.0.4/32"], "each host is let in from where it called"
        cloud.vaults.commit("C", runs["C"])
        cloud.vaults.hang_up("H")
        run_document(cloud, hosts[0], runs["C"], "committed")
        assert hosts[0].finish(runs["C"]).status == 200
        assert hosts[1].finish(runs["H"], "failed", 12).status == 200
        sleeps(cloud)
        labels = {each["tags"]["nightvault:host"]: each["tags"]["nightvault:label"] for each in cloud.snapshots()}
        assert labels == {"C": "complete", "H": "incomplete"}
        assert len(cloud.calls("StopInstances", ended="ok")) == 1
        assert list(cloud.instances().values()) == ["stopped"]
        assert not cloud.failures


def test_a_window_ends_by_the_control_planes_clock(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, machines=False, policy=POLICY, delays=DELAYS, sweep_every=None) as cloud:
        host, run_id = cloud.enroll("C"), str(uuid.uuid4())
        host.start(run_id)
        run_document(cloud, host, run_id, "ready")
        cloud.clock.advance(seconds=601)
        cloud.sweep()
        assert run_document(cloud, host, run_id, "outcome")["outcome"] in ("cut", "abandoned")
        cloud.wait_until(lambda: list(cloud.instances().values()) == ["stopped"], 30)


def test_a_machine_that_never_comes_up_makes_no_report(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, machines=False, policy=POLICY, delays=DELAYS) as cloud:
        cloud.faults.never_boot()
        host, run_id = cloud.enroll("C"), str(uuid.uuid4())
        host.start(run_id)
        cloud.wait_until(lambda: list(cloud.instances().values()) == ["running"])
        assert host.status(run_id).document["phase"] == "waking"
        assert not cloud.vaults.serves("C")


# with machines


@pytest.fixture(params=[True, False], ids=["rooted", "rootless"])
def rooted(request: pytest.FixtureRequest) -> bool:
    if request.param and not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    return bool(request.param)


class Pusher:
    """A host with a real ssh key, that pushes with real rsync."""

    def __init__(self, cloud: LocalCloud, name: str, folder: Path) -> None:
        folder.mkdir()
        self.cloud, self.folder = cloud, folder
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
        subprocess.run(keygen, check=True)
        body = {"code": cloud.invite(name), "public_key": (folder / "key.pub").read_text().strip()}
        self.host = FakeHost(cloud.url, name, call(cloud.url, "POST", "/enroll", body=body).document["token"])
        self.source = folder / "source"
        self.source.mkdir()

    def start(self) -> str:
        run_id = str(uuid.uuid4())
        assert self.host.start(run_id).status == 202
        self.vault = run_document(self.cloud, self.host, run_id, "ready")["vault"]
        place = f"[{self.vault['address']}]:{self.vault['port']}"
        (self.folder / "known").write_text(f"{place} {self.vault['host_keys'][0]}\n")
        assert self.ssh("begin", run_id).returncode == 0, self.cloud.console()
        return run_id

    def ssh(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._run([*self._ssh(), self._target(), *command])

    def push(self) -> subprocess.CompletedProcess[str]:
        ssh = " ".join(self._ssh())
        return self._run(["rsync", "-a", "--inplace", "-e", ssh, f"{self.source}/", f"{self._target()}:."])

    def _target(self) -> str:
        return f"{self.vault['user']}@{self.vault['address']}"

    def _ssh(self) -> list[str]:
        options = {"UserKnownHostsFile": self.folder / "known", "IdentitiesOnly": "yes", "BatchMode": "yes"}
        named = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-i", str(self.folder / "key"), "-p", str(self.vault["port"]), *named]

    @staticmethod
    def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_night_with_a_cut_push_and_what_is_left_of_it(tmp_path: Path, rooted: bool) -> None:
    cloud_folder = tmp_path / "cloud"
    with LocalCloud(cloud_folder, rooted=rooted, policy=POLICY, delays=DELAYS) as cloud:
        pusher = Pusher(cloud, "C", tmp_path / "C")
        (pusher.source / "letter").write_text("dear reader")
        (pusher.source / "big").write_bytes(bytes(range(256)) * 40_000)
        run_id = pusher.start()
        cloud.cut_connections(3_000_000)
        assert pusher.push().returncode != 0, "cut by the network"
        cut = [each for each in cloud.connections() if each.bytes_in > 3_000_000]
        assert len(cut) == 1
        assert pusher.push().returncode == 0
        assert pusher.ssh("commit", run_id).stdout.strip() == "committed"
        run_document(cloud, pusher.host, run_id, "committed")
        pusher.host.finish(run_id)
        sleeps(cloud)
        (snapshot,) = cloud.snapshots()
        with cloud.open_snapshot(snapshot["SnapshotId"]) as folder:
            assert (folder / "current" / "letter").read_text() == "dear reader"
            assert (folder / "current" / "big").read_bytes() == (pusher.source / "big").read_bytes()
        assert not cloud.failures
    processes = subprocess.run(["ps", "-ww", "-Ao", "args="], capture_output=True, text=True, check=True).stdout
    assert str(cloud_folder) not in processes


def test_a_killed_machine_wakes_again_with_its_disks(tmp_path: Path, rooted: bool) -> None:
    with LocalCloud(tmp_path / "cloud", rooted=rooted, policy=POLICY, delays=DELAYS) as cloud:
        pusher = Pusher(cloud, "C", tmp_path / "C")
        (pusher.source / "letter").write_text("dear reader")
        pusher.start()
        before = pusher.vault["port"]
        cloud.pull_plug()
        assert list(cloud.instances().values()) != ["running"]
        cloud.wait_until(lambda: cloud.calls("StartInstances", ended="ok"), 30, what="it is started again")

        def moved() -> bool:
            vault = pusher.host.status().document["vault"]
            return vault is not None and vault["port"] != before

        cloud.wait_until(moved, 30, what="the machine is back, at another place")


def test_everything_is_gone_after_an_interruption(tmp_path: Path, rooted: bool) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        LocalCloud(tmp_path / "cloud", rooted=rooted, policy=POLICY, delays=DELAYS) as cloud,
    ):
        Pusher(cloud, "C", tmp_path / "C").start()
        raise KeyboardInterrupt
    processes = subprocess.run(["ps", "-ww", "-Ao", "args="], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in processes
    mounts = Path("/proc/self/mountinfo")
    assert not mounts.exists() or str(tmp_path) not in mounts.read_text()
