"""Drills as a use case: begun when they are due, and recorded when they are over. What is due is drills.py's to say.

A drill that is over stays with its vault until it is recorded; each sweep tries that again, so that neither a crash
nor a lost race loses a result. It may be told twice.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from msgspec.structs import replace

from chalicelib import drills
from chalicelib.commands import BeginDrill, DrillRecorded
from chalicelib.errors import CloudRefused, LostRace, NightvaultError, UnknownPoint
from chalicelib.facts import DrillEnded
from chalicelib.model import Drill, DrillState, Host, Kind, RestorePoint, Run, Vault

if TYPE_CHECKING:
    from chalicelib.control import Control

TRIES = 5


class Drilling:
    """Drills of all hosts, for one Control."""

    def __init__(self, control: "Control") -> None:
        self._control = control
        self._store = control.store

    def see_to(self, vaults: Iterable[Vault], hosts: Iterable[Host], now: datetime) -> list[Exception]:
        """Record what is over, and begin what is due. `hosts`: all, at a look that may wake vaults; else none.

        What went wrong with one keeps no other from its turn.
        """
        since = {host.name: host.drillable_since for host in hosts}
        failures: list[Exception] = []
        for vault in vaults:
            steps = [partial(self._record, run) for run in vault.drilled.values()]
            steps += [partial(self._begin_due, n) for n in drills.candidates(vault, now, self._control.policy, since)]
            for step in steps:
                try:
                    step()
                except CloudRefused as refused:
                    self._control.telemetry.fault("call_refused", call=refused.call, aws_code=refused.aws_code)
                except NightvaultError as hindered:
                    self._control.telemetry.event("drill_hindered", vault_id=vault.vault_id, error=str(hindered))
                except Exception as failure:
                    self._control.telemetry.fault("drilling_failed", vault_id=vault.vault_id, error=repr(failure))
                    failures.append(failure)
        return failures

    def _begin_due(self, name: str) -> None:
        host = self._store.host(name)
        if host is None or host.last_backup is None:
            return  # nothing counts yet
        newest = next((point for point in self._control.choosing.there(name) if point.counts), None)
        # One that failed stays failed: what is to be proven is the next.
        if newest and newest.marks.sound:
            self._begin(host, newest)

    def begin(self, host: Host, point_id: str | None) -> Run:
        """An operator's drill, of that restore point or the newest that counts. One under way is not begun again.

        Raises UnknownPoint, NothingToRestore, DrillHindered, WindowSpent, CloudRefused.
        """
        vault = self._store.vault(host.vault_id)
        runs = vault.window.live_runs if vault and vault.window else ()
        for run in runs:
            same = point_id is None or (run.restore and run.restore.point_id == point_id)
            if run.host == host.name and run.kind is Kind.DRILL and same:
                return run
        return self._begin(host, self._control.choosing.named(host.name, point_id))

    def _begin(self, host: Host, point: RestorePoint) -> Run:
        run_id = str(uuid4())
        vault = self._control.apply(host.vault_id, BeginDrill(host=host.name, run_id=run_id, point=point))
        run = vault.find_run(run_id)
        if run is None:
            raise UnknownPoint(run_id)
        return run

    def _record(self, run: Run) -> None:
        """Put a drill that is over to its restore point and its host, and tell. Raises LostRace."""
        host = self._store.host(run.host)
        if host is None:
            raise AssertionError(f"{run.host} had a run, and hosts' records stay")
        drill = drills.outcome(run, host.drill)
        self._mark(host.name, drill)
        if drill is not host.drill:
            self._store.put_drill(host.name, drill)
        self._control.tell(DrillEnded(host=host.name, drill=drill))
        self._control.apply(host.vault_id, DrillRecorded(host=run.host, run_id=run.run_id))

    def _mark(self, host: str, drill: Drill) -> None:
        if drill.state not in (DrillState.PASSED, DrillState.FAILED):
            return
        for _ in range(TRIES):
            points = self._store.points(host)
            point = next((each for each in points if each.snapshot_id == drill.point_id), None)
            if point is None:
                return  # deleted meanwhile
            marks = replace(point.marks, fit=drill.state is DrillState.PASSED, drilled_at=drill.at)
            if self._store.mark(point, marks):
                return
        raise LostRace(f"{drill.point_id} is being marked by too many at once; try again")
