"""Prices: each with its unit, the page where AWS publishes it, and when and where we saw it. Dollars, before tax."""

from datetime import datetime
from types import MappingProxyType

from msgspec import Struct


class Price(Struct, frozen=True, kw_only=True):
    """`dollars` for one `unit`. `source`: where AWS publishes it. `seen`: when, and in what, it was read there."""

    dollars: float
    unit: str
    source: str
    seen: str


class Prices(Struct, frozen=True, kw_only=True):
    """The prices of one region. `as_of` is a date or an instant; `missing` names what a refresh could not find."""

    region: str
    as_of: str
    source: str
    prices: dict[str, Price]
    missing: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float:
        """Dollars for one unit. Raises KeyError that names the price and the remedy."""
        try:
            return self.prices[name].dollars
        except KeyError:
            raise KeyError(f"no price is known for {name!r} in {self.region}; run `vaultctl cost --refresh`") from None


class Found(Struct, frozen=True, kw_only=True):
    """What the Price List API said of one price; `error` says why there is none."""

    name: str
    dollars: float | None
    error: str = ""


_EC2 = "https://aws.amazon.com/ec2/pricing/on-demand/"
_EBS = "https://aws.amazon.com/ebs/pricing/"
_VPC = "https://aws.amazon.com/vpc/pricing/"
_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_API = "https://aws.amazon.com/api-gateway/pricing/"
_DYNAMO = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_WATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_SNS = "https://aws.amazon.com/sns/pricing/"
_KMS = "https://aws.amazon.com/kms/pricing/"
_SSM = "https://aws.amazon.com/systems-manager/pricing/"
_OUT = "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer"

# No page of AWS could be opened where this was written, so none of these was read on AWS's own page. They
# were read in copies of it: what others had taken from AWS's price list, with the day on which they took it.
_LIST_SEPTEMBER = "2026-09-16, a copy of the AWS Price List for us-east-1"
_OFFERS_SEPTEMBER = "2026-09-06, a study of the AWS Price List's offer files for us-east-1"
_CATALOGUE_OCTOBER = "2026-10-08, answers of a price catalogue made from the AWS Price List, us-east-1"
_TABLES = "tables for us-east-1 in several public repositories of 2026, none with its own day"
_WATCH_FEBRUARY = "2026-02, https://cloudburn.io/blog/amazon-cloudwatch-pricing and others, from AWS's page"
_PAIRS = (
    "2026-05, https://awsnegotiations.com/cross-region-transfer-minimization.html: most pairs of regions"
    " (to and from São Paulo, Cape Town, Hong Kong, Bahrain and others more)"
)
_NOT_FOUND = "not found in any dated copy: from memory of AWS's page of 2025"

_TABLE: dict[str, tuple[float, str, str, str]] = {
    "t4g.nano": (0.0042, "hour", _EC2, _TABLES),
    "t4g.micro": (0.0084, "hour", _EC2, _LIST_SEPTEMBER),
    "t4g.small": (0.0168, "hour", _EC2, _LIST_SEPTEMBER),
    "t4g.medium": (0.0336, "hour", _EC2, _LIST_SEPTEMBER),
    "t4g.large": (0.0672, "hour", _EC2, _TABLES),
    "c7g.medium": (0.0363, "hour", _EC2, _LIST_SEPTEMBER),
    "c7g.large": (0.0725, "hour", _EC2, _LIST_SEPTEMBER),
    "m7g.large": (0.0816, "hour", _EC2, "2026-06-17, https://www.factualminds.com/blog/ (EC2 on-demand pricing)"),
    "address": (0.005, "hour", _VPC, "2024-02-01, AWS's announcement; the same in copies of 2026-07"),
    "gp3": (0.08, "GiB-month", _EBS, "2026, price list answers in several public repositories"),
    "gp2": (0.10, "GiB-month", _EBS, _TABLES),
    "st1": (0.045, "GiB-month", _EBS, _NOT_FOUND),
    "sc1": (0.015, "GiB-month", _EBS, _NOT_FOUND),
    "snapshot": (0.05, "GiB-month", _EBS, "2026, price list answers in several public repositories"),
    "snapshot_archive": (0.0125, "GiB-month", _EBS, "2026, price list answers in several public repositories"),
    "lambda_gb_second": (0.0000133334, "GB-second, arm64", _LAMBDA, _OFFERS_SEPTEMBER),
    "lambda_request": (0.0000002, "request", _LAMBDA, _OFFERS_SEPTEMBER),
    "api_request": (0.0000035, "request, REST", _API, _CATALOGUE_OCTOBER),
    "table_read": (0.000000125, "read request unit", _DYNAMO, _OFFERS_SEPTEMBER),
    "table_write": (0.000000625, "write request unit", _DYNAMO, _OFFERS_SEPTEMBER),
    "table_storage": (0.25, "GB-month", _DYNAMO, _CATALOGUE_OCTOBER),
    "table_recovery": (0.20, "GB-month, point-in-time recovery", _DYNAMO, _CATALOGUE_OCTOBER),
    "metric": (0.30, "metric-month, by the hour in which it is sent", _WATCH, _WATCH_FEBRUARY),
    "alarm": (0.10, "alarm-month", _WATCH, "2026-08-12, the AWS Price List API (ap-southeast-1, the same there)"),
    "dashboard": (3.00, "dashboard-month", _WATCH, "2026-08-12, AWS's page, read by others"),
    "log_ingest": (0.50, "GB", _WATCH, "2026-06-13, https://www.factualminds.com/blog/ (CloudWatch pricing)"),
    "log_storage": (0.03, "GB-month", _WATCH, "2026-08-12, the AWS Price List API (ap-southeast-1, the same there)"),
    "mail": (0.00002, "e-mail", _SNS, _CATALOGUE_OCTOBER),
    "key": (1.00, "customer key-month", _KMS, "2026, price list answers in several public repositories"),
    "key_request": (0.000003, "request", _KMS, "2026, price list answers in several public repositories"),
    "parameter": (0.0, "standard parameter", _SSM, _NOT_FOUND),
    "out": (0.09, "GB to the internet, first 10 TB", _OUT, _OFFERS_SEPTEMBER),
    "between_regions": (0.02, "GB to another region", _OUT, _PAIRS),
}

LISTED = Prices(
    region="us-east-1",
    as_of="2026-10-08",
    source="carried with nightvault; each price names its page and the day it was seen",
    prices={
        name: Price(dollars=dollars, unit=unit, source=source, seen=seen)
        for name, (dollars, unit, source, seen) in _TABLE.items()
    },
)

# What AWS never charges an account for, each month and without an end (not the first year's free tier). It is
# the account's, not ours: other things in the account may use it up. https://aws.amazon.com/free/
ALWAYS_FREE = MappingProxyType(
    {
        "metric": 10.0,
        "alarm": 10.0,
        "dashboard": 3.0,
        "log_ingest": 5.0,
        "log_storage": 5.0,
        "lambda_request": 1_000_000.0,
        "lambda_gb_second": 400_000.0,
        "table_storage": 25.0,
        "mail": 1_000.0,
        "key_request": 20_000.0,
        "out": 100.0,
    }
)

# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html: sizes in GiB, from and to.
VOLUME_SIZES = MappingProxyType({"gp3": (1, 65536), "gp2": (1, 16384), "st1": (125, 16384), "sc1": (125, 16384)})


def refreshed(old: Prices, region: str, found: list[Found], now: datetime) -> Prices:
    """What was found takes the place of what was known; what was not keeps its old price, and is named."""
    stamp = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    prices = dict(old.prices)
    missing = []
    for each in found:
        was = prices.get(each.name)
        if each.dollars is not None:
            known = was or Price(dollars=0, unit="hour", source=_EC2, seen="")
            seen = f"{stamp}, the AWS Price List API for {region}"
            prices[each.name] = Price(dollars=each.dollars, unit=known.unit, source=known.source, seen=seen)
        else:
            kept = f"${was.dollars:.10g} is kept ({was.seen})" if was else "and none is known"
            missing.append(f"{each.name}: {each.error}; {kept}")
    return Prices(region=region, as_of=stamp, source="the AWS Price List API", prices=prices, missing=tuple(missing))
