"""Actions about hosts: who there is, what they can be restored to, and who may come."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Struct

from chalicelib import errors
from chalicelib.model import Host, Vault, Window
from chalicelib.operators.action import Action
from chalicelib.operators.views import (
    CopyView,
    HostView,
    PointView,
    RunView,
    copy_view,
    host_view,
    point_view,
    run_view,
)
from chalicelib.wiring import Wiring

# How far back the growth of a volume is looked at.
GROWTH_HISTORY = timedelta(days=30)
Limit = Annotated[int, msgspec.Meta(ge=1, le=400)]


class HostsAnswer(Struct, frozen=True, kw_only=True):
    hosts: list[HostView]


class Hosts(Action, tag="hosts"):
    """All hosts, by name; retired ones too."""

    def answer(self, wired: Wiring) -> HostsAnswer:
        now = wired.clock.now()
        vaults = {vault.vault_id: vault for vault in wired.store.vaults()}
        since = now - GROWTH_HISTORY
        history = {vault_id: wired.store.windows(vault_id, since=since) for vault_id in vaults}
        return HostsAnswer(
            hosts=[
                host_view(host, vaults.get(host.vault_id), history.get(host.vault_id, []), now)
                for host in wired.store.hosts()
            ]
        )


class OneHostAnswer(Struct, frozen=True, kw_only=True):
    host: HostView
    runs: list[RunView]
    restore_points: list[PointView]


class OneHost(Action, tag="host"):
    """One host with its newest runs and restore points, newest first."""

    host: str
    limit: Limit = 14

    def answer(self, wired: Wiring) -> OneHostAnswer:
        """Raises UnknownHost."""
        host = known_host(wired, self.host)
        vault = wired.store.vault(host.vault_id)
        windows = wired.store.windows(host.vault_id, limit=400)
        runs = _runs_of(host.name, vault, windows)
        points = wired.store.points(host.name)[::-1]
        return OneHostAnswer(
            host=view_of(wired, host),
            runs=runs[: self.limit],
            restore_points=[point_view(point) for point in points[: self.limit]],
        )


class InviteAnswer(Struct, frozen=True, kw_only=True):
    host: str
    code: str
    url: str
    expires_at: datetime


class Invite(Action, tag="invite"):
    """A one-use code with which a host enrols."""

    host: str
    size_gib: int = 20
    max_size_gib: int | None = None
    every_seconds: int = 86400

    def answer(self, wired: Wiring) -> InviteAnswer:
        """Raises BadRequest that names the field."""
        invited = wired.enrolment.invite(self.host, self.size_gib, self.every_seconds, self.max_size_gib)
        return InviteAnswer(host=self.host, code=invited.code, url=wired.control_url, expires_at=invited.expires_at)


class RestorePointsAnswer(Struct, frozen=True, kw_only=True):
    """`copies`: in another region, newest first; those that are not made yet too."""

    restore_points: list[PointView]
    copies: list[CopyView] = []


class RestorePoints(Action, tag="restore_points"):
    """All restore points of a host, newest first."""

    host: str

    def answer(self, wired: Wiring) -> RestorePointsAnswer:
        """Raises UnknownHost."""
        host = known_host(wired, self.host)
        return RestorePointsAnswer(
            restore_points=[point_view(p) for p in wired.store.points(host.name)[::-1]],
            copies=[copy_view(copy) for copy in sorted(host.copies, key=lambda copy: copy.taken_at, reverse=True)],
        )


def known_host(wired: Wiring, name: str) -> Host:
    """Raises UnknownHost."""
    host = wired.store.host(name)
    if host is None:
        raise errors.UnknownHost(name)
    return host


def view_of(wired: Wiring, host: Host) -> HostView:
    """HOST as it is now."""
    now = wired.clock.now()
    history = wired.store.windows(host.vault_id, since=now - GROWTH_HISTORY)
    return host_view(host, wired.store.vault(host.vault_id), history, now)


def _runs_of(host: str, vault: Vault | None, archived: list[Window]) -> list[RunView]:
    """Newest first: those that wait, of the window under way, of archived ones."""
    under_way = [vault.window] if vault and vault.window else []
    runs = [run_view(run, None) for run in (vault.queued.values() if vault else ())]
    runs += [run_view(run, window.window_id) for window in [*under_way, *archived] for run in window.runs.values()]
    return sorted((run for run in runs if run.host == host), key=lambda run: run.started_at, reverse=True)
