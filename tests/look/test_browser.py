"""The pictures in a real Chromium: everything is there, in its place, in its theme, and can be hovered over."""

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from chalicelib import timeline
from chalicelib.timeline.style import DARK, LIGHT, Theme
from tests.look.browser import NoBrowser, chromium
from tests.look.nights import NOW, history, host, run, stamp, window

pytestmark = pytest.mark.browser

Nights = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as browser:
            yield browser
    except NoBrowser as missing:
        pytest.skip(str(missing))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert asked == [], "it asked the network for something"
    assert said == [], "the browser complained"


def hourly() -> Nights:
    dice = random.Random(3)  # noqa: S311
    windows = []
    for number in range(14 * 12):
        opened = NOW - timedelta(hours=2 * (number // 12) * 12 + number % 12, minutes=dice.randint(5, 50))
        windows.append(
            window("vault-1", opened, [run("laptop", number, opened, 3, dice.choice(["complete", "failed"]))])
        )
    return windows, [host("laptop", "vault-1", NOW - timedelta(hours=1), every_seconds=3600)]


def under_way() -> Nights:
    """Live runs and a restore; a host that is overdue, one that never ran, one that is retired."""
    windows, hosts = history(["C", "H", "O", "L"])
    opened = NOW - timedelta(minutes=20)
    runs = [
        run("C", 900, opened, 5, None),
        run("H", 901, opened, 6, kind="restore"),
        run("O", 902, opened + timedelta(minutes=3), 4, None),
    ]
    live = window("vault-1", opened, runs, live=True)
    more = [
        host("db-late", "vault-1", NOW - timedelta(days=5)),
        host("never", "vault-1", None, overdue=False, enrolled_at=stamp(NOW - timedelta(days=1))),
        host("gone", "vault-1", None, retired_at=stamp(NOW)),
    ]
    return [live, *windows], hosts + more


CASES: dict[str, Nights] = {
    **{f"{count} hosts": history([f"web-{n}" for n in range(count)]) for count in (0, 1, 4, 24, 100)},
    "long names": history(["a-very-long-host-name-of-32-chars", "W" * 32, "i" * 32, "laptop"]),
    "hourly": hourly(),
    "under way": under_way(),
}


def show(page: Page, nights: Nights, width: int, theme: Theme = "light") -> None:
    page.set_viewport_size({"width": width, "height": 400})
    inner = timeline.html(*nights, NOW, embed=True, theme=theme, width=width)
    page.set_content(f'<!doctype html><body style="margin:0">{inner}</body>')


@pytest.mark.parametrize("width", [400, 588, 1000, 1600])
@pytest.mark.parametrize("case", CASES)
def test_every_lane_and_run_is_there_and_nothing_overflows(page: Page, case: str, width: int) -> None:
    windows, hosts = CASES[case]
    show(page, (windows, hosts), width)
    shown = [h["name"] for h in hosts if not h["retired_at"]]
    assert page.locator("g.lane").count() == len(shown)
    assert page.locator("g.run").count() == sum(len(w["runs"]) for w in windows)
    assert page.locator("g.window").count() == len(windows)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # No text leaves the picture, and none lies over another.
    boxes = page.eval_on_selector_all(
        "svg text",
        "all => all.map(t => { const b = t.getBoundingClientRect(); "
        "return [t.textContent, b.left, b.top, b.right, b.bottom] })",
    )
    right = page.locator("svg").bounding_box()
    assert right
    for text, left, _, far, bottom in boxes:
        assert left >= -0.5, text
        assert far <= width + 0.5, text
        assert bottom <= right["y"] + right["height"] + 0.5, text
    for n, (one, left, top, far, bottom) in enumerate(boxes):
        for other, left2, top2, far2, bottom2 in boxes[n + 1 :]:
            apart = far <= left2 + 0.5 or far2 <= left + 0.5 or bottom <= top2 + 2 or bottom2 <= top + 2
            assert apart, f"{one!r} lies over {other!r}"


@pytest.mark.parametrize("case", ["4 hosts", "24 hosts", "under way", "hourly"])
def test_marks_stay_in_their_columns_and_apart(page: Page, case: str) -> None:
    show(page, CASES[case], 588)
    lanes = page.eval_on_selector_all(
        "g.lane",
        "all => all.map(g => [...g.querySelectorAll('.run .mark')].map(m => { "
        "const b = m.getBoundingClientRect(); return b.left + b.width / 2 }).sort((a, b) => a - b))",
    )
    assert lanes
    for marks in lanes:
        assert all(after - before >= 7 for before, after in pairwise(marks)), marks


HOVERED = """([x, y]) => {
    const group = document.elementFromPoint(x, y)?.closest('g.run, g.window, g.who, g.none');
    const title = group && [...group.children].find(e => e.tagName === 'title');
    return title ? title.textContent : null;
}"""


@pytest.mark.parametrize("case", ["4 hosts", "24 hosts", "under way"])
def test_hovering_over_a_run_tells_of_that_run(page: Page, case: str) -> None:
    """A browser shows the nearest `title` above what the pointer is on."""
    windows, hosts = CASES[case]
    show(page, (windows, hosts), 588)
    page.set_viewport_size({"width": 588, "height": 1200})
    marks = page.eval_on_selector_all(
        "g.run .mark",
        "all => all.map(m => { const b = m.getBoundingClientRect(); "
        "return [b.left + b.width / 2, b.top + b.height / 2, m.parentNode.querySelector('title').textContent] })",
    )
    assert len(marks) == sum(len(w["runs"]) for w in windows)
    assert [page.evaluate(HOVERED, [x, y]) for x, y, _ in marks] == [text for _, _, text in marks]
    by_host = {text.split(":")[0] for _, _, text in marks}
    assert by_host == {r["host"] for w in windows for r in w["runs"]}


def test_the_pointer_itself_brings_a_run_out(page: Page) -> None:
    show(page, CASES["4 hosts"], 588)
    mark = page.locator("g.run .mark").first.bounding_box()
    assert mark
    bar = page.locator("g.run .bar").first
    assert bar.evaluate("e => getComputedStyle(e).opacity") == "0.55"
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert bar.evaluate("e => getComputedStyle(e).opacity") == "1"


def test_windows_hosts_and_empty_nights_tell_of_themselves(page: Page) -> None:
    show(page, CASES["under way"], 1000)

    def over(selector: str) -> Any:
        box = page.locator(selector).first.bounding_box()
        assert box
        return page.evaluate(HOVERED, [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])

    assert over("g.window .awake").startswith("vault-1 awake:")
    assert over("g.late text.name").startswith("db-late: last backup that counts began 5.0 d ago. OVERDUE.")
    assert over("g.none .mark").startswith("db-late: no run on ")


def colour(page: Page, selector: str, of: str) -> str:
    found = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{of}")
    red, green, blue = (int(part) for part in found.removeprefix("rgb(").removesuffix(")").split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_light_and_dark(page: Page, theme: Theme, colours: dict[str, str]) -> None:
    show(page, CASES["under way"], 1000, theme)
    assert colour(page, ".nvt", "backgroundColor") == colours["ground"]
    assert colour(page, "g.late text.name", "fill") == colours["failed"]
    assert colour(page, "g.run .mark.counted", "fill") == colours["counted"]
    assert colour(page, "svg text.name", "fill") == colours["ink"]


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_a_page_of_its_own_follows_the_reader(page: Page, scheme: Any, colours: dict[str, str]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_content(timeline.html(*CASES["4 hosts"], NOW))
    assert colour(page, "body", "backgroundColor") == colours["ground"]
    assert colour(page, "svg text.name", "fill") == colours["ink"]


def test_a_page_of_its_own_has_every_run_in_a_table_too(page: Page) -> None:
    windows, _ = CASES["4 hosts"]
    page.set_content(timeline.html(*CASES["4 hosts"], NOW))
    page.get_by_text("All 56 runs as a table").click()
    rows = page.get_by_role("row")
    assert rows.count() == 1 + sum(len(w["runs"]) for w in windows)
    assert page.get_by_role("columnheader").all_inner_texts()[0] == "host"
    assert rows.nth(1).is_visible()


def test_a_page_on_a_small_screen_scrolls_its_picture_and_not_itself(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_content(timeline.html(*CASES["4 hosts"], NOW))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_who_does_not_see_it_is_told(page: Page) -> None:
    show(page, CASES["under way"], 1000)
    picture = page.get_by_role("img", name="Backups of the last 14 nights. 6 hosts, 1 overdue: db-late.")
    assert picture.count() == 1
    assert "One lane for each host" in picture.locator("desc").inner_html()
    assert "L: last backup that counts began" in picture.locator("desc").inner_html()


def test_what_hosts_are_called_runs_nothing(page: Page) -> None:
    text = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    windows = [
        window("v", NOW - timedelta(hours=1), [run(text, 1, NOW - timedelta(hours=1), 5, "failed", reason=text)])
    ]
    page.set_content(timeline.html(windows, [host(text, "v", None)], NOW))
    assert page.locator("img, script").count() == 0
    assert page.locator("g.lane title").first.text_content() == f"{text}: no backup counts yet. OVERDUE."
    page.set_content(timeline.overdue(windows, [host(text, "v", None)], NOW))
    assert page.get_by_role("cell").all_inner_texts()[0] == text


@pytest.mark.parametrize("mode", ["", "<!doctype html>"])  # without one, tables take no colour from around them
def test_a_table_is_legible_in_the_dark(page: Page, mode: str) -> None:
    page.set_content(mode + timeline.overdue(*CASES["24 hosts"], NOW, theme="dark"))
    assert colour(page, "td", "color") == DARK["ink"]
    assert colour(page, "th", "color") == DARK["ink"]


@pytest.mark.parametrize("width", [400, 588])
def test_the_overdue_table_fits_its_widget(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 300})
    page.set_content(f'<body style="margin:0">{timeline.overdue(*CASES["24 hosts"], NOW, theme="light")}</body>')
    assert page.get_by_role("row").count() == 1 + sum(h["overdue"] for h in CASES["24 hosts"][1])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
