"""retention, lock and unlock against the real application on the local cloud: what goes is gone from EC2, what is
locked is not, and nothing goes unasked."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.growth import GIB
from chalicelib.model import Change, Kind, Outcome, PointState, RestorePoint, Run, Stats, Window
from chalicelib.wiring import wired
from tests.localcloud.cloud import LocalCloud
from tests.vaultctl.helm import Done, OnLocalCloud, vaultctl
from tests.vaultctl.test_commands import back_up
from vaultctl.failures import Exit

R = "00000000-0000-4000-8000-{:012d}".format
NIGHTS = 5


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """C has had five nights. No sweep comes by itself."""
    policy = {"linger_seconds": 0, "minimum_window_seconds": 1, "report_seconds": 1, "claim_seconds": 20}
    folder = tmp_path_factory.mktemp("keeping")
    with LocalCloud(folder, machines=False, policy=policy, sweep_every=None) as made:
        host = made.enroll("C")
        for night in range(NIGHTS):
            back_up(made, host, R(night))
            made.wait_until(lambda: _latest(made) == R(night), 20, what="the point counts")  # noqa: B023 - called at once
            made.clock.advance(seconds=86400)
        yield made


def run(cloud: LocalCloud, *arguments: str) -> Done:
    return vaultctl(*arguments, invoke=OnLocalCloud(cloud), now=cloud.clock.now, width=200)


def points(cloud: LocalCloud) -> list[str]:
    """Newest first, as our records have them."""
    return [str(each["snapshot_id"]) for each in cloud.operate("restore_points", host="C")["restore_points"]]


def there(cloud: LocalCloud) -> set[str]:
    """As EC2 has them."""
    return {str(each["SnapshotId"]) for each in cloud.snapshots()}


def _latest(cloud: LocalCloud) -> str | None:
    found = cloud.operate("restore_points", host="C")["restore_points"]
    return str(found[0]["run_id"]) if found else None


def looks(cloud: LocalCloud, times: int = 2) -> None:
    """The sweep's quiet looks, a quarter of an hour apart."""
    for _ in range(times):
        now = cloud.clock.now()
        cloud.clock.advance(seconds=900 - (now.minute % 15 * 60 + now.second))
        cloud.sweep()


def fates(done: Done) -> dict[str, tuple[bool, list[str]]]:
    return {each["point"]["snapshot_id"]: (each["keep"], each["why"]) for each in done.document["verdicts"]}


def asked(cloud: LocalCloud, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = cloud.operate("retention", host="C", **fields)
    return found


def test_a_life_of_locks_and_numbers(cloud: LocalCloud) -> None:
    """One story, since each night costs seconds."""
    known = points(cloud)
    assert len(known) == NIGHTS
    oldest, second = known[-1], known[-2]
    looks(cloud)
    assert there(cloud) == set(known), "the stack's numbers need them all"

    # A dry run changes nothing, and nothing goes unasked.
    dry = run(cloud, "retention", "C", "--daily", "1", "--weekly", "0", "--monthly", "0", "--dry-run", "--json")
    assert fates(dry)[oldest] == (False, ["thinned"])
    assert asked(cloud)["own"] is False
    unasked = run(cloud, "retention", "C", "--daily", "1", "--weekly", "0", "--monthly", "0")
    assert (unasked.exit_code, "2 more restore points of C would be deleted" in unasked.err) == (Exit.USAGE, True)
    assert asked(cloud)["own"] is False
    more = run(cloud, "retention", "C", "--daily", "100")
    assert more.exit_code == 0, "nothing goes, so nothing is asked"
    assert "100 daily, 8 weekly, 24 monthly (its own)" in more.err

    # Locked by us, and by EBS; then the numbers go down.
    held = run(cloud, "lock", oldest)
    assert held.out == f"{oldest} of C: locked until `vaultctl unlock`\n"
    assert "locked by EBS until" in run(cloud, "lock", second, "--days", "30").out
    few = ("retention", "C", "--daily", "1", "--weekly", "0", "--monthly", "0")
    changed = run(cloud, *few, "--json", "--yes")
    assert (fates(changed)[oldest], fates(changed)[second]) == ((True, ["locked"]), (True, ["locked"]))
    looks(cloud)
    assert there(cloud) == set(known)

    # What EBS has locked EC2 does not delete, whoever asks.
    refused = cloud.aws.session.client("ec2")
    with pytest.raises(refused.exceptions.ClientError):
        refused.delete_snapshot(SnapshotId=second)

    # Unlocked, both go: first written down, then deleted, and what is known of them stays.
    for each in (oldest, second):
        assert run(cloud, "unlock", each).out == f"{each} of C: not locked\n"
    looks(cloud, 1)
    assert "going" in run(cloud, "retention", "C").out
    assert there(cloud) == set(known)
    looks(cloud, 1)
    assert there(cloud) == set(points(cloud)) == set(known[:3])
    gone = asked(cloud)["deleted"]
    assert {(each["snapshot_id"], each["dropped_for"]) for each in gone} == {(oldest, "thinned"), (second, "thinned")}
    assert run(cloud, "lock", oldest).exit_code == Exit.REFUSED
    assert {each["level"] for each in cloud.operate("doctor")["checks"] if each["name"] in ("points", "retention")} == {
        "ok"
    }

    # Held, and released; the stack's numbers again.
    on_hold = run(cloud, "retention", "C", "--hold", "--json").document
    assert on_hold["kept_since"]
    assert all("held" in each["why"] for each in on_hold["verdicts"])
    assert run(cloud, "retention", "C", "--release", "--json").document["kept_since"] is None
    assert run(cloud, "retention", "C", "--default", "--json").document["own"] is False

    # In compliance mode it asks, and after the cooling-off nobody can undo it.
    newest = known[0]
    compliance = ("lock", newest, "--days", "10", "--mode", "compliance")
    assert run(cloud, *compliance).exit_code == Exit.USAGE
    assert run(cloud, *compliance, "--yes").exit_code == 0
    assert run(cloud, "unlock", newest).exit_code == 0, "within its cooling-off"
    assert run(cloud, *compliance, "--cool-off", "0", "--yes").exit_code == 0
    final = run(cloud, "unlock", newest)
    assert (final.exit_code, "UnlockSnapshot" in final.err) == (Exit.REFUSED, True)
    assert cloud.operate("restore_points", host="C")["restore_points"][0]["locked_until"]


def test_an_unusual_push_is_seen_everywhere_until_it_is_accepted(cloud: LocalCloud) -> None:
    u = cloud.enroll("U")
    back_up(cloud, u, R(50), {**dict.fromkeys(Change.__struct_fields__, 0), "files_before": 40, "files_deleted": 40})
    assert "HELD" in run(cloud, "hosts").out
    assert "complete, UNUSUAL" in run(cloud, "restore-points", "U").out
    kept = run(cloud, "retention", "U")
    assert "complete, UNUSUAL" in kept.out
    assert "Once all is well: vaultctl accept U" in kept.err
    (found,) = [each for each in run(cloud, "doctor", "--json").document["checks"] if each["name"] == "unusual"]
    assert (found["resource"], "40 of 40 files fewer (100%)" in found["what"]) == ("U", True)
    (snapshot,) = [each for each in cloud.snapshots() if each["tags"]["nightvault:host"] == "U"]
    assert snapshot["tags"]["nightvault:unusual"] == "40 of 40 files fewer (100%)"

    unasked = run(cloud, "accept", "U")
    assert (unasked.exit_code, snapshot["SnapshotId"] in unasked.err) == (Exit.USAGE, True)
    assert run(cloud, "accept", "U", "--yes").out.startswith("1 restore point of U accepted; all up to 2")
    assert run(cloud, "accept", "U").out == "nothing to accept; nothing was held.\n"
    assert "UNUSUAL" not in run(cloud, "restore-points", "U").out
    assert "HELD" not in run(cloud, "hosts").out


@pytest.mark.parametrize(
    ("action", "fields", "names"),
    [
        ("retention", {"host": "nobody"}, "host"),
        ("retention", {"host": "C", "daily": -1}, "daily"),
        ("retention", {"host": "C", "daily": 3, "default": True}, "default"),
        ("accept", {"host": "nobody"}, "host"),
        ("lock", {"point": "snap-none"}, "point"),
        ("lock", {"point": "snap-none", "mode": "compliance"}, "days"),
        ("lock", {"point": "snap-none", "days": 3, "cool_off_hours": 3}, "cool_off_hours"),
        ("lock", {"point": "snap-none", "days": 40000}, "days"),
        ("unlock", {"point": "snap-none"}, "point"),
    ],
)
def test_what_is_refused_names_the_field(cloud: LocalCloud, action: str, fields: dict[str, Any], names: str) -> None:
    error = cloud.operate(action, **fields)["error"]
    assert error["code"] in ("BadRequest", "UnknownHost")
    assert names in error["message"]


def test_what_the_archive_would_save_is_said(cloud: LocalCloud) -> None:
    """H has a year of months behind it, in each of which all of its 2 GiB changed: the archive is a quarter of it."""
    cloud.enroll("H")
    store = wired().store
    for number in range(12):
        began = cloud.clock.now() - timedelta(days=31 * (12 - number))
        backup = Run(
            run_id=R(100 + number),
            host="H",
            kind=Kind.BACKUP,
            started_at=began,
            source_address="192.0.2.1",
            lease_until=began,
            outcome=Outcome.COMPLETE,
            stats=Stats(bytes_sent=5 * GIB),
        )
        window = Window(window_id=f"w-{number}", vault_id="vault-1", opened_at=began, ceilings={}, runs={"r": backup})
        vault = store.vault("vault-1")
        assert vault
        store.save(vault, window)
        made = RestorePoint(
            host="H",
            vault_id="vault-1",
            window_id=window.window_id,
            volume_id="vol-1",
            run_id=backup.run_id,
            run_started_at=began,
            outcome=Outcome.COMPLETE,
            complete=True,
            snapshot_id=f"snap-{number}",
            state=PointState.COMPLETED,
            made_at=began,
            used_bytes=2 * GIB,
        )
        store.put_point(made)
    answer = cloud.operate("retention", host="H", daily=1, weekly=1, dry_run=True)
    archive = answer["archive"]
    assert archive["points"] == [f"snap-{number}" for number in range(8, 0, -1)], "not the last three, nor the oldest"
    assert archive["dollars"] == pytest.approx(8 * 2 * (0.05 - 0.0125))
    said = {each["snapshot_id"]: each for each in answer["monthlies"]}
    assert said["snap-8"]["dollars"] == pytest.approx(2 * (0.05 - 0.0125))
    assert (said["snap-8"]["before"], said["snap-8"]["after"]) == ("snap-7", "snap-9")
    assert said["snap-0"]["why_not"].startswith("the oldest")
    assert said["snap-11"]["why_not"] == "kept at hand: daily, weekly, newest"
    done = run(cloud, "retention", "H", "--daily", "1", "--weekly", "1", "--dry-run")
    assert re.search(r"snap-8 +2\.0 GiB +about 2\.0 GiB +21 +saves \$0\.0[78] a month", done.out), done.out
    assert "aws ec2 modify-snapshot-tier --storage-tier archive --snapshot-id snap-8\n" in done.out
    assert "--snapshot-id snap-11" not in done.out
    assert "An estimate" in done.err
