"""Who is overdue, as a table for a custom widget."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from html import escape

from chalicelib.timeline.marks import shape
from chalicelib.timeline.picture import Lane, picture
from chalicelib.timeline.style import Theme, css
from chalicelib.timeline.words import age, duration, stamp, zone_name

# The nights in which the newest run is looked for; before that "none" is said.
DAYS = 14
MOST_ROWS = 100


def overdue(
    windows: Iterable[object],
    hosts: Iterable[object],
    now: datetime,
    *,
    theme: Theme = "auto",
    zone: tzinfo = UTC,
) -> str:
    """A table of overdue hosts, the longest overdue first; one sentence if there are none. Raises as `picture` does."""
    drawn = picture(windows, hosts, now, DAYS, zone)
    enrolled = [lane for lane in drawn.lanes if not lane.host.retired_at]
    late = sorted((lane for lane in enrolled if lane.host.overdue), key=lambda lane: _since(lane, now))
    inner = f'<p class="bad">⚠ {len(late)} of {len(enrolled)} overdue</p>' if late else _fine(enrolled, now)
    if late:
        head = ("host", "last good backup", f"was expected by ({zone_name(drawn)})", "newest run")
        heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
        rows = "".join(_row(lane, now, zone) for lane in late[:MOST_ROWS])
        more = f"<p>and {len(late) - MOST_ROWS} more</p>" if len(late) > MOST_ROWS else ""
        inner += f"<table><tr>{heads}</tr>{rows}</table>{more}"
    return f'<div class="nvt cwdb-no-default-styles"><style>{css(theme, page=False)}</style>{inner}</div>'


def _since(lane: Lane, now: datetime) -> datetime:
    return lane.host.last.started_at if lane.host.last else lane.host.enrolled_at or now


def _fine(enrolled: list[Lane], now: datetime) -> str:
    if not enrolled:
        return "<p>No host is enrolled yet.</p>"
    oldest = min(enrolled, key=lambda lane: _since(lane, now))
    count = f"all {len(enrolled)} hosts" if len(enrolled) > 1 else "the one host"
    return (
        f'<p class="good">✓ Nobody is overdue</p><p>Of {count} the oldest last backup is that of '
        f"{escape(oldest.host.name)}: {'none yet' if not oldest.host.last else age(oldest.host, now)}.</p>"
    )


def _row(lane: Lane, now: datetime, zone: tzinfo) -> str:
    host = lane.host
    expected = (_since(lane, now) + timedelta(seconds=host.every_seconds)).astimezone(zone).replace(tzinfo=None)
    runs = [seen for night in lane.nights for seen in night]
    newest = f"none in {DAYS} days"
    if runs:
        seen = runs[-1]
        mark = f'<svg width="12" height="12" aria-hidden="true">{shape(seen.mark, 6, 6)}</svg>'
        ago = duration((now - seen.run.end(now)).total_seconds())
        said = f": {seen.run.reason}" if seen.run.reason else ""
        newest = f"{mark} {seen.mark} {ago} ago{escape(said)}"
    cells = (escape(host.name), f"{age(host, now)} ago" if host.last else "never", stamp(expected)[:-3], newest)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
