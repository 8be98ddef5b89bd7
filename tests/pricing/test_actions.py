"""The actions `cost` and `refresh_prices`, on moto and answers in the Price List API's own shape."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from chalicelib import wiring
from chalicelib.errors import BadRequest, CloudRefused
from chalicelib.operate import operate
from chalicelib.operators.cost import cost, known_prices, refresh_prices
from chalicelib.pricing.bill import Bill
from chalicelib.pricing.price_list import QUESTIONS
from chalicelib.pricing.table import LISTED
from tests.pricing.account import StubbedClients
from tests.pricing.answers import entry, whole_list
from tests.pricing.lived import Lived

CONTRACT = (Path(__file__).resolve().parents[2] / "docs" / "operate.md").read_text()
NOTHING = "no such product"


@pytest.fixture(scope="module")
def stack() -> Iterator[Lived]:
    lived = Lived(hosts=2)
    try:
        lived.lives()
        yield lived
    finally:
        lived.close()


def test_a_stack_that_has_had_a_night_has_a_bill(stack: Lived) -> None:
    answer = cost(stack.wiring, clients=stack.clients)
    now = stack.clock.now()
    assert answer.usage.month == f"{now:%Y-%m}"
    assert {volume.host for volume in answer.usage.volumes} == {None, "h0", "h1"}
    assert sorted(snapshot.host for snapshot in answer.usage.snapshots) == ["h0", "h1"]
    assert answer.usage.instance_type == "t4g.small"
    assert answer.bill.forecast >= answer.bill.so_far > 0
    assert answer.prices == LISTED
    assert "us-east-1" in answer.bill.note, "moto's stack is in Frankfurt"


def test_a_month_that_is_over_and_was_before_us_cost_nothing(stack: Lived) -> None:
    assert cost(stack.wiring, "2020-01", stack.clients).bill.so_far == 0


@pytest.mark.parametrize("month", ["2026", "november", "2026-13", "2026-1-1"])
def test_what_is_no_month_is_refused_with_an_example(stack: Lived, month: str) -> None:
    with pytest.raises(BadRequest, match=r"month: .*2026-11"):
        cost(stack.wiring, month, stack.clients)


def test_a_month_to_come_is_refused(stack: Lived) -> None:
    with pytest.raises(BadRequest, match="has not begun"):
        cost(stack.wiring, "2999-01", stack.clients)


def test_without_ec2_there_is_no_bill_but_the_reason(stack: Lived) -> None:
    stack.faults.refuse("DescribeVolumes", "UnauthorizedOperation")
    with pytest.raises(CloudRefused, match="UnauthorizedOperation"):
        cost(stack.wiring, clients=stack.clients)


def test_a_machine_whose_price_is_not_known_is_named(stack: Lived) -> None:
    instance = stack.backend.get_instance(stack.instance_id)
    was = instance.instance_type
    try:
        instance.instance_type = "m7g.medium"
        with pytest.raises(BadRequest, match=r"m7g\.medium.*refresh"):
            cost(stack.wiring, clients=stack.clients)
    finally:
        instance.instance_type = was


def test_refreshed_prices_are_kept_and_used(stack: Lived) -> None:
    clients = StubbedClients(stack.wiring, whole_list(times=2))
    new = refresh_prices(stack.wiring, clients)
    assert new.missing == ()
    assert new.region == "eu-central-1"
    assert new["gp3"] == 2 * LISTED["gp3"]
    assert known_prices(stack.clients, stack.wiring.settings.table) == new
    answer = cost(stack.wiring, clients=stack.clients)
    assert answer.prices == new
    assert answer.bill.note == ""


def test_what_the_list_does_not_have_keeps_its_price_and_is_said(stack: Lived) -> None:
    answers = whole_list(times=3)
    del answers["dashboard"]
    answers["gp3"] = ["<html>"]
    answers["metric"] = [entry("EUC1-CW:MetricMonitorUsage", "Metrics", ("0", p), sku=p) for p in ("0.3", "0.4")]
    before = known_prices(stack.clients, stack.wiring.settings.table)
    new = refresh_prices(stack.wiring, StubbedClients(stack.wiring, answers, fails="sc1"))
    assert new["snapshot"] == pytest.approx(3 * LISTED["snapshot"])
    for name in ("dashboard", "gp3", "metric", "sc1"):
        assert new[name] == before[name]
    said = {line.split(":")[0]: line for line in new.missing}
    assert set(said) == {"dashboard", "gp3", "metric", "sc1"}
    assert NOTHING in said["dashboard"]
    assert "unreadable" in said["gp3"]
    assert "2 different prices" in said["metric"]
    assert "AccessDeniedException" in said["sc1"]


def test_when_nothing_is_found_nothing_is_kept(stack: Lived) -> None:
    before = known_prices(stack.clients, stack.wiring.settings.table)
    with pytest.raises(CloudRefused, match="no price was found"):
        refresh_prices(stack.wiring, StubbedClients(stack.wiring, {}))
    assert known_prices(stack.clients, stack.wiring.settings.table) == before


def test_the_price_list_is_asked_where_it_answers(stack: Lived) -> None:
    clients = StubbedClients(stack.wiring, whole_list())
    assert clients.pricing.meta.region_name == "eu-central-1"
    assert len(clients.asked) == len(QUESTIONS)
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-central-1"} in clients.asked[0]["Filters"]


def test_the_answers_have_the_shapes_that_the_contract_promises(stack: Lived) -> None:
    wiring.install(stack.wiring)
    answer = operate({"action": "cost"})
    for shape, given in (("USAGE", answer["usage"]), ("BILL", answer["bill"]), ("PRICES", answer["prices"])):
        assert set(given) == promised(shape), shape
    assert set(answer["usage"]["volumes"][0]) == {"volume_id", "host", "gib", "type", "from", "until"}
    assert set(answer["bill"]["items"][0]) == {"name", "host", "how", "dollars", "forecast"}
    checks = operate({"action": "doctor", "fix": False})["checks"]
    assert {name for check in checks for name in check} == promised("CHECK")
    assert msgspec.convert(answer["bill"], Bill).so_far == answer["bill"]["so_far"], "vaultctl reads it back"
    assert operate({"action": "cost", "month": 11})["error"]["code"] == "BadRequest"


def promised(shape: str) -> set[str]:
    """The members of a shape as docs/operate.md lists them."""
    (text,) = re.findall(rf"^- {shape}: `(.*?)`", CONTRACT, re.DOTALL | re.MULTILINE)
    return set(re.findall(r"\w+", re.sub(r"\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|:\w+|\|null", "", text)))
