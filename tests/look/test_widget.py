"""The `timeline_widget` Lambda, on fakes: what CloudWatch sends it, and what it answers."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import app
from chalicelib import wiring
from chalicelib.model import Outcome
from tests.fakes.world import World

CONTEXT = {
    # As documented: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
    "dashboardName": "nightvault",
    "widgetId": "widget-16",
    "accountId": "012345678901",
    "locale": "en",
    "timezone": {"label": "UTC", "offsetISO": "+00:00", "offsetInMinutes": 0},
    "period": 300,
    "isAutoPeriod": True,
    "timeRange": {"mode": "relative", "start": 1627236199729, "end": 1627322599729, "relativeStart": 86400012},
    "theme": "light",
    "linkCharts": True,
    "title": "The last nights",
    "forms": {"all": {}},
    "params": {"show": "timeline"},
    "width": 588,
    "height": 369,
}
R = "00000000-0000-4000-8000-00000000000{}".format


class _Wiring:
    def __init__(self, world: World) -> None:
        self.store = world.store
        self.clock = world.clock


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    wiring.install(_Wiring(world))  # type: ignore[arg-type]
    yield world
    wiring.install(None)


def night(world: World, number: int) -> None:
    """C completes, H fails."""
    world.start("C", R(2 * number))
    world.start("H", R(2 * number + 1))
    world.boot()
    world.clock.advance(300)
    world.commit("C", R(2 * number))
    world.finish("H", R(2 * number + 1), Outcome.FAILED, 5)
    world.finish("C", R(2 * number))
    world.arrive()
    world.clock.advance(86400)


def shown(**event: Any) -> str:
    answer = app.timeline_widget({**event, "widgetContext": CONTEXT | event.get("widgetContext", {})}, None)
    assert isinstance(answer, str)
    return answer


def test_the_last_nights_are_drawn(world: World) -> None:
    world.enrol("C", "H")
    for number in range(3):
        night(world, number)
    answer = shown()
    assert answer.count('<g class="lane') == 2
    assert answer.count('<g class="run">') == 6
    assert answer.count('<g class="window">') == 3
    assert "C: complete, and its restore point counts" in answer
    assert "1 overdue: H" in answer


def test_a_window_under_way_is_drawn(world: World) -> None:
    world.enrol("C")
    world.start("C", R(1))
    world.boot()
    assert "C: running" in shown()


def test_it_is_as_wide_as_the_widget_and_in_its_theme(world: World) -> None:
    world.enrol("C")
    assert 'width="570"' in shown()
    assert "color-scheme:light" in shown()
    assert "color-scheme:dark" in shown(widgetContext={"theme": "dark"})
    assert "prefers-color-scheme" not in shown()


def test_times_are_in_the_dashboards_zone(world: World) -> None:
    world.enrol("C", "H")
    night(world, 0)
    assert "UTC+05:30" in shown(widgetContext={"timezone": {"label": "Local", "offsetISO": "+05:30"}})


def test_only_the_nights_asked_for_are_read(world: World) -> None:
    world.enrol("C", "H")
    for number in range(4):
        night(world, number)
    asked: list[datetime | None] = []
    real = world.store.windows

    def windows(vault_id: str, limit: int | None = None, *, since: datetime | None = None) -> Any:
        asked.append(since)
        return real(vault_id, limit, since=since)

    world.store.windows = windows  # type: ignore[method-assign]
    assert shown(days=2).count('<g class="window">') == 1  # today's and yesterday's columns; the last was yesterday
    assert asked == [world.clock.now() - timedelta(days=3)]


def test_many_windows_are_all_read(world: World) -> None:
    world.enrol("C", "H")
    night(world, 0)
    (window,) = world.store.windows("vault-1", 9)
    archive = world.store._windows["vault-1"]
    for n in range(1, 100):
        archive[f"{window.window_id}-{n:03d}"] = replace(window, opened_at=window.opened_at + timedelta(seconds=n))
    assert shown().count('<g class="window">') == 100


def test_who_is_overdue(world: World) -> None:
    world.enrol("C", "H")
    assert "Nobody is overdue" in shown(show="overdue")
    for number in range(3):
        night(world, number)
    answer = shown(show="overdue")
    assert "1 of 2 overdue" in answer
    assert "<td>H</td><td>never</td>" in answer
    assert "<td>C</td>" not in answer


def test_nobody_is_enrolled(world: World) -> None:
    assert "No host is enrolled" in shown()
    assert "No host is enrolled" in shown(show="overdue")


def test_it_describes_itself(world: World) -> None:
    assert "**show**" in app.timeline_widget({"describe": True}, None)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"days": "many"}, "days"), ({"days": 100}, "days"), ({"show": "<script>"}, "show")]
)
def test_a_parameter_that_makes_no_sense_is_named_and_no_error_of_the_function(
    world: World, wrong: dict[str, Any], named: str
) -> None:
    answer = shown(**wrong)
    assert named in answer
    assert "<script" not in answer


def test_it_reads_the_table_by_query_alone(world: World) -> None:
    """So that its policy may be DynamoDB's Query and nothing else."""
    used: set[str] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            used.add(name)
            return getattr(world.store, name)

    world.enrol("C", "H")
    night(world, 0)
    installed = _Wiring(world)
    installed.store = Watched()  # type: ignore[assignment]
    wiring.install(installed)  # type: ignore[arg-type]
    shown()
    shown(show="overdue")
    assert used <= {"vaults", "hosts", "windows"}  # each is one DynamoDB Query: chalicelib/store.py
