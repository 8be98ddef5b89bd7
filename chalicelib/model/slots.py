"""Places on a vault: a host's, with its account, keys and volume, and that of a volume made from a restore point."""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.model.runs import Change
from chalicelib.model.words import Resting

# How far a volume may grow when nobody said: so many times the size that it was made with. And AWS's own limit
# of a gp3 volume: https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GROWTH = 10
MAX_SIZE_GIB = 16384
# An instance takes 28 attachments on the smaller Nitro types, of which root volume and network interface
# use two: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html
MAX_HOSTS = 24
MAX_VOLUMES = 26
# A host's keys before its present one, with which its older restore points are signed.
FORMER_KEYS = 5


class Slot(Struct, frozen=True, kw_only=True):
    """A host's place on its vault. `uid` gives its account and never changes, `number` its device name.

    A host whose key was revoked has an empty `public_key` until it enrols again.
    """

    number: int
    uid: int
    public_key: str
    size_gib: int
    every_seconds: int
    volume_id: str | None = None
    attached_to: str | None = None
    last_started_at: datetime | None = None
    max_size_gib: int = 0  # how far the volume may grow; 0: ten times its size
    ping_url: str = ""
    pushed_at: datetime | None = None  # when it may have been pushed to last
    committed: str = ""  # the run that its volume holds as committed, by the agent's word
    changed: Change | None = None  # by commits that no restore point holds yet
    uncounted: bool = False  # one of those, not its first, came without a word of what it changed
    wanted_gib: int = 0  # a growth that was decided and not yet made; 0: none
    modified_at: datetime | None = None  # when its volume was last enlarged, or AWS said that it is too soon
    doomed: str = ""  # retired with its volume: the snapshot that holds all that the volume does
    former_keys: tuple[str, ...] = ()  # newest first: what older restore points are signed with
    drilled_at: datetime | None = None  # when the last drill that was answered began
    drill_tried_at: datetime | None = None  # when the last one began, answered or not
    drill_wanted: str = ""  # why its newest restore point is to be drilled at once
    resting: Resting = Resting.VOLUME
    # The snapshot that its next volume is made of. While there is a volume: the one that this is being deleted for.
    rests_as: str = ""
    making: bool = False  # a backup has asked for that next volume
    made_of: str = ""  # the snapshot that its volume was made of; empty: it was made blank
    remade: int = 0  # how many volumes it had before this one
    missing_since: datetime | None = None  # EC2 has not known its volume since then

    def with_key(self, public_key: str) -> "Slot":
        """The slot with another key; the one it had stays known, as one of at most FORMER_KEYS. "": none for now."""
        keys = [key for key in (self.public_key, *self.former_keys) if key and key != public_key]
        return replace(self, public_key=public_key, former_keys=tuple(keys[:FORMER_KEYS]))

    @property
    def limit_gib(self) -> int:
        """How far the volume may grow."""
        return self.max_size_gib or max_size(self.size_gib)

    @property
    def expected_at(self) -> datetime | None:
        """When this host should start its next backup, or None before its first."""
        return self.last_started_at and self.last_started_at + timedelta(seconds=self.every_seconds)


def max_size(size_gib: int) -> int:
    """How far a volume of that size may grow, in GiB, when nobody said."""
    return min(MAX_SIZE_GIB, GROWTH * size_gib)


class PointVolume(Struct, frozen=True, kw_only=True):
    """A volume made from a restore point, for a host's restore runs; recorded until EC2 has it no more.

    `run_id`: the run that wanted it first. Its client token is made of it and its tag holds it, so that neither a
    lost answer nor a crash leaves a volume that nobody finds. `place` gives its device name.
    """

    host: str
    run_id: str
    point_id: str
    place: int
    volume_id: str | None = None
    attached_to: str | None = None
    trouble: str = ""  # what AWS said last when it refused a step
    leaving_at: datetime | None = None  # no run wants it any more: for good, whatever is started after
    unmounted: bool = False  # the agent has let go of it since
    told: bool = False  # an operator knows that it does not go
