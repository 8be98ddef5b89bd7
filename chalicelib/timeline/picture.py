"""What is to be seen, before any drawing: sections of vaults, lanes of hosts, cells of nights, marks of runs."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.timeline.axis import Axis, axis
from chalicelib.timeline.reading import Host, Run, Window, read_hosts, read_windows


class Mark(StrEnum):
    """How a run is shown. Each has a colour *and* a shape of its own."""

    COUNTED = "counted"  # a backup that counts: its restore point is complete
    COMPLETE = "complete"  # the push is complete, its restore point is not, or not yet
    CUT = "cut"
    FAILED = "failed"
    ABANDONED = "abandoned"
    LIVE = "running"
    RESTORED = "restored"
    MISSED = "no run"


# What needs eyes most comes first, where there is no room for all.
URGENCY = (Mark.LIVE, Mark.FAILED, Mark.ABANDONED, Mark.CUT, Mark.COMPLETE, Mark.COUNTED, Mark.RESTORED)


class Seen(Struct, frozen=True, kw_only=True):
    """A run in its window, with its mark."""

    run: Run
    window: Window
    mark: Mark


class Lane(Struct, frozen=True, kw_only=True):
    """A host: one list of runs for each night, oldest first; `missed`: nights in which it should have run."""

    host: Host
    nights: tuple[tuple[Seen, ...], ...]
    missed: frozenset[int]


class Section(Struct, frozen=True, kw_only=True):
    """A vault with its hosts."""

    vault_id: str
    windows: tuple[tuple[Window, ...], ...]
    lanes: tuple[Lane, ...]


class Picture(Struct, frozen=True, kw_only=True):
    """`left_out`: hosts without trouble that were not drawn, since there are too many."""

    now: datetime
    axis: Axis
    sections: tuple[Section, ...]
    left_out: int = 0

    @property
    def lanes(self) -> list[Lane]:
        return [lane for section in self.sections for lane in section.lanes]

    @property
    def marks(self) -> set[Mark]:
        """Those that occur."""
        found = {seen.mark for lane in self.lanes for night in lane.nights for seen in night}
        return found | ({Mark.MISSED} if any(lane.missed for lane in self.lanes) else set())


def picture(windows: Iterable[object], hosts: Iterable[object], now: datetime, days: int, zone: tzinfo) -> Picture:
    """All of it. Raises msgspec.ValidationError for a field of the wrong type, ValueError for `days` off 1 to 62."""
    if not 1 <= days <= 62:  # more columns than that have no room for their marks
        raise ValueError(f"days: {days} must be from 1 to 62")
    read = read_windows(windows, now, days)
    known = {host.name: host for host in read_hosts(hosts)}
    # A host that was retired still has its runs; it is known by them alone when nobody names it.
    for window in read:
        for run in window.runs:
            known.setdefault(run.host, Host(name=run.host, vault_id=window.vault_id))
    across = axis(_spans(read, now), now, days, zone)
    read = [w for w in read if across.night(w.end(now)) >= 0]
    ran: dict[str, list[tuple[Run, Window]]] = {name: [] for name in known}
    for window in read:
        for run in window.runs:
            ran[run.host].append((run, window))
    homes = {name: _vault_of(host, ran[name]) for name, host in known.items()}
    vaults = sorted({w.vault_id for w in read} | set(homes.values()), key=natural)
    sections = []
    for vault_id in vaults:
        names = sorted((name for name, home in homes.items() if home == vault_id), key=natural)
        lanes = [_lane(known[name], ran[name], across, now) for name in names]
        sections.append(_section(vault_id, read, lanes, across))
    return Picture(now=now, axis=across, sections=tuple(s for s in sections if s.lanes or any(s.windows)))


def at_most(whole: Picture, lanes: int) -> Picture:
    """The picture with no more lanes than that: those of overdue hosts, then those with the most bad runs."""
    if len(whole.lanes) <= lanes:
        return whole
    kept = {lane.host.name for lane in sorted(whole.lanes, key=_trouble, reverse=True)[:lanes]}
    sections = [
        replace(section, lanes=tuple(lane for lane in section.lanes if lane.host.name in kept))
        for section in whole.sections
    ]
    left_out = len(whole.lanes) - lanes
    return replace(whole, sections=tuple(s for s in sections if s.lanes), left_out=left_out)


def _trouble(lane: Lane) -> tuple[bool, int]:
    bad = sum(seen.mark in (Mark.FAILED, Mark.CUT, Mark.ABANDONED) for night in lane.nights for seen in night)
    return lane.host.overdue and not lane.host.retired_at, bad + len(lane.missed)


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts `web-2` before `web-10`."""
    return [(int(part) if part.isdecimal() else -1, part.casefold()) for part in re.split(r"(\d+)", name)]


def _spans(windows: list[Window], now: datetime) -> Iterable[tuple[datetime, datetime]]:
    for window in windows:
        end = window.end(now)
        # The ceiling is shown only where somebody met it: otherwise the hours before it would be empty.
        cut = any(run.outcome == "cut" for run in window.runs)
        yield window.opened_at, max(end, window.closes_at) if cut else end
        for run in window.runs:
            yield run.started_at, run.end(now)


def _vault_of(host: Host, ran: list[tuple[Run, Window]]) -> str:
    return host.vault_id or (ran[-1][1].vault_id if ran else "")


def _section(vault_id: str, windows: list[Window], lanes: list[Lane], across: Axis) -> Section:
    nights: list[list[Window]] = [[] for _ in across.starts]
    for window in windows:
        night = across.night(window.opened_at)
        if window.vault_id == vault_id and 0 <= night < len(nights):
            nights[night].append(window)
    shown = tuple(lane for lane in lanes if not lane.host.retired_at or any(lane.nights))
    return Section(vault_id=vault_id, windows=tuple(map(tuple, nights)), lanes=shown)


def _lane(host: Host, ran: list[tuple[Run, Window]], across: Axis, now: datetime) -> Lane:
    nights: list[list[Seen]] = [[] for _ in across.starts]
    for run, window in ran:
        night = across.night(run.started_at)
        if 0 <= night < len(nights):
            nights[night].append(Seen(run=run, window=window, mark=_mark(run, window, host)))
    for night_ in nights:
        night_.sort(key=lambda seen: seen.run.started_at)
    return Lane(host=host, nights=tuple(map(tuple, nights)), missed=_missed(host, nights, across, now))


def _mark(run: Run, window: Window, host: Host) -> Mark:
    if run.outcome is None:
        return Mark.LIVE
    if run.outcome != "complete":
        return {"cut": Mark.CUT, "failed": Mark.FAILED}.get(run.outcome, Mark.ABANDONED)
    if run.kind != "backup":
        return Mark.RESTORED
    # A window is archived before its snapshots complete; the host's last backup says that they did.
    point = any(p.run_id == run.run_id and p.complete and p.state != "error" for p in window.points)
    counts = host.last is not None and host.last.started_at >= run.started_at
    return Mark.COUNTED if point and counts else Mark.COMPLETE


def _missed(host: Host, nights: list[list[Seen]], across: Axis, now: datetime) -> frozenset[int]:
    """Nights that are over, in which a host that backs up at least daily had no backup run."""
    if host.retired_at or host.enrolled_at is None or host.every_seconds > 86400:
        return frozenset()
    enrolled, here = across.local(host.enrolled_at), across.local(now)
    return frozenset(
        n
        for n, start in enumerate(across.starts)
        if enrolled <= start
        and start + timedelta(seconds=across.shown[-1][1]) <= here
        and not any(seen.run.kind == "backup" for seen in nights[n])
    )
