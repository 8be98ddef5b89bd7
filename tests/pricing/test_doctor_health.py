"""doctor: a healthy stack is called healthy, and what it calls wrong when a single fact is. One stack for all of it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.errors import CloudRefused
from chalicelib.model import Copy, Drill, DrillState, Marks, Outcome, PointState, RestorePoint
from chalicelib.operators.checks import CHECKS, diagnose
from chalicelib.operators.doctor import GP3_TIB, SNAPSHOTS, VCPUS, doctor
from tests.localcloud.patience import wait_until
from tests.pricing.lived import Lived, found

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module", name="_stack")
def stack() -> Iterator[Lived]:
    lived = Lived(hosts=2)
    try:
        lived.lives()
        yield lived
    finally:
        lived.close()


@pytest.fixture
def shared(_stack: Lived) -> Iterator[Lived]:
    """Each test leaves it as it was, which is checked."""
    yield _stack
    _stack.quotas.reset()
    assert _stack.wrong() == {}


def test_a_healthy_stack_is_called_healthy(shared: Lived) -> None:
    checks = doctor(shared.wiring, clients=shared.clients).checks
    assert [check for check in checks if not check.ok] == []
    assert [check.name for check in checks] == list(CHECKS)
    assert all(check.what and check.remedy for check in checks)


def test_looking_changes_nothing(shared: Lived) -> None:
    shared.aws.ledger.forget()
    doctor(shared.wiring, fix=True, clients=shared.clients)
    verbs = {call.operation for call in shared.aws.ledger.find()}
    assert all(verb.startswith(("Describe", "Get", "List", "Query")) for verb in verbs), verbs


def test_a_restore_point_on_its_way_is_no_finding(shared: Lived) -> None:
    seen = shared.facts()
    pending = RestorePoint(
        host="h0",
        vault_id="vault-1",
        window_id="w",
        volume_id="vol-1",
        run_id="r",
        run_started_at=seen.now,
        outcome=Outcome.COMPLETE,
        complete=True,
        snapshot_id="snap-coming",
        state=PointState.PENDING,
    )
    assert found(replace(seen, points=(*seen.points, pending))) == {}


PERMISSIONS: dict[str, dict[str, Any]] = {
    "an address": {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.5/32"}]},
    "an IPv6 address": {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "Ipv6Ranges": [{"CidrIpv6": "2001:db8::5/128"}],
    },
    "the world": {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "just for a moment"}],
    },
    "another port": {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]},
    "everything": {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
}


@pytest.mark.parametrize("permission", PERMISSIONS.values(), ids=PERMISSIONS)
def test_whoever_is_let_in_without_need_is_found_and_shut_out(shared: Lived, permission: dict[str, Any]) -> None:
    group = str(shared.vault.security_group_id)
    shared.eyes.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    assert shared.wrong() == {"ingress": ("wrong", group)}
    assert shared.wrong(fix=True) == {"ingress": ("wrong", group)}
    assert shared.wrong() == {}
    assert shared.eyes.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"] == []


def test_a_sweep_that_has_stopped_is_wrong(shared: Lived) -> None:
    seen = shared.facts()
    assert seen.sweep_at
    assert found(replace(seen, sweep_at=seen.now - timedelta(minutes=36))) == {"sweep": ("wrong", None)}
    assert found(replace(seen, sweep_at=None)) == {"sweep": ("wrong", None)}
    assert found(replace(seen, sweep_at=seen.now - timedelta(minutes=20))) == {}


def test_the_newest_sign_of_the_sweep_counts(shared: Lived) -> None:
    shared.sweep_seen(minutes_ago=100)
    assert shared.wrong() == {}


@pytest.mark.parametrize(("seconds", "level"), [(4, None), (-4, None), (30, "warning"), (-90, "wrong")])
def test_a_clock_that_goes_wrong_is_said(shared: Lived, seconds: float, level: str | None) -> None:
    assert found(replace(shared.facts(), skew_seconds=seconds)) == ({"clock": (level, None)} if level else {})


def test_what_is_used_is_counted_with_every_vault_awake(shared: Lived) -> None:
    used = {quota.code: quota.used for quota in shared.facts().quotas}
    assert used[VCPUS[1]] >= 1
    assert used[GP3_TIB[1]] == round((5 + 5 + 8) / 1024, 2)
    assert used[SNAPSHOTS[1]] == 2


@pytest.mark.parametrize(("limit", "level"), [(1.0, "wrong"), (2.4, "warning"), (2.6, None)])
def test_a_quota_that_is_near_is_said_before_a_night_needs_it(shared: Lived, limit: float, level: str | None) -> None:
    shared.quotas.limits[SNAPSHOTS[1]] = limit
    assert shared.wrong() == ({"quotas": (level, SNAPSHOTS[1])} if level else {})


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("DescribeContinuousBackups", "recovery"),
        ("ListSubscriptionsByTopic", "alerts"),
        ("GetMetricStatistics", "sweep"),
        ("DescribeLaunchTemplates", "templates"),
        ("DescribeSnapshotAttribute", "public"),
    ],
)
def test_each_part_may_fail_by_itself(shared: Lived, operation: str, name: str) -> None:
    shared.faults.refuse(operation, "AccessDenied")
    assert shared.wrong() == {name: ("warning", None)}


def test_without_ec2_there_is_no_answer_but_the_reason(shared: Lived) -> None:
    shared.faults.refuse("DescribeInstances", "UnauthorizedOperation")
    with pytest.raises(CloudRefused, match="UnauthorizedOperation"):
        doctor(shared.wiring, clients=shared.clients)


@pytest.mark.parametrize(
    ("marks", "level", "says"),
    [
        (
            Marks(dropped_at=NOW, refusals=1, refused="DeleteSnapshot: InvalidSnapshot.InUse: in use"),
            "warning",
            "in use",
        ),
        (Marks(dropped_at=NOW - timedelta(days=3)), "wrong", "still there"),
    ],
)
def test_what_retention_could_not_delete_is_said(shared: Lived, marks: Marks, level: str, says: str) -> None:
    seen = replace(shared.facts(), now=NOW)
    (point, *others) = seen.points
    seen = replace(seen, points=(replace(point, marks=marks), *others))
    checks = {check.name: check for check, _ in diagnose(seen)}
    assert (checks["retention"].level, checks["retention"].resource) == (level, point.snapshot_id)
    assert says in checks["retention"].what


def test_what_is_about_to_be_deleted_is_no_finding_and_nothing_that_is_missed(shared: Lived) -> None:
    seen = shared.facts()
    (point, *others) = seen.points
    going = replace(point, marks=Marks(dropped_at=seen.now - timedelta(hours=1)))
    shots = tuple(each for each in seen.estate.shots if each.snapshot_id != point.snapshot_id)
    seen = replace(seen, points=(going, *others), estate=replace(seen.estate, shots=shots))
    assert found(seen) == {}


def test_a_history_that_is_held_is_said_until_it_is_released(shared: Lived) -> None:
    seen = shared.facts()
    held = tuple(replace(host, kept_since=seen.now) if host.name == "h0" else host for host in seen.hosts)
    assert found(replace(seen, hosts=held)) == {"retention": ("warning", "h0")}


@pytest.mark.parametrize("overdue", [False, True])
def test_a_drill_that_failed_or_is_overdue(shared: Lived, *, overdue: bool) -> None:
    seen = shared.facts()
    at = seen.now - timedelta(days=31 if overdue else 1)
    state = DrillState.PASSED if overdue else DrillState.FAILED
    drill = Drill(run_id="d", point_id="snap-1", taken_at=at, state=state, begun_at=at, at=at, judged_at=at)
    drill = replace(drill, failed_taken_at=None if overdue else at)
    old = {"enrolled_at": at, "points_since": at}
    hosts = tuple(replace(host, drill=drill, **old) if host.name == "h0" else host for host in seen.hosts)
    assert found(replace(seen, hosts=hosts)) == {"drills": ("warning" if overdue else "wrong", "h0")}


@pytest.mark.parametrize("signed", [False, True])
def test_pushes_without_a_manifest(shared: Lived, *, signed: bool) -> None:
    """A host that cannot sign, and one that did."""
    seen = shared.facts()
    at = seen.now - timedelta(days=1)
    drill = Drill(
        run_id="d", point_id="snap-1", taken_at=at, state=DrillState.UNPROVEN, begun_at=at, at=at, judged_at=at
    )
    drill = replace(drill, bare_taken_at=at, manifest_taken_at=at - timedelta(days=1) if signed else None)
    hosts = tuple(replace(host, drill=drill) if host.name == "h0" else host for host in seen.hosts)
    assert found(replace(seen, hosts=hosts)) == {"drills": ("wrong" if signed else "warning", "h0")}


def test_a_machine_that_knows_no_drills(shared: Lived) -> None:
    seen = shared.facts()
    (vault, *others) = seen.vaults
    assert vault.agent
    old = replace(vault, agent=replace(vault.agent, no_drills=True))
    assert found(replace(seen, vaults=(old, *others))) == {"drills": ("warning", vault.vault_id)}


def a_copy(seen: Any, **how: Any) -> Copy:
    """Of the newest restore point of the first host."""
    point = max((p for p in seen.points if p.host == seen.hosts[0].name), key=lambda p: p.made_at)
    copy = Copy(
        point_id=point.snapshot_id,
        taken_at=point.made_at,
        region="eu-west-1",
        asked_at=point.made_at,
        copy_id="snap-c",
        state=PointState.COMPLETED,
    )
    return replace(copy, **how)


PENDING = {"copy_id": "", "state": PointState.PENDING}


@pytest.mark.parametrize(
    ("region", "how", "days", "says"),
    [
        ("eu-west-1", {}, 9, ""),
        ("eu-west-1", PENDING, 1, ""),
        ("eu-west-1", PENDING, 2, "are behind its restore points: there is none"),
        ("eu-west-1", {"fit": False}, 2, "are behind its restore points"),
        (
            "eu-west-1",
            {**PENDING, "refusals": 3, "refused": "no key"},
            1,
            "refused 3 times to copy .* eu-west-1: no key",
        ),
        ("eu-west-1", {"refusals": 1, "refused": "locked"}, 1, "refused once to delete snap-c, an old copy .*: locked"),
        ("eu-north-1", {}, 1, "snap-c in eu-west-1 is a copy .* copies there no more"),
        ("", {}, 9, "snap-c in eu-west-1 is a copy .* copies there no more"),
        ("", PENDING, 9, ""),
    ],
)
def test_a_copy_that_is_behind_refused_or_left_over_is_said(
    shared: Lived, region: str, how: dict[str, Any], days: int, says: str
) -> None:
    seen = shared.facts()
    host = replace(seen.hosts[0], copies=(a_copy(seen, **how),))
    left_over = frozenset({"snap-c"} if region != "eu-west-1" and "copy_id" not in how else ())
    now = seen.now + timedelta(days=days)
    later = replace(seen, hosts=(host,), copy_region=region, left_over=left_over, now=now)
    checks = [check for check, _ in diagnose(later) if check.name == "copies"]
    if says:
        assert re.search(says, checks[0].what), checks
        assert checks[0].remedy
    else:
        assert [check.ok for check in checks] == [True]


def test_what_is_left_over_in_another_region_is_looked_up_there(shared: Lived) -> None:
    seen, there = shared.facts(), shared.aws.session.client("ec2", region_name="eu-west-1")
    copy = a_copy(seen)
    made = there.copy_snapshot(SourceRegion="eu-central-1", SourceSnapshotId=copy.point_id)["SnapshotId"]
    store, host = shared.wiring.store, seen.hosts[0]
    assert store.put_copies(host, (replace(copy, copy_id=made), replace(copy, copy_id="snap-00000000000000000")))
    try:
        assert shared.wrong()["copies"] == ("warning", made)
        wait_until(lambda: there.describe_snapshots(SnapshotIds=[made])["Snapshots"][0]["State"] == "completed")
        there.delete_snapshot(SnapshotId=made)
        assert "copies" not in shared.wrong()
    finally:
        store.put_copies(replace(host, copies_version=1), ())
