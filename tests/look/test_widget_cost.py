"""The widget's bill of a stack that has had nights, on moto: against the one that `vaultctl cost` makes of EC2."""

import re
from collections.abc import Iterator

import pytest

import app
from chalicelib import wiring
from chalicelib.operators.cost import cost
from tests.pricing.lived import Lived


@pytest.fixture(scope="module")
def stack() -> Iterator[Lived]:
    lived = Lived(hosts=2)
    try:
        lived.lives()
        wiring.install(lived.wiring)
        yield lived
    finally:
        wiring.install(None)
        lived.close()


def rows(answer: str) -> dict[str, tuple[float, float]]:
    found = re.findall(r"<t[dh]>([^<]+)</t[dh]><t[dh]>\$([\d.]+)</t[dh]><t[dh]>\$([\d.]+)</t[dh]>", answer)
    return {name: (float(so_far), float(forecast)) for name, so_far, forecast in found}


def test_it_is_the_bill_that_ec2_would_give(stack: Lived) -> None:
    theirs = cost(stack.wiring, clients=stack.clients).bill
    ours = rows(app.timeline_widget({"show": "cost"}, None))
    assert set(ours) == set(theirs.by_item()) | {theirs.month}
    assert ours[theirs.month][1] == pytest.approx(theirs.forecast, rel=0.1)
    for name in ("vault awake", "volumes", "root volumes", "requests", "watching"):
        assert ours[name][1] == pytest.approx(theirs.by_item()[name][1], abs=0.02), name


def test_it_only_queries_the_table(stack: Lived) -> None:
    stack.aws.ledger.forget()
    for show in ("cost", "timeline", "overdue"):
        app.timeline_widget({"show": show}, None)
    assert set(stack.aws.ledger.by_kind()) == {"dynamodb.Query"}


def test_an_instance_type_without_a_price_is_named(stack: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = type(stack.wiring.settings)(**{**vars(stack.wiring.settings), "instance_type": "z9g.huge"})
    monkeypatch.setattr(stack.wiring, "settings", odd)
    assert "no price is known for &#x27;z9g.huge&#x27;" in app.timeline_widget({"show": "cost"}, None)
