"""The vault's side on loopback: sshd with the vault's own configuration and gate, the wire before it on which
bytes are counted, and a control plane that is always ready.
"""

import fcntl
import json
import os
import pwd
import runpy
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.localcloud.patience import wait_until

HOST = "C"
_TOKEN = "nv1.C.of-a-benchmark"  # noqa: S105, opens nothing but the stand-in below
_PIPE_BYTES = 1024 * 1024


class CountingWire:
    """Forwards connections to a port of loopback, and counts what goes each way."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._lock = threading.Lock()
        self._counts = [0, 0]
        self._open = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self._counts = [0, 0]

    def counted(self) -> tuple[int, int]:
        """Bytes sent to the vault and bytes that came back, once every connection has ended."""
        wait_until(lambda: self._open == 0, 60, what="the end of the connections")
        with self._lock:
            return self._counts[0], self._counts[1]

    def close(self) -> None:
        # shutdown, since close alone would leave the accepting thread waiting.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._to_port))
            with self._lock:
                self._open += 1
            threading.Thread(target=self._forward, args=(here, there), daemon=True).start()

    def _forward(self, here: socket.socket, there: socket.socket) -> None:
        for end in (here, there):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(there, here, 1), daemon=True)
        back.start()
        self._pump(here, there, 0)
        back.join()
        here.close()
        there.close()
        with self._lock:
            self._open -= 1

    def _pump(self, source: socket.socket, sink: socket.socket, way: int) -> None:
        # splice moves bytes inside the kernel: the wire must not be what is measured.
        out, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        with suppress(OSError):
            while moved := os.splice(source.fileno(), into, _PIPE_BYTES):
                with self._lock:
                    self._counts[way] += moved
                while moved:
                    moved -= os.splice(out, sink.fileno(), moved)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        os.close(out)
        os.close(into)


@dataclass
class Told:
    """What a client's run told the control plane, and when."""

    at: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    outcome: str | None = None
    stats: dict[str, int] = field(default_factory=dict)


class ControlPlane:
    """Answers docs/protocol.md's five calls of a host, for a vault that is always open."""

    def __init__(self, vault: dict[str, Any], admit: Callable[[str], None]) -> None:
        self.told = Told()
        self.point: dict[str, Any] = {}
        """The one restore point that there is; docs/protocol.md, `GET /points`."""
        self._kind = ""
        self._vault = vault
        self._admit = admit
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                status, document = plane.answer(urlsplit(self.path).path, body)
                data = json.dumps(document, separators=(",", ":")).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002, http.server's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def forget(self) -> Told:
        """Begin a new run: gives where its facts will be."""
        self.told = Told()
        return self.told

    def answer(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One reply: its status and its document."""
        self.told.at[route] = time.monotonic()
        match route:
            case "/enroll":
                self._admit(body["public_key"])
                return 200, {"name": HOST, "token": _TOKEN}
            case "/points":
                return 200, {"host": HOST, "points": [self.point]}
            case "/start":
                self.told.run_id, self._kind = body["run_id"], body["kind"]
            case "/finish":
                self.told.outcome, self.told.stats = body["outcome"], body["stats"]
        return 202 if route == "/start" else 200, self._document()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _document(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "run_id": self.told.run_id,
            "host": HOST,
            "kind": self._kind,
            "outcome": self.told.outcome,
            "reason": None,
            "phase": "open",
            "queued": False,
            "ready": True,
            "window": {"window_id": "w1", "opened_at": now, "closes_at": now, "seconds_left": 12000},
            "vault": self._vault,
            "progress": None,
            "committed": False,
            "restore": self.point if self._kind == "restore" else None,
            "retry_after_seconds": 1,
            "last": None,
            "now": now,
        }


def restore_point(run_id: str, taken_at: str) -> dict[str, Any]:
    """That of a committed run, as hosts are told of it."""
    return {
        "point_id": f"snap-{run_id[:8]}",
        "taken_at": taken_at,
        "point_run_id": run_id,
        "point_complete": True,
        "point_state": "completed",
        "fit": None,
        "locked": False,
    }


class Vault:
    """A real sshd on loopback, as vault-image configures it. Its hosts' keys run the gate; the peers' key, what
    it asks for.
    """

    def __init__(self, folder: Path, image: Path, volume: Path) -> None:
        self._folder, self._volume = folder, volume
        # A copy: whoever works on these files meanwhile does not change what is being measured.
        self._image = folder / "vault-image"
        shutil.copytree(image, self._image, ignore=shutil.ignore_patterns("__pycache__"))
        user = pwd.getpwuid(os.geteuid()).pw_name
        for name in ("keys", "run", "mnt"):
            (folder / name).mkdir()
        (folder / "run" / HOST).mkdir(mode=0o700)
        (folder / "mnt" / ".points").mkdir()
        # The gate takes a symlink for a volume that an agent without root has made.
        (folder / "mnt" / HOST).symlink_to(volume)
        self._keys = folder / "keys" / user
        for key in ("host_key", "peer_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        public = (folder / "peer_key.pub").read_text().strip()
        self._keys.write_text(f'restrict,command="exec $SSH_ORIGINAL_COMMAND" {public}\n')
        self._sshd = self._start(user)
        self.wire = CountingWire(self._port)
        host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text(
            f"Host vault\nHostName 127.0.0.1\nPort {self.wire.port}\nUser {user}\nHostKeyAlias vault\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n"
            "IdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\nLogLevel ERROR\n"
        )
        self.peer_key = folder / "peer_key"
        (folder / "known_hosts").write_text(f"vault {host_key}\n")
        document = {
            "vault_id": "vault-1",
            "address": "127.0.0.1",
            "port": self.wire.port,
            "user": user,
            "host_keys": [host_key],
        }
        self.plane = ControlPlane(document, self._admit)

    def settled(self) -> None:
        """Returns when the gate has removed the former tree: it does so in the background, its host long answered."""
        wait_until(lambda: not any(self._volume.glob("trash.*")), 60, what="the gate's cleaning up")

    @contextmanager
    def lent(self, point: Path | None) -> Iterator[None]:
        """For now, pulls are served from the volume that is there: one made from a restore point."""
        place = self._folder / "mnt" / ".points" / HOST
        if point:
            place.symlink_to(point)
        yield
        place.unlink(missing_ok=True)

    def close(self) -> None:
        self.plane.close()
        self.wire.close()
        self._sshd.terminate()
        self._sshd.wait()

    def _admit(self, public_key: str) -> None:
        gate = f"{self._image}/gate.py {HOST} --mount-root {self._folder}/mnt --run-dir {self._folder}/run"
        with self._keys.open("a") as keys:
            keys.write(f'restrict,command="exec {gate}" {public_key}\n')

    def _start(self, user: str) -> "subprocess.Popen[bytes]":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd started as root insists on it
        make_config = runpy.run_path(str(self._image / "user_data.py"))["sshd_config"]
        config = self._folder / "sshd_config"
        config.write_text(
            make_config(
                port=self._port,
                listen="127.0.0.1",
                host_key=str(self._folder / "host_key"),
                keys_dir=str(self._folder / "keys"),
                account=user,
            )
        )
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/sshd"
        with (self._folder / "sshd.log").open("ab") as log:
            process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, 60, what="an answer of sshd")
        return process

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
