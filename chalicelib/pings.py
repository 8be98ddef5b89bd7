"""Which facts a host's own monitor is told of: a URL that its operator set, in the manner of healthchecks.io.

`/start` when a backup begins, the URL itself when one *counts*, `/fail` when one ended otherwise:
https://healthchecks.io/docs/signaling_failures/ and https://healthchecks.io/docs/measuring_script_run_time/
Told once: a ping that is lost is not repeated, and the monitor then says that nothing came.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from chalicelib.facts import Fact, PointCounted, RunEnded, RunStarted
from chalicelib.model import Kind, Outcome, Vault

MAX_URL = 500  # characters


def wrong_with(url: str) -> str | None:
    """What is wrong with a ping URL, or None. Only https, so that nobody on the way learns or changes it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is no URL"
    if parts.scheme != "https" or not parts.hostname:
        return "it must begin with https:// and a host name"
    if parts.username or parts.password or parts.query or parts.fragment or port == 0:
        return "it may have a host, a port and a path, and no more"
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"it must be at most {MAX_URL} printable ASCII characters without a blank"
    return None


def pings_of(facts: Iterable[Fact], vault: Vault) -> list[str]:
    """The URLs to ask for these facts, each once."""
    urls = []
    for fact in facts:
        match fact:
            case RunStarted(run=run) if run.kind is Kind.BACKUP:
                host, signal = run.host, "/start"
            case RunEnded(run=run) if (
                # A newer run of the host took over, and says in time how it went.
                run.kind is Kind.BACKUP and run.outcome is not Outcome.COMPLETE and not run.superseded_by
            ):
                host, signal = run.host, "/fail"
            case PointCounted(point=point) if point.complete:
                host, signal = point.host, ""
            case _:
                continue
        slot = vault.hosts.get(host)  # a retired host's monitor is told nothing
        if slot and slot.ping_url:
            urls.append(slot.ping_url.rstrip("/") + signal)
    return list(dict.fromkeys(urls))
