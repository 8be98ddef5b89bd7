"""The actions `cost` and `refresh_prices`: facts gathered, bills made of them by chalicelib/pricing."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib import errors
from chalicelib.calling import calling
from chalicelib.model import Host, Vault, Window
from chalicelib.operators.clients import Clients
from chalicelib.operators.estate import Estate, Shot, look
from chalicelib.ports import RESTORE_PURPOSE, Store
from chalicelib.pricing.bill import Bill, bill
from chalicelib.pricing.control_plane import Traffic, counts
from chalicelib.pricing.price_list import QUESTIONS, question_of, read
from chalicelib.pricing.table import LISTED, Found, Prices, refreshed
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume, month_bounds, share_awake
from chalicelib.wiring import Wiring

LONGEST_HISTORY = 400  # windows of a vault that are asked for: a year of nights, as long as they are kept
DEFAULT_TYPE = "t4g.small"  # a stack that has never woken has no machine to ask


class Answer(Struct, frozen=True, kw_only=True):
    """What `cost` answers."""

    usage: Usage
    prices: Prices
    bill: Bill


def cost(wired: Wiring, month: str | None = None, clients: Clients | None = None) -> Answer:
    """A month's bill. Raises BadRequest for a month that is none or has not begun, CloudRefused."""
    clients = clients or Clients(wired)
    now = wired.clock.now()
    month = month or f"{now.astimezone(UTC):%Y-%m}"
    try:
        begin, end = month_bounds(month)
    except ValueError as wrong:
        raise errors.BadRequest(str(wrong)) from None
    if begin > now:
        raise errors.BadRequest(f"month: {month} has not begun; ask for this one or one that is over")
    with calling("DescribeVolumes"):
        estate = look(clients.ec2, wired.settings.stack)
    usage = usage_of(
        wired.store,
        estate,
        month=month,
        region=clients.region,
        begin=begin,
        until=min(now, end),
        copies_kept=wired.settings.policy.copies_kept,
    )
    prices = known_prices(clients, wired.settings.table)
    try:
        return Answer(usage=usage, prices=prices, bill=bill(usage, prices))
    except KeyError as unknown:
        raise errors.BadRequest(str(unknown.args[0])) from None


def usage_of(
    store: Store, estate: Estate, *, month: str, region: str, begin: datetime, until: datetime, copies_kept: int = 2
) -> Usage:
    """What was used between `begin` and `until`, from the records and from what EC2 has."""
    vaults, hosts = store.vaults(), store.hosts()
    history = {vault.vault_id: _history(store, vault) for vault in vaults}
    windows = {vault_id: [w for w in known if _within(w, begin, until)] for vault_id, known in history.items()}
    every = [window for those in windows.values() for window in those]
    since = min(max(begin, _first(hosts, every, until)), until)
    by_host: dict[str, float] = defaultdict(float)
    by_vault: dict[str, float] = {}
    for vault_id, those in windows.items():
        shares = [share_awake(window, begin, until) for window in those]
        by_vault[vault_id] = sum(sum(share.values()) for share in shares)
        for share in shares:
            for host, seconds in share.items():
                by_host[host] += seconds
    by_host.pop("", None)  # woken by an operator, for nobody
    seconds = (until - since).total_seconds()
    _, end = month_bounds(month)
    traffic = Traffic(
        seconds=seconds,
        month_share=seconds / (end - begin).total_seconds(),
        vaults=len(vaults),
        hosts=len(hosts),
        awake_seconds=sum(by_vault.values()),
        windows=len(every),
        runs=sum(len(window.runs) for window in every),
        points=len(estate.shots),
    )
    pushed = _pushed(store, estate.shots, history)
    types = [machine.type for machine in estate.machines]
    return Usage(
        month=month,
        region=region,
        since=since,
        as_of=until,
        instance_type=max(types, key=types.count, default=DEFAULT_TYPE),
        awake_seconds=by_vault,
        host_awake_seconds=dict(by_host),
        volumes=tuple(
            Volume(volume_id=disk.volume_id, host=disk.host or None, gib=disk.gib, type=disk.type, since=disk.made_at)
            for disk in estate.disks
            # One that was made for a restore is gone within hours; as a month's it would count for far too much.
            if disk.made_at < until and disk.purpose != RESTORE_PURPOSE
        ),
        snapshots=tuple(stored(estate.shots, pushed, until)),
        copies=tuple(copied(hosts, pushed, copies_kept, since)),
        counts=counts(traffic) | _transfer(hosts, every),
    )


def stored(shots: tuple[Shot, ...], pushed: dict[str, int], until: datetime) -> list[Snapshot]:
    """What each snapshot adds, estimated; see Snapshot. `pushed`: bytes that its run sent, by snapshot id.

    EBS keeps a block once for all snapshots that share it, so what the oldest one holds counts whole, whatever was
    deleted before it: https://docs.aws.amazon.com/ebs/latest/userguide/how_snapshots_work.html
    """
    made = []
    oldest: set[str] = set()
    for shot in sorted(shots, key=lambda shot: (shot.started_at, shot.snapshot_id)):
        if shot.started_at >= until or shot.state == "error":
            continue
        full = shot.full_bytes if shot.full_bytes is not None else shot.volume_gib * GIB
        first = shot.volume_id not in oldest or shot.archived  # the archive holds each one whole
        oldest.add(shot.volume_id)
        if not first and shot.snapshot_id in pushed:
            amount, basis = min(pushed[shot.snapshot_id], full), "pushed"
        else:
            amount, basis = full, "full" if shot.full_bytes is not None else "size"
        made.append(
            Snapshot(
                snapshot_id=shot.snapshot_id,
                host=shot.host,
                stored_bytes=amount,
                since=shot.started_at,
                basis=basis,
                archived=shot.archived,
            )
        )
    return made


def copied(hosts: list[Host], pushed: dict[str, int], keep: int, since: datetime) -> Iterator[Snapshot]:
    """Complete copies in other regions: of each host's, the oldest is whole, and later ones add what was pushed.

    Of those that were deleted nothing is known: a host that has as many as it keeps is taken to have had them since
    `since`.
    """
    for host in hosts:
        complete = sorted((copy for copy in host.copies if copy.complete), key=lambda copy: copy.taken_at)
        for place, copy in enumerate(complete):
            basis, whole = ("size", host.size_gib * GIB) if copy.used_bytes is None else ("full", copy.used_bytes)
            if place and copy.point_id in pushed:
                basis, whole = "pushed", min(pushed[copy.point_id], whole)
            yield Snapshot(
                snapshot_id=copy.copy_id,
                host=host.name,
                stored_bytes=whole,
                since=since if len(complete) >= keep else copy.completed_at or copy.asked_at,
                basis=basis,
            )


def _transfer(hosts: list[Host], windows: list[Window]) -> dict[str, float]:
    """What went to another region: what the hosts that have copies pushed, at least. Nothing if none has."""
    copying = {host.name for host in hosts if host.copies}
    runs = [run for window in windows for run in window.runs.values() if run.host in copying]
    return {"between_regions": sum(run.stats.bytes_sent or 0 for run in runs if run.stats) / 1e9} if copying else {}


def _history(store: Store, vault: Vault) -> list[Window]:
    """All windows that are known: archived ones, and the one under way or just over."""
    known = {window.window_id: window for window in store.windows(vault.vault_id, LONGEST_HISTORY)}
    known |= {window.window_id: window for window in (vault.recent, vault.window) if window}
    return list(known.values())


def _within(window: Window, begin: datetime, until: datetime) -> bool:
    return window.opened_at < until and (window.stopped_at or until) > begin


def _first(hosts: list[Host], windows: list[Window], until: datetime) -> datetime:
    """When anything of ours began: the first enrolment, or a window of a host that is no more."""
    begun = [*(host.enrolled_at for host in hosts), *(window.opened_at for window in windows)]
    return min(begun, default=until)


def _pushed(store: Store, shots: tuple[Shot, ...], history: dict[str, list[Window]]) -> dict[str, int]:
    """Bytes that a host sent before each restore point, by snapshot id, where the window's runs say so."""
    sent: dict[tuple[str, str], int] = defaultdict(int)
    for windows in history.values():
        for window in windows:
            for run in window.runs.values():
                if run.stats and run.stats.bytes_sent is not None:
                    sent[window.window_id, run.host] += run.stats.bytes_sent
    points = [point for host in sorted({shot.host for shot in shots}) for point in store.points(host)]
    return {
        point.snapshot_id: sent[point.window_id, point.host]
        for point in points
        if point.snapshot_id and (point.window_id, point.host) in sent
    }


# --- prices -----------------------------------------------------------------------------------------------


def known_prices(clients: Clients, table: str) -> Prices:
    """The prices that a refresh has kept for this region, or the ones that nightvault carries."""
    with calling("GetItem"):
        item = clients.dynamodb.get_item(TableName=table, Key=_key(clients.region)).get("Item")
    return msgspec.json.decode(item["doc"]["S"], type=Prices) if item else LISTED


def refresh_prices(wired: Wiring, clients: Clients | None = None) -> Prices:
    """Ask the Price List API for every price, keep the answers, and say what could not be found.

    Raises CloudRefused if no price at all could be had: nothing is kept then.
    """
    clients = clients or Clients(wired)
    table = wired.settings.table
    old = known_prices(clients, table)
    with calling("DescribeInstances"):
        machines = look(clients.ec2, wired.settings.stack).machines
    names = [*QUESTIONS, *sorted({machine.type for machine in machines} - set(QUESTIONS))]
    found = [_ask(clients, name) for name in names]
    if all(each.dollars is None for each in found):
        raise errors.CloudRefused("GetProducts", "NoPrices", f"no price was found; the first: {found[0].error}")
    new = refreshed(old, clients.region, found, wired.clock.now())
    item = {**_key(clients.region), "doc": {"S": msgspec.json.encode(new).decode()}}
    with calling("PutItem"):
        clients.dynamodb.put_item(TableName=table, Item=item)
    return new


def _ask(clients: Clients, name: str) -> Found:
    question = question_of(name)
    if question is None:
        return Found(name=name, dollars=None, error="not a price that the list has")
    try:
        pages = clients.pricing.get_paginator("get_products").paginate(
            ServiceCode=question.service, Filters=question.filters(clients.region), FormatVersion="aws_v1"
        )
        entries = [entry for page in pages for entry in page["PriceList"]]
    except (ClientError, BotoCoreError) as refused:
        return Found(name=name, dollars=None, error=f"GetProducts: {refused}")
    return read(name, clients.region, entries)


def _key(region: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": "PRICES"}, "sk": {"S": region}}
