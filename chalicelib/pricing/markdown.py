"""The cost pages' tables, from the reports and the prices themselves. `python -m tests.pricing.write` writes them."""

from chalicelib.model import Policy
from chalicelib.pricing.control_plane import ALARM_METRICS, DASHBOARDS
from chalicelib.pricing.resting import CASES, sums
from chalicelib.pricing.scenarios import GROWN, NIGHTS, SCENARIOS, Report, report
from chalicelib.pricing.table import LISTED, Prices
from chalicelib.pricing.usage import GIB

KEPT = Policy().copies_kept

# The bill's items in the order of the tables.
ITEMS = (
    "vault awake",
    "volumes",
    "root volumes",
    "restore points",
    "requests",
    "table",
    "key",
    "watching",
)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def article(made: Report) -> str:
    """The article's case, item by item against its own month."""
    items = {name: so_far for name, (so_far, _) in made.bill.by_item().items()}
    theirs = {line.name: line for line in made.article}
    newest = items["restore points"] - made.older_dollars
    hours = 30 * made.scenario.awake_minutes / 60
    like = [
        ("vault awake", f"{hours:.1f} h of t4g.small and its address", items["vault awake"]),
        ("volumes", "20 GiB of gp3", items["volumes"]),
        ("restore points", "20 GiB: each host's newest state", newest),
    ]
    rows = [
        [name, how, _dollars(ours), f"{theirs[name].how}: {_dollars(theirs[name].dollars)}"] for name, how, ours in like
    ]
    same, paid = sum(ours for *_, ours in like), sum(line.dollars for line in made.article)
    rows.append(["**the same things**", "", f"**{_dollars(same)}**", f"**{_dollars(paid)}**, billed as 7.96"])
    older = made.scenario.older_gib
    extra = [
        ("the root volume", "8 GiB of gp3", items["root volumes"]),
        (
            f"{made.scenario.points - 1} older points of each host",
            f"{older:g} GiB of changed blocks",
            made.older_dollars,
        ),
        ("requests and table", "Lambda, API Gateway, DynamoDB", items["requests"] + items["table"]),
        ("a key of your own", "KMS", items["key"]),
        ("being watched", f"alarms on {ALARM_METRICS} metrics, {DASHBOARDS} dashboard, logs", items["watching"]),
    ]
    rows += [[name, how, _dollars(ours), "none, or not counted"] for name, how, ours in extra]
    rows.append(["**in all**", "", f"**{_dollars(made.bill.so_far)}**", f"**{_dollars(made.article_dollars or 0)}**"])
    rows.append(["if nothing else in the account uses its always-free allowances", "", _dollars(_least(made)), ""])
    return _table(["a month", "how much", "nightvault $", "the article, 2009 $"], rows)


def _least(made: Report) -> float:
    return made.bill.so_far - made.free_dollars


def sizes(prices: Prices = LISTED) -> str:
    """Our items and the peers' sums, a column a scenario."""
    made = [report(name, prices) for name in SCENARIOS]
    head = ["a month, $", *(f"{each.scenario.hosts:,} hosts" for each in made)]
    rows = []
    for name in ITEMS:
        cells = [each.bill.by_item()[name][0] for each in made]
        rows.append([name, *map(_dollars, cells)])
    rows.append(["**nightvault**", *(f"**{_dollars(each.bill.so_far)}**" for each in made)])
    rows.append(["less always-free allowances, at most", *(_dollars(_least(each)) for each in made)])
    grown = [report(name, prices, nights=GROWN) for name in SCENARIOS]
    cells = [each.bill.by_item()["restore points"][0] for each in grown]
    rows.append(["restore points after two years", *map(_dollars, cells)])
    rows.append(["**nightvault after two years**", *(f"**{_dollars(each.bill.so_far)}**" for each in grown)])
    rows += _peer_rows(made)
    return _table(head, rows)


def copies(prices: Prices = LISTED) -> str:
    """What copies in a second region add to a month, a column a scenario."""
    shapes = list(SCENARIOS.values())
    gib = [shape.newest_gib + (KEPT - 1) * shape.hosts * min(shape.gib, shape.nightly_gib) for shape in shapes]
    sent = [shape.hosts * NIGHTS * shape.nightly_gib * GIB / 1e9 for shape in shapes]
    stored = [each * prices["snapshot"] for each in gib]
    moved = [each * prices["between_regions"] for each in sent]
    rows = [
        [f"{KEPT} copies of each host", *map(_dollars, stored)],
        ["thirty nights' changes, sent there", *map(_dollars, moved)],
        ["**copies**", *(f"**{_dollars(kept + went)}**" for kept, went in zip(stored, moved, strict=True))],
    ]
    return _table(["a month, $", *(f"{shape.hosts:,} hosts" for shape in shapes)], rows)


def summary(prices: Prices = LISTED) -> str:
    """The README's: sums only."""
    made = [report(name, prices) for name in SCENARIOS]
    grown = [report(name, prices, nights=GROWN) for name in SCENARIOS]
    rows = [
        ["nightvault, after thirty nights", *(_dollars(each.bill.so_far) for each in made)],
        ["nightvault, after two years", *(_dollars(each.bill.so_far) for each in grown)],
        *_peer_rows(made),
    ]
    return _table(["a month, $", *(f"{each.scenario.hosts:,} hosts" for each in made)], rows)


def _peer_rows(made: list[Report]) -> list[list[str]]:
    names = [peer.name for peer in made[0].peers]
    return [[name, *(_dollars(each.peers[i].dollars) for each in made)] for i, name in enumerate(names)]


def peers(made: Report) -> str:
    """Where each peer's price is from."""
    rows = [[peer.name, peer.how, peer.source, peer.seen, peer.but] for peer in made.peers]
    lines = _table(["peer, for the article's case", "price", "page", "seen", "but"], rows)
    return lines.replace("---:", "---")


def resting(prices: Prices = LISTED) -> str:
    """What hosts save that rest as their snapshots."""
    rows = []
    for name, case in CASES.items():
        made = sums(case, prices)
        rows.append([name, *map(_dollars, (made.always, made.there, made.drills)), f"**{_dollars(made.saved)}**"])
    return _table(["a month, $", "a volume that stays", "one that comes and goes", "its drills", "saved"], rows)


def price_list(prices: Prices = LISTED) -> str:
    """Every price of ours."""
    rows = [
        [name, f"{price.dollars:.10g}", price.unit, price.source, price.seen] for name, price in prices.prices.items()
    ]
    return _table(["price", "$", "unit", "AWS's page", "seen"], rows).replace("---:", "---")
