"""This month's cost for the dashboard, from the table alone: the widget may ask EC2 nothing.

`vaultctl cost` asks EC2 what volumes and snapshots there are; here they are those that the records name, so what was
made or deleted by hand is not in it.
"""

from datetime import UTC, datetime
from html import escape

import msgspec

from chalicelib.model import PointState, RestorePoint, Vault
from chalicelib.operators.cost import DEFAULT_TYPE, usage_of
from chalicelib.operators.estate import Disk, Estate, Machine, Shot
from chalicelib.ports import Store
from chalicelib.pricing.bill import Bill, bill
from chalicelib.pricing.table import LISTED, Prices
from chalicelib.pricing.usage import month_bounds
from chalicelib.timeline.style import Theme, css
from chalicelib.wiring import Wiring


def html(wired: Wiring, theme: Theme) -> str:
    """A table by item: so far, and at the month's end."""
    now = wired.clock.now()
    month = f"{now.astimezone(UTC):%Y-%m}"
    begin, _ = month_bounds(month)
    region = str(wired.session.region_name)
    estate = known(wired.store, wired.settings.instance_type or DEFAULT_TYPE, wired.settings.root_gib)
    usage = usage_of(
        wired.store,
        estate,
        month=month,
        region=region,
        begin=begin,
        until=now,
        copies_kept=wired.settings.policy.copies_kept,
    )
    try:
        inner = _table(bill(usage, _prices(wired, region)))
    except KeyError as unknown:
        inner = f"<p>{escape(str(unknown.args[0]))}</p>"
    return f'<div class="nvt cwdb-no-default-styles"><style>{css(theme, page=False)}</style>{inner}</div>'


def known(store: Store, instance_type: str, root_gib: int) -> Estate:
    """Machines, volumes and snapshots as the records have them."""
    vaults, hosts = store.vaults(), {host.name: host for host in store.hosts()}
    machines, disks = list[Machine](), list[Disk]()
    for vault in vaults:
        mine = {name: hosts[name] for name in vault.hosts if name in hosts}
        since = min((host.enrolled_at for host in mine.values()), default=None)
        if vault.instance_id and since:
            machines.append(_machine(vault, instance_type, since))
            disks.append(_disk(vault, "", f"root of {vault.vault_id}", root_gib, since))
        for name, host in mine.items():
            slot = vault.hosts[name]
            if slot.volume_id:
                disks.append(_disk(vault, name, slot.volume_id, slot.size_gib, host.enrolled_at))
    shots = [shot for name in sorted(hosts) for point in store.points(name) if (shot := _shot(point))]
    return Estate(machines=tuple(machines), disks=tuple(disks), shots=tuple(shots), groups=())


def _machine(vault: Vault, instance_type: str, since: datetime) -> Machine:
    return Machine(
        instance_id=vault.instance_id or "",
        vault_id=vault.vault_id,
        state="",
        type=instance_type,
        launched_at=since,
        template_version=None,
    )


def _disk(vault: Vault, host: str, volume_id: str, gib: int, since: datetime) -> Disk:
    return Disk(
        volume_id=volume_id,
        host=host,
        vault_id=vault.vault_id,
        gib=gib,
        type="gp3",  # what the launch template and cloud.py make
        made_at=since,
        encrypted=True,
        attached_to=vault.instance_id or "",
    )


def _shot(point: RestorePoint) -> Shot | None:
    """A point that was never made, or whose snapshot failed, stores nothing."""
    if point.snapshot_id is None or point.made_at is None or point.state is PointState.ERROR:
        return None
    # The first one of a volume holds all that is in use; without that figure, at most the whole volume.
    return Shot(
        snapshot_id=point.snapshot_id,
        host=point.host,
        volume_id=point.volume_id,
        started_at=point.made_at,
        state=point.state,
        volume_gib=point.volume_gib or 0,
        full_bytes=point.used_bytes,
        encrypted=True,
        archived=False,
    )


def _prices(wired: Wiring, region: str) -> Prices:
    """Those that `vaultctl cost --refresh` has kept for this region, or the ones that nightvault carries."""
    answer = wired.session.client("dynamodb", config=wired.config).query(
        TableName=wired.settings.table,
        KeyConditionExpression="pk = :pk AND sk = :region",
        ExpressionAttributeValues={":pk": {"S": "PRICES"}, ":region": {"S": region}},
    )
    items = answer["Items"]
    return msgspec.json.decode(items[0]["doc"]["S"], type=Prices) if items else LISTED


def _table(made: Bill) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>${so_far:.2f}</td><td>${forecast:.2f}</td></tr>"
        for name, (so_far, forecast) in made.by_item().items()
    )
    total = f"<tr><th>{escape(made.month)}</th><th>${made.so_far:.2f}</th><th>${made.forecast:.2f}</th></tr>"
    note = f" {escape(made.note.capitalize())}." if made.note else ""
    return (
        '<table><tr><th scope="col">item</th><th scope="col">so far</th><th scope="col">whole month</th></tr>'
        f"{rows}{total}</table><p>An estimate from the records, by prices of {escape(made.prices_as_of)}, before tax "
        f"and free tiers.{note} <b>vaultctl cost</b> asks EC2.</p>"
    )
