"""Usage gathered from records and EC2: awake time is shared to the second, snapshots are estimated soundly."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.model import Ceiling, Kind, Run, Window
from chalicelib.operators.cost import stored, usage_of
from chalicelib.operators.estate import Disk, Estate, Machine, Shot
from chalicelib.pricing.bill import bill
from chalicelib.pricing.table import LISTED
from chalicelib.pricing.usage import GIB, month_bounds, share_awake
from tests.fakes.world import World
from tests.pricing.usages import BEGIN, END
from tests.unit.test_retaining import look


def run(host: str, start: int, end: int | None) -> Run:
    return Run(
        run_id=f"{host}-{start}",
        host=host,
        kind=Kind.BACKUP,
        started_at=BEGIN + timedelta(seconds=start),
        source_address="198.51.100.7",
        lease_until=BEGIN,
        ended_at=None if end is None else BEGIN + timedelta(seconds=end),
    )


def window(*runs: Run, opened: int = 0, stopped: int | None = 1000) -> Window:
    opened_at = BEGIN + timedelta(seconds=opened)
    return Window(
        window_id="w",
        vault_id="vault-1",
        opened_at=opened_at,
        ceilings={Kind.BACKUP: Ceiling(since=opened_at, closes_at=opened_at + timedelta(hours=3))},
        runs={each.run_id: each for each in runs},
        stopped_at=None if stopped is None else BEGIN + timedelta(seconds=stopped),
    )


# --- who was awake for whom -------------------------------------------------------------------------------


def test_hosts_share_the_time_in_which_both_push() -> None:
    # C alone to 100, both to 300, H alone to 500; the 500 s of lingering and stopping are for both.
    shares = share_awake(window(run("C", 0, 300), run("H", 100, 500)), BEGIN, END)
    assert shares == {"C": 100 + 100 + 250, "H": 100 + 200 + 250}


def test_only_the_part_within_the_month_counts() -> None:
    late = window(run("C", -300, 300), opened=-300, stopped=600)
    assert share_awake(late, BEGIN, END) == {"C": 600}
    assert share_awake(late, BEGIN - timedelta(days=30), BEGIN) == {"C": 300}
    assert share_awake(late, END, END + timedelta(days=1)) == {}


def test_a_window_for_nobody_is_nobodys() -> None:
    assert share_awake(window(), BEGIN, END) == {"": 1000}


def test_a_window_that_is_open_counts_until_now() -> None:
    assert share_awake(window(run("C", 0, None), stopped=None), BEGIN, BEGIN + timedelta(seconds=70)) == {"C": 70}


runs = st.builds(run, st.sampled_from("CHOL"), st.integers(-500, 1500), st.integers(-500, 1500) | st.none())


@given(st.lists(runs, max_size=8, unique_by=lambda each: each.run_id), st.integers(-100, 500), st.integers(0, 1500))
def test_shares_are_of_all_the_time_and_never_negative(those: list[Run], opened: int, stopped: int) -> None:
    one = window(*those, opened=opened, stopped=stopped)
    shares = share_awake(one, BEGIN, END)
    begin, end = max(one.opened_at, BEGIN), min(one.stopped_at or END, END)
    assert sum(shares.values()) == pytest.approx(max(0.0, (end - begin).total_seconds()))
    assert all(seconds >= 0 for seconds in shares.values())


# --- what snapshots hold ----------------------------------------------------------------------------------


def shot(number: int, *, full: int | None = 10 * GIB, volume: str = "vol-c", archived: bool = False) -> Shot:
    return Shot(
        snapshot_id=f"snap-{number}",
        host="C",
        volume_id=volume,
        started_at=BEGIN + timedelta(days=number),
        state="completed",
        volume_gib=20,
        full_bytes=full,
        encrypted=True,
        archived=archived,
    )


def amounts(shots: list[Shot], pushed: dict[str, int]) -> list[tuple[int, str]]:
    return [(each.stored_bytes, each.basis) for each in stored(tuple(shots), pushed, END)]


def test_the_oldest_holds_all_and_later_ones_what_was_pushed() -> None:
    pushed = {"snap-1": 7, "snap-2": GIB, "snap-3": 3 * GIB}
    assert amounts([shot(2), shot(3), shot(1)], pushed) == [
        (10 * GIB, "full"),
        (GIB, "pushed"),
        (3 * GIB, "pushed"),
    ]


def test_when_the_oldest_is_gone_the_next_holds_all() -> None:
    assert amounts([shot(2)], {"snap-2": GIB}) == [(10 * GIB, "full")]


def test_each_volume_has_an_oldest_of_its_own() -> None:
    assert [basis for _, basis in amounts([shot(1), shot(2, volume="vol-new")], {"snap-2": GIB})] == ["full", "full"]


def test_more_than_all_of_it_cannot_be_added() -> None:
    assert amounts([shot(1), shot(2, full=GIB)], {"snap-2": 30 * GIB})[1] == (GIB, "pushed")


def test_what_nobody_knows_is_taken_at_its_most_and_said() -> None:
    assert amounts([shot(1, full=None)], {}) == [(20 * GIB, "size")]
    assert amounts([shot(1), shot(2)], {})[1] == (10 * GIB, "full")


def test_the_archive_holds_each_one_whole() -> None:
    assert amounts([shot(1), shot(2, archived=True)], {"snap-2": GIB})[1] == (10 * GIB, "full")


# --- from the records -------------------------------------------------------------------------------------


def estate(world: World) -> Estate:
    """What EC2 would have for a world that has been awake."""
    now = world.clock.now()
    return Estate(
        machines=(
            Machine(
                instance_id="i-1",
                vault_id="vault-1",
                state="stopped",
                type="t4g.micro",
                launched_at=now,
                template_version=1,
            ),
        ),
        disks=tuple(
            Disk(
                volume_id=slot.volume_id or "",
                host=host,
                vault_id="vault-1",
                gib=slot.size_gib,
                type="gp3",
                made_at=world.vault.recent.opened_at if world.vault.recent else now,
                encrypted=True,
                attached_to="i-1",
            )
            for host, slot in world.vault.hosts.items()
        ),
        shots=tuple(
            Shot(
                snapshot_id=each.snapshot_id,
                host=each.point.host,
                volume_id=each.point.volume_id,
                started_at=each.point.made_at or now - timedelta(seconds=1),
                state=each.state,
                volume_gib=5,
                full_bytes=GIB,
                encrypted=True,
                archived=False,
            )
            for each in world.cloud.snapshots.values()
        ),
        groups=(),
    )


def night(world: World, *names: str) -> None:
    for name in names:
        world.start(name, f"{name}-{world.clock.now():%d}")
    world.boot()
    world.clock.advance(600)
    for name in names:
        run_id = f"{name}-{world.clock.now():%d}"
        world.commit(name, run_id)
        world.finish(name, run_id)
    world.pass_minutes(10)
    world.arrive()
    world.pass_minutes(2)


def test_two_nights_are_on_the_bill_of_those_who_had_them() -> None:
    world = World()
    world.enrol("C", "H")
    night(world, "C", "H")
    world.clock.advance(86400)
    night(world, "C")
    world.clock.advance(1)
    now = world.clock.now()
    month = f"{now:%Y-%m}"
    begin, _ = month_bounds(month)
    usage = usage_of(world.store, estate(world), month=month, region="us-east-1", begin=begin, until=now)
    windows = world.store.windows("vault-1", 10)
    assert len(windows) == 2
    assert sum(usage.awake_seconds.values()) == sum(each.awake_seconds for each in windows) > 0
    assert sum(usage.host_awake_seconds.values()) == pytest.approx(sum(usage.awake_seconds.values()))
    assert usage.host_awake_seconds["C"] > usage.host_awake_seconds["H"] > 0
    assert usage.instance_type == "t4g.micro"
    assert usage.since == min(host.enrolled_at for host in world.store.hosts())
    assert sorted((each.host, each.basis, each.stored_bytes) for each in usage.snapshots) == [
        ("C", "full", GIB),
        ("C", "pushed", 1000),  # what World's client says it sent
        ("H", "full", GIB),
    ]
    made = bill(usage, LISTED)
    assert {item.host for item in made.items} == {None, "C", "H"}
    assert made.forecast > made.so_far > 0


def test_copies_elsewhere_are_on_the_bill_and_so_is_their_way_there() -> None:
    world = World(copies=True)
    world.enrol("C", "H")
    world.used_gib = {"C": 2}
    for _ in range(2):
        night(world, "C")
        look(world)
        world.copier.settle()
        look(world)
        world.clock.advance(86400)
    now = world.clock.now()
    month = f"{now:%Y-%m}"
    begin, _ = month_bounds(month)
    usage = usage_of(world.store, estate(world), month=month, region="us-east-1", begin=begin, until=now)
    assert [(copy.host, copy.basis, copy.stored_bytes) for copy in usage.copies] == [
        ("C", "full", 2 * GIB),
        ("C", "pushed", 1000),
    ]
    assert usage.copies[0].since == usage.since, "older ones were there before, and are deleted"
    assert usage.counts["between_regions"] == pytest.approx(2 * 1000 / 1e9)
    items = {item.name: item for item in bill(usage, LISTED).items if item.host == "C" or item.name == "transfer"}
    whole_month = (2 * GIB + 1000) / GIB * LISTED["snapshot"]
    share = (now - usage.since) / (month_bounds(month)[1] - begin)
    assert items["copies"].dollars == pytest.approx(whole_month * share)
    left = (month_bounds(month)[1] - now) / (month_bounds(month)[1] - begin)
    assert items["copies"].forecast == pytest.approx(whole_month * (share + left))
    assert items["transfer"].how == "0.0 GB to another region (estimate)"


def test_a_stack_without_anything_costs_what_it_is() -> None:
    world = World()
    now = world.clock.now()
    month = f"{now:%Y-%m}"
    begin, _ = month_bounds(month)
    empty = Estate(machines=(), disks=(), shots=(), groups=())
    usage = usage_of(world.store, empty, month=month, region="us-east-1", begin=begin, until=now)
    assert bill(usage, LISTED).so_far == 0
