"""The words that go with the pictures: durations, sizes, and what appears when a run is hovered over."""

from datetime import datetime

from chalicelib.timeline.axis import Axis
from chalicelib.timeline.picture import Lane, Mark, Picture, Seen
from chalicelib.timeline.reading import Host, Window

MEANING = {
    Mark.COUNTED: "complete, and its restore point counts",
    Mark.COMPLETE: "complete, but its restore point does not count (yet)",
    Mark.CUT: "cut: the window ended first",
    Mark.FAILED: "failed",
    Mark.ABANDONED: "abandoned: the vault no longer saw it",
    Mark.LIVE: "running",
    Mark.RESTORED: "restored",
    Mark.MISSED: "no run",
}


def meaning(seen: Seen) -> str:
    """What a mark says of this run."""
    return "checked" if seen.run.kind == "drill" and seen.mark is Mark.RESTORED else MEANING[seen.mark]


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3.6 h`, `2.1 d`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    for size, unit in ((60, "min"), (3600, "h")):
        if seconds < 100 * size and (unit == "min" or seconds < 48 * size):
            return f"{seconds / size:.{0 if unit == 'min' or seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds / 86400:.{1 if seconds < 864000 else 0}f} d"


def size(count: int) -> str:
    """Bytes in decimal units, as rsync's statistics are: `1.2 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' or value >= 100 else 1}f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def stamp(local: datetime) -> str:
    return f"{local:%a} {local.day} {local:%b %H:%M:%S}"


def age(host: Host, now: datetime) -> str:
    """Of the newest backup that counts, from when its run began."""
    return duration((now - host.last.started_at).total_seconds()) if host.last else "never"


def standing(host: Host, now: datetime) -> str:
    """What stands at the end of a lane."""
    if host.retired_at:
        return "retired"
    return f"overdue {age(host, now)}" if host.overdue else age(host, now)


def about_run(seen: Seen, across: Axis, now: datetime) -> str:
    run = seen.run
    begun, ended = across.local(run.started_at), across.local(run.end(now))
    until = f"{ended:%H:%M:%S}" if run.ended_at else "now"
    lines = [
        f"{run.host}: {'' if run.kind == 'backup' else f'{run.kind}, '}{meaning(seen)}",
        f"{stamp(begun)} to {until} ({duration((run.end(now) - run.started_at).total_seconds())})",
    ]
    if run.stats and run.stats.bytes_sent is not None:
        of = f" of {size(run.stats.bytes_total)}" if run.stats.bytes_total is not None else ""
        files = f", {run.stats.files_sent:,} files" if run.stats.files_sent is not None else ""
        lines.append(f"sent {size(run.stats.bytes_sent)}{of}{files}")
    if run.exit_code:
        lines.append(f"exit code {run.exit_code}")
    if run.reason:
        lines.append(run.reason)
    lines += [f"unusual: {each.unusual}" for each in seen.window.points if each.run_id == run.run_id and each.unusual]
    lines.append(f"window {seen.window.window_id}")
    return "\n".join(lines)


def about_window(window: Window, across: Axis, now: datetime) -> str:
    opened, end, ceiling = (across.local(t) for t in (window.opened_at, window.end(now), window.closes_at))
    until = f"{end:%H:%M:%S}" if window.stopped_at else "now"
    awake = duration((window.end(now) - window.opened_at).total_seconds())
    lines = [
        f"{window.vault_id} awake: {stamp(opened)} to {until} ({awake})",
        f"its window would have ended at {ceiling:%H:%M:%S}" if window.stopped_at else f"until {ceiling:%H:%M:%S}",
    ]
    if window.ready_at:
        lines.append(f"ready after {duration((window.ready_at - window.opened_at).total_seconds())}")
    if window.close_reason:
        lines.append(window.close_reason)
    return "\n".join([*lines, f"window {window.window_id}"])


def about_host(lane: Lane, now: datetime) -> str:
    host = lane.host
    last = f"last backup that counts began {age(host, now)} ago" if host.last else "no backup counts yet"
    flag = " OVERDUE." if host.overdue else " Retired." if host.retired_at else ""
    return f"{host.name}: {last}.{flag}"


def summary(picture: Picture) -> str:
    """One sentence that says what matters, for those who do not see the picture too."""
    hosts = [lane.host for lane in picture.lanes if not lane.host.retired_at]
    overdue = [host.name for host in hosts if host.overdue]
    count = f"{len(hosts)} host{'' if len(hosts) == 1 else 's'}"
    if not hosts:
        return "No host is enrolled."
    if not overdue:
        return f"{count}, none overdue."
    named = ", ".join(overdue[:5]) + (f" and {len(overdue) - 5} more" if len(overdue) > 5 else "")
    return f"{count}, {len(overdue)} overdue: {named}."


def zone_name(picture: Picture) -> str:
    """`UTC`, or the offset."""
    offset = f"{picture.now.astimezone(picture.axis.zone):%z}"
    return "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:]}"
