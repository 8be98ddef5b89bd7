"""What a host saves that rests as its snapshot, and what its drills cost. Pure.

Its volume is there from the start of a backup until the restore point is made, drilled and looked at. Each drill wakes
the vault once more and reads all that the volume holds, from a volume of its own. The times are assumptions: how fast
EBS loads a volume that was made from a snapshot is nothing that AWS promises:
https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html
"""

from types import MappingProxyType

from msgspec import Struct

from chalicelib.pricing.table import Prices

MONTH_HOURS = 30 * 24
# From the start of a backup until its volume is gone, without the drill: push, snapshot, looks of the sweep.
THERE_HOURS = 1.5
BOOT_HOURS = 0.05
LOAD_MIB_PER_SECOND = 30.0


class Case(Struct, frozen=True, kw_only=True):
    """`hosts` on one vault, of `gib` each, that back up `turns` times a month of thirty days."""

    name: str
    hosts: int
    gib: int
    turns: float

    @property
    def drill_hours(self) -> float:
        """Of all of its hosts, once."""
        return self.hosts * self.gib * 1024 / LOAD_MIB_PER_SECOND / 3600


CASES = MappingProxyType(
    {
        case.name: case
        for case in (
            Case(name="the article: 4 hosts of 5 GiB, each night", hosts=4, gib=5, turns=30),
            Case(name="a host of 5 GiB, each week", hosts=1, gib=5, turns=30 / 7),
            Case(name="a host of 100 GiB, each night", hosts=1, gib=100, turns=30),
            Case(name="a host of 100 GiB, each week", hosts=1, gib=100, turns=30 / 7),
        )
    }
)


class Sums(Struct, frozen=True, kw_only=True):
    """Dollars a month. `drills`: the vault awake for them, and the volumes that they read."""

    always: float
    there: float
    drills: float

    @property
    def saved(self) -> float:
        return self.always - self.there - self.drills


def sums(case: Case, prices: Prices, instance_type: str = "t4g.small") -> Sums:
    """A volume that is always there, against one that comes and goes, and the drills that let it go."""
    gib_hour = case.hosts * case.gib * prices["gp3"] / MONTH_HOURS
    there = min(MONTH_HOURS, case.turns * (THERE_HOURS + case.drill_hours))
    awake = case.turns * (BOOT_HOURS + case.drill_hours) * (prices[instance_type] + prices["address"])
    return Sums(
        always=gib_hour * MONTH_HOURS,
        there=gib_hour * there,
        drills=awake + gib_hour * case.turns * (BOOT_HOURS + case.drill_hours),
    )
