"""The `timeline_widget` Lambda: what the dashboard shows in its custom widgets. It reads the table, and no more.

The dashboard calls it with the widget's own parameters and a `widgetContext` (theme, size, time zone), or with
`describe` for its documentation; the answer is HTML as a string:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from chalicelib import wiring
from chalicelib.model import Window
from chalicelib.ports import Store

if TYPE_CHECKING:
    from chalicelib.wiring import Wiring

DESCRIPTION = """
## nightvault
The last nights of every host: a lane a host, a column a night.

Parameter | Meaning
---|---
**show** | `timeline` (the default); `overdue`: hosts whose last backup that counts is too old; `cost`: this month's
**days** | how many nights, 1 to 62 (14)
"""
# A scroll bar beside the lanes takes some of the width.
SCROLL_BAR = 18
DEFAULT_WIDTH = 1000


class Zone(Struct, frozen=True):
    offsetISO: str = "+00:00"  # noqa: N815 (CloudWatch's word)


class Context(Struct, frozen=True):
    """What of `widgetContext` matters here. The rest is passed over, whatever AWS adds to it."""

    theme: str = "light"
    width: float = DEFAULT_WIDTH
    timezone: Zone = Zone()


class Asked(Struct, frozen=True):
    show: Literal["timeline", "overdue", "cost"] = "timeline"
    days: int = 14
    widgetContext: Context = Context()  # noqa: N815 (CloudWatch's word)


def timeline_widget(event: dict[str, Any]) -> str:
    """HTML, or Markdown if asked to `describe`. A parameter that makes no sense is answered with what is wrong."""
    if "describe" in event:
        return DESCRIPTION
    try:
        asked = msgspec.convert(event, Asked)
        wired = wiring.wired()
        return cost(wired, asked) if asked.show == "cost" else draw(asked, wired.store, wired.clock.now())
    except (msgspec.ValidationError, ValueError) as error:  # somebody edited the widget; no fault of ours
        return f"<p>This widget's parameters: {escape(str(error))}</p>"


def cost(wired: "Wiring", asked: Asked) -> str:
    """This month's bill, as far as the table knows."""
    from chalicelib.widget_cost import html  # noqa: PLC0415 (the other functions import this module, and bill nothing)

    return html(wired, "dark" if asked.widgetContext.theme == "dark" else "light")


def draw(asked: Asked, store: Store, now: datetime) -> str:
    """Raises ValueError for `days` outside 1 to 62."""
    from chalicelib import timeline  # noqa: PLC0415 (the other functions import this module, and draw nothing)
    from chalicelib.operators.views import host_view, window_view  # noqa: PLC0415

    context = asked.widgetContext
    hosts = [host_view(host, None, (), now) for host in store.hosts()]
    windows = [window_view(window, now) for window in _windows(store, now - timedelta(days=asked.days + 1))]

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
        yield from store.windows(vault.vault_id, since=since)


def _zone(offset: str) -> tzinfo:
    """`+02:00` as a time zone; UTC for anything else."""
    try:
        found = datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return UTC
    return found if isinstance(found, timezone) else UTC
