"""The action `drill`: a restore point is checked byte by byte, now."""

from msgspec import Struct

from chalicelib.operators.action import Action
from chalicelib.operators.changes import active
from chalicelib.operators.views import RunView, run_view
from chalicelib.wiring import Wiring


class DrillAnswer(Struct, frozen=True, kw_only=True):
    run: RunView
    point: str


class Drill(Action, tag="drill"):
    """Begins a drill of a host's newest restore point that counts, or of `point`; the vault is woken if it must be."""

    host: str
    point: str | None = None

    def answer(self, wired: Wiring) -> DrillAnswer:
        """Raises UnknownHost, UnknownPoint, NothingToRestore, DrillHindered, WindowSpent, CloudRefused."""
        host, _ = active(wired, self.host)
        run = wired.control.drilling.begin(host, self.point)
        vault = wired.store.vault(host.vault_id)
        window = vault.window if vault else None
        view = run_view(run, window.window_id if window and run.run_id in window.runs else None)
        return DrillAnswer(run=view, point=run.restore.point_id if run.restore else "")
