"""The README and docs/costs.md show the very numbers that the functions give."""

from pathlib import Path
from typing import Any

import pytest

from chalicelib.pricing import control_plane
from chalicelib.pricing.scenarios import SCENARIOS, report
from chalicelib.pricing.table import LISTED
from deploy import parts
from tests.pricing.write import PAGES, blocks, tables, written


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_shows_what_the_functions_say(path: Path) -> None:
    page = path.read_text()
    assert written(page) == page, "run: python -m tests.pricing.write"


def test_every_table_is_on_a_page() -> None:
    shown = [name for path in PAGES for name in blocks(path.read_text())]
    assert set(shown) == set(tables())


def test_a_changed_number_would_be_noticed() -> None:
    page = PAGES[1].read_text()
    forged = page.replace("| volumes | 20 GiB of gp3 | 1.60 |", "| volumes | 20 GiB of gp3 | 0.60 |")
    assert forged != page
    assert written(forged) == page


def test_the_article_came_within_cents_of_its_own_prices() -> None:
    made = report("article")
    assert made.article_dollars == 7.96
    assert sum(line.dollars for line in made.article) == pytest.approx(7.96, abs=0.05)


def test_the_same_things_cost_less_than_the_article_paid() -> None:
    made = report("article")
    items = made.bill.by_item()
    same = items["vault awake"][0] + items["volumes"][0] + items["restore points"][0] - made.older_dollars
    assert same < 7.96 / 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_adds_up_and_has_every_peer(name: str) -> None:
    made = report(name)
    assert made.bill.so_far == pytest.approx(made.bill.forecast)
    assert {peer.name for peer in made.peers} >= {"rsync.net", "BorgBase", "Tarsnap", "AWS Backup"}
    assert all(peer.source.startswith("https://") and peer.seen and peer.dollars > 0 for peer in made.peers)
    assert 0 <= made.free_dollars < made.bill.so_far


def test_there_is_no_scenario_of_another_name() -> None:
    with pytest.raises(KeyError, match="article, 10, 100, 1000"):
        report("11")


def test_the_numbers_in_the_prose_are_the_functions() -> None:
    made = report("article")
    items = made.bill.by_item()
    same = items["vault awake"][0] + items["volumes"][0] + items["restore points"][0] - made.older_dollars
    assert f"same things cost ${same:.2f} now" in PAGES[0].read_text()
    costs = PAGES[1].read_text()
    assert f"50 GiB are ${50 * LISTED['gp3']:.2f} as gp3, ${125 * LISTED['sc1']:.2f} as sc1" in costs
    for name in SCENARIOS:
        each = report(name)
        assert all(p.dollars < each.bill.so_far for p in each.peers if "borg" in p.name.lower()), name


def test_what_is_always_there_is_what_the_template_makes() -> None:
    made: list[dict[str, Any]] = list(parts.merged()["Resources"].values())

    def of(kind: str) -> list[dict[str, Any]]:
        return [resource["Properties"] for resource in made if resource.get("Type") == kind]

    alarms = of("AWS::CloudWatch::Alarm")
    watched = [sum("MetricStat" in metric for metric in alarm.get("Metrics", ())) or 1 for alarm in alarms]
    assert sum(watched) == control_plane.ALARM_METRICS
    assert len(of("AWS::CloudWatch::Dashboard")) == control_plane.DASHBOARDS
    assert len(of("AWS::KMS::Key")) == control_plane.KEYS
