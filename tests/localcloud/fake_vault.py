"""Vaults without machines: in-process agents that report over real HTTP, as vault-image/agent.py does.

For tests of the control plane that need many windows fast. What a host would do to its vault over ssh, a
test does here: `transfer`, `commit`, `hang_up`.
"""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .hypervisor import Guest
from .no_machines import NoMachines
from .wire import call, made_up_key

_GIB = 1024**3
_CODE_TAG = "meta-data/tags/instance/nightvault-code"


@dataclass
class _Disk:
    """What survives on a volume: its newest commit."""

    size_gib: int
    attached_to: str | None = None
    committed: str | None = None
    change: dict[str, int] | None = None  # what that did
    used: float = 0.0  # share of its size


class FakeVault(NoMachines):
    """Plays every machine of the cloud. Set `url` before the first boot."""

    def __init__(self) -> None:
        self.url = ""
        self.disks: dict[str, _Disk] = {}
        self.torn: list[str] = []  # volumes of restores that were detached while an agent had them mounted
        self._frozen: dict[str, _Disk] = {}
        self._agents: dict[str, _Agent] = {}
        self._tokens: dict[str, tuple[str, str]] = {}  # root disks: instance id -> token, host key
        self._lock = threading.RLock()

    # what a test does in a host's stead

    def transfer(self, host: str, transfer_bytes: int) -> None:
        """The host has an rsync running, that far."""
        self._agent_of(host).set_transfer(host, transfer_bytes)

    def commit(self, host: str, run_id: str, change: dict[str, int] | None = None) -> None:
        """The host's push is whole and current; its transfer has ended. `change`: CHANGE of docs/operate.md."""
        agent = self._agent_of(host)
        disk = self.disks[agent.volume_of(host)]
        disk.committed, disk.change = run_id, change
        agent.set_transfer(host, None)

    def fill(self, host: str, used: float) -> None:
        """That share of the host's volume is full."""
        agent = self._agent_of(host)
        self.disks[agent.volume_of(host)].used = used
        agent.poke()

    def hang_up(self, host: str) -> None:
        """The host's transfer ended without a commit."""
        self._agent_of(host).set_transfer(host, None)

    def serves(self, host: str) -> bool:
        """A machine runs that has the host's volume mounted."""
        return any(agent.mounted(host) for agent in self._live_agents())

    def restores_from(self, host: str) -> str | None:
        """What a pull of the host would get: the run committed on the mounted restore's volume, else on its own."""
        for agent in self._live_agents():
            own = next((each["volume_id"] for each in agent.orders["hosts"] if each["host"] == host), None)
            for volume_id in (agent.restores.get(host), own):
                if volume_id and self.disks[volume_id].attached_to == agent.guest.instance_id:
                    return self.disks[volume_id].committed
        return None

    # the hypervisor's part

    def boot(self, guest: Guest, on_exit: Callable[[], None]) -> None:
        agent = _Agent(self, guest, on_exit)
        with self._lock:
            self._agents[guest.instance_id] = agent
        agent.thread.start()

    def power_button(self, instance_id: str) -> None:
        if agent := self._agents.get(instance_id):
            agent.end(say_goodbye=True)

    def pull_plug(self, instance_id: str) -> None:
        if agent := self._agents.get(instance_id):
            agent.end(say_goodbye=False)

    def scrap(self, instance_id: str) -> None:
        with self._lock:
            self._tokens.pop(instance_id, None)
            for disk in self.disks.values():
                if disk.attached_to == instance_id:
                    disk.attached_to = None

    def create_volume(self, volume_id: str, size_gib: int, snapshot_id: str | None) -> None:
        content = self._frozen[snapshot_id] if snapshot_id else _Disk(size_gib)
        self.disks[volume_id] = replace(content, size_gib=size_gib, attached_to=None)

    def snapshot(self, snapshot_id: str, volume_id: str) -> None:
        self._frozen[snapshot_id] = replace(self.disks[volume_id])

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._frozen.pop(snapshot_id, None)

    def delete_volume(self, volume_id: str) -> None:
        self.disks.pop(volume_id, None)

    def resize_volume(self, volume_id: str, size_gib: int) -> None:
        self.disks[volume_id].size_gib = size_gib

    def attach(self, instance_id: str, volume_id: str, device: str) -> None:  # noqa: ARG002
        self.disks[volume_id].attached_to = instance_id
        if agent := self._agents.get(instance_id):
            agent.poke()

    def detach(self, instance_id: str, volume_id: str) -> None:
        self.disks[volume_id].attached_to = None
        if agent := self._agents.get(instance_id):
            if agent.alive and volume_id in agent.restores.values():
                self.torn.append(volume_id)
            agent.poke()

    def close(self) -> None:
        for agent in list(self._agents.values()):
            agent.end(say_goodbye=False)

    # for the agents

    def credentials(self, guest: Guest) -> tuple[str, str]:
        """Token and host key from the machine's root disk; enrols with the code of its tag the first time."""
        with self._lock:
            known = self._tokens.get(guest.instance_id)
        if known:
            return known
        host_key = made_up_key(guest.instance_id)
        body = {"code": guest.metadata()[_CODE_TAG], "public_key": host_key}
        reply = call(self.url, "POST", "/enroll", body=body)
        if reply.status != 200:
            raise RuntimeError(f"the vault may not enrol: {reply.status} {reply.document}")
        with self._lock:
            self._tokens[guest.instance_id] = (reply.document["token"], host_key)
        return reply.document["token"], host_key

    def _live_agents(self) -> list["_Agent"]:
        with self._lock:
            return [agent for agent in self._agents.values() if agent.alive]

    def _agent_of(self, host: str) -> "_Agent":
        for agent in self._live_agents():
            if agent.mounted(host):
                return agent
        raise LookupError(f"no running vault has the volume of {host} mounted")


@dataclass
class _Agent:
    """One boot of one machine: reports whenever something changed, else as often as it is told."""

    vault: FakeVault
    guest: Guest
    on_exit: Callable[[], None]
    orders: dict[str, Any] = field(default_factory=lambda: {"hosts": [], "report_every_seconds": 1})
    transfers: dict[str, int] = field(default_factory=dict)
    restores: dict[str, str] = field(default_factory=dict)  # what is mounted of restore points, by host
    alive: bool = True

    def __post_init__(self) -> None:
        self.boot_id = str(uuid.uuid4())
        self._news = threading.Condition()
        self._changed = False
        self._goodbye = False
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._live, name=f"agent {self.guest.instance_id}", daemon=True)

    def mounted(self, host: str) -> bool:
        return self.alive and any(mount["host"] == host and mount["state"] == "mounted" for mount in self._mounts())

    def volume_of(self, host: str) -> str:
        return str(next(each["volume_id"] for each in self.orders["hosts"] if each["host"] == host))

    def set_transfer(self, host: str, transfer_bytes: int | None) -> None:
        with self._news:
            if transfer_bytes is None:
                self.transfers.pop(host, None)
            else:
                self.transfers[host] = transfer_bytes
            self._changed = True
            self._news.notify_all()

    def poke(self) -> None:
        with self._news:
            self._changed = True
            self._news.notify_all()

    def end(self, *, say_goodbye: bool) -> None:
        """Returns when the machine is off."""
        with self._news:
            self.alive = False
            self._goodbye = say_goodbye
            self._news.notify_all()
        if self.thread is not threading.current_thread():
            self._over.wait(10)

    def _live(self) -> None:
        try:
            token, host_key = self.vault.credentials(self.guest)
            if self.alive and self._report(token, host_key, "starting"):
                while self.alive and self._report(token, host_key, "ready"):
                    with self._news:
                        self._news.wait_for(
                            lambda: self._changed or not self.alive, self.orders["report_every_seconds"]
                        )
                        self._changed = False
            if self._goodbye:
                self._report(token, host_key, "stopping")
        except OSError:
            pass  # the cloud is being taken down
        finally:
            self.alive = False
            self._over.set()
            self.on_exit()

    def _report(self, token: str, host_key: str, state: str) -> bool:
        """Whether the machine shall stay up."""
        body = {
            "instance_id": self.guest.instance_id,
            "boot_id": self.boot_id,
            "state": state,
            "address": "127.0.0.1",
            "port": 22,
            "host_keys": [host_key],
            "mounts": self._mounts(),
            "transfers": [
                {"host": host, "live": True, "transfer_bytes": done} for host, done in list(self.transfers.items())
            ],
            "commits": [
                {"host": each["host"], "run_id": disk.committed} | ({"change": disk.change} if disk.change else {})
                for each in self.orders["hosts"]
                if (disk := self._attached(each["volume_id"])) and disk.committed
            ],
        }
        body["restores"] = self._mount_restores()
        body["drills"] = self._drills()
        reply = call(self.vault.url, "POST", "/report", token=token, body=body)
        if reply.status == 200:
            before = [self.orders.get(name) for name in ("hosts", "restores")]
            self.orders = reply.document
            self._mount_restores()
            if [self.orders[name] for name in ("hosts", "restores")] != before:
                with self._news:
                    self._changed = True
            return not self.orders["power_off"]
        return reply.status != 409

    def _mount_restores(self) -> list[dict[str, Any]]:
        """Mounts what is ordered and attached, lets go of the rest, and says what there is."""
        seen = [
            {"host": each["host"], "volume_id": each["volume_id"], "state": self._state(each["volume_id"])}
            for each in self.orders.get("restores", ())
        ]
        self.restores = {each["host"]: each["volume_id"] for each in seen if each["state"] == "mounted"}
        return seen

    def _drills(self) -> list[dict[str, Any]]:
        """Those that are ordered, of what is mounted: over in no time."""
        return [
            {
                "host": each["host"],
                "volume_id": each["volume_id"],
                "run_id": each["drill"]["run_id"],
                "state": "passed" if disk.committed == each["drill"]["point_run_id"] else "failed",
            }
            for each in self.orders.get("restores", ())
            if "drill" in each and (disk := self._attached(each["volume_id"]))
        ]

    def _state(self, volume_id: str) -> str:
        disk = self.vault.disks.get(volume_id)
        return "mounted" if disk and disk.attached_to == self.guest.instance_id else "absent"

    def _mounts(self) -> list[dict[str, Any]]:
        return [self._mount(each["host"], each["volume_id"]) for each in self.orders["hosts"]]

    def _mount(self, host: str, volume_id: str) -> dict[str, Any]:
        disk = self.vault.disks.get(volume_id)
        here = disk is not None and disk.attached_to == self.guest.instance_id
        size = disk.size_gib * _GIB if disk and here else 0
        return {
            "host": host,
            "volume_id": volume_id,
            "state": "mounted" if here else "absent",
            "detail": "",
            "size_bytes": size,
            "free_bytes": round(size * (1 - disk.used)) if disk and here else 0,
        }

    def _attached(self, volume_id: str) -> _Disk | None:
        disk = self.vault.disks.get(volume_id)
        return disk if disk and disk.attached_to == self.guest.instance_id else None
