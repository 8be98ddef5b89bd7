"""Machines, disks, metadata and the gate, with a stand-in for the agent: rooted where possible, and rootless."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localcloud.disks import ImageDisks
from tests.localcloud.gateway import Cuts, Gateway
from tests.localcloud.hypervisor import Guest
from tests.localcloud.machine import Image, may_root
from tests.localcloud.machines import Machines
from tests.localcloud.metadata import MetadataService
from tests.localcloud.paths import REPOSITORY, VAULT_IMAGE
from tests.localcloud.patience import wait_until
from tests.localcloud.vm.qmp import Qmp, QmpError

VOLUME = "vol-0123456789abcdef0"
INSTANCE = "i-0123456789abcdef0"
needs_root = pytest.mark.skipif(not may_root(), reason="needs root, namespaces and loop devices")

# Mounts whatever is attached, notes each boot on it, and writes without sync when asked to.
STAND_IN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
config = json.loads(Path(sys.argv[2]).read_text())
state, mounts = Path(config["state_dir"]), Path(config["mount_root"])
single = config["accounts"] == "single"
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
mounted = set()
(state / "clean").unlink(missing_ok=True)
while not ending:
    for link in Path(config["device_dir"]).iterdir():
        if link.name in mounted:
            continue
        place = mounts / link.name
        if single:
            place.is_symlink() or place.symlink_to(link.resolve())
        else:
            device = str(link.resolve())
            if subprocess.run(["blkid", device], stdout=subprocess.DEVNULL).returncode:
                subprocess.run(["mkfs.xfs", "-q", device], check=True)
            place.mkdir(exist_ok=True)
            subprocess.run(["mount", device, str(place)], check=True)
        with open(place / "boots", "a") as file:
            file.write("boot\\n")
            file.flush()
            os.fsync(file.fileno())
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        mounted.add(link.name)
    (state / "mounted").write_text(" ".join(mounted))
    if (state / "scribble").exists():
        for name in mounted:
            (mounts / name / "unsynced").write_text("never reached the disk")
        (state / "scribble").unlink()
    if (state / "power-off").exists():
        (state / "power-off").unlink()
        subprocess.run(config["power_off_command"], check=True)
    time.sleep(0.02)
for name in mounted if not single else ():
    subprocess.run(["umount", str(mounts / name)], check=True)
(state / "clean").touch()
"""


class Lab:
    """One machine with one volume."""

    def __init__(self, directory: Path, *, rooted: bool) -> None:
        image = directory / "image"
        image.mkdir(parents=True, exist_ok=True)
        for name in ("user_data.py", "sshd_config"):
            shutil.copy(VAULT_IMAGE / name, image)
        (image / "agent.py").write_text(STAND_IN)
        self.directory = directory / "cloud"
        self.machines = Machines(self.directory, rooted=rooted, image=Image(image))
        self.machines.url = "http://127.0.0.1:9"
        self.admitted = {"127.0.0.1"}
        self.exits: list[int] = []
        self.machines.create_volume(VOLUME, 1, None)
        self.volumes = {"/dev/xvdba": VOLUME}

    @property
    def state(self) -> Path:
        return self.directory / "instances" / INSTANCE / "state"

    def boot(self) -> None:
        (self.state / "mounted").unlink(missing_ok=True)
        guest = Guest(
            INSTANCE,
            lambda: {"meta-data/instance-id": INSTANCE},
            self.volumes,
            lambda address, port: port == 22 and address in self.admitted,
        )
        exits = len(self.exits) + 1
        self.machines.boot(guest, lambda: self.exits.append(exits))
        wait_until(lambda: self.mounted() >= set(self.volumes.values()), what=self.machines.console(INSTANCE))

    def mounted(self) -> set[str]:
        file = self.state / "mounted"
        return set(file.read_text().split()) if file.exists() else set()

    def ask(self, what: str) -> None:
        (self.state / what).touch()
        wait_until(lambda: not (self.state / what).exists())

    def banner(self, source: str = "127.0.0.1") -> bool:
        """Whether sshd answers a peer from that address."""
        try:
            with self.connect(source) as peer:
                return peer.recv(4) == b"SSH-"
        except ConnectionResetError:
            return False

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(self.machines.published(INSTANCE), 5, (source, 0))

    def boots(self, snapshot: str) -> int:
        with self.machines.disks.open_snapshot(snapshot) as folder:
            return len((folder / "boots").read_text().split())


@pytest.fixture(params=["rooted", "rootless"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    rooted = request.param == "rooted"
    if rooted and not may_root():
        pytest.skip("needs root, namespaces and loop devices")
    made = Lab(tmp_path, rooted=rooted)
    yield made
    made.machines.close()
    assert leftovers(tmp_path) == []


def leftovers(directory: Path) -> list[str]:
    """Processes, mounts and loop devices that still have to do with this directory."""
    listing = subprocess.run(["ps", "-ww", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    found = [line for line in listing.splitlines() if str(directory) in line]
    mounts = Path("/proc/self/mountinfo")
    found += [line for line in (mounts.read_text() if mounts.exists() else "").splitlines() if str(directory) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [text for text in [backing.read_text().strip()] if str(directory) in text]
        except OSError:
            continue
    return found


# machines


def test_sshd_is_reached_only_by_who_is_admitted(lab: Lab) -> None:
    lab.boot()
    wait_until(lab.banner)
    assert not lab.banner("127.0.0.7")
    lab.admitted = {"127.0.0.7"}
    assert lab.banner("127.0.0.7")
    assert not lab.banner()


def test_what_is_established_outlives_its_rule(lab: Lab) -> None:
    lab.boot()
    wait_until(lab.banner)
    with lab.connect() as peer:
        assert peer.recv(4) == b"SSH-"
        lab.admitted = set()
        peer.sendall(b"SSH-2.0-test\r\n")
        said = b""
        while b"ssh-ed25519" not in said:  # its key exchange: it still talks
            more = peer.recv(65536)
            assert more, said
            said += more


def test_a_machine_stops_clean_and_starts_with_its_disks(lab: Lab) -> None:
    lab.boot()
    wait_until(lab.banner)
    key = (lab.directory / "instances" / INSTANCE).rglob("ssh_host_key.pub")
    before = next(key).read_text()
    lab.machines.power_button(INSTANCE)
    assert (lab.state / "clean").exists(), "the agent ended by itself"
    assert lab.exits == [1]
    with pytest.raises(OSError, match="refused"):
        lab.connect()
    lab.boot()
    lab.machines.power_button(INSTANCE)
    lab.machines.snapshot("snap-1", VOLUME)
    assert lab.boots("snap-1") == 2
    assert next((lab.directory / "instances" / INSTANCE).rglob("ssh_host_key.pub")).read_text() == before
    lab.machines.scrap(INSTANCE)
    assert not (lab.directory / "instances" / INSTANCE).exists()


def test_a_machine_powers_itself_off(lab: Lab) -> None:
    lab.boot()
    lab.ask("power-off")
    wait_until(lambda: lab.exits == [1])
    assert (lab.state / "clean").exists()


def test_the_plug_is_pulled(lab: Lab) -> None:
    lab.boot()
    wait_until(lab.banner)
    lab.ask("scribble")
    lab.machines.pull_plug(INSTANCE)
    wait_until(lambda: lab.exits == [1])
    assert not (lab.state / "clean").exists()
    wait_until(lambda: not [each for each in leftovers(lab.directory) if "machine.json" in each])
    lab.machines.snapshot("snap-1", VOLUME)
    with lab.machines.disks.open_snapshot("snap-1") as folder:
        assert (folder / "boots").read_text() == "boot\n", "what was synced is there"
        if lab.machines.rooted:
            assert not (folder / "unsynced").exists(), "what was not is not"
    lab.boot()


def test_a_snapshot_is_frozen_and_makes_a_volume(lab: Lab) -> None:
    lab.boot()
    lab.machines.power_button(INSTANCE)
    lab.machines.snapshot("snap-1", VOLUME)
    lab.boot()
    lab.machines.power_button(INSTANCE)
    assert lab.boots("snap-1") == 1
    assert 0 < lab.machines.disks.used_bytes("snap-1") < 200_000_000
    lab.machines.create_volume("vol-copy", 2, "snap-1")
    lab.machines.detach(INSTANCE, VOLUME)
    lab.volumes = {"/dev/xvdba": "vol-copy"}
    lab.boot()
    lab.machines.power_button(INSTANCE)
    lab.machines.snapshot("snap-2", "vol-copy")
    lab.machines.snapshot("snap-3", VOLUME)
    assert (lab.boots("snap-1"), lab.boots("snap-2"), lab.boots("snap-3")) == (1, 2, 2)
    lab.machines.delete_snapshot("snap-1")
    lab.machines.delete_volume("vol-copy")


def test_a_volume_is_attached_to_a_running_machine(lab: Lab) -> None:
    lab.boot()
    lab.machines.create_volume("vol-more", 1, None)
    lab.machines.attach(INSTANCE, "vol-more", "/dev/xvdbb")
    wait_until(lambda: "vol-more" in lab.mounted())


def test_a_killed_process_leaves_nothing_that_the_next_cannot_clear(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}]
from test_localcloud_machines import Lab
lab = Lab(Path({str(tmp_path)!r}), rooted={may_root()})
lab.boot()
print("up", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(process.pid, signal.SIGKILL)
    # Nothing outlives it: the machine's power came from that process, and so did its disks'.
    wait_until(lambda: leftovers(tmp_path) == [], what=f"{leftovers(tmp_path)} gone")
    lab = Lab(tmp_path, rooted=may_root())
    lab.boot()
    lab.machines.close()
    assert leftovers(tmp_path) == []


@needs_root
def test_accounts_and_mounts_of_a_machine_are_its_own(lab: Lab) -> None:
    if not lab.machines.rooted:
        pytest.skip("rootless machines share them")
    lab.boot()
    assert VOLUME not in Path("/proc/self/mountinfo").read_text()
    assert not Path("/etc/nightvault/ssh_host_key").exists()


@needs_root
def test_24_volumes_find_a_loop_device_each(tmp_path: Path) -> None:
    disks = ImageDisks(tmp_path)
    try:
        for number in range(24):
            disks.create(f"vol-{number}", 1, None)
            disks.attach("i-1", f"vol-{number}")
        assert len({link.resolve() for link in disks.devices("i-1").iterdir()}) == 24
    finally:
        disks.close()
    assert leftovers(tmp_path) == []


# metadata


def ask(url: str, path: str, method: str = "GET", **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url + path, method=method, headers=named)  # noqa: S310 - our own http://
    with urllib.request.urlopen(asked) as answer:  # noqa: S310
        return str(answer.read().decode())


def status(url: str, path: str, method: str = "GET", **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, path, method, **headers)
    caught.value.close()
    return caught.value.code


def test_metadata_is_told_to_token_bearers_only() -> None:
    answers = {"meta-data/instance-id": "i-1", "meta-data/tags/instance/nightvault-code": "secret"}
    service = MetadataService(lambda: answers)
    try:
        url, tag = service.url, "/latest/meta-data/tags/instance/nightvault-code"
        assert status(url, tag) == 401
        assert status(url, tag, X_aws_ec2_metadata_token="made-up") == 401
        ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
        assert status(url, "/latest/api/token", "PUT") == 400
        assert status(url, "/latest/api/token", "PUT", X_Forwarded_For="1.2.3.4", **ttl) == 403
        token = ask(url, "/latest/api/token", "PUT", **ttl)
        assert ask(url, tag, X_aws_ec2_metadata_token=token) == "secret"
        assert status(url, "/latest/meta-data/tags/instance/other", X_aws_ec2_metadata_token=token) == 404
        answers["meta-data/tags/instance/other"] = "new"
        assert ask(url, "/latest/meta-data/tags/instance/other", X_aws_ec2_metadata_token=token) == "new"
    finally:
        service.close()


# the gate


class Sink:
    """A server on 127.0.0.1 that counts what it is given and answers with as much, behind a gateway."""

    def __init__(self) -> None:
        self.received = 0
        self.cuts = Cuts()
        front = socket.create_server(("127.0.0.2", 0))
        self._server = socket.create_server(("127.0.0.1", front.getsockname()[1]))
        threading.Thread(target=self._serve, daemon=True).start()
        self.gateway = Gateway(front, lambda _: True, self.cuts)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            with peer:
                try:
                    while data := peer.recv(65536):
                        self.received += len(data)
                    peer.sendall(b"thanks")
                except OSError:
                    continue

    def close(self) -> None:
        self.gateway.close()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def send(sink: Sink, size: int) -> bytes:
    with socket.create_connection((sink.gateway.address, sink.gateway.port), 5) as peer:
        peer.sendall(b"x" * size)
        peer.shutdown(socket.SHUT_WR)
        return peer.recv(100)


def test_the_gate_counts_both_ways(sink: Sink) -> None:
    assert send(sink, 3_000_000) == b"thanks"
    wait_until(lambda: not sink.gateway.connections[0].open)
    connection = sink.gateway.connections[0]
    assert (connection.bytes_in, connection.bytes_out) == (3_000_000, 6)
    assert sink.received == 3_000_000


def test_a_connection_is_cut_after_so_many_bytes(sink: Sink) -> None:
    sink.cuts.order(1_000_000)
    with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        send(sink, 30_000_000)
    wait_until(lambda: not sink.gateway.connections[0].open)
    assert 1_000_000 < sink.gateway.connections[0].bytes_in < 2_000_000
    assert send(sink, 30_000_000) == b"thanks", "once, as ordered"


def test_only_the_named_source_is_cut(sink: Sink) -> None:
    sink.cuts.order(10, source="127.0.0.9")
    assert send(sink, 1000) == b"thanks"


def test_the_image_has_an_sshd_configuration() -> None:
    text = Image(VAULT_IMAGE).sshd_config(port=2222)
    assert "Port 2222" in text
    assert "@" not in json.dumps([line for line in text.splitlines() if line.startswith("Port")])


def test_a_machine_that_has_just_gone_off_refuses_like_any_that_is_off(tmp_path: Path) -> None:
    """Whoever presses its button at that moment takes this for what it is; another error would end the shutdown."""
    path = tmp_path / "qmp"
    with socket.create_server(str(path), family=socket.AF_UNIX) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb", buffering=0) as lines:
                lines.write(b'{"QMP": {}}\n')
                lines.readline()
                lines.write(b'{"return": {}}\n')

        qemu = threading.Thread(target=greet)
        qemu.start()
        asked = Qmp(path)
        qemu.join()
        asked.close()
        with pytest.raises(QmpError):
            asked.execute("system_powerdown")
