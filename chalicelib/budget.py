"""The daily budget of awake time: how much is left of a UTC day, for each kind of run.

A window is charged to the day on which it opened, so a night that crosses midnight is one night.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_never

from msgspec.structs import replace

from chalicelib.errors import WindowSpent
from chalicelib.model import Ceiling, Kind, Policy, Spent, Vault, Window


def _day(instant: datetime) -> str:
    return instant.astimezone(UTC).date().isoformat()


def _daily(kind: Kind, policy: Policy) -> int:
    match kind:
        case Kind.BACKUP:
            return policy.window_seconds
        case Kind.RESTORE:
            return policy.restore_seconds
        case Kind.DRILL:
            return policy.drill_seconds
        case _:
            assert_never(kind)


def _charges(window: Window, until: datetime) -> dict[Kind, int]:
    """Awake seconds of each kind. The only kind pays for all of it; of several, each for its own stretch.

    A hold is paid for out of the budget of restores.
    """
    if len(window.ceilings) == 1:
        return {kind: _seconds(window.opened_at, until) for kind in window.ceilings}
    charges = {}
    for kind, ceiling in window.ceilings.items():
        ends = [run.ended_at or until for run in window.runs.values() if run.kind is kind]
        if kind is Kind.RESTORE and window.held_until:
            ends.append(min(until, window.held_until))
        charges[kind] = _seconds(ceiling.since, max(ends, default=until))
    return charges


def _seconds(since: datetime, until: datetime) -> int:
    return max(0, int((until - since).total_seconds()))


def used(vault: Vault, kind: Kind, now: datetime) -> int:
    """Seconds of today's budget that are used, by the window under way too."""
    seconds = 0
    if vault.spent and vault.spent.day == _day(now):
        seconds += vault.spent.seconds.get(kind, 0)
    if vault.window and vault.window.stopped_at is None and _day(vault.window.opened_at) == _day(now):
        seconds += _charges(vault.window, now).get(kind, 0)
    return seconds


def remaining(vault: Vault, kind: Kind, now: datetime, policy: Policy) -> int:
    """Seconds left of today's budget, counting what the window under way has used so far."""
    return _daily(kind, policy) - used(vault, kind, now)


def charge(vault: Vault, window: Window, until: datetime) -> Spent:
    """The vault's account after a window that ended at `until`."""
    day = _day(window.opened_at)
    before = vault.spent.seconds if vault.spent and vault.spent.day == day else {}
    charges = _charges(window, until)
    return Spent(day=day, seconds={k: before.get(k, 0) + charges.get(k, 0) for k in {*before, *charges}})


def spent(kind: Kind, now: datetime) -> WindowSpent:
    """The refusal, with the seconds until the next UTC day."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = today + timedelta(days=1)
    return WindowSpent(kind, tomorrow, int((tomorrow - now).total_seconds()) + 1)


def ceiling(vault: Vault, kind: Kind, now: datetime, policy: Policy) -> Ceiling:
    """A new ceiling out of today's budget.

    Raises WindowSpent when less than the policy's minimum is left.
    """
    left = remaining(vault, kind, now, policy)
    if left < policy.minimum_window_seconds:
        raise spent(kind, now)
    return Ceiling(since=now, closes_at=now + timedelta(seconds=left))


def admit_kind(vault: Vault, window: Window, kind: Kind, now: datetime, policy: Policy) -> Window:
    """The window with room for a run of that kind.

    Raises WindowSpent when the kind's ceiling is nearer than the policy's minimum.
    """
    known = window.ceilings.get(kind)
    if known is None:
        new = ceiling(vault, kind, now, policy)
        return replace(window, ceilings={**window.ceilings, kind: new})
    left = (known.closes_at - now).total_seconds()
    if left < policy.minimum_window_seconds:
        if remaining(vault, kind, now, policy) >= policy.minimum_window_seconds:
            # This window is last night's; today's budget is there as soon as it has closed, which another
            # kind's runs may put off.
            closes_at = known.closes_at if left > 0 else window.closes_at
            raise WindowSpent(kind, closes_at, int((closes_at - now).total_seconds()) + 60)
        raise spent(kind, now)
    return window
