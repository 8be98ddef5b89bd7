"""The `timeline_widget` Lambda: what the dashboard shows in its custom widgets. It reads the table, and no more.

The dashboard calls it with the widget's own parameters and a `widgetContext` (theme, size, time zone), or with
`describe` for its documentation; the answer is HTML as a string:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from html import escape
from typing import Any, Literal

import msgspec
from msgspec import Struct

from chalicelib import wiring
from chalicelib.model import Host, Window
from chalicelib.ports import Store

DESCRIPTION = """
## nightvault
The last nights of every host: a lane a host, a column a night.

Parameter | Meaning
---|---
**show** | `timeline` (the default) or `overdue`: the hosts whose last backup that counts is too old
**days** | how many nights, 1 to 62 (14)
"""
# A scroll bar beside the lanes takes some of the width.
SCROLL_BAR = 18
DEFAULT_WIDTH = 1000
# Windows of a vault to read at first: two weeks of one a night are fewer, and more are read only if need be.
FIRST_LOOK = 32


class Zone(Struct, frozen=True):
    offsetISO: str = "+00:00"  # noqa: N815 (CloudWatch's word)


class Context(Struct, frozen=True):
    """What of `widgetContext` matters here. The rest is passed over, whatever AWS adds to it."""

    theme: str = "light"
    width: float = DEFAULT_WIDTH
    timezone: Zone = Zone()


class Asked(Struct, frozen=True):
    show: Literal["timeline", "overdue"] = "timeline"
    days: int = 14
    widgetContext: Context = Context()  # noqa: N815 (CloudWatch's word)


def timeline_widget(event: dict[str, Any]) -> str:
    """HTML, or Markdown if asked to `describe`. A parameter that makes no sense is answered with what is wrong."""
    if "describe" in event:
        return DESCRIPTION
    try:
        asked = msgspec.convert(event, Asked)
        return draw(asked, wiring.store(), wiring.wired().clock.now())
    except (msgspec.ValidationError, ValueError) as error:  # somebody edited the widget; no fault of ours
        return f"<p>This widget's parameters: {escape(str(error))}</p>"


def draw(asked: Asked, store: Store, now: datetime) -> str:
    """Raises ValueError for `days` outside 1 to 62."""
    context = asked.widgetContext
    hosts = [_host(host, now) for host in store.hosts()]
    windows = [_window(window) for window in _windows(store, now - timedelta(days=asked.days + 1))]
    from chalicelib import timeline  # noqa: PLC0415 (the other functions import this module, and draw nothing)

    theme: timeline.Theme = "dark" if context.theme == "dark" else "light"
    zone = _zone(context.timezone.offsetISO)
    if asked.show == "overdue":
        return timeline.overdue(windows, hosts, now, theme=theme, zone=zone)
    width = max(0, int(context.width) - SCROLL_BAR)
    return timeline.html(windows, hosts, now, days=asked.days, embed=True, theme=theme, width=width, zone=zone)


def _windows(store: Store, since: datetime) -> Iterator[Window]:
    for vault in store.vaults():
        if vault.window:
            yield vault.window
        limit = FIRST_LOOK
        found = store.windows(vault.vault_id, limit)
        while len(found) == limit and found[-1].opened_at > since:
            limit *= 4
            found = store.windows(vault.vault_id, limit)
        yield from (window for window in found if window.opened_at > since)


def _zone(offset: str) -> tzinfo:
    """`+02:00` as a time zone; UTC for anything else."""
    try:
        found = datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return UTC
    return found if isinstance(found, timezone) else UTC


def _host(host: Host, now: datetime) -> dict[str, Any]:
    """HOST of docs/operate.md, as far as pictures need it."""
    return {**msgspec.to_builtins(host), "last": msgspec.to_builtins(host.last_backup), "overdue": host.overdue(now)}


def _window(window: Window) -> dict[str, Any]:
    """WINDOW of docs/operate.md, likewise."""
    plain = msgspec.to_builtins(window)
    return {
        **plain,
        "closes_at": msgspec.to_builtins(window.closes_at),
        "runs": list(plain["runs"].values()),
        "points": list(plain["points"].values()),
    }
