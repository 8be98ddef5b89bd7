"""Nights to look at: a history of hosts with everything that can happen in it, the same for the same seed."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
OUTCOMES = ("failed", "cut", "abandoned")


def stamp(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"


def run(
    host: str, number: int, begun: datetime, minutes: float, outcome: str | None = "complete", **more: Any
) -> dict[str, Any]:
    """A RUN of docs/operate.md."""
    return {
        "run_id": f"00000000-0000-4000-8000-{number:012d}",
        "host": host,
        "kind": "backup",
        "window_id": "",
        "started_at": stamp(begun),
        "ended_at": stamp(begun + timedelta(minutes=minutes)) if outcome else None,
        "outcome": outcome,
        "reason": None,
        "exit_code": 0 if outcome == "complete" else None,
        "committed": outcome == "complete",
        "stats": {"bytes_sent": 900_000_000, "bytes_total": 5_000_000_000, "files_sent": 1203},
        **more,
    }


def window(
    vault_id: str, opened: datetime, runs: list[dict[str, Any]], *, hours: float = 3.6, live: bool = False
) -> dict[str, Any]:
    """A WINDOW of docs/operate.md around its runs."""
    window_id = f"{stamp(opened)}-{vault_id}"
    ends = [datetime.fromisoformat(r["ended_at"]) for r in runs if r["ended_at"]]
    closing = max([*ends, opened + timedelta(minutes=2)])
    return {
        "window_id": window_id,
        "vault_id": vault_id,
        "opened_at": stamp(opened),
        "ready_at": stamp(opened + timedelta(seconds=48)),
        "closes_at": stamp(opened + timedelta(hours=hours)),
        "closing_at": None if live else stamp(closing),
        "stopped_at": None if live else stamp(closing + timedelta(seconds=40)),
        "sealed_at": None if live else stamp(closing + timedelta(seconds=70)),
        "awake_seconds": 0 if live else int((closing - opened).total_seconds()) + 40,
        "close_reason": None if live else "the last live run ended and no host was expected",
        "runs": [{**r, "window_id": window_id} for r in runs],
        "points": [
            {"run_id": r["run_id"], "host": r["host"], "complete": r["outcome"] == "complete", "state": "completed"}
            for r in runs
            if r["outcome"]
        ],
    }


def host(name: str, vault_id: str, last: datetime | None, **more: Any) -> dict[str, Any]:
    """A HOST of docs/operate.md, as far as pictures need it."""
    overdue = (NOW - (last or NOW - timedelta(days=40))) > timedelta(days=2)
    return {
        "name": name,
        "vault_id": vault_id,
        "retired_at": None,
        "every_seconds": 86400,
        "enrolled_at": stamp(NOW - timedelta(days=40)),
        "last": {"started_at": stamp(last), "completed_at": stamp(last + timedelta(hours=1))} if last else None,
        "overdue": overdue,
        **more,
    }


def history(
    names: list[str], *, days: int = 14, seed: int = 7, trouble: float = 0.12
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Windows, newest first, and hosts: each night at about 01:00, up to 24 hosts a vault."""
    dice = random.Random(seed)  # noqa: S311 (a sample, not a secret)
    windows: list[dict[str, Any]] = []
    last: dict[str, datetime] = {}
    number = 0
    vaults = {name: f"vault-{n // 24 + 1}" for n, name in enumerate(names)}
    dead = {name for name in names if dice.random() < 0.06}
    for night in range(days, 0, -1):
        for vault_id in dict.fromkeys(vaults.values()):
            opened = NOW.replace(hour=1, minute=0) - timedelta(days=night - 1, seconds=dice.randint(-200, 600))
            runs = []
            for name in (n for n in names if vaults[n] == vault_id):
                if name in dead and night < 4:
                    continue
                number += 1
                begun = opened + timedelta(seconds=dice.randint(0, 900))
                if dice.random() < trouble:
                    outcome = dice.choice(OUTCOMES)
                    minutes = 216 - (begun - opened).total_seconds() / 60 if outcome == "cut" else dice.uniform(2, 40)
                    more = {"reason": {"cut": "the window ended", "abandoned": "the lease ended"}.get(outcome)}
                    runs.append(
                        run(name, number, begun, minutes, outcome, exit_code=5 if outcome == "failed" else None, **more)
                    )
                else:
                    runs.append(run(name, number, begun, dice.uniform(4, 35)))
                    last[name] = begun
            if runs:
                windows.append(window(vault_id, opened, runs))
    hosts = [host(name, vaults[name], last.get(name)) for name in names]
    return windows[::-1], hosts
