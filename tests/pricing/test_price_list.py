"""Answers of the Price List API are read strictly: one amount that fits, or an explanation."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.pricing.price_list import QUESTIONS, Question, question_of, read
from chalicelib.pricing.table import LISTED, Found, refreshed
from tests.pricing.answers import aws_example, entry, whole_list

REGION = "eu-central-1"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_aws_own_example_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    piops = Question(service="AmazonEC2", usage="EBS:VolumeUsage.piops", units=("GB-Mo",))
    monkeypatch.setitem(QUESTIONS, "io1", piops)
    assert read("io1", "ca-central-1", aws_example()["output"]["PriceList"]) == Found(name="io1", dollars=0.138)


def test_every_price_of_the_table_is_asked_for_but_the_free_one_and_that_of_a_pair_of_regions() -> None:
    assert set(QUESTIONS) == set(LISTED.prices) - {"parameter", "between_regions"}


@pytest.mark.parametrize("code", ["EUC1-", "EU-", "", "USE1-", "APN1-", "UGW1-"])
def test_a_whole_list_is_read_in_any_region(code: str) -> None:
    for name, answer in whole_list(times=2, code=code).items():
        found = read(name, REGION, answer)
        assert found.dollars == pytest.approx(LISTED[name] * 2), found.error


@pytest.mark.parametrize(
    ("name", "another"),
    [
        ("table_read", "IA-ReadRequestUnits"),
        ("table_read", "EUC1-IA-ReadRequestUnits"),
        ("table_write", "ReplWriteRequestUnits"),
        ("snapshot", "EUC1-EBS:SnapshotUsageUnderBilling"),
        ("snapshot", "EUC1-EBS:SnapshotUsage.outposts"),
        ("gp3", "EUC1-EBS:VolumeUsage.gp3.outposts"),
        ("lambda_request", "Global-Request-ARM"),
        ("out", "Global-DataTransfer-Out-Bytes"),
        ("out", "USE1-EUC1-AWS-DataTransfer-Out-Bytes"),
        ("t4g.small", "EUC1-UnusedBox:t4g.small"),
        ("key", "eu-west-1-KMS-Keys"),
    ],
)
def test_a_neighbour_with_a_like_name_is_not_taken_for_it(name: str, another: str) -> None:
    unit = QUESTIONS[name].units[0]
    assert read(name, REGION, [entry(another, unit, ("0", "9.99"))]).error == "no such product in the price list"
    right = "eu-central-1-KMS-Keys" if name == "key" else f"EUC1-{QUESTIONS[name].usage}"
    both = [entry(another, unit, ("0", "9.99")), entry(right, unit, ("0", "0.5"))]
    assert read(name, REGION, both).dollars == 0.5


def test_a_free_band_is_passed_over_and_the_first_priced_one_taken() -> None:
    bands = [("25", "0.3060000000"), ("0", "0.0000000000"), ("1000", "0.2")]
    assert read("table_storage", REGION, [entry("EUC1-TimedStorage-ByteHrs", "GB-Mo", *bands)]).dollars == 0.306


def test_the_same_price_twice_is_one_price() -> None:
    twice = [entry(f"{code}TimedStorage-ByteHrs", "GB-Mo", ("0", "0.25"), sku=code or "A") for code in ("", "USE1-")]
    assert read("table_storage", "us-east-1", twice).dollars == 0.25


def test_two_prices_leave_a_choice_and_none_is_taken() -> None:
    two = [entry("EUC1-EBS:VolumeUsage.gp3", "GB-Mo", ("0", price), sku=price) for price in ("0.09", "0.1")]
    found = read("gp3", REGION, two)
    assert found.dollars is None
    assert "2 different prices" in found.error


BROKEN = {
    "another unit": entry("EUC1-EBS:VolumeUsage.gp3", "GiBps-mo", ("0", "0.09")),
    "another currency": entry("EUC1-EBS:VolumeUsage.gp3", "GB-Mo", ("0", "0.66"), currency="CNY"),
    "no number": entry("EUC1-EBS:VolumeUsage.gp3", "GB-Mo", ("0", "a few cents")),
    "negative": entry("EUC1-EBS:VolumeUsage.gp3", "GB-Mo", ("0", "-0.09")),
    "not finite": entry("EUC1-EBS:VolumeUsage.gp3", "GB-Mo", ("0", "NaN")),
    "no product": json.dumps({"terms": {"OnDemand": {}}}),
    "no terms": json.dumps({"product": {"sku": "A", "attributes": {"usagetype": "EUC1-EBS:VolumeUsage.gp3"}}}),
    "no JSON": "<html>503</html>",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_of_another_shape_gives_no_price_and_says_why(answer: str) -> None:
    found = read("gp3", REGION, [answer])
    assert found.dollars is None
    assert found.error


@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_answer_at_all_can_break_it(texts: list[str]) -> None:
    assert read("gp3", REGION, texts).dollars is None


def test_an_instance_type_that_is_not_in_the_table_can_be_asked_for() -> None:
    question = question_of("m7g.medium")
    assert question
    assert {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "m7g.medium"} in question.filters(REGION)
    assert read("m7g.medium", REGION, [entry("EUC1-BoxUsage:m7g.medium", "Hrs", ("0", "0.0408"))]).dollars == 0.0408
    assert question_of("not a price") is None


def test_a_refresh_keeps_what_it_could_not_find_and_says_so() -> None:
    found = [Found(name="gp3", dollars=0.0952), Found(name="dashboard", dollars=None, error="no such product")]
    new = refreshed(LISTED, REGION, found, NOW)
    assert new["gp3"] == 0.0952
    assert "2026-11-24T12:00:00Z" in new.prices["gp3"].seen
    assert new["dashboard"] == LISTED["dashboard"]
    assert new.prices["dashboard"] == LISTED.prices["dashboard"]
    assert new.region == REGION
    (line,) = new.missing
    assert line.startswith("dashboard: no such product")
    assert "kept" in line


def test_a_new_price_joins_the_table() -> None:
    new = refreshed(LISTED, REGION, [Found(name="m7g.medium", dollars=0.0408)], NOW)
    assert new["m7g.medium"] == 0.0408
    kept = refreshed(LISTED, REGION, [Found(name="m7g.medium", dollars=None, error="nothing")], NOW)
    assert "m7g.medium" not in kept.prices
    assert "none is known" in kept.missing[0]
