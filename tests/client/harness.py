"""A host, its vault and its control plane on loopback, for driving the real client script."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.localcloud.patience import wait_until

CLIENT = Path(__file__).parents[2] / "host-client" / "nightvault"
GATE = Path(__file__).with_name("gate_stand_in.py")
SHELLS: dict[str, list[str]] = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
in_every_shell = pytest.mark.parametrize("shell", [pytest.param(words, id=name) for name, words in SHELLS.items()])
TOKEN = "nv1.C.s3cret-of-the-token"
CODE = "s3cret-of-the-code"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(frozen=True)
class Answer:
    """One scripted reply that stands in for the regular one."""

    status: int
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":")), named)


class ControlPlane:
    """Answers as docs/protocol.md says; a test scripts what it wants otherwise."""

    def __init__(self, vault: dict[str, Any]) -> None:
        self.vault = vault
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.tokens: list[str | None] = []
        self.scripted: dict[str, list[Answer]] = {}
        self.polls_until_ready = 0
        self.seconds_left = 12000
        self.outcome: str | None = None
        self.reason: str | None = None
        self.run_id: str | None = None
        self.kind = "backup"
        self.pushed_run_id: str | None = None  # of the only tree there is, whichever point is asked for
        self.last: dict[str, Any] | None = None
        self.restore: dict[str, Any] | None = None
        self.verify = False
        self.points: list[dict[str, Any]] = []  # newest first
        self.on_call: Callable[[str], None] = lambda _: None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def bodies(self, route: str) -> list[dict[str, Any]]:
        return [body for called, body in self.calls if called == route]

    def document(self) -> dict[str, Any]:
        ready = self.run_id is not None and self.polls_until_ready <= 0 and self.outcome is None
        self.polls_until_ready -= 1
        return {
            "run_id": self.run_id,
            "host": "C",
            "kind": "backup",
            "outcome": self.outcome,
            "reason": self.reason,
            "phase": "open" if ready else "waking",
            "queued": False,
            "ready": ready,
            "window": {
                "window_id": "w1",
                "opened_at": "2026-01-01T00:00:00Z",
                "closes_at": "2026-01-01T03:36:00Z",
                "seconds_left": self.seconds_left,
            },
            "vault": self.vault if ready else None,
            "progress": {"transfer_bytes": 1048576, "seen_at": "2026-01-01T00:00:00Z"},
            "committed": False,
            "retry_after_seconds": 0,
            "last": self.last,
            "restore": self.restore,
            "verify": self.verify,
            "now": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def answer(self, route: str, body: dict[str, Any], token: str | None) -> Answer:
        self.calls.append((route, body))
        self.tokens.append(token)
        self.on_call(route)
        if self.scripted.get(route):
            return self.scripted[route].pop(0)
        if route == "/enroll":
            if body["code"] != CODE:
                return error(403, "CodeRefused", 'this code is used, "expired" or unknown')
            return Answer(200, json.dumps({"name": "C", "token": TOKEN}, separators=(",", ":")))
        if token != f"Bearer {TOKEN}":
            return error(403, "Forbidden", "wrong token")
        if route == "/points":
            listed = {"host": "C", "points": self.points, "now": "2026-01-01T00:00:00Z"}
            return Answer(200, json.dumps(listed, separators=(",", ":")))
        if route == "/start":
            self.run_id, self.kind, self.outcome, self.restore = body["run_id"], body["kind"], None, None
            if body["kind"] == "restore" and self.points:
                ids = [point["point_id"] for point in self.points]
                if (wanted := body.get("point", ids[0])) not in ids:
                    return error(404, "UnknownPoint", f"point: {wanted} is no completed restore point of this host")
                told = ("point_id", "taken_at", "point_run_id", "point_complete")
                chosen = self.points[ids.index(wanted)]
                self.restore = {**{key: chosen[key] for key in told}, "source": "live"}
                if self.pushed_run_id:
                    self.restore["point_run_id"] = self.pushed_run_id
        if route == "/finish":
            self.outcome = body["outcome"]
            if (self.kind, self.outcome) == ("backup", "complete"):
                self.pushed_run_id = self.run_id
        return Answer(202 if route == "/start" else 200, json.dumps(self.document(), separators=(",", ":")))

    def handler(self) -> type[BaseHTTPRequestHandler]:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self, body: dict[str, Any]) -> None:
                answer = plane.answer(urlsplit(self.path).path, body, self.headers.get("Authorization"))
                data = answer.body.encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.reply({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

            def do_POST(self) -> None:
                assert self.headers.get("Content-Type") == "application/json"
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002, http.server's name
                pass

        return Handler


class Vault:
    """sshd on loopback whose keys all run the gate on one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.volume = folder / "volume"
        self.volume.mkdir()
        self.port = free_port()
        self.keys = folder / "authorized_keys"
        self.keys.touch()
        self.sshd: subprocess.Popen[bytes] | None = None
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.keys}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
            "Subsystem sftp internal-sftp\nLogLevel DEBUG1\n"
            "SetEnv SHLVL=2\n"  # or bash, as a login shell, reads ~/.bashrc for sshd, which may print
        )
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/sshd"
        self.sshd = subprocess.Popen([sshd, "-D", "-E", self.folder / "sshd.log", "-f", config])
        wait_until(self.answers)

    def answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.sshd is not None:
            self.sshd.terminate()
            self.sshd.wait()
            self.sshd = None

    def allow(self, public_key: str) -> None:
        self.keys.write_text(f'restrict,command="{sys.executable} {GATE} {self.volume}" {public_key}\n')

    def document(self) -> dict[str, Any]:
        key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        return {
            "vault_id": "vault-1",
            "address": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "host_keys": [key],
        }

    def gate_log(self) -> list[str]:
        log = self.folder / "gate.log"
        return log.read_text().splitlines() if log.exists() else []

    def hook(self, script: str) -> None:
        """Runs before the gate, with ssh's command as $1; a nonzero exit code is the gate's answer."""
        path = self.folder / "hook"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@dataclass
class Host:
    """A host with a config, a state folder and a source, at one vault and control plane."""

    folder: Path
    vault: Vault
    plane: ControlPlane
    shell: list[str]
    client: Path = CLIENT

    def __post_init__(self) -> None:
        self.state = self.folder / "state"
        self.source = self.folder / "source"
        self.source.mkdir(parents=True)
        self.config_file = self.folder / "config"
        self.configure()

    @property
    def archive(self) -> Path:
        return self.state / "archive"

    def configure(self, *lines: str, sources: Sequence[Path] | None = None) -> None:
        named = [f"source = {path}" for path in (sources if sources is not None else [self.source])]
        first = [f"state_dir = {self.state}", "key_escrowed = yes"]
        self.config_file.write_text("\n".join([*first, *named, *lines, ""]))

    def command(self, *arguments: str) -> list[str]:
        return [*self.shell, str(self.client), "-c", str(self.config_file), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "NIGHTVAULT_TRIES": "2", **more}

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**more),
            text=True,
            errors="surrogateescape",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )

    def good(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    @contextmanager
    def running(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment(**more),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def enroll(self) -> None:
        self.good("enroll", self.plane.url, CODE)
        self.vault.allow((self.state / "key.pub").read_text())

    def pull(self, target: Path, *, manifest: bool = False) -> Path:
        """Fetches what is current on the vault, as a restore does; and the manifest, if wanted."""
        ssh = f"ssh -p {self.vault.port} -i {self.state}/key -o LogLevel=ERROR"
        ssh += " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        at = f"{getpass.getuser()}@127.0.0.1:/"
        options = ["-aHAX", "--numeric-ids", "--sparse", *([] if manifest else ["--exclude=/.nightvault"])]
        subprocess.run(["rsync", *options, "-e", ssh, at, f"{target}/"], check=True)
        return target
