"""What a verification costs, said before it begins."""

from msgspec import Struct

from chalicelib.pricing.table import Prices

# Two wakings: boot, push or pull, stop. EC2 bills by the second, a minute at least:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/concepts.html (per-second billing)
AWAKE_MINUTES = 12
VOLUME_GIB = 1
VOLUME_HOURS = 1
ROOT_GIB = 8  # only where the stack has no vault yet; it is kept for the next host
STORED_GIB = 0.01
INSTANCE = "t4g.small"
MONTH_HOURS = 730


class Estimate(Struct, frozen=True, kw_only=True):
    """`dollars` once; `kept_dollars` a month for what stays: the restore point, and a new vault's root volume."""

    dollars: float
    kept_dollars: float
    how: str
    prices_as_of: str


def estimate(prices: Prices, *, new_vault: bool) -> Estimate:
    """At most, if AWS is not slower than usual. Control plane calls are fractions of a cent and left out."""
    awake = AWAKE_MINUTES / 60 * (prices[INSTANCE] + prices["address"])
    volume = VOLUME_GIB * VOLUME_HOURS / MONTH_HOURS * prices["gp3"]
    kept = STORED_GIB * prices["snapshot"] + (ROOT_GIB * prices["gp3"] if new_vault else 0.0)
    return Estimate(
        dollars=awake + volume,
        kept_dollars=kept,
        how=f"{AWAKE_MINUTES} min of {INSTANCE} and its address, {VOLUME_GIB} GiB of gp3 for an hour",
        prices_as_of=prices.as_of,
    )
