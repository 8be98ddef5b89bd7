"""What a month of such nights costs. Prices in US dollars, us-east-1, on-demand, from AWS's public price pages.

They are written down here and not fetched: none of them could be checked on the day this was built.
"""

from dataclasses import dataclass

PRICES_OF = "AWS price pages, us-east-1, as of 2025; not checked since"
INSTANCE_HOUR = 0.0168  # t4g.small, https://aws.amazon.com/ec2/pricing/on-demand/
ADDRESS_HOUR = 0.005  # public IPv4 while it runs, https://aws.amazon.com/vpc/pricing/
GP3_GIB_MONTH = 0.08  # https://aws.amazon.com/ebs/pricing/
SNAPSHOT_GIB_MONTH = 0.05  # https://aws.amazon.com/ebs/pricing/
ROOT_GIB = 8
# Sweeps each minute, requests and writes of a night: small, and partly in the free tier. Upper estimate.
CONTROL_PLANE_MONTH = 0.35
NIGHTS = 30


@dataclass(frozen=True)
class Item:
    what: str
    how: str
    dollars: float


def month(*, awake_seconds: float, volume_gib: float, first_gib: float, nightly_gib: float) -> list[Item]:
    """A month's bill, item by item.

    `awake_seconds` a night; `volume_gib` of all hosts' volumes; `first_gib` of data in the first snapshots;
    `nightly_gib` that each later night adds to them (half of the month's additions are there on average).
    """
    hours = awake_seconds * NIGHTS / 3600
    stored = first_gib + nightly_gib * NIGHTS / 2
    return [
        Item("vault awake", f"{hours:.1f} h of t4g.small and its address", hours * (INSTANCE_HOUR + ADDRESS_HOUR)),
        Item(
            "volumes", f"{volume_gib:g} GiB of hosts, {ROOT_GIB} GiB root, gp3", (volume_gib + ROOT_GIB) * GP3_GIB_MONTH
        ),
        Item("restore points", f"{stored:.2f} GiB of snapshots", stored * SNAPSHOT_GIB_MONTH),
        Item("control plane", "Lambda, API Gateway, DynamoDB, CloudWatch: at most", CONTROL_PLANE_MONTH),
    ]
