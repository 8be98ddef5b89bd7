"""Which pushes are unusual for which host: nights as they happen, and what holds for all of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.unusual import GIB, KINDS, simulated
from chalicelib.model import Change, Marks, Outcome, PointState, RestorePoint
from chalicelib.unusual import HISTORY, LEAST, MIN_BYTES, MIN_FILES, YOUNG, why

BEGIN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
FILES, BYTES = 20_000, 10 * GIB


def change(
    changed: float = 0.0, deleted: float = 0.0, added: float = 0.0, *, files: int = FILES, size: int = BYTES
) -> Change:
    """Shares of `files`, each file as large as any other."""
    c, d, a = (round(share * files) for share in (changed, deleted, added))
    each = size // max(1, files)
    return Change(
        files_before=files,
        files_after=files - d + a,
        files_added=a,
        files_changed=c,
        files_deleted=d,
        bytes_before=files * each,
        bytes_after=(files - d + a) * each,
        bytes_changed=(c + a) * each,
    )


def nights(*changes: Change | None, unusual: str = "") -> list[RestorePoint]:
    """Restore points of so many nights, newest first; `changes` oldest first."""
    points = [
        RestorePoint(
            host="C",
            vault_id="vault-1",
            window_id=f"w-{number}",
            volume_id="vol-1",
            run_id=f"r-{number}",
            run_started_at=BEGIN + timedelta(days=number),
            outcome=Outcome.COMPLETE,
            complete=True,
            snapshot_id=f"snap-{number}",
            state=PointState.COMPLETED,
            made_at=BEGIN + timedelta(days=number, minutes=9),
            change=each,
            marks=Marks(unusual=unusual),
        )
        for number, each in enumerate(changes)
    ]
    return points[::-1]


QUIET = change(changed=0.01, deleted=0.002, added=0.002)
ORDINARY = nights(None, *[QUIET] * 40)
WEEKLY = change(changed=0.95, added=0.01)
WEEKS = nights(None, *[*[QUIET] * 6, WEEKLY] * 4, *[QUIET] * 6)
# A dump of the database beside ten thousand small files: one file is most of the bytes, and is new each night.
DUMP = Change(
    files_before=10_000,
    files_after=10_000,
    files_added=1,
    files_changed=40,
    files_deleted=1,
    bytes_before=10 * GIB,
    bytes_after=10 * GIB,
    bytes_changed=9 * GIB,
)
WIPED_DUMP = replace(DUMP, files_after=0, files_added=0, files_changed=0, files_deleted=10_000, bytes_after=0)
# rdiff-backup's repository: 20,000 files of the mirror, and 30,000 increments; a night's changes leave an increment
# each and take the place of the oldest ones.
RDIFF = change(changed=0.004, deleted=0.005, added=0.005, files=50_000)
NOTES = nights(*[change(changed=0.1, files=24, size=10**6)] * 20)


@pytest.mark.parametrize(
    ("history", "night", "flagged"),
    [
        pytest.param(ORDINARY, change(deleted=1.0), True, id="rm -rf"),
        pytest.param(ORDINARY, change(deleted=1.0, added=1.0), True, id="ransomware, names too"),
        pytest.param(ORDINARY, change(changed=1.0), True, id="ransomware, in place"),
        pytest.param(ORDINARY, change(deleted=0.3), True, id="one of three users' files is gone"),
        pytest.param(ORDINARY, change(deleted=0.6, added=0.6), True, id="the folder of most files is renamed"),
        pytest.param(ORDINARY, change(deleted=0.12, added=0.12), False, id="a folder of an eighth is renamed"),
        pytest.param(ORDINARY, change(changed=0.45, deleted=0.05, added=0.06), True, id="upgrade of the system"),
        pytest.param(ORDINARY, change(changed=0.08, deleted=0.01), False, id="upgrade of some packages"),
        pytest.param(ORDINARY, change(added=5.0), False, id="a disk of photos is added"),
        pytest.param(ORDINARY, QUIET, False, id="an ordinary night"),
        pytest.param(ORDINARY, change(changed=0.02, deleted=0.02, added=0.02), False, id="rotation of logs"),
        pytest.param(ORDINARY, change(deleted=1.0, added=1.0, files=FILES), True, id="gocryptfs with a new key"),
        pytest.param(WEEKS, WEEKLY, False, id="the fifth weekly full"),
        pytest.param(WEEKS, change(deleted=1.0), True, id="rm -rf of a host with weekly fulls"),
        pytest.param(ORDINARY, WEEKLY, True, id="the first weekly full: nobody can know"),
        pytest.param(nights(*[WEEKLY] * 20), WEEKLY, False, id="a host whose every night is large"),
        pytest.param(nights(*[WEEKLY] * 20), change(deleted=0.9), True, id="and which is wiped"),
        pytest.param(nights(*[DUMP] * 20), DUMP, False, id="a nightly dump"),
        pytest.param(nights(*[DUMP] * 20), WIPED_DUMP, True, id="a nightly dump, wiped"),
        pytest.param(nights(*[RDIFF] * 40), RDIFF, False, id="rdiff-backup"),
        pytest.param(
            nights(*[RDIFF] * 40),
            change(deleted=0.4, added=0.4, files=50_000),
            True,
            id="rdiff-backup after rm -rf: the mirror goes, all of it is in the increments",
        ),
        # While there is little to compare with.
        pytest.param(nights(None), change(changed=0.3), False, id="second push, a third changed"),
        pytest.param(nights(None), change(changed=0.3, deleted=0.3, added=0.1), True, id="second push, most changed"),
        pytest.param(nights(None), DUMP, False, id="second push, with a dump"),
        pytest.param(nights(None), WIPED_DUMP, True, id="second push, wiped"),
        pytest.param(nights(None, WEEKLY), WEEKLY, False, id="third push, as large as the second, which was accepted"),
        pytest.param([], change(), False, id="nothing before, nothing changed"),
        pytest.param([], Change(**dict.fromkeys(Change.__struct_fields__, 0)), False, id="an empty tree"),
        # Small archives.
        pytest.param(NOTES[:9], change(deleted=1.0, files=24, size=10**6), False, id="two dozen notes, wiped"),
        pytest.param(NOTES, change(changed=1.0, files=24, size=10**6), False, id="two dozen notes, all of them"),
        pytest.param(nights(change(files=40)), change(changed=1.0, files=40), True, id="forty notes, all of them"),
        pytest.param(
            nights(*[change(files=3, size=30 * GIB)] * 9),
            change(changed=1.0, files=3, size=30 * GIB),
            True,
            id="three disk images that never changed, all of them",
        ),
    ],
)  # fmt: skip
def test_nights(history: list[RestorePoint], night: Change, flagged: bool) -> None:
    assert bool(why(night, history)) is flagged, why(night, history)


def test_it_says_why_in_words() -> None:
    assert why(change(deleted=1.0), ORDINARY) == (
        "20,000 of 20,000 files fewer (100%; usually 0%); 10,737 of 10,737 MB fewer (100%; usually 0%)"
    )
    assert why(change(changed=0.6), []) == "12,000 of 20,000 files changed or deleted (60%)"


def test_a_commit_in_between_that_nobody_was_told_of_shows() -> None:
    """The vault tells the newest commit alone: one that wipes, and at once a second one that changes nothing."""
    left = nights(*[QUIET] * 9)
    assert "fewer" in why(change(files=100, size=10**6), left)
    assert not why(QUIET, left)


def test_a_flag_that_nobody_has_taken_off_does_not_become_usual() -> None:
    wiped = change(changed=0.9)
    flagged = nights(*[wiped] * 5, unusual="90 %")
    assert why(wiped, [*flagged, *ORDINARY])
    accepted = [replace(point, marks=Marks()) for point in flagged]
    assert not why(wiped, [*accepted, *ORDINARY])


SHARE = st.floats(0, 1)
CHANGES = st.builds(
    change,
    SHARE.map(lambda share: share / 2),
    SHARE.map(lambda share: share / 2),
    st.floats(0, 3),
    files=st.integers(0, 10**6),
    size=st.integers(0, 10**12),
)
HISTORIES = st.lists(CHANGES | st.none(), max_size=45).map(lambda changes: nights(*changes))


@given(CHANGES, HISTORIES)
def test_what_touches_little_is_never_flagged(night: Change, history: list[RestorePoint]) -> None:
    """Little of what was there, or little at all, whatever came before; the tree being what the push before left."""
    same = night.files_changed + night.files_deleted < min(LEAST * night.files_before, MIN_FILES)
    size = night.bytes_before - min(night.bytes_before, night.bytes_after - night.bytes_changed)
    own = [point for point in history if not point.change or point.change.files_after <= night.files_before]
    own = [point for point in own if not point.change or point.change.bytes_after <= night.bytes_before]
    if same and size < min(LEAST * night.bytes_before, MIN_BYTES):
        assert not why(night, own)


@given(CHANGES, st.integers(1, HISTORY))
def test_what_the_host_always_does_is_not_flagged(night: Change, times: int) -> None:
    grown = replace(night, files_before=max(night.files_before, night.files_after))
    grown = replace(grown, bytes_before=max(night.bytes_before, night.bytes_after))
    assert not why(grown, nights(*[grown] * times))


@given(HISTORIES.filter(lambda history: sum(p.change is not None for p in history) >= YOUNG), st.floats(0, LEAST / 2))
def test_a_wipe_of_a_host_that_seldom_changes_much_is_always_flagged(history: list[RestorePoint], share: float) -> None:
    calm = nights(*[change(share)] * len(history))
    assert why(change(deleted=1.0), calm)
    assert why(change(changed=1.0), calm)


@given(st.integers(MIN_FILES, 10**6), HISTORIES)
def test_more_deleted_is_never_less_unusual(files: int, history: list[RestorePoint]) -> None:
    """Ever more of the files that were there go, and nothing else is different."""
    flagged = [bool(why(change(deleted=share, files=files), history)) for share in (0.1, 0.3, 0.6, 1.0)]
    assert flagged == sorted(flagged)


@given(CHANGES, HISTORIES)
def test_what_is_older_than_the_last_pushes_has_no_say(night: Change, history: list[RestorePoint]) -> None:
    recent = nights(*[QUIET] * HISTORY)
    assert why(night, [*recent, *history]) == why(night, recent)


@pytest.mark.parametrize("kind", KINDS)
def test_over_a_year_alarms_are_few_and_a_wipe_is_seen_on_every_night(kind: str) -> None:
    """`python -m benchmarks.unusual` has the figures of more years, and of less than a wipe."""
    false_alarms, seen, tried = simulated(kind, 365, seed=1)
    assert false_alarms <= 12
    assert tried > 30
    assert seen["wiped"] == tried
