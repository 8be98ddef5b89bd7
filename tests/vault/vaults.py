"""Vaults to test against: a real sshd, the real agent and gate, and what stands where AWS would."""

import base64
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import registry
import user_data

from tests.localcloud.patience import wait_until

IMAGE = Path(user_data.__file__).resolve().parent
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin") or "/usr/sbin/sshd"
TOKEN = "nv1.@vault-1.c2VjcmV0LXNlY3JldA"
CODE = "one-use-code"


@dataclass
class Host:
    """A machine that is backed up: its key, and what it runs against a vault."""

    name: str
    uid: int
    volume_id: str
    key: Path
    user: str = ""
    port: int = 0
    known_hosts: Path = Path("/dev/null")
    shared: Path | None = None  # a socket: all of the host's commands go over one connection
    reader: str = ""  # whose name it takes to read over SFTP
    patience: float = 30.0  # seconds for one command
    blank_ok: bool = True  # its volume was not made of a snapshot

    def order(self) -> dict[str, Any]:
        return {
            "host": self.name,
            "volume_id": self.volume_id,
            "uid": self.uid,
            "user": f"nv{self.uid}",
            "public_key": self.key.with_suffix(".pub").read_text().strip(),
            "live": True,
            "blank_ok": self.blank_ok,
        }

    def ssh_command(self) -> list[str]:
        return [
            *("ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port), "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"),
            # OpenSSH's post-quantum default takes 0.1 s of a core each time; a test has many connections.
            *("-o", "KexAlgorithms=curve25519-sha256"),
            *(("-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-S", str(self.shared)) if self.shared else ()),
        ]

    def ssh(self, *command: str, options: Iterable[str] = (), text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.ssh_command(), *options, f"{self.user}@127.0.0.1", *command],
            capture_output=True,
            text=True,
            check=False,
            input=text,
            timeout=self.patience,
        )

    def sftp_command(self, program: str = "sftp") -> list[str]:
        """sftp, scp or sshfs without its operands."""
        words = replace(self, shared=None).ssh_command()
        if program == "sshfs":
            return [program, "-o", f"ssh_command={shlex.join(words)}"]
        return [program, *("-P" if word == "-p" else word for word in words[1:])]

    def sftp(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """Commands of sftp(1), in one session, until one fails."""
        command = [*self.sftp_command(), "-q", "-b", "-", f"{self.reader}@127.0.0.1"]
        text = "".join(f"{line}\n" for line in lines)
        return subprocess.run(command, capture_output=True, text=True, check=False, input=text, timeout=self.patience)

    def hang_up(self) -> None:
        """End the connection that commands share."""
        self.ssh(options=["-O", "exit"])
        self.shared = None

    def rsync_command(self, *arguments: str) -> list[str]:
        shell = shlex.join([*self.ssh_command(), "-l", self.user])
        return ["rsync", "-e", shell, *arguments]

    def rsync(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.rsync_command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=self.patience)

    def push(self, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.rsync("-aHX", "--numeric-ids", "--inplace", "--delete", *options, f"{source}/", "127.0.0.1:.")

    def pull(self, destination: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.rsync("-aHX", "--numeric-ids", *options, "127.0.0.1:/", f"{destination}/")


class Cloud:
    """Instance metadata and control plane on one port: this is where AWS would be. Keeps what it was told."""

    def __init__(self) -> None:
        self.orders: dict[str, Any] = {
            "vault_id": "vault-1",
            "report_every_seconds": 1,
            "power_off": False,
            "seconds_to_power_off": 600,
            "hosts": [],
        }
        self.metadata: dict[str, str] = {
            "instance-id": "i-0123456789abcdef0",
            "public-ipv4": "203.0.113.9",
            "tags/instance/nightvault-code": CODE,
        }
        self.program = b""  # what new machines are given, whatever they ask for; empty: 404
        self.token = TOKEN
        self.codes = {CODE}
        self.refusals: list[tuple[int, str]] = []  # answers to coming reports, before orders are given again
        self.reports: list[dict[str, Any]] = []
        self.enrolled: list[dict[str, Any]] = []
        self.attempts = 0
        self._changed = threading.Condition()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args: object) -> None:
                pass

            def do_PUT(self) -> None:
                good = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self._answer(200 if good else 400, b"imds-session")

            def do_GET(self) -> None:
                found = cloud.metadata.get(self.path.removeprefix("/latest/meta-data/"))
                if self.path.startswith("/program?sha256="):
                    document = {"program": base64.b64encode(cloud.program).decode()}
                    self._answer(200 if cloud.program else 404, json.dumps(document).encode())
                elif self.headers["X-aws-ec2-metadata-token"] != "imds-session":
                    self._answer(401, b"")
                else:
                    self._answer(200 if found else 404, (found or "").encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, document = cloud.answer(self.path, body, self.headers.get("Authorization"))
                self._answer(status, json.dumps(document).encode())

            def _answer(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        with self._changed:
            try:
                if path == "/enroll":
                    self.enrolled.append(body)
                    if body["code"] not in self.codes:
                        return 403, {"error": {"code": "CodeRefused", "message": "no such code"}}
                    self.codes.remove(body["code"])
                    return 200, {"name": "@vault-1", "token": self.token}
                self.attempts += 1
                if authorization != f"Bearer {self.token}":
                    return 403, {"error": {"code": "TokenRefused", "message": "no such token"}}
                if self.refusals:
                    status, code = self.refusals.pop(0)
                    return status, {"error": {"code": code, "message": "as the test says"}}
                self.reports.append(body)
                return 200, self.orders
            finally:
                self._changed.notify_all()

    def order(self, *hosts: Host, **changes: Any) -> int:
        """Give new orders from the next report on. Gives the number of reports so far.

        `restores` are as of the agreed protocol, and hold until others are given.
        """
        with self._changed:
            self.orders = {**self.orders, **changes, "hosts": [host.order() for host in hosts]}
            return len(self.reports)

    def wait_for(self, good: Callable[[dict[str, Any]], Any], seconds: float = 15.0, after: int = 0) -> dict[str, Any]:
        """The first report past the `after`th that is `good`."""
        with self._changed:
            found: list[dict[str, Any]] = []

            def look() -> bool:
                found.extend(report for report in self.reports[after:] if good(report))
                return bool(found)

            assert self._changed.wait_for(look, seconds), f"no such report; the last is {self.reports[-1:]}"
            return found[0]

    def wait_restores(self, *restores: dict[str, Any], state: str = "mounted", after: int = 0) -> dict[str, Any]:
        """The first report that tells of exactly these restores, each in a state."""
        told = [{**order, "state": state} for order in restores]
        return self.wait_for(
            lambda report: (
                [{**r, "detail": ""} for r in report.get("restores", [])] == [{**order, "detail": ""} for order in told]
            ),
            after=after,
        )

    def wait_mounted(self, *hosts: Host, after: int = 0) -> dict[str, Any]:
        names = {host.name for host in hosts}
        return self.wait_for(
            lambda report: (
                report["state"] == "ready" and {m["host"] for m in report["mounts"] if m["state"] == "mounted"} == names
            ),
            after=after,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", str(path)], check=True)
    return path


def answers_ssh(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


class Vault:
    """What the two kinds of vault have in common: hosts, an sshd, an agent."""

    single: bool
    outside = "127.0.0.1"  # this machine, seen from the vault

    def __init__(self, base: Path, cloud: Cloud) -> None:
        self.base = base
        self.cloud = cloud
        self.port = free_port()
        self.log = base / "agent.log"
        self.host_key = keygen(base / "host_key")
        public = self.host_key.with_suffix(".pub").read_text()
        self.known_hosts = base / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        self._hosts = 0

    def host(self, name: str) -> Host:
        self._hosts += 1
        uid = 20000 + self._hosts
        user = pwd.getpwuid(os.geteuid()).pw_name if self.single else f"nv{uid}"
        volume_id = f"vol-{self._hosts:017x}"
        key = keygen(self.base / f"key-{name}")
        reader = user if self.single else f"{user}r"
        return Host(name, uid, volume_id, key, user, self.port, self.known_hosts, reader=reader)

    def restore_point(self, host: Host, number: int = 0) -> dict[str, str]:
        """A volume made from what is on a host's disk this instant, and attached. Gives its order."""
        volume_id = f"vol-{0xBADC0FFEE + number:017x}"
        self.copy_volume(host, volume_id)
        return {"host": host.name, "volume_id": volume_id}

    def copy_volume(self, host: Host, copy_id: str) -> None:
        raise NotImplementedError

    def volume(self, host: Host) -> Path:
        raise NotImplementedError

    def state(self, host: Host) -> object:
        """All of a host's volume; equal if nothing has changed."""
        root = self.volume(host)
        return {str(p.relative_to(root)): (p.lstat().st_mtime_ns, p.lstat().st_mode) for p in root.rglob("*")}

    def config(self, **changes: Any) -> dict[str, Any]:
        return {
            "control_url": self.cloud.url,
            "metadata_url": self.cloud.url,
            "host_key_files": [str(self.host_key) + ".pub"],
            "address": "127.0.0.1",
            "port": self.port,
            "power_off_command": ["touch", str(self.base / "powered-off")],
            **changes,
        }


# As under systemd, the agent and sshd each have mounts of their own, which follow the machine's.
_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "slave")


def _as_its_unit_says() -> list[str]:
    """What gives the agent no more rights than systemd will: a right that it lacks there fails here too."""
    unit = (IMAGE / "nightvault-agent.service").read_text()
    said = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    # To have PID 1's mounts changed, and checks made as a host: by nsenter and setpriv where systemd-run isn't.
    rights = ["sys_admin", "sys_chroot", "setuid", "setgid", "setpcap"]
    rights += [name.removeprefix("CAP_").lower() for name in said["CapabilityBoundingSet"].split()]
    return [
        *_OWN_MOUNTS,
        *("env", "NIGHTVAULT_DISK_COMMAND=nsenter --mount=/proc/1/ns/mnt"),
        *("/bin/sh", "-c", f'umask {said["UMask"]} && exec "$@"', "sh"),
        *("setpriv", f"--bounding-set=-all,+{',+'.join(rights)}", "--no-new-privs"),
    ]


class Machine(Vault):
    """A vault with accounts and real mounts, as root, on a machine of its own (machine_init.py)."""

    single = False

    def __init__(self, base: Path, cloud: Cloud) -> None:
        super().__init__(base, cloud)
        init = Path(__file__).with_name("machine_init.py")
        self._process = subprocess.Popen(
            ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, "-u", str(init)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._root = Path(f"/proc/{children.split()[0]}/root")
        shutil.copytree(IMAGE, self._root / "srv/nightvault")
        self.path("/srv/nightvault").chmod(0o755)

    def tell(self, **order: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline() or '{"error": "the machine is gone"}')
        if "error" in told:
            raise RuntimeError(told["error"])
        return told["ok"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def path(self, path: str) -> Path:
        """A path of the machine's, from out here."""
        return self._root / path.lstrip("/")

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        code, out, err = self.tell(do="run", argv=argv, input=text)
        return subprocess.CompletedProcess(argv, code, out, err)

    def image(self, volume_id: str, mib: int = 320) -> Path:
        image = self.base / f"{volume_id}.img"
        with image.open("ab") as file:
            file.truncate(mib * 1024 * 1024)
        return image

    def attach(self, volume_id: str, mib: int = 320) -> Path:
        """A blank disk, or the one of that id from before. Gives its image."""
        image = self.image(volume_id, mib)
        self.tell(do="attach", volume_id=volume_id, image=str(image))
        return image

    def copy_volume(self, host: Host, copy_id: str) -> None:
        # A snapshot is of one instant, which a copy of a disk in use is not.
        frozen = self.run("fsfreeze", "--freeze", f"/mnt/{host.name}").returncode == 0
        image = self.base / f"{copy_id}.img"
        subprocess.run(["cp", "--sparse=always", self.base / f"{host.volume_id}.img", image], check=True)
        if frozen:
            self.run("fsfreeze", "--unfreeze", f"/mnt/{host.name}")
        self.tell(do="attach", volume_id=copy_id, image=str(image))

    def detach(self, volume_id: str) -> None:
        self.tell(do="detach", volume_id=volume_id)

    def start_sshd(self) -> None:
        text = user_data.sshd_config(port=self.port, listen="127.0.0.1", host_key="/srv/host_key", keys_dir="/srv/keys")
        shutil.copy(self.host_key, self.path("/srv/host_key"))
        self.path("/srv/keys").mkdir(mode=0o755, exist_ok=True)
        self.path("/srv/sshd_config").write_text(text)
        self.run("groupadd", "-f", "--system", "nightvault")
        argv = [*_OWN_MOUNTS, SSHD, "-D", "-e", "-f", "/srv/sshd_config"]
        self.tell(do="start", name="sshd", argv=argv, log=str(self.base / "sshd.log"))
        wait_until(lambda: answers_ssh(self.port))

    def start_agent(self, **changes: Any) -> int:
        config = self.config(
            state_dir="/srv/state", run_dir="/run/nightvault", device_dir="/srv/dev", keys_dir="/srv/keys", **changes
        )
        self.path("/srv/agent.json").write_text(json.dumps(config))
        argv = [*_as_its_unit_says(), "/srv/nightvault/agent.py", "--config", "/srv/agent.json"]
        pid: int = self.tell(do="start", name="agent", argv=argv, log=str(self.log))
        return pid

    def stop_agent(self, number: int = signal.SIGTERM) -> int:
        code: int = self.tell(do="stop", name="agent", signal=int(number), seconds=20)
        return code

    def wait_agent(self, seconds: float = 15) -> int:
        code: int = self.tell(do="wait", name="agent", seconds=seconds)
        return code

    def volume(self, host: Host) -> Path:
        return self.path(f"/mnt/{host.name}")

    def poke(self) -> None:
        registry.poke(self.path("/run/nightvault"))


class Rootless(Vault):
    """A vault of plain folders under the account that runs the test."""

    single = True

    def __init__(self, base: Path, cloud: Cloud) -> None:
        super().__init__(base, cloud)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("dev", "keys"):
            (base / name).mkdir()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)

    def attach(self, volume_id: str) -> Path:
        folder = self.base / "dev" / volume_id
        folder.mkdir()
        return folder

    def copy_volume(self, host: Host, copy_id: str) -> None:
        subprocess.run(["cp", "-a", self.base / "dev" / host.volume_id, self.base / "dev" / copy_id], check=True)

    def start_sshd(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd started as root insists on it
        text = user_data.sshd_config(
            port=self.port,
            listen="127.0.0.1",
            host_key=str(self.host_key),
            keys_dir=str(self.base / "keys"),
            account=pwd.getpwuid(os.geteuid()).pw_name,
        )
        (self.base / "sshd_config").write_text(text)
        self._start("sshd", [SSHD, "-D", "-e", "-f", str(self.base / "sshd_config")], self.base / "sshd.log")
        wait_until(lambda: answers_ssh(self.port))

    def write_config(self, **changes: Any) -> Path:
        folders = {"state_dir": "state", "run_dir": "run", "mount_root": "mnt", "device_dir": "dev", "keys_dir": "keys"}
        paths = {key: str(self.base / name) for key, name in folders.items()}
        file = self.base / "agent.json"
        file.write_text(json.dumps(self.config(accounts="single", **paths) | changes))
        return file

    def start_agent(self, **changes: Any) -> int:
        self.write_config(**changes)
        agent = [str(IMAGE / "agent.py"), "--config", str(self.base / "agent.json")]
        return self._start("agent", agent, self.log)

    def stop_agent(self, number: int = signal.SIGTERM) -> int:
        self._processes["agent"].send_signal(number)
        return self._processes["agent"].wait(20)

    def wait_agent(self, seconds: float = 15) -> int:
        return self._processes["agent"].wait(seconds)

    def volume(self, host: Host) -> Path:
        return self.base / "mnt" / host.name

    def poke(self) -> None:
        registry.poke(self.base / "run")

    def _start(self, name: str, argv: list[str], log: Path) -> int:
        with log.open("ab") as out:
            self._processes[name] = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        return self._processes[name].pid


@contextmanager
def cloud_of() -> Iterator[Cloud]:
    cloud = Cloud()
    try:
        yield cloud
    finally:
        cloud.close()


@contextmanager
def vault_of(kind: type[Machine] | type[Rootless], base: Path) -> Iterator[Any]:
    """A vault of a kind, with its sshd running; gone afterwards, and its processes and mounts with it."""
    with cloud_of() as cloud:
        vault = kind(base, cloud)
        try:
            vault.start_sshd()
            yield vault
        finally:
            vault.close()


def key_line(text: str) -> str:
    """A public key in base64 whose inner type is `text`: to try what orders may hold."""
    return base64.b64encode(len(text).to_bytes(4, "big") + text.encode() + bytes(36)).decode()


def mounted(vault: Any, *names: str, **config: Any) -> list[Host]:
    """Start the agent with these hosts, each with a fresh volume; gives them once all are mounted."""
    hosts = [vault.host(name) for name in names]
    for host in hosts:
        vault.attach(host.volume_id)
    vault.cloud.order(*hosts)
    vault.start_agent(**config)
    vault.cloud.wait_mounted(*hosts)
    return hosts


def back_up(host: Host, source: Path, run_id: str) -> None:
    """One whole run."""
    for done in (host.ssh("begin", run_id), host.push(source), host.ssh("commit", run_id)):
        assert done.returncode == 0, done.stderr


def listing(tree: Path) -> dict[str, tuple[object, ...]]:
    """All that a restore has to bring back: type, mode, owner, time, device, links, content, attributes."""
    seen: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        found = path.lstat()
        content: object = None
        if stat.S_ISLNK(found.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(found.st_mode):
            content = path.read_bytes()
        attributes = [
            (a, os.getxattr(path, a, follow_symlinks=False)) for a in os.listxattr(path, follow_symlinks=False)
        ]
        device = found.st_rdev if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else 0
        twin = first.setdefault(found.st_ino, name) if not stat.S_ISDIR(found.st_mode) else name
        # In whole seconds: rsync leaves a time alone that differs by less.
        seen[name] = (
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_mtime_ns // 10**9,
            device,
            twin,
            content,
            attributes,
        )
    return seen
