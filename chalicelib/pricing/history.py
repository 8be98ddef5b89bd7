"""What restore points add up to under retention, and when the archive tier is cheaper. Pure.

EBS keeps a block once for all snapshots that share it, so a point holds what changed since the one before it that is
kept: https://docs.aws.amazon.com/ebs/latest/userguide/how_snapshots_work.html
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.model import Outcome, PointState, RestorePoint, Retention
from chalicelib.pricing.table import Prices
from chalicelib.pricing.usage import GIB
from chalicelib.retention import Verdict, Why, judge

# https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-archive-pricing.html: who leaves sooner pays for the rest.
ARCHIVE_MONTHS = 3
LAST_NIGHT = datetime(2026, 11, 30, 2, 0, tzinfo=UTC)


def kept(nights: int, retention: Retention) -> list[int]:
    """How many nights ago the points were made that are left of so many equal nights, the newest first."""
    made = [_point(LAST_NIGHT - timedelta(days=ago)) for ago in range(nights)]
    stay = [verdict.point.run_started_at for verdict in judge(made, retention, LAST_NIGHT) if verdict.keep]
    return [(LAST_NIGHT - at).days for at in stay]


def older_gib(ages: list[int], gib: float, nightly_gib: float) -> float:
    """GiB that the points before the newest add, at most: no block that changed has changed before, until all have."""
    return sum(min(gib, nightly_gib * (before - after)) for after, before in pairwise(ages))


def _point(at: datetime) -> RestorePoint:
    return RestorePoint(
        host="",
        vault_id="",
        window_id="",
        volume_id="",
        run_id="",
        run_started_at=at,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id=at.isoformat(),
        state=PointState.COMPLETED,
        made_at=at,
    )


# --- the archive tier -------------------------------------------------------------------------------------


def may_be_archived(why: tuple[str, ...]) -> bool:
    """Only what nothing but its month keeps: what is archived takes a day to three until it can be restored from.

    https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-archive-considerations.html: up to 72 hours.
    """
    return why == (Why.MONTHLY,)


class Monthly(Struct, frozen=True, kw_only=True):
    """MONTHLY: a point that stands for a month, and what EBS's archive would take off a month for it; below 0: it adds.

    `own_bytes`: an estimate, see `own_bytes`. `dollars` null: `why_not` says why nothing can be said, or nothing is to
    be done. `before`, `after`: the kept points around it, for whoever counts the blocks.
    """

    snapshot_id: str
    whole_bytes: int
    months: int  # that it is still kept, at most
    own_bytes: int | None = None
    dollars: float | None = None
    why_not: str = ""
    before: str | None = None
    after: str | None = None


def monthlies(
    verdicts: list[Verdict],
    places: int,
    prices: Prices,
    *,
    sent: list[tuple[datetime, int]],
    since: datetime,
    whole: Mapping[str, int],
    archived: Collection[str] = (),
) -> list[Monthly]:
    """Of every point that its month keeps, newest first. `verdicts`, `sent`, `since`: as for `own_bytes`.

    `places`: how many months are kept. `whole`: bytes of whole snapshots by id, as EC2 tells; of others what was used
    on the volume. `archived`: those that are in the archive. Raises KeyError that names a price that is not known.
    """
    stay = [str(verdict.point.snapshot_id) for verdict in verdicts if verdict.keep]
    made: list[Monthly] = []
    for index, verdict in enumerate(verdicts):
        if Why.MONTHLY not in verdict.why:
            continue
        point, place = verdict.point, stay.index(str(verdict.point.snapshot_id))
        used = (point.volume_gib or 0) * GIB if point.used_bytes is None else point.used_bytes
        one = Monthly(
            snapshot_id=str(point.snapshot_id),
            whole_bytes=whole.get(str(point.snapshot_id), used),
            months=max(1, places - len(made)),
            before=stay[place + 1] if place + 1 < len(stay) else None,
            after=stay[place - 1] if place else None,
        )
        if one.snapshot_id in archived:
            one = replace(one, why_not="is in the archive")
        elif not may_be_archived(verdict.why):
            one = replace(one, why_not="kept at hand: " + ", ".join(why for why in verdict.why if why != Why.MONTHLY))
        elif one.before is None:
            one = replace(one, why_not="the oldest: it holds what the others share")
        elif (own := own_bytes(verdicts, index, sent, since)) is None:
            one = replace(one, why_not="not all that was sent around it is known")
        else:
            own = min(own, one.whole_bytes)
            saved = archive_saves(one.whole_bytes, own, one.months, prices)
            one = replace(one, own_bytes=own, dollars=saved)
        made.append(one)
    return made


def own_bytes(verdicts: list[Verdict], index: int, sent: list[tuple[datetime, int]], since: datetime) -> int | None:
    """Bytes of a point that no other one has, an estimate; None where not all that was sent around it is known.

    What is its own came after the kept point before it, and was overwritten before the one after it. Of what came not
    all need have been overwritten, which makes it less; EBS keeps whole blocks of 512 KiB, which makes it more.
    `verdicts`: newest first; `sent`: bytes of each run by its start, all of them since `since`.
    """
    stay = [verdict.point.run_started_at for verdict in verdicts if verdict.keep]
    place = stay.index(verdicts[index].point.run_started_at)
    if place == 0 or place + 1 == len(stay) or stay[place + 1] < since:
        return None  # the newest, the oldest (which holds all that the next ones share), or too long ago
    after, its, before = stay[place - 1 : place + 2]
    came = sum(amount for at, amount in sent if before < at <= its)
    went = sum(amount for at, amount in sent if its < at <= after)
    return min(came, went)


def archive_saves(full_bytes: int, own_bytes: int, months: float, prices: Prices) -> float:
    """Dollars a month that a snapshot costs less in the archive, over the months that it is still kept; below 0: more.

    `full_bytes`: all blocks of it, which the archive bills; `own_bytes`: those that no other snapshot has, which is
    what leaves the standard tier. Raises KeyError that names a price that is not known.
    """
    standard = own_bytes / GIB * prices["snapshot"]
    archive = full_bytes / GIB * prices["snapshot_archive"]
    return standard - archive * max(1.0, ARCHIVE_MONTHS / months)
