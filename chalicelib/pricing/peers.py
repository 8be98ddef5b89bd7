"""What others charge for the same bytes, and what the article paid: each with its page, and when we saw it."""

from msgspec import Struct

GB = 1e9
GIB = 2**30


class Peer(Struct, frozen=True, kw_only=True):
    """`dollars` a month. `how`: the price and what it is applied to; `but`: what it does not include."""

    name: str
    dollars: float
    how: str
    source: str
    seen: str
    but: str = ""


class Line(Struct, frozen=True, kw_only=True):
    """An item of the article's month at the prices of its day."""

    name: str
    how: str
    dollars: float


ARTICLE = "https://edoceo.com/blog/2009/2009-01-27-off-site-backup-using-amazon-ec2ebss3"
ARTICLE_DOLLARS = 7.96
# $.10 an hour, $.10 a GB-month allocated, $.15 a GB-month of snapshot, as a user of that day wrote them down.
ARTICLE_PRICES = "http://freewisdom.org/photos/2008/09/17/backup_with_rsync"
ARTICLE_PRICES_SEEN = "2008-09-17"


def article_lines(nights: int, volume_gib: float, stored_gib: float) -> list[Line]:
    """The article's month at the prices of its day. It gives only the sum; that a started hour cost a whole one
    is EC2's rule until 2017 (https://aws.amazon.com/blogs/aws/new-per-second-billing-for-ec2-instances-and-ebs-volumes/).
    """
    return [
        Line(name="vault awake", how=f"{nights} started hours of m1.small", dollars=nights * 0.10),
        Line(name="volumes", how=f"{volume_gib:g} GiB of EBS", dollars=volume_gib * 0.10),
        Line(name="restore points", how=f"{stored_gib:g} GiB in S3", dollars=stored_gib * 0.15),
    ]


def _tiered(gb: float, tiers: tuple[tuple[float, float], ...]) -> float:
    """Dollars for `gb`, all of it at the price of the tier it falls in; `tiers` are (from GB, dollars a GB)."""
    price = max((tier for tier in tiers if gb >= tier[0]), key=lambda tier: tier[0])[1]
    return gb * price


def peers(stored_gib: float, sent_gib: float, snapshot_price: float) -> list[Peer]:
    """For so much kept all month, and so much sent in it. The same bytes for all: what deduplication and
    compression would spare depends on the data (docs/measurements.md), and those who have them do better."""
    stored, sent = stored_gib * GIB / GB, sent_gib * GIB / GB
    rsync_net = max(800.0, stored)
    borg = max(100.0, stored)
    return [
        Peer(
            name="rsync.net",
            dollars=_tiered(rsync_net, ((0, 0.015), (10_000, 0.0125), (100_000, 0.0075))),
            how=f"{rsync_net:,.0f} GB (800 at least) at 1.5 ¢; from 10 TB 1.25, from 100 TB 0.75",
            source="https://www.rsync.net/pricing.html",
            seen="quoted in public repositories of 2026",
        ),
        Peer(
            name="rsync.net, borg accounts",
            dollars=_tiered(borg, ((0, 0.015), (1_000, 0.008))),
            how=f"{borg:,.0f} GB (100 at least, by the year) at 1.5 ¢; from 1 TB 0.8",
            source="https://www.rsync.net/products/attic.html",
            seen="quoted in a public repository of 2026",
            but="no snapshots on their side",
        ),
        Peer(
            name="BorgBase",
            dollars=max(24.0, stored / 250 * 24) / 12,
            how=f"{max(250.0, stored):,.0f} GB at $24 a year for 250 GB",
            source="https://www.borgbase.com/",
            seen="2026-01-06, a user's decision record; larger plans not found, so this one's rate is used for all",
        ),
        Peer(
            name="Tarsnap",
            dollars=(stored + sent) * GB * 250e-12,
            how=f"{stored:,.0f} GB kept and {sent:,.0f} GB sent, at 250 picodollars a byte each",
            source="https://www.tarsnap.com/picoUSD-why.html",
            seen="a stored copy without a day; the price of sending from memory",
        ),
        Peer(
            name="AWS Backup",
            dollars=stored_gib * snapshot_price,
            how=f"{stored_gib:,.0f} GiB of EBS backups at ${snapshot_price:.2f}",
            source="https://aws.amazon.com/backup/pricing/",
            seen="2026-06, https://www.factualminds.com/blog/aws-backup-pricing-vaults-cross-region-restores/"
            " (billed as EBS snapshots are)",
            but="copies what is on EBS already: volumes, a machine that receives, and its hours come on top",
        ),
    ]
