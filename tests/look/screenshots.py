"""`make screenshots`: the pictures in docs/images, made anew from nights that are the same each time."""

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from chalicelib import timeline
from tests.look.browser import NoBrowser, chromium
from tests.look.nights import NOW, history, host, run, stamp, window

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def household() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Four hosts as in the article, with a night of each trouble, one that stays away, and a window under way."""
    windows, hosts = history(["C", "H", "O", "L"], trouble=0.09)
    opened = NOW - timedelta(minutes=14)
    runs = [run("C", 900, opened, 5, None), run("H", 901, opened + timedelta(minutes=2), 6, kind="restore")]
    away = host("laptop", "vault-1", NOW - timedelta(days=4, hours=8), enrolled_at=stamp(NOW - timedelta(days=9)))
    seen = [
        w
        for w in windows
        if w["opened_at"] < stamp(NOW - timedelta(days=4)) and w["opened_at"] > stamp(NOW - timedelta(days=9))
    ]
    for number, night in enumerate(seen):
        begun = datetime.fromisoformat(night["opened_at"]) + timedelta(minutes=3)
        night["runs"].append(run("laptop", 950 + number, begun, 9))
        night["points"].append({"run_id": night["runs"][-1]["run_id"], "complete": True, "state": "completed"})
    return [window("vault-1", opened, runs, live=True), *windows], [*hosts, away]


def pictures() -> Iterator[tuple[str, int, str]]:
    """Name, width in pixels, HTML."""
    small, many = household(), history([f"web-{n}" for n in range(24)], trouble=0.06)
    for theme in ("light", "dark"):
        yield f"timeline-{theme}", 1000, timeline.html(*small, NOW, theme=theme, width=950)
    yield "widget-24-hosts-dark", 588, _widget(timeline.html(*many, NOW, embed=True, theme="dark", width=588))
    yield "widget-overdue-light", 588, _widget(timeline.overdue(*many, NOW, theme="light"))


def _widget(inner: str) -> str:
    return f'<!doctype html><body style="margin:0">{inner}</body>'


def main() -> int:
    IMAGES.mkdir(exist_ok=True)
    try:
        with chromium() as browser:
            for name, width, page in pictures():
                tab = browser.new_page(viewport={"width": width, "height": 60})
                tab.set_content(page)
                tab.screenshot(path=IMAGES / f"{name}.png", full_page=True)
                tab.close()
                sys.stdout.write(f"docs/images/{name}.png  {(IMAGES / f'{name}.png').stat().st_size} bytes\n")
    except NoBrowser as missing:
        sys.stderr.write(f"screenshots: {missing}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
