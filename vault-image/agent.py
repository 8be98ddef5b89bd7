#!/usr/bin/python3 -EsS
"""The vault's agent: asks the control plane what to be, and brings it about.

It mounts volumes, lets hosts in, tells who is pushing, and powers the machine off when its time is over,
whether or not anyone can still be reached to say so. What it says and hears is in docs/protocol.md,
"POST /report"; its configuration is in README.md.
"""

import argparse
import http.client
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import agent_config
import registry
from agent_accounts import Accounts
from agent_config import Config
from agent_control import Control, ControlRefused, Metadata, NotEnrolled
from agent_drills import Drills
from agent_orders import BadOrders, HostOrder, Orders, RestoreOrder, parse
from agent_sftp import Sftp
from agent_transfers import Transfers, commit_of
from agent_volumes import Mount, Volumes, said

# However often something changes, reports are at least this far apart, in seconds.
_LEAST_BETWEEN_REPORTS = 0.2
_LONGEST_BACKOFF = 60.0
_LAST_REPORT_SECONDS = 5.0
_POWER_OFF_AGAIN_SECONDS = 10.0
# How often to look for a disk that no event announces (a rootless vault's folder).
_LOOK_SECONDS = 1.0


def log(event: str, **fields: object) -> None:
    """One line of JSON; never a token, a code or a header."""
    sys.stdout.write(json.dumps({"event": event, **fields}, default=str) + "\n")
    sys.stdout.flush()


@dataclass
class PowerRule:
    """When the machine has to go, on the monotonic clock: by the newest orders, or for want of any."""

    off_at: float
    why: str = "no orders ever came"

    def ordered(self, asked_at: float, seconds: float) -> None:
        """Orders came to a report sent at `asked_at`; the answer's way took none of `seconds` away from anyone."""
        self.off_at = asked_at + seconds
        self.why = "the window is over"

    def over(self, now: float) -> str | None:
        """Why to power off at `now`, or None."""
        return self.why if now >= self.off_at else None


class Agent:
    """One machine's agent. `clock` is monotonic, in seconds."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._metadata = Metadata(config.metadata_url)
        self._control = Control(config.control_url, config.state_dir / "token", self._metadata)
        self._accounts = Accounts(config)
        self._volumes = Volumes(config)
        self._points = Volumes(config, points=True)
        self._drills = Drills(config)
        self._sftp = Sftp(config)
        self._transfers = Transfers(config.run_dir, config.sftp_idle_seconds, clock)
        self._power = PowerRule(clock() + config.power_off_without_orders_seconds)
        self._orders: Orders | None = None
        self._mounts: list[Mount] = []
        self._restores: list[Mount] = []
        self._commits: dict[str, dict[str, Any]] = {}  # of every volume that was here since boot: also after it left
        self._tell_changes = True  # unless the control plane has refused a report that did
        self._said: object = None  # what the last report that was answered said, numbers that flow left out
        self._next_report = self._not_before = clock()
        self._failures = 0
        self._sshd_answers = False
        self._identity: dict[str, object] = {}
        self._wake = selectors.DefaultSelector()
        self._stopping = False
        self._interruptible = False

    def run(self) -> int:
        """Run until the machine is to go, or SIGTERM. Gives the exit code."""
        os.umask(0o022)  # whatever the unit says: hosts' accounts pass through these folders
        for folder, mode in (
            (self._config.state_dir, 0o700),
            (self._config.run_dir, 0o755),
            (self._volumes.root, 0o755),
            (self._points.root, 0o711),
        ):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        self._listen()
        log("started", control=self._config.control_url, run_dir=self._config.run_dir)
        while not self._stopping:
            try:
                if self._power_off_if_due():
                    return 0
                wait = self._turn()
            except Exception as error:  # whatever it is, the loop goes on: it alone powers the machine off
                log("turn_failed", error=repr(error)[:300])
                wait = 5.0
            self._sleep(wait)
        log("stopping")
        self._leave()
        self._last_report()
        return 0

    def _turn(self) -> float:
        """Bring about what is ordered, and report if it is time. Gives the seconds until the next turn."""
        if self._orders:
            self._apply(self._orders)
        body = self._body("ready" if self._ready() else "starting")
        news = _news(body)
        now = self._clock()
        due = self._next_report if news == self._said else 0.0
        if now < max(due, self._not_before):
            return self._until(max(due, self._not_before))
        asked_at = self._clock()
        before = self._orders
        self._report(body, news, asked_at)
        # New orders are brought about, and told, at once.
        return 0.0 if self._orders != before else self._until(max(self._next_report, self._not_before))

    def _until(self, instant: float) -> float:
        waits = [instant, self._power.off_at]
        if any(mount.state == "absent" for mount in (*self._mounts, *self._restores)) or not self._sshd_answers:
            waits.append(self._clock() + _LOOK_SECONDS)
        return max(0.0, min(waits) - self._clock())

    def _apply(self, orders: Orders) -> None:
        apart = [order for order in orders.hosts if not self._account(order)]
        hosts = tuple(order for order in orders.hosts if order not in apart)
        # First out, then in: a host that is no longer ordered, or whose disk isn't the one at its place.
        if self._accounts.write_keys(hosts):
            log("keys_written", hosts=[order.host for order in hosts])
        stray = {order.host for order in apart}
        volumes = [order for order in orders.hosts if order.volume_id]
        self._mounts = self._bring(self._volumes, volumes, self._mounts, stray)
        self._restores = self._bring(self._points, orders.restores, self._restores, stray)
        points = [mount.host for mount in self._restores if mount.state == "mounted"]
        self._drills.apply(orders.restores, hosts, points)
        for host in {*self._sftp.shown(), *(order.host for order in orders.hosts)}:
            try:
                if host in [order.host for order in hosts]:
                    self._sftp.show(host, (self._points if host in points else self._volumes).root / host)
                else:
                    self._sftp.hide(host)
            except (OSError, subprocess.SubprocessError) as error:
                log("sftp_failed", host=host, error=said(error))

    def _bring(
        self, volumes: Volumes, orders: Iterable[HostOrder | RestoreOrder], before: list[Mount], stray: set[str]
    ) -> list[Mount]:
        """See that exactly the ordered volumes are mounted; `stray` are hosts without an account."""
        misplaced = volumes.misplaced(orders)
        for host in misplaced:
            self._release(volumes, host)
        whys = dict.fromkeys(set(misplaced) & set(volumes.places()), "another disk is stuck at its place")
        whys |= dict.fromkeys(stray, "its account can't be made")
        mounts = []
        for order in sorted(orders, key=lambda order: order.host):
            why = whys.get(order.host)
            mount = Mount(order.host, order.volume_id, "error", why) if why else volumes.apply(order)
            if _plain(mount) not in map(_plain, before):
                kind = "mount" if volumes is self._volumes else "restore"
                log(kind, host=mount.host, volume_id=mount.volume_id, state=mount.state, detail=mount.detail)
            mounts.append(mount)
        if volumes is self._points:  # nobody may take a volume away that is still in use
            left = set(misplaced) & set(whys) - {mount.host for mount in mounts}
            mounts += [replace(m, state="error", detail="no longer ordered, in use") for m in before if m.host in left]
        return mounts

    def _account(self, order: HostOrder) -> bool:
        try:
            self._accounts.apply(order)
        except (OSError, subprocess.SubprocessError) as error:
            log("account_failed", host=order.host, error=said(error))
            return False
        return True

    def _release(self, volumes: Volumes, host: str) -> None:
        log("release", host=host, root=volumes.root)
        try:
            self._sftp.hide(host)
            if volumes is self._points:
                self._drills.end(host)
            under_way = registry.under_way(self._config.run_dir / host)
            if not registry.end(c for c in under_way if volumes is self._volumes or c.kind in registry.READS):
                log("transfer_does_not_end", host=host)
            volumes.release(host)
        except (OSError, subprocess.SubprocessError) as error:
            log("release_failed", host=host, error=said(error))

    def _body(self, state: str) -> dict[str, Any]:
        if not self._identity:
            keys = [" ".join(path.read_text().split()) for path in self._config.host_key_files]
            instance_id = self._metadata.get("instance-id")
            address = self._config.address or self._metadata.get("public-ipv4") or self._metadata.get("local-ipv4")
            if not instance_id or not address:
                raise OSError("instance metadata has no instance-id, or no address; see metadata_url and address")
            boot_id = self._config.boot_id_file.read_text().strip()
            self._identity = {"instance_id": instance_id, "boot_id": boot_id, "address": address, "host_keys": keys}
        mounted = [mount.host for mount in self._mounts if mount.state == "mounted"]
        for host in mounted:
            self._look_for_commit(host)
        body = {
            **self._identity,
            "state": state,
            "port": self._config.port,
            "mounts": [asdict(mount) for mount in self._mounts],
            "transfers": self._transfers.live(
                [order.host for order in self._orders.hosts] if self._orders else [], self._sftp.sessions()
            ),
            "commits": [
                {"host": host} | {key: commit[key] for key in commit if key != "change" or self._tell_changes}
                for host, commit in sorted(self._commits.items())
            ],
        }
        if self._restores:  # only those who order restores need know the word
            body["restores"] = [dict(zip(_PLAIN, _plain(mount), strict=True)) for mount in self._restores]
        drills = self._drills.told()
        if drills:
            body["drills"] = drills
        return body

    def _look_for_commit(self, host: str) -> None:
        commit = commit_of(self._config.mount_root / host)
        if commit:
            self._commits[host] = commit

    def _ready(self) -> bool:
        """sshd answers, and the first orders have been applied. Once true, true for good."""
        if not self._sshd_answers:
            with (
                suppress(OSError),
                socket.create_connection((self._config.address or "127.0.0.1", self._config.port), 1.0) as probe,
            ):
                self._sshd_answers = probe.recv(4) == b"SSH-"
        return self._sshd_answers and self._orders is not None

    def _report(self, body: dict[str, Any], news: object, asked_at: float) -> None:
        host_keys: Any = self._identity["host_keys"]
        try:
            self._interruptible = True
            try:
                orders = parse(self._control.report(body, host_keys[0]))
            finally:
                self._interruptible = False
        except ControlRefused as refusal:
            if refusal.status == 409 and refusal.code == "StaleVault":
                log("stale_vault", message=str(refusal))
                self._power.off_at, self._power.why = self._clock(), "stale"
            else:
                if refusal.status in (400, 413):  # an older one, or one that takes no more
                    self._tell_changes = False
                self._back_off(refusal, refusal.retry_after_seconds)
        except (OSError, ValueError, http.client.HTTPException, NotEnrolled, BadOrders) as error:
            self._back_off(error, 0.0)
        else:
            if self._orders is None or orders.faults != self._orders.faults:
                log("orders", hosts=[order.host for order in orders.hosts], faults=orders.faults)
            self._failures = 0
            self._said = news
            self._orders = orders
            self._power.ordered(asked_at, orders.seconds_to_power_off)
            if orders.power_off:
                self._power.off_at, self._power.why = asked_at, "ordered"
            self._next_report = asked_at + orders.report_every_seconds
            self._not_before = asked_at + _LEAST_BETWEEN_REPORTS

    def _back_off(self, error: Exception, retry_after_seconds: float) -> None:
        self._failures += 1
        wait = min(_LONGEST_BACKOFF, 2.0 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        wait = max(wait, min(retry_after_seconds, _LONGEST_BACKOFF))
        log("report_failed", error=str(error)[:300], failures=self._failures, again_in_seconds=round(wait, 1))
        self._not_before = self._clock() + wait

    def _power_off_if_due(self) -> bool:
        why = self._power.over(self._clock())
        if why is None:
            return False
        log("power_off", why=why)
        self._leave()
        if why != "stale":  # the control plane would only say so again
            self._last_report()
        command = self._config.power_off_command
        try:
            subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            log("power_off_failed", error=str(error)[:300], again_in_seconds=_POWER_OFF_AGAIN_SECONDS)
            self._orders = None  # nothing is mounted again, unless someone can be reached who orders it
            self._sleep(_POWER_OFF_AGAIN_SECONDS)
            return False
        return True

    def _leave(self) -> None:
        """Let nobody in, end every transfer and free every place, with all that was written on disk."""
        with suppress(OSError):
            self._accounts.write_keys(())
        self._drills.apply(())
        for host in self._points.places():
            self._release(self._points, host)
        for host in self._volumes.places():
            registry.end(registry.under_way(self._config.run_dir / host))
            self._look_for_commit(host)
            self._release(self._volumes, host)
        self._mounts = []
        self._restores = []
        os.sync()

    def _last_report(self) -> None:
        try:
            body = self._body("stopping")
            host_keys: Any = self._identity["host_keys"]
            self._control.report(body, host_keys[0], _LAST_REPORT_SECONDS)
        except (OSError, ValueError, http.client.HTTPException, ControlRefused, NotEnrolled) as error:
            log("last_report_failed", error=str(error)[:300])

    def _listen(self) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._wake.register(read, selectors.EVENT_READ)
        group = self._accounts.group_id()
        listener = registry.listen(self._config.run_dir, 0o620)
        if self._config.accounts == "system":
            os.chown(self._config.run_dir / "agent.sock", 0, group)
        self._wake.register(listener, selectors.EVENT_READ)
        with suppress(OSError):
            # The kernel's news of disks that come and go (NETLINK_KOBJECT_UEVENT, its own group).
            disks = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 15)
            disks.bind((0, 1))
            self._wake.register(disks, selectors.EVENT_READ)

    def _stop(self, _signal: int, _frame: object) -> None:
        if self._interruptible and not self._stopping:
            self._stopping = True
            raise InterruptedError("stopping")  # out of a call that may take its whole timeout
        self._stopping = True

    def _sleep(self, seconds: float) -> None:
        """Wait for a poke, a disk, a signal, the end of a transfer, or `seconds`."""
        with self._transfers.ends() as (transfers, ended):
            ends = [*transfers, *self._drills.ends()]
            seconds = min(seconds, _LEAST_BETWEEN_REPORTS) if ended else seconds
            for descriptor in ends:
                self._wake.register(descriptor, selectors.EVENT_READ)
            try:
                for key, _ in self._wake.select(0 if self._stopping else seconds):
                    if key.fd not in ends:
                        with suppress(BlockingIOError):
                            while os.read(key.fd, 65536):
                                pass
            finally:
                for descriptor in ends:
                    self._wake.unregister(descriptor)


_PLAIN = ("host", "volume_id", "state", "detail")


def _plain(mount: Mount) -> tuple[str, ...]:
    return tuple(getattr(mount, name) for name in _PLAIN)


def _news(body: dict[str, Any]) -> object:
    """What of a report is worth telling at once: not bytes that flow, but what began, ended or changed."""
    return (
        body["state"],
        body["address"],
        [(mount["host"], mount["volume_id"], mount["state"], mount["detail"]) for mount in body["mounts"]],
        [transfer["host"] for transfer in body["transfers"]],
        body["commits"],
        body.get("restores"),
        [(drill["run_id"], drill["state"], drill["detail"]) for drill in body.get("drills", ())],
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/nightvault/agent.json"))
    try:
        config = agent_config.load(parser.parse_args(arguments).config)
        agent = Agent(config)
    except (agent_config.BadConfig, OSError) as error:
        sys.stderr.write(f"nightvault agent: {error}\n")
        return 2
    return agent.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
