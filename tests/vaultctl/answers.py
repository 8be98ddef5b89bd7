"""Answers as the control plane's own structs give them, of a stack in which something of everything is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chalicelib.model import DrillState, Kind, LastBackup, Outcome, Phase, PointState, Retention, Stats
from chalicelib.operators.changes import Kept, RetireAnswer
from chalicelib.operators.checks import Check
from chalicelib.operators.hosts import RestorePointsAnswer
from chalicelib.operators.keeping import Archive, RetentionAnswer, VerdictView
from chalicelib.operators.views import CopyView, DrillView, HostView, PointView, RunView, VaultView, WindowView
from chalicelib.pricing.history import Monthly

NOW = datetime(2026, 11, 24, 19, 0, tzinfo=UTC)
GIB = 2**30
NIGHT = datetime(2026, 11, 24, 2, 10, tzinfo=UTC)


def _last(at: datetime) -> LastBackup:
    return LastBackup(
        run_id="5d21d79a-bab5-4009-8eb4-b22a55e7b97b",
        window_id="vault-1-20261124T021000Z",
        snapshot_id="snap-0123456789abcdef0",
        started_at=at,
        completed_at=at + timedelta(minutes=9),
    )


def _host(name: str, **more: Any) -> HostView:
    facts: dict[str, Any] = {
        "name": name,
        "vault_id": "vault-1",
        "retired_at": None,
        "size_gib": 20,
        "max_size_gib": 200,
        "every_seconds": 86400,
        "enrolled_at": datetime(2026, 11, 1, 9, 30, tzinfo=UTC),
        "last": _last(NIGHT),
        "age_seconds": 60600,
        "next_expected_at": NIGHT + timedelta(days=1),
        "overdue": False,
        "volume_id": f"vol-0{name.lower()}0123456789abcde",
        "used_bytes": int(3.1 * GIB),
        "volume_bytes": 20 * GIB,
        "volume_trouble": "",
        "growth_bytes_per_day": 120 * 2**20,
        "live_run_id": None,
        "ping_url": "",
        "resting": "volume",
        "rests_as": None,
    }
    return HostView(**{**facts, **more})


def _drill(state: DrillState, at: datetime, detail: str = "") -> DrillView:
    return DrillView(
        run_id="00000000-0000-4000-8000-00000000000d",
        point_id="snap-0123456789abcdef0",
        taken_at=at - timedelta(days=1),
        state=state,
        begun_at=at - timedelta(minutes=11),
        at=at,
        seconds=660,
        detail=detail,
        files=20_113,
        checked_bytes=3 * GIB,
        total_bytes=3 * GIB,
        judged_at=at,
    )


HOSTS = [
    _host("C", drill=_drill(DrillState.PASSED, NIGHT - timedelta(days=9))),
    _host("H", drill_overdue=True, used_bytes=17 * GIB, growth_bytes_per_day=-40 * 2**20),
    _host(
        "L",
        last=_last(NIGHT - timedelta(days=3)),
        age_seconds=319800,
        overdue=True,
        used_bytes=19 * GIB,
        next_expected_at=NIGHT - timedelta(days=2),
        ping_url="https://hc-ping.com/5d21",
        drill=_drill(DrillState.FAILED, NIGHT, detail="3xQ/b7Kd: another checksum; 1 file in all"),
        drill_overdue=True,
    ),
    _host(
        "new-one",
        last=None,
        age_seconds=None,
        volume_id=None,
        used_bytes=None,
        volume_bytes=None,
        growth_bytes_per_day=None,
        next_expected_at=None,
    ),
    _host("O", retired_at=NIGHT - timedelta(days=5), overdue=True),
]


def _run(number: int, outcome: Outcome | None, **more: Any) -> RunView:
    facts: dict[str, Any] = {
        "run_id": f"00000000-0000-4000-8000-00000000000{number}",
        "host": "L",
        "kind": Kind.BACKUP,
        "window_id": "vault-1-20261124T021000Z",
        "started_at": NIGHT + timedelta(seconds=number),
        "ended_at": NIGHT + timedelta(minutes=4),
        "outcome": outcome,
        "reason": "the host said so",
        "exit_code": 0,
        "committed": outcome is Outcome.COMPLETE,
        "progress": None,
        "stats": Stats(bytes_sent=27_300_000, bytes_total=1_040_000_000),
    }
    return RunView(**{**facts, **more})


RUNS = [
    _run(4, None, ended_at=None, exit_code=None, stats=None, reason=None, started_at=NOW - timedelta(minutes=3)),
    _run(3, Outcome.CUT, exit_code=9, reason="the window ended", stats=None),
    _run(2, Outcome.FAILED, exit_code=10, reason="the host said so \x1b[2J and more"),
    _run(1, Outcome.COMPLETE),
]
POINTS = [
    PointView(
        snapshot_id=f"snap-0{number}23456789abcdef0",
        host="L",
        window_id="vault-1-20261124T021000Z",
        run_id=f"00000000-0000-4000-8000-00000000000{number}",
        started_at=NIGHT,
        made_at=NIGHT + timedelta(minutes=5),
        complete=complete,
        outcome=outcome,
        state=state,
        volume_gib=20,
        fit=fit,
    )
    for number, complete, outcome, state, fit in (
        (4, True, Outcome.COMPLETE, PointState.PENDING, None),
        (3, False, Outcome.CUT, PointState.COMPLETED, None),
        (2, True, Outcome.COMPLETE, PointState.ERROR, None),
        (1, True, Outcome.COMPLETE, PointState.COMPLETED, False),
    )
]


def _window(days_ago: int, runs: list[RunView], *, awake: timedelta | None) -> WindowView:
    opened = NIGHT - timedelta(days=days_ago) if awake else NOW - timedelta(minutes=3)
    return WindowView(
        window_id=f"vault-1-{opened:%Y%m%dT%H%M%SZ}",
        vault_id="vault-1",
        opened_at=opened,
        ready_at=opened + timedelta(seconds=41),
        closes_at=opened + timedelta(hours=3, minutes=36),
        closing_at=opened + awake if awake else None,
        stopped_at=opened + awake if awake else None,
        sealed_at=opened + awake if awake else None,
        awake_seconds=int((awake or NOW - opened).total_seconds()),
        close_reason="no live run, and no host expected" if awake else None,
        runs=runs,
        points=[],
    )


WINDOWS = [
    _window(0, [RUNS[0]], awake=None),
    _window(
        0,
        [
            _run(1, Outcome.COMPLETE, host="C"),
            _run(2, Outcome.COMPLETE, host="H"),
            _run(3, Outcome.CUT, host="L", stats=None),
        ],
        awake=timedelta(minutes=11),
    ),
    _window(1, [], awake=timedelta(minutes=2)),
]
VAULTS = [
    VaultView(
        vault_id="vault-1",
        phase=Phase.OPEN,
        instance_id="i-0123456789abcdef0",
        address="203.0.113.9",
        hosts=["C", "H", "L", "new-one"],
        window=WINDOWS[0],
        held_until=NOW + timedelta(minutes=30),
        queued=[],
        pending_points=1,
        spent_seconds={Kind.BACKUP: 660, Kind.RESTORE: 180},
        reported_at=NOW,
    ),
    VaultView(
        vault_id="vault-2",
        phase=Phase.FAULTED,
        instance_id=None,
        address=None,
        hosts=["X"],
        window=None,
        held_until=None,
        queued=["X"],
        pending_points=0,
        spent_seconds={},
        reported_at=None,
    ),
]
CHECKS = [
    Check(name="clock", ok=True, level="ok", what="our clock is AWS's", remedy="nothing to do"),
    Check(
        name="alerts",
        ok=False,
        level="warning",
        what="nobody is told when something is wrong",
        remedy="`make deploy ALERT_EMAIL=you@example.org`",
    ),
    Check(
        name="ingress",
        ok=False,
        level="wrong",
        what="sg-1 lets 0.0.0.0/0 in",
        remedy="vaultctl doctor --fix",
        resource="sg-1",
        fixable=True,
    ),
]


def _copy(days_ago: int, copy_id: str | None, state: PointState, **more: Any) -> CopyView:
    taken_at = NIGHT - timedelta(days=days_ago) + timedelta(minutes=7)
    return CopyView(
        snapshot_id=f"snap-{days_ago:017x}",
        region="eu-west-1",
        copy_id=copy_id,
        taken_at=taken_at,
        asked_at=taken_at + timedelta(minutes=9),
        state=state,
        completed_at=taken_at + timedelta(minutes=24) if state is PointState.COMPLETED else None,
        **{"fit": None, "refused": "", **more},
    )


COPIES = [
    _copy(0, None, PointState.PENDING, refused="CopySnapshot: UnauthorizedOperation: you may not"),
    _copy(1, "snap-0c0c0c0c0c0c0c0c1", PointState.COMPLETED),
    _copy(2, "snap-0c0c0c0c0c0c0c0c2", PointState.COMPLETED, fit=False),
]


def _verdict(days_ago: int, keep: bool, *why: str, refused: str = "", **more: Any) -> VerdictView:
    facts: dict[str, Any] = {
        "snapshot_id": f"snap-{days_ago:017x}",
        "host": "C",
        "window_id": "w",
        "run_id": "r",
        "started_at": NIGHT - timedelta(days=days_ago),
        "made_at": NIGHT - timedelta(days=days_ago) + timedelta(minutes=7),
        "complete": True,
        "outcome": Outcome.COMPLETE,
        "state": PointState.COMPLETED,
        "volume_gib": 20,
    }
    return VerdictView(point=PointView(**{**facts, **more}), keep=keep, why=list(why), refused=refused)


RETENTION = RetentionAnswer(
    host="C",
    retention=Retention(daily=3, weekly=2, monthly=2),
    own=True,
    kept_since=None,
    verdicts=[
        _verdict(0, True, "unfinished", complete=False, outcome=Outcome.CUT),
        _verdict(1, True, "daily", "weekly", "monthly", "newest", fit=True),
        _verdict(2, True, "daily", "newest"),
        _verdict(3, True, "daily", "newest", fit=False),
        _verdict(4, False, "thinned"),
        _verdict(5, False, "superseded", complete=False, outcome=Outcome.CUT, dropped_at=NOW),
        _verdict(9, False, "thinned", dropped_at=NOW, refused="DeleteSnapshot: InvalidSnapshot.InUse: used by ami-1"),
        _verdict(40, True, "locked", held_at=NOW),
        _verdict(70, True, "monthly"),
    ],
    deleted=[],
    archive=Archive(points=["snap-00000000000000046"], dollars=0.025),
    monthlies=[
        Monthly(snapshot_id=f"snap-{1:017x}", whole_bytes=6 * GIB, months=2, why_not="kept at hand: daily, newest"),
        Monthly(snapshot_id=f"snap-{70:017x}", whole_bytes=6 * GIB, months=1, own_bytes=5 * GIB, dollars=0.025),
    ],
)


def answers() -> dict[str, Any]:
    """By action, as `operate` gives them."""
    made: dict[str, Any] = {
        "hosts": {"hosts": HOSTS},
        "host": {"host": HOSTS[2], "runs": RUNS, "restore_points": POINTS},
        "restore_points": RestorePointsAnswer(restore_points=POINTS, copies=COPIES),
        "windows": {"windows": WINDOWS, "hosts": ["C", "H", "L", "new-one"]},
        "vaults": {"vaults": VAULTS},
        "wake": {"vault": VAULTS[0]},
        "retire": RetireAnswer(
            host="L",
            kept=Kept(volume_id="vol-0l0123456789abcde", volume_gib=20, restore_points=4, stored_bytes=GIB),
            deleted=None,
        ),
        "retention": RETENTION,
        "doctor": {"checks": CHECKS},
        "invite": {
            "host": "C",
            "code": "a-code_1",
            "url": "https://abc123.execute-api.eu-central-1.amazonaws.com/api",
            "expires_at": NOW + timedelta(hours=24),
        },
    }
    found: dict[str, Any] = msgspec.to_builtins(made)
    return found
