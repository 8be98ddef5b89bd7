"""How each price is asked of the AWS Price List API, and how its answers are read: strictly.

A price is taken only if exactly one amount answers the question. Everything else (nothing, several amounts,
another unit or currency, a price that is no number) is said, and the old price stays.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
"""

import re
from collections.abc import Iterable

import msgspec

from chalicelib.pricing.table import Found

# Where the Query API answers, in the `aws` partition (botocore's endpoints; the AWS General Reference's
# https://docs.aws.amazon.com/general/latest/gr/billing.html). Prices are of all regions at each of them.
ENDPOINT_REGIONS = ("us-east-1", "eu-central-1", "ap-south-1")

# A usage type begins with a code of its region (`EUC1-`, `EU-`), in us-east-1 with none or `USE1-`, at KMS
# with the region's name. `IA-` and `Global-` are no regions: another storage class, and the free tier.
_REGION_CODE = r"(?!IA-)(?:[A-Z]{2,4}[0-9]?-|REGION-)?"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`usage`: what the usage type must be, after its region's code. `units`: what AWS may call the unit."""

    service: str
    usage: str
    units: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...] = ()
    region_field: str = "regionCode"
    per: float = 1.0  # AWS's unit in ours

    def filters(self, region: str) -> list[dict[str, str]]:
        """For GetProducts: https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_Filter.html"""
        exact = [(self.region_field, region), *self.attributes]
        return [
            *({"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in exact),
            {"Type": "CONTAINS", "Field": "usagetype", "Value": self.usage},
        ]


def _instance(kind: str) -> Question:
    attributes = {
        "instanceType": kind,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    return Question(service="AmazonEC2", usage=f"BoxUsage:{kind}", units=("Hrs",), attributes=tuple(attributes.items()))


def _ebs(usage: str) -> Question:
    return Question(service="AmazonEC2", usage=f"EBS:{usage}", units=("GB-Mo",))


def _watch(usage: str, *units: str) -> Question:
    return Question(service="AmazonCloudWatch", usage=usage, units=units)


def _dynamo(usage: str, *units: str) -> Question:
    return Question(service="AmazonDynamoDB", usage=usage, units=units)


QUESTIONS: dict[str, Question] = {
    **{
        kind: _instance(kind)
        for kind in (
            "t4g.nano",
            "t4g.micro",
            "t4g.small",
            "t4g.medium",
            "t4g.large",
            "c7g.medium",
            "c7g.large",
            "m7g.large",
        )
    },
    "address": Question(service="AmazonVPC", usage="PublicIPv4:InUseAddress", units=("Hrs",)),
    **{kind: _ebs(f"VolumeUsage.{kind}") for kind in ("gp3", "gp2", "st1", "sc1")},
    "snapshot": _ebs("SnapshotUsage"),
    "snapshot_archive": _ebs("SnapshotArchiveStorage"),
    "lambda_gb_second": Question(
        service="AWSLambda", usage="Lambda-GB-Second-ARM", units=("Lambda-GB-Second", "Second", "Seconds")
    ),
    "lambda_request": Question(service="AWSLambda", usage="Request-ARM", units=("Requests", "Request")),
    "api_request": Question(service="AmazonApiGateway", usage="ApiGatewayRequest", units=("Requests",)),
    "table_read": _dynamo("ReadRequestUnits", "ReadRequestUnits"),
    "table_write": _dynamo("WriteRequestUnits", "WriteRequestUnits"),
    "table_storage": _dynamo("TimedStorage-ByteHrs", "GB-Mo"),
    "table_recovery": _dynamo("TimedPITRStorage-ByteHrs", "GB-Mo"),
    "metric": _watch("CW:MetricMonitorUsage", "Metrics"),
    "alarm": _watch("CW:AlarmMonitorUsage", "Alarms"),
    "dashboard": _watch("DashboardsUsageHour", "Dashboards", "Dashboard"),
    "log_ingest": _watch("DataProcessing-Bytes", "GB"),
    "log_storage": _watch("TimedStorage-ByteHrs", "GB-Mo"),
    "mail": Question(service="AmazonSNS", usage="DeliveryAttempts-SMTP", units=("Notifications", "Notification")),
    "key": Question(service="awskms", usage="KMS-Keys", units=("Keys", "Key")),
    "key_request": Question(service="awskms", usage="KMS-Requests", units=("Requests", "Request")),
    "out": Question(
        service="AWSDataTransfer", usage="DataTransfer-Out-Bytes", units=("GB",), region_field="fromRegionCode"
    ),
}


def question_of(name: str) -> Question | None:
    """How the price `name` is asked for: one of QUESTIONS, or any instance type's."""
    if name in QUESTIONS:
        return QUESTIONS[name]
    return _instance(name) if re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", name) else None


class _Attributes(msgspec.Struct, frozen=True):
    usagetype: str


class _Product(msgspec.Struct, frozen=True):
    sku: str
    attributes: _Attributes


class _Dimension(msgspec.Struct, frozen=True, rename="camel"):
    unit: str
    begin_range: str
    price_per_unit: dict[str, str]


class _Term(msgspec.Struct, frozen=True, rename="camel"):
    price_dimensions: dict[str, _Dimension]


class _Terms(msgspec.Struct, frozen=True):
    on_demand: dict[str, _Term] = msgspec.field(default_factory=dict, name="OnDemand")


class _Entry(msgspec.Struct, frozen=True):
    product: _Product
    terms: _Terms


_ENTRY = msgspec.json.Decoder(_Entry)


class _Unreadable(Exception):
    """The answer is not what the API's documentation promises, or leaves a choice."""


def read(name: str, region: str, price_list: Iterable[str]) -> Found:
    """The price `name` in GetProducts' `PriceList`, whose members are JSON texts, one a product."""
    question = question_of(name)
    if question is None:
        raise AssertionError(f"{name!r} is no price of ours and no instance type")
    try:
        amounts = {amount for entry in price_list for amount in _amounts(question, region, entry)}
    except (_Unreadable, msgspec.DecodeError) as unreadable:
        return Found(name=name, dollars=None, error=f"unreadable answer ({unreadable})")
    match sorted(amounts):
        case [amount]:
            return Found(name=name, dollars=amount / question.per)
        case []:
            return Found(name=name, dollars=None, error="no such product in the price list")
        case several:
            return Found(name=name, dollars=None, error=f"{len(several)} different prices fit: {several}")


def _amounts(question: Question, region: str, entry: str) -> set[float]:
    """What one product costs in its first band that is not free. Empty: another product than the one wanted."""
    document = _ENTRY.decode(entry)
    code = _REGION_CODE.replace("REGION", re.escape(region))
    if not re.fullmatch(code + re.escape(question.usage), document.product.attributes.usagetype):
        return set()
    amounts = set()
    for term in document.terms.on_demand.values():
        bands = []
        for band in term.price_dimensions.values():
            if band.unit not in question.units:
                raise _Unreadable(f"{document.product.sku} is priced by {band.unit!r}, not {question.units[0]!r}")
            if "USD" not in band.price_per_unit:
                raise _Unreadable(f"{document.product.sku} has no price in USD")
            bands.append((_number(band.begin_range), _number(band.price_per_unit["USD"])))
        priced = [amount for _, amount in sorted(bands) if amount > 0]
        # A free tier stands in the list as a first band at nothing; it is the account's, and not counted.
        amounts |= set(priced[:1])
    return amounts


def _number(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise _Unreadable(f"{text!r} is no amount")
    return float(text)
