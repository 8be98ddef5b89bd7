"""Usages for tests: one by hand, and any at all."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from chalicelib.pricing.control_plane import Traffic, counts
from chalicelib.pricing.usage import GIB, Snapshot, Usage, Volume

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
MIDDLE = BEGIN + timedelta(days=15)

_instants = st.integers(min_value=-40 * 86400, max_value=30 * 86400).map(lambda s: BEGIN + timedelta(seconds=s))
_hosts = st.sampled_from(["C", "H", "O", "L"])
_seconds = st.dictionaries(st.sampled_from(["vault-1", "vault-2"]), st.integers(0, 40 * 3600), max_size=2)

volumes = st.builds(
    Volume,
    volume_id=st.uuids().map(str),
    host=_hosts | st.none(),
    gib=st.integers(1, 16384),
    type=st.sampled_from(["gp3", "gp2", "st1", "sc1"]),
    since=_instants,
    until=_instants | st.none(),
)
snapshots = st.builds(
    Snapshot,
    snapshot_id=st.uuids().map(str),
    host=_hosts,
    stored_bytes=st.integers(0, 100 * GIB),
    since=_instants,
    basis=st.sampled_from(["full", "pushed", "size"]),
    archived=st.booleans(),
)
traffics = st.builds(
    Traffic,
    seconds=st.integers(0, 30 * 86400).map(float),
    month_share=st.floats(0, 1),
    vaults=st.integers(0, 50),
    hosts=st.integers(0, 1000),
    awake_seconds=st.integers(0, 10**7).map(float),
    windows=st.integers(0, 2000),
    runs=st.integers(0, 40000),
    points=st.integers(0, 40000),
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any usage whose hosts' shares are of its vaults' awake time."""
    awake = draw(_seconds)
    total = sum(awake.values())
    parts = draw(st.lists(st.floats(0, 0.25), min_size=4, max_size=4))
    shares = {host: total * part for host, part in zip("CHOL", parts, strict=True)}
    return Usage(
        month="2026-11",
        region="us-east-1",
        since=draw(_instants),
        as_of=draw(_instants),
        instance_type=draw(st.sampled_from(["t4g.small", "t4g.micro", "m7g.large"])),
        awake_seconds={vault: float(seconds) for vault, seconds in awake.items()},
        host_awake_seconds=shares,
        volumes=tuple(draw(st.lists(volumes, max_size=6))),
        snapshots=tuple(draw(st.lists(snapshots, max_size=6))),
        counts=counts(draw(traffics)),
    )


def known(**changes: object) -> Usage:
    """Half of November: 3 h awake shared by C and H, 20 GiB each, a full point and a night each."""
    plain: dict[str, object] = {
        "month": "2026-11",
        "region": "us-east-1",
        "since": BEGIN,
        "as_of": MIDDLE,
        "instance_type": "t4g.small",
        "awake_seconds": {"vault-1": 10800.0},
        "host_awake_seconds": {"C": 7200.0, "H": 3600.0},
        "volumes": (
            Volume(volume_id="vol-root", host=None, gib=8, type="gp3", since=BEGIN - timedelta(days=9)),
            Volume(volume_id="vol-c", host="C", gib=20, type="gp3", since=BEGIN - timedelta(days=9)),
            Volume(volume_id="vol-h", host="H", gib=50, type="gp3", since=MIDDLE - timedelta(days=3)),
        ),
        "snapshots": (
            Snapshot(
                snapshot_id="snap-1", host="C", stored_bytes=10 * GIB, since=BEGIN - timedelta(days=9), basis="full"
            ),
            Snapshot(snapshot_id="snap-2", host="C", stored_bytes=2 * GIB, since=MIDDLE - timedelta(days=6)),
        ),
    }
    return Usage(**{**plain, **changes})  # type: ignore[arg-type]
