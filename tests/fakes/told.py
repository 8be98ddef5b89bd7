"""ports.Telemetry, ports.Notifier and ports.Pinger that remember."""

from datetime import datetime

from chalicelib.facts import Fact
from chalicelib.model import Host, Vault


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.faults: list[tuple[str, dict[str, object]]] = []
        self.facts: list[Fact] = []
        self.alerts: list[tuple[str, str]] = []
        self.overdue: list[str] = []
        self.pinged: list[str] = []
        self.pings_fail = False
        self.looked_at: list[str] = []

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def fault(self, name: str, **fields: object) -> None:
        self.faults.append((name, fields))

    def fact(self, fact: Fact) -> None:
        self.facts.append(fact)

    def gauges(self, hosts: list[Host], vaults: list[Vault], now: datetime) -> None:
        self.looked_at = [vault.vault_id for vault in vaults]
        self.overdue = [host.name for host in hosts if host.overdue(now)]

    def past_window(self, vaults: list[Vault], now: datetime) -> None: ...

    def ping(self, urls: list[str]) -> dict[str, str]:
        self.pinged += urls
        return dict.fromkeys(urls, "HTTP 500") if self.pings_fail else {}

    def notify(self, subject: str, message: str) -> None:
        self.alerts.append((subject, message))
