"""The picture as HTML: the inside of a widget, or a page with the same in a table."""

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from html import escape

from chalicelib.timeline.picture import Picture, at_most, picture
from chalicelib.timeline.style import Theme, css
from chalicelib.timeline.svg import svg
from chalicelib.timeline.words import duration, meaning, size, stamp, summary, zone_name

# A Lambda answers at most 6 MB, and nobody scrolls through a thousand lanes in a widget:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
WIDGET_LANES = 240
# A page that is kept or mailed must not be able to call home, whatever a host's name or reason may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(
    windows: Iterable[object],
    hosts: Iterable[object],
    now: datetime,
    *,
    days: int = 14,
    embed: bool = False,
    theme: Theme = "auto",
    width: int = 1000,
    zone: tzinfo = UTC,
    stack: str = "nightvault",
) -> str:
    """A whole page, or with `embed` the inside of a custom widget; `width` in pixels.

    Everything in it is escaped; it holds no script and refers to nothing outside. Raises as `picture` does.
    """
    drawn = picture(windows, hosts, now, days, zone)
    if embed:
        return _widget(drawn, theme, width)
    title = f"{stack}: the last {days} night{'' if days == 1 else 's'}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{css(theme, page=True)}</style></head>'
        f'<body class="nvt"><main><h1>{escape(title)}</h1>{_sentence(drawn)}'
        f'<div class="across">{svg(drawn, width)}</div>{_table(drawn)}</main></body></html>'
    )


def _widget(drawn: Picture, theme: Theme, width: int) -> str:
    # `style` inside the element and not before it: cleaners parse what comes first into a head, and drop that.
    some = at_most(drawn, WIDGET_LANES)
    left_out = f"<p>{some.left_out} hosts with less trouble are not drawn.</p>" if some.left_out else ""
    return (
        f'<div class="nvt cwdb-no-default-styles"><style>{css(theme, page=False)}</style>'
        f"{_sentence(drawn)}{svg(some, width)}{left_out}</div>"
    )


def _sentence(drawn: Picture) -> str:
    late = any(lane.host.overdue and not lane.host.retired_at for lane in drawn.lanes)
    words = escape(summary(drawn))
    return f'<p class="bad">⚠ {words}</p>' if late else f"<p>{words}</p>"


def _table(drawn: Picture) -> str:
    rows = [seen for lane in drawn.lanes for night in lane.nights for seen in night]
    rows.sort(key=lambda seen: seen.run.started_at, reverse=True)
    local = drawn.axis.local
    cells = (
        (
            seen.run.host,
            stamp(local(seen.run.started_at)),
            duration((seen.run.end(drawn.now) - seen.run.started_at).total_seconds()),
            seen.run.kind,
            meaning(seen),
            size(seen.run.stats.bytes_sent) if seen.run.stats and seen.run.stats.bytes_sent is not None else "",
            seen.run.reason or "",
        )
        for seen in rows
    )
    head = ("host", f"began ({zone_name(drawn)})", "lasted", "kind", "outcome", "sent", "reason")
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    return f"<details><summary>All {len(rows)} runs as a table</summary><table><tr>{heads}</tr>{body}</table></details>"
