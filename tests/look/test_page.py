"""The HTML itself: what is in it and what must not be, whatever hosts are called; and its colours."""

import re
from html.parser import HTMLParser
from itertools import product

import pytest

from chalicelib import timeline
from chalicelib.timeline.marks import shape
from chalicelib.timeline.picture import Mark
from chalicelib.timeline.style import DARK, LIGHT, NAMES
from tests.look.nights import NOW, history, host, run, window

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</style><iframe src=//example.org>",
    "&lt;b&gt;",
    "]]><!--",
)
# Everything that is drawn with. CloudWatch keeps HTML, CSS and SVG, and removes scripts, `iframe` and `use`.
DRAWN_WITH = {"circle", "desc", "div", "g", "p", "path", "rect", "style", "svg", "text", "title"}
PAGE_TOO = {"body", "details", "h1", "head", "html", "main", "meta", "summary", "table", "td", "th", "tr"}


class Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if not (self.get_starttag_text() or "").endswith("/>") and tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_said_is_text(text: str, embed: bool) -> None:
    runs = [run(text, 1, NOW, 5, "failed", reason=text), run("ok", 2, NOW, 5)]
    windows = [window(text, NOW, runs) | {"window_id": text, "close_reason": text}]
    answer = timeline.html(windows, [host(text, text, None)], NOW, embed=embed, stack=text)
    read = Read(answer)
    assert set(read.tags) <= DRAWN_WITH | (set() if embed else PAGE_TOO)
    assert read.open == [], "everything that is opened is closed"
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert text not in answer
    table = Read(timeline.overdue(windows, [host(text, text, None)], NOW))
    assert set(table.tags) <= DRAWN_WITH | {"table", "tr", "th", "td"}
    assert table.open == []


@pytest.mark.parametrize("embed", [True, False])
def test_nothing_refers_to_anything_outside(embed: bool) -> None:
    windows, hosts = history(["C", "H", "O", "L"])
    read = Read(timeline.html(windows, hosts, NOW, embed=embed))
    assert not {name for name, _ in read.attributes} & {"href", "src", "xlink:href", "action", "data"}
    text = timeline.html(windows, hosts, NOW, embed=embed)
    assert re.findall(r"url\(|@import|https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    if not embed:
        assert "default-src 'none'" in text


def test_a_widget_of_a_hundred_hosts_is_far_below_what_lambda_answers() -> None:
    windows, hosts = history([f"host-{n}" for n in range(100)])
    assert len(timeline.html(windows, hosts, NOW, embed=True)) < 1_000_000
    windows, hosts = history([f"host-{n}" for n in range(1000)])
    answer = timeline.html(windows, hosts, NOW, embed=True)
    assert len(answer) < 2_500_000  # of 6 MB
    assert "760 hosts with less trouble are not drawn" in answer
    assert answer.count('class="lane late') == sum(h["overdue"] for h in hosts)


def test_every_rule_of_a_widgets_style_touches_the_widget_alone() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", timeline.html([], [], NOW, embed=True, theme="dark"), re.DOTALL)
    selectors = [each for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style) for each in rule.split(",")]
    assert selectors
    assert all(selector.strip().startswith(".nvt") for selector in selectors)


# --- colours and shapes ---------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("theme", "on"), list(product((LIGHT, DARK), ("ground", "stripe"))))
def test_text_and_marks_stand_out(theme: dict[str, str], on: str) -> None:
    for name in {"ink", "quiet", *NAMES.values()}:
        assert contrast(theme[name], theme[on]) >= 4.5, name


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_marks_stand_out_on_a_window(theme: dict[str, str]) -> None:
    """Graphics need 3 to 1: https://www.w3.org/TR/WCAG22/#non-text-contrast"""
    for name in {"edge", *NAMES.values()}:
        assert contrast(theme[name], theme["window"]) >= 3, name


def test_every_mark_has_a_shape_and_a_name_of_its_own() -> None:
    def form(mark: Mark) -> str:
        return shape(mark, 0, 0).replace(NAMES[mark], "")

    assert len({form(mark) for mark in Mark}) == len(Mark)
    assert set(NAMES.values()) <= set(LIGHT)
    assert set(LIGHT) == set(DARK)
