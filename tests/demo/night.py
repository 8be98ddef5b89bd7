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
    """`points`: of each host, what its newest window made. `windows`: usually one; a late host wakes another."""

    number: int
    rows: dict[str, Row]
    points: dict[str, Point]
    windows: int
    snapshots: int
    awake_seconds: int
    last: dict[str, str]


def archive_all(players: list[Player]) -> dict[str, float]:
    """The first archives, made by day since they take longest; seconds by host."""
    began = time.monotonic()
    seconds: dict[str, float] = {}
    for player in players:
        player.run("archive")
    while len(seconds) < len(players):
        for player in players:
            if player.name not in seconds and player.poll():
                if player.exit_code:
                    raise RuntimeError(f"{player.name} could not archive ({player.exit_code}): {player.output}")
                seconds[player.name] = time.monotonic() - began
        time.sleep(0.1)  # nothing to await: four processes, whichever ends
    return seconds


def play(
    cloud: LocalCloud,
    view: View,
    players: list[Player],
    *,
    number: int,
    head_start: dict[str, float],
    longest_seconds: int = LONGEST_SECONDS,
    dies: Player | None = None,
) -> Night:
    """Every host's backup, until the vault sleeps again and its restore points have settled.

    `head_start`: how long each host's archive takes, in seconds; the slow ones begin earlier, as their owners
    would have cron do, so that all of them find the vault awake.
    """
    before = {window["window_id"] for window in _windows(cloud)}
    longest = max(head_start.values())
    starts = {player.name: longest - head_start[player.name] for player in players}
    waiting = list(players)
    for player in players:
        player.rest()
    began = time.monotonic()
    with view.watching(lambda: _look(cloud, players, number)) as show:
        while True:
            for player in [p for p in waiting if time.monotonic() - began >= starts[p.name]]:
                player.run("backup")
                waiting.remove(player)
            moment = show()
            ended = [player not in waiting and player.poll() for player in players]
            if dies and not dies.killed and _received(moment, dies) > DIES_AFTER_BYTES:
                dies.die()
                view.say(f"[red]{dies.name} lost power[/] in the middle of its push")
            if all(ended) and moment.phase == "asleep" and not _vault(cloud)["pending_points"]:
                break
            if time.monotonic() - began > longest_seconds:
                raise TimeoutError(f"night {number} did not end in {longest_seconds} s: {moment}")
            time.sleep(0.25)  # the picture's rate; nothing waits for it
    return _record(cloud, players, number, before)


def _windows(cloud: LocalCloud) -> list[dict[str, Any]]:
    windows: list[dict[str, Any]] = cloud.operate("windows", vault_id="vault-1")["windows"]
    return [window for window in windows if window["sealed_at"]]


def _vault(cloud: LocalCloud) -> dict[str, Any]:
    vault: dict[str, Any] = cloud.operate("vaults")["vaults"][0]
    return vault


def _runs(window: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The newest run of each host in a window."""
    return {run["host"]: run for run in (window or {"runs": []})["runs"]}


def _look(cloud: LocalCloud, players: list[Player], number: int) -> Moment:
    vault = _vault(cloud)
    window = vault["window"]
    runs = _runs(window)
    left = None
    if window:
        left = max(0, round((_instant(window["closes_at"]) - cloud.clock.now()).total_seconds()))
    lanes = tuple(_lane(player, runs.get(player.name)) for player in players)
    return Moment(night=number, phase=vault["phase"], seconds_left=left, lanes=lanes)


def _instant(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _lane(player: Player, run: dict[str, Any] | None) -> Lane:
    received = (run or {}).get("progress") or {}
    state = "archiving" if player.process else "its hour has not come"
    if run:
        pushing = "pushing" if received else "waiting for the vault"
        state = run["outcome"] or ("committed" if run["committed"] else pushing)
    elif player.exit_code is not None:
        state = "dead" if player.killed else f"ended ({player.exit_code})"
    if player.killed and run and not run["outcome"]:
        state = "dead"
    return Lane(player, state, received.get("transfer_bytes", 0))


def _received(moment: Moment, player: Player) -> int:
    return next(lane.received for lane in moment.lanes if lane.player is player)


def _record(cloud: LocalCloud, players: list[Player], number: int, before: set[str]) -> Night:
    windows = [window for window in reversed(_windows(cloud)) if window["window_id"] not in before]
    rows = {}
    for host, run in {host: run for window in windows for host, run in _runs(window).items()}.items():
        stats, progress = run["stats"] or {}, run["progress"] or {}
        seconds = (_instant(run["ended_at"]) - _instant(run["started_at"])).total_seconds()
        player = next(each for each in players if each.name == host)
        rows[host] = Row(
            outcome=run["outcome"],
            bytes_pushed=stats.get("bytes_sent") or progress.get("transfer_bytes", 0),
            seconds=round(seconds),
            said=player.last_line(),
        )
    ids = [window["window_id"] for window in windows]
    snapshots = [each for each in cloud.snapshots() if each["tags"]["nightvault:window"] in ids]
    snapshots.sort(key=lambda each: ids.index(each["tags"]["nightvault:window"]))
    points = {
        each["tags"]["nightvault:host"]: Point(each["SnapshotId"], each["tags"]["nightvault:label"])
        for each in snapshots
    }
    awake = sum((_instant(w["stopped_at"]) - _instant(w["opened_at"])).total_seconds() for w in windows)
    hosts = cloud.operate("hosts")["hosts"]
    last = {host["name"]: host["last"]["snapshot_id"] for host in hosts if host["last"]}
    return Night(
        number=number,
        rows=dict(sorted(rows.items())),
        points=points,
        windows=len(windows),
        snapshots=len(snapshots),
        awake_seconds=round(awake),
        last=last,
    )
