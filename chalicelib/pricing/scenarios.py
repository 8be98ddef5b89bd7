"""The bills of made-up stacks: the article's four hosts, and 10, 100 and 1,000. Pure: a month of equal nights.

`vaultctl cost --scenario NAME` prints a report; docs/costs.md and the README's table are its very output.
"""

import math
from datetime import timedelta
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.model import MAX_HOSTS, Retention
from chalicelib.pricing.bill import Bill, bill
from chalicelib.pricing.control_plane import Traffic, counts
from chalicelib.pricing.history import kept, older_gib
from chalicelib.pricing.peers import ARTICLE_DOLLARS, Line, Peer, article_lines, peers
from chalicelib.pricing.table import LISTED, Prices
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume, month_bounds

MONTH = "2026-11"  # thirty days
NIGHTS = 30
GROWN = 730  # nights after which the default retention has nothing more to add
ROOT_GIB = 8


class Scenario(Struct, frozen=True, kw_only=True):
    """`hosts` of `gib` each, changing `nightly_gib` a night each; each vault awake `awake_minutes` a night.

    `nights`: how many there have been; of each host those restore points are left that retention keeps.
    """

    name: str
    hosts: int
    gib: int = 5
    nightly_gib: float = 1.0
    awake_minutes: float = 15.0
    nights: int = NIGHTS
    retention: Retention = Retention()
    instance_type: str = "t4g.small"
    volume_type: str = "gp3"

    @property
    def vaults(self) -> int:
        return math.ceil(self.hosts / MAX_HOSTS)

    @property
    def points(self) -> int:
        """Restore points of each host."""
        return len(kept(self.nights, self.retention))

    @property
    def older_gib_a_host(self) -> float:
        """Stored for the points before its newest: what changed between them, at most."""
        return older_gib(kept(self.nights, self.retention), self.gib, self.nightly_gib)

    @property
    def newest_gib(self) -> float:
        """Stored for the newest state of every host: full volumes."""
        return self.hosts * float(self.gib)

    @property
    def older_gib(self) -> float:
        """Stored for the points before those."""
        return self.hosts * self.older_gib_a_host


SCENARIOS = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(name="article", hosts=4),
            Scenario(name="10", hosts=10),
            Scenario(name="100", hosts=100),
            Scenario(name="1000", hosts=1000),
        )
    }
)


class Report(Struct, frozen=True, kw_only=True):
    """A scenario's month. `article`: the same at the article's prices, for the scenario `article` only."""

    scenario: Scenario
    region: str
    bill: Bill
    older_dollars: float  # of the bill's restore points, the part of the nights before the newest
    free_dollars: float  # what always-free allowances take off at most
    peers: tuple[Peer, ...]
    article: tuple[Line, ...] = ()
    article_dollars: float | None = None


def usage_of(scenario: Scenario, region: str) -> Usage:
    """A whole month of it: every volume and restore point there all month, every night the same."""
    begin, end = month_bounds(MONTH)
    before = begin - timedelta(days=1)
    hosts = [f"h{number:04}" for number in range(1, scenario.hosts + 1)]
    awake = NIGHTS * scenario.awake_minutes * 60
    vaults = [f"vault-{number}" for number in range(1, scenario.vaults + 1)]
    housed = {vault: hosts[index * MAX_HOSTS : (index + 1) * MAX_HOSTS] for index, vault in enumerate(vaults)}
    volumes = [Volume(volume_id=f"root-{v}", host=None, gib=ROOT_GIB, type="gp3", since=before) for v in vaults]
    volumes += [Volume(volume_id=h, host=h, gib=scenario.gib, type=scenario.volume_type, since=before) for h in hosts]
    newest = int(scenario.gib * GIB)
    older = int(scenario.older_gib_a_host * GIB)
    snapshots = [
        Snapshot(snapshot_id=f"new-{h}", host=h, stored_bytes=newest, since=before, basis="full") for h in hosts
    ]
    snapshots += [Snapshot(snapshot_id=f"old-{h}", host=h, stored_bytes=older, since=before) for h in hosts if older]
    traffic = Traffic(
        seconds=(end - begin).total_seconds(),
        month_share=1.0,
        vaults=scenario.vaults,
        hosts=scenario.hosts,
        awake_seconds=awake * scenario.vaults,
        windows=NIGHTS * scenario.vaults,
        runs=NIGHTS * scenario.hosts,
        points=scenario.points * scenario.hosts,
    )
    return Usage(
        month=MONTH,
        region=region,
        since=begin,
        as_of=end,
        instance_type=scenario.instance_type,
        awake_seconds=dict.fromkeys(vaults, awake),
        host_awake_seconds={host: awake / len(housed[vault]) for vault in vaults for host in housed[vault]},
        volumes=tuple(volumes),
        snapshots=tuple(snapshots),
        counts=counts(traffic),
    )


def report(name: str, prices: Prices = LISTED, *, nights: int = NIGHTS) -> Report:
    """The report of a scenario by its name, after so many nights. Raises KeyError that says which there are."""
    try:
        scenario = replace(SCENARIOS[name], nights=nights)
    except KeyError:
        raise KeyError(f"scenario: {name!r} is none of {', '.join(SCENARIOS)}") from None
    made = bill(usage_of(scenario, prices.region), prices)
    stored = scenario.newest_gib + scenario.older_gib
    sent = scenario.hosts * NIGHTS * scenario.nightly_gib
    is_article = name == "article"
    lines = article_lines(NIGHTS, scenario.newest_gib, scenario.newest_gib) if is_article else []
    return Report(
        scenario=scenario,
        region=prices.region,
        bill=made,
        older_dollars=scenario.older_gib * prices["snapshot"],
        free_dollars=math.fsum(each.dollars for each in made.free),
        peers=tuple(peers(stored, sent, prices["snapshot"])),
        article=tuple(lines),
        article_dollars=ARTICLE_DOLLARS if is_article else None,
    )
