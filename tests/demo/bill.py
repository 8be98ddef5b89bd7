"""What a month of such nights costs: a first month, in which each night adds to the restore points kept."""

from dataclasses import dataclass
from datetime import timedelta

from chalicelib.pricing.bill import bill
from chalicelib.pricing.control_plane import Traffic, counts
from chalicelib.pricing.scenarios import MONTH, NIGHTS, ROOT_GIB
from chalicelib.pricing.table import LISTED
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume, month_bounds

PRICES_OF = f"{LISTED.region}, list prices seen until {LISTED.as_of}, no free tier; docs/costs.md"


@dataclass(frozen=True)
class Item:
    what: str
    how: str
    dollars: float


def month(*, hosts: int, awake_seconds: float, volume_gib: int, first_gib: float, nightly_gib: float) -> list[Item]:
    """A month's bill, item by item.

    `awake_seconds` a night; `volume_gib` of all hosts' volumes; `first_gib` of data in the first snapshots;
    `nightly_gib` that each later night adds to them.
    """
    begin, end = month_bounds(MONTH)
    nights = [
        Snapshot(snapshot_id=f"night-{n}", host="all", stored_bytes=int(nightly_gib * GIB), since=begin + timedelta(n))
        for n in range(1, NIGHTS)
    ]
    first = Snapshot(snapshot_id="first", host="all", stored_bytes=int(first_gib * GIB), since=begin, basis="full")
    traffic = Traffic(
        seconds=(end - begin).total_seconds(),
        month_share=1,
        vaults=1,
        hosts=hosts,
        awake_seconds=awake_seconds * NIGHTS,
        windows=NIGHTS,
        runs=NIGHTS * hosts,
        points=NIGHTS * hosts,
    )
    made = bill(
        Usage(
            month=MONTH,
            region=LISTED.region,
            since=begin,
            as_of=end,
            instance_type="t4g.small",
            awake_seconds={"vault-1": awake_seconds * NIGHTS},
            volumes=(
                Volume(volume_id="hosts", host="all", gib=volume_gib, type="gp3", since=begin),
                Volume(volume_id="root", host=None, gib=ROOT_GIB, type="gp3", since=begin),
            ),
            snapshots=(first, *nights),
            counts=counts(traffic),
        ),
        LISTED,
    )
    return [Item(item.name, item.how, item.dollars) for item in made.items]
