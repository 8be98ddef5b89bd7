"""Actions that change a host: its settings, its key and token, or that it is backed up at all."""

from typing import Annotated

import msgspec
from msgspec import Struct

from chalicelib import errors
from chalicelib.amendment import Amendment
from chalicelib.commands import HostChanged, HostRetired, KeyRevoked
from chalicelib.growth import GIB
from chalicelib.model import MAX_SIZE_GIB, Host, PointState, Resting, RestorePoint, Slot, Window
from chalicelib.operators.action import Action
from chalicelib.operators.hosts import InviteAnswer, known_host, view_of
from chalicelib.operators.views import HostView
from chalicelib.pings import wrong_with
from chalicelib.wiring import Wiring

Seconds = Annotated[int, msgspec.Meta(ge=1, le=366 * 86400)]
Gib = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE_GIB)]


class HostAnswer(Struct, frozen=True, kw_only=True):
    host: HostView


class ChangeHost(Action, tag="change_host"):
    """A host's settings; what is not named stays as it is."""

    host: str
    every_seconds: Seconds | None = None
    max_size_gib: Gib | None = None
    ping_url: str | None = None
    resting: Resting | None = None

    def answer(self, wired: Wiring) -> HostAnswer:
        """Raises UnknownHost, BadRequest that names the field."""
        host, slot = active(wired, self.host)
        if all(each is None for each in (self.every_seconds, self.max_size_gib, self.ping_url, self.resting)):
            raise errors.BadRequest("name what to change: every_seconds, max_size_gib, ping_url or resting")
        if self.max_size_gib is not None and self.max_size_gib < slot.size_gib:
            raise errors.BadRequest(f"max_size_gib: {self.max_size_gib} is less than the volume has ({slot.size_gib})")
        if self.ping_url and (wrong := wrong_with(self.ping_url)):
            raise errors.BadRequest(f"ping_url: {wrong}")
        command = HostChanged(
            host=host.name,
            every_seconds=self.every_seconds,
            max_size_gib=self.max_size_gib,
            ping_url=self.ping_url,
            resting=self.resting,
        )
        changes = {} if self.every_seconds is None else {"every_seconds": self.every_seconds}
        wired.control.apply(host.vault_id, command, Amendment(host.name, **changes))
        return HostAnswer(host=view_of(wired, known_host(wired, host.name)))


class Rotate(Action, tag="rotate"):
    """A code with which a host enrols again, for a new key and token. `revoke_now`: the old ones end at once."""

    host: str
    revoke_now: bool = False

    def answer(self, wired: Wiring) -> InviteAnswer:
        """Raises UnknownHost, BadRequest for a retired host."""
        host, slot = active(wired, self.host)
        if self.revoke_now:
            wired.control.apply(host.vault_id, KeyRevoked(host=host.name), Amendment(host.name, token_hash=""))
        invited = wired.enrolment.invite(host.name, slot.size_gib, host.every_seconds, slot.limit_gib)
        return InviteAnswer(host=host.name, code=invited.code, url=wired.control_url, expires_at=invited.expires_at)


class Kept(Struct, frozen=True, kw_only=True):
    """What a retired host leaves. `volume_id` null: none, or on its way out. `stored_bytes`: an estimate."""

    volume_id: str | None
    volume_gib: int | None
    restore_points: int
    stored_bytes: int


class Deleted(Struct, frozen=True, kw_only=True):
    volume_id: str


class RetireAnswer(Struct, frozen=True, kw_only=True):
    host: str
    kept: Kept
    deleted: Deleted | None


class Retire(Action, tag="retire"):
    """A host is backed up no more: its token and key are worthless at once, its restore points stay."""

    host: str
    delete_volume: bool = False

    def answer(self, wired: Wiring) -> RetireAnswer:
        """Raises UnknownHost, VolumeHoldsMore."""
        host = known_host(wired, self.host)
        points = wired.store.points(host.name)
        newest = wired.control.choosing.newest(points) if self.delete_volume else None
        before = wired.control.store.vault(host.vault_id)
        had = before.slot(host.name) if before else None
        vault = wired.control.apply(
            host.vault_id,
            HostRetired(host=host.name, delete_volume=self.delete_volume, newest=newest),
            Amendment(host.name, retired_at=host.retired_at or wired.clock.now(), token_hash=""),
        )
        slot = vault.retired.get(host.name)
        stays = slot if slot and not slot.doomed else None
        going = had.volume_id if had and (self.delete_volume or had.doomed) else None
        windows = wired.store.windows(host.vault_id)
        return RetireAnswer(
            host=host.name,
            kept=Kept(
                volume_id=stays.volume_id if stays else None,
                volume_gib=stays.size_gib if stays and stays.volume_id else None,
                restore_points=sum(point.state is PointState.COMPLETED for point in points),
                stored_bytes=stored_bytes(points, windows),
            ),
            deleted=Deleted(volume_id=going) if going else None,
        )


def active(wired: Wiring, name: str) -> tuple[Host, Slot]:
    """A host that is backed up, with its place. Raises UnknownHost, BadRequest for a retired one."""
    host = known_host(wired, name)
    vault = wired.store.vault(host.vault_id)
    slot = vault.hosts.get(name) if vault else None
    if host.retired_at or slot is None:
        raise errors.BadRequest(f"host: {name} is retired; `invite` brings it back, with its volume if that was kept")
    return host, slot


def stored_bytes(points: list[RestorePoint], windows: list[Window]) -> int:
    """What completed restore points occupy, estimated: the oldest whole, of each later one what its run sent."""
    sent = {
        run.run_id: run.stats.bytes_sent
        for window in windows
        for run in window.runs.values()
        if run.stats and run.stats.bytes_sent is not None
    }
    total = 0
    for number, point in enumerate(p for p in points if p.state is PointState.COMPLETED):
        whole = point.used_bytes if point.used_bytes is not None else (point.volume_gib or 0) * GIB
        total += min(whole, sent.get(point.run_id, whole)) if number else whole
    return total
