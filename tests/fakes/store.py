"""ports.Store in memory, with DynamoDB's promises: conditional writes, all or nothing."""

from collections.abc import Iterable
from datetime import datetime
from threading import Lock

from msgspec.structs import replace

from chalicelib.errors import CodeRefused
from chalicelib.model import Code, Copy, Drill, Host, LastBackup, Marks, RestorePoint, RetentionLook, Vault, Window
from chalicelib.ports import Conflict
from chalicelib.store import BESIDE


class MemoryStore:
    def __init__(self) -> None:
        self._lock = Lock()
        self._vaults: dict[str, Vault] = {}
        self._hosts: dict[str, Host] = {}
        self._codes: dict[str, Code] = {}
        self._windows: dict[str, dict[str, Window]] = {}
        self._points: dict[tuple[str, str], RestorePoint] = {}
        self._graves: dict[tuple[str, str], RestorePoint] = {}

    def vault(self, vault_id: str) -> Vault | None:
        return self._vaults.get(vault_id)

    def vaults(self) -> list[Vault]:
        return sorted(self._vaults.values(), key=lambda vault: vault.vault_id)

    def save(self, vault: Vault, archive: Window | None = None, host: Host | None = None) -> Vault:
        with self._lock:
            saved = self._save(vault, archive)
            if host:
                self._put_host(host)
            return saved

    def _put_host(self, host: Host) -> None:
        known = self._hosts.get(host.name)
        beside = {name: getattr(known, name) for name in BESIDE} if known else BESIDE
        self._hosts[host.name] = replace(host, **beside)

    def _save(self, vault: Vault, archive: Window | None) -> Vault:
        current = self._vaults.get(vault.vault_id)
        if (current.version if current else 0) != vault.version:
            raise Conflict(current)
        saved = replace(vault, version=vault.version + 1)
        self._vaults[vault.vault_id] = saved
        if archive:
            self._windows.setdefault(vault.vault_id, {})[archive.window_id] = archive
        return saved

    def host(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def hosts(self) -> list[Host]:
        return sorted(self._hosts.values(), key=lambda host: host.name)

    def put_code(self, code: Code) -> None:
        self._codes.setdefault(code.code_hash, code)

    def code(self, code_hash: str) -> Code | None:
        return self._codes.get(code_hash)

    def redeem(self, code: Code, vault: Vault, host: Host | None, now: datetime) -> Vault:
        with self._lock:
            stored = self._codes.get(code.code_hash)
            if stored is None or stored.used_at or stored.expires_at <= now:
                raise CodeRefused
            saved = self._save(vault, None)
            self._codes[code.code_hash] = replace(stored, used_at=now)
            if host:
                self._put_host(host)
            return saved

    def put_point(self, point: RestorePoint) -> None:
        with self._lock:
            known = self._points.get(_place(point))
            marks = replace(point.marks, version=1) if point.marks != Marks() else Marks()
            self._points[_place(point)] = replace(point, marks=known.marks if known and known.marks.version else marks)

    def points(self, host: str) -> list[RestorePoint]:
        return _oldest_first(point for (owner, _), point in self._points.items() if owner == host)

    def mark(self, point: RestorePoint, marks: Marks) -> bool:
        with self._lock:
            known = self._points.get(_place(point))
            if known is None or known.marks.version != point.marks.version:
                return False
            self._points[_place(point)] = replace(known, marks=replace(marks, version=known.marks.version + 1))
            return True

    def bury(self, point: RestorePoint) -> None:
        assert point.marks.deleted_at
        with self._lock:
            self._graves[_place(point)] = point
            self._points.pop(_place(point), None)

    def buried(self, host: str) -> list[RestorePoint]:
        return _oldest_first(point for (owner, _), point in self._graves.items() if owner == host)

    def put_retention_look(self, host: str, look: RetentionLook | None) -> None:
        with self._lock:
            if host in self._hosts:
                self._hosts[host] = replace(self._hosts[host], retention_look=look)

    def put_drill(self, host: str, drill: Drill) -> None:
        with self._lock:
            if host in self._hosts:
                self._hosts[host] = replace(self._hosts[host], drill=drill)

    def put_copies(self, host: Host, copies: tuple[Copy, ...]) -> bool:
        with self._lock:
            known = self._hosts.get(host.name)
            if known is None or known.copies_version != host.copies_version:
                return False
            self._hosts[host.name] = replace(known, copies=copies, copies_version=known.copies_version + 1)
            return True

    def move_last_backup(self, host: str, last: LastBackup) -> bool:
        with self._lock:
            known = self._hosts.get(host)
            if known is None or (known.last_backup and known.last_backup.started_at >= last.started_at):
                return False
            since = known.points_since or last.completed_at
            self._hosts[host] = replace(known, last_backup=last, points_since=since)
            return True

    def windows(self, vault_id: str, limit: int | None = None, *, since: datetime | None = None) -> list[Window]:
        archived = self._windows.get(vault_id, {})
        newest_first = [archived[key] for key in sorted(archived, reverse=True)]
        return [window for window in newest_first if since is None or window.opened_at >= since][:limit]


def _place(point: RestorePoint) -> tuple[str, str]:
    return point.host, str(point.snapshot_id)


def _oldest_first(points: Iterable[RestorePoint]) -> list[RestorePoint]:
    return sorted(points, key=lambda point: (str(point.made_at), str(point.snapshot_id)))
