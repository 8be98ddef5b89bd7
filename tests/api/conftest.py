"""The real application over real HTTP, on fakes: one server a process, one world a test."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import app as application
from chalicelib import wiring
from chalicelib.model import Vault
from tests.fakes.world import World
from tests.localcloud.front import Front

R1, R2, R3 = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
KEY = "ssh-ed25519 " + "A" * 68
HOST_KEY = "ssh-ed25519 " + "B" * 68


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """Of an error of ours."""
        error = self.json["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        return str(error["code"])


@dataclass
class Api:
    """A client, and the world behind the server."""

    port: int
    world: World
    tokens: dict[str, str] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        raw: bytes | None = None,
        content_type: str | None = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if data is not None and content_type is not None:
            sent["Content-Type"] = content_type
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
        finally:
            connection.close()

    # --- what hosts and the agent do ---

    def enrol(self, name: str, key: str = KEY) -> Answer:
        code = self.world.enrolment.invite(name, 5, 86400).code
        answer = self.call("POST", "/enroll", {"code": code, "public_key": key})
        assert answer.status == 200, answer
        self.tokens[name] = answer.json["token"]
        return answer

    def start(self, host: str, run_id: str, kind: str = "backup", **more: Any) -> Answer:
        return self.call("POST", "/start", {"run_id": run_id, "kind": kind, **more}, token=self.tokens[host])

    def points(self, host: str) -> Answer:
        return self.call("GET", "/points", token=self.tokens[host])

    def status(self, host: str, run_id: str | None = None) -> Answer:
        query = f"?run_id={run_id}" if run_id else ""
        return self.call("GET", f"/status{query}", token=self.tokens[host])

    def finish(self, host: str, run_id: str, outcome: str = "complete", **more: Any) -> Answer:
        body = {"run_id": run_id, "outcome": outcome, "exit_code": 0, **more}
        return self.call("POST", "/finish", body, token=self.tokens[host])

    def report_body(self, state: str = "ready", **more: Any) -> dict[str, Any]:
        vault = self.world.vault
        mounts = [
            {"host": name, "volume_id": slot.volume_id, "state": "mounted", "size_bytes": 5, "free_bytes": 4}
            for name, slot in vault.hosts.items()
        ]
        return {
            "instance_id": vault.instance_id,
            "boot_id": "boot",
            "state": state,
            "address": "203.0.113.9",
            "port": 22,
            "host_keys": [HOST_KEY],
            "mounts": mounts,
            **more,
        }

    def report(self, state: str = "ready", **more: Any) -> Answer:
        return self.call("POST", "/report", self.report_body(state, **more), token=self.tokens["@vault-1"])

    def boot(self) -> Answer:
        """The machine comes up; its agent enrols with the code that it was launched with, and reports."""
        self.world.cloud.settle()
        self.world.control.instance_changed(self.world.vault.instance_id or "")
        if "@vault-1" not in self.tokens:
            answer = self.call("POST", "/enroll", {"code": self.codes[-1], "public_key": f"{HOST_KEY} root@vault"})
            assert answer.status == 200, answer
            assert answer.json["name"] == "@vault-1"
            self.tokens["@vault-1"] = answer.json["token"]
        return self.report()

    def everything(self) -> object:
        """All that is stored, and every call made to EC2 that changes something."""
        store = self.world.store
        kept = (store._vaults, store._hosts, store._codes, store._windows, store._points)
        return [dict(each) for each in kept], list(self.world.cloud.calls)


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    front = Front(application.app)
    yield front
    front.close()


def install(world: World) -> None:
    wiring.install(world.wired)


@pytest.fixture
def api(front: Front) -> Iterator[Api]:
    world = World()
    install(world)
    api = Api(front.port, world)
    launch = world.cloud.launch

    def launching(vault: Vault) -> str:
        assert vault.launch
        api.codes.append(vault.launch.code)
        return launch(vault)

    world.cloud.launch = launching  # type: ignore[method-assign]
    for name in ("C", "H"):
        api.enrol(name)
    yield api
    wiring.install(None)
