"""Answers of the Price List API, in the shape of AWS's own example in botocore's data."""

import functools
import json
from pathlib import Path
from typing import Any

import botocore

from chalicelib.pricing.price_list import QUESTIONS
from chalicelib.pricing.table import LISTED


@functools.cache
def aws_example() -> dict[str, Any]:
    """GetProducts' example as AWS publishes it with its SDK: io1 in Canada, 2017."""
    file = Path(botocore.__file__).parent / "data/pricing/2017-10-15/examples-1.json"
    found: dict[str, Any] = json.loads(file.read_text())["examples"]["GetProducts"][0]
    return found


def entry(usage: str, unit: str, *bands: tuple[str, str], sku: str = "WQGC34PB2AWS8R4U", currency: str = "USD") -> str:
    """A member of `PriceList`: AWS's example with another product and its bands (from, price)."""
    document: dict[str, Any] = json.loads(aws_example()["output"]["PriceList"][0])
    document["product"]["sku"] = sku
    document["product"]["attributes"]["usagetype"] = usage
    ((_, term),) = document["terms"]["OnDemand"].items()
    ((_, plain),) = term["priceDimensions"].items()
    term["priceDimensions"] = {
        f"{sku}.JRTCKXETXF.{number}": {**plain, "unit": unit, "beginRange": begin, "pricePerUnit": {currency: price}}
        for number, (begin, price) in enumerate(bands)
    }
    document["terms"]["OnDemand"] = {f"{sku}.JRTCKXETXF": term}
    return json.dumps(document)


def whole_list(times: float = 1.0, code: str = "EUC1-") -> dict[str, list[str]]:
    """An answer for every question: our table's prices times `times`, as a region with that code has them."""
    answers = {}
    for name, question in QUESTIONS.items():
        prefix = "eu-central-1-" if question.service == "awskms" else code
        price = f"{LISTED[name] * question.per * times:.10f}"
        answers[name] = [entry(prefix + question.usage, question.units[0], ("0", price))]
    return answers
