"""One night: all hosts back up at the same time; what came of it."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.demo.player import Player
from tests.demo.view import Lane, Moment, View
from tests.localcloud.cloud import LocalCloud

LONGEST_SECONDS = 240
DIES_AFTER_BYTES = 2_000_000


@dataclass(frozen=True)
class Row:
    """A host's run, as the control plane recorded it."""

    outcome: str
    bytes_pushed: int
    seconds: int
    said: str


@dataclass(frozen=True)
class Point:
    snapshot_id: str
    label: str


@dataclass(frozen=True)
class Night:
    number: int
    rows: dict[str, Row]
    points: dict[str, Point]
    awake_seconds: int
    last: dict[str, str]


def play(cloud: LocalCloud, view: View, players: list[Player], *, number: int, dies: Player | None = None) -> Night:
    """Start every host's backup and watch until the vault sleeps again and its restore points have settled."""
    for player in players:
        player.start_backup()
    began = time.monotonic()
    with view.watching(lambda: _look(cloud, players, number)) as show:
        while True:
            moment = show()
            ended = [player.poll() for player in players]
            if dies and not dies.killed and _received(moment, dies) > DIES_AFTER_BYTES:
                dies.die()
                view.say(f"[red]{dies.name} lost power[/] in the middle of its push")
            if all(ended) and moment.phase == "asleep" and not _vault(cloud)["pending_points"]:
                break
            if time.monotonic() - began > LONGEST_SECONDS:
                raise TimeoutError(f"night {number} did not end in {LONGEST_SECONDS} s: {moment}")
            time.sleep(0.25)  # the picture's rate; nothing waits for it
    return _record(cloud, players, number)


def _vault(cloud: LocalCloud) -> dict[str, Any]:
    vault: dict[str, Any] = cloud.operate("vaults")["vaults"][0]
    return vault


def _runs(window: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The newest run of each host in a window."""
    runs = sorted((window or {"runs": {}})["runs"].values(), key=lambda run: str(run["started_at"]))
    return {run["host"]: run for run in runs}


def _look(cloud: LocalCloud, players: list[Player], number: int) -> Moment:
    vault = _vault(cloud)
    window = vault["window"]
    runs = _runs(window)
    left = None
    if window:
        closes_at = max(ceiling["closes_at"] for ceiling in window["ceilings"].values())
        left = max(0, round((_instant(closes_at) - cloud.clock.now()).total_seconds()))
    lanes = tuple(_lane(player, runs.get(player.name)) for player in players)
    return Moment(night=number, phase=vault["phase"], seconds_left=left, lanes=lanes)


def _instant(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _lane(player: Player, run: dict[str, Any] | None) -> Lane:
    received = (run or {}).get("progress") or {}
    state = "archiving"
    if run:
        pushing = "pushing" if received else "waiting for the vault"
        state = run["outcome"] or ("committed" if run["committed_at"] else pushing)
    elif player.exit_code is not None:
        state = "dead" if player.killed else f"ended ({player.exit_code})"
    if player.killed and run and not run["outcome"]:
        state = "dead"
    return Lane(player, state, received.get("transfer_bytes", 0))


def _received(moment: Moment, player: Player) -> int:
    return next(lane.received for lane in moment.lanes if lane.player is player)


def _record(cloud: LocalCloud, players: list[Player], number: int) -> Night:
    window = cloud.operate("windows", vault_id="vault-1", limit=1)["windows"][0]
    rows = {}
    for host, run in _runs(window).items():
        stats, progress = run["stats"] or {}, run["progress"] or {}
        seconds = (_instant(run["ended_at"]) - _instant(run["started_at"])).total_seconds()
        player = next(each for each in players if each.name == host)
        rows[host] = Row(
            outcome=run["outcome"],
            bytes_pushed=stats.get("bytes_sent") or progress.get("transfer_bytes", 0),
            seconds=round(seconds),
            said=player.last_line(),
        )
    points = {
        each["tags"]["nightvault:host"]: Point(each["SnapshotId"], each["tags"]["nightvault:label"])
        for each in cloud.snapshots()
        if each["tags"]["nightvault:window"] == window["window_id"]
    }
    awake = round((_instant(window["stopped_at"]) - _instant(window["opened_at"])).total_seconds())
    hosts = cloud.operate("hosts")["hosts"]
    last = {host["name"]: host["last_backup"]["snapshot_id"] for host in hosts if host["last_backup"]}
    return Night(number=number, rows=rows, points=points, awake_seconds=awake, last=last)
