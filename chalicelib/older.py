"""What the version before drills is given to read, after a rollback: a drill as a restore, which is what it knew.

It would refuse a whole vault for one word that it does not know (`kind`). So beside what holds a drill, the store keeps
what that version can live on; it lets nobody in, and its lease ends it. Nothing here is ever read by this version.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from chalicelib.model import Kind, Vault, Window


def has_drills(value: Vault | Window) -> bool:
    """Whether there is a word in it that the version before does not know."""
    if isinstance(value, Window):
        return Kind.DRILL in value.ceilings or any(run.kind is Kind.DRILL for run in value.runs.values())
    spent = value.spent is not None and Kind.DRILL in value.spent.seconds
    return spent or any(has_drills(window) for window in (value.window, value.recent) if window)


def for_older(vault: Vault) -> Vault:
    """The vault in words of the version before."""
    return replace(
        vault,
        window=vault.window and window_for_older(vault.window),
        recent=vault.recent and window_for_older(vault.recent),
        spent=vault.spent and replace(vault.spent, seconds=_kinds(vault.spent.seconds)),
        drilled={},
    )


def window_for_older(window: Window) -> Window:
    runs = {i: replace(r, kind=Kind.RESTORE) if r.kind is Kind.DRILL else r for i, r in window.runs.items()}
    return replace(window, runs=runs, ceilings=_kinds(window.ceilings))


def _kinds(of_each: Mapping[Kind, Any]) -> dict[Kind, Any]:
    """A drill's where there is no restore's: a window is never without a ceiling."""
    known: dict[Kind, Any] = {kind: value for kind, value in of_each.items() if kind is not Kind.DRILL}
    if Kind.DRILL in of_each:
        known.setdefault(Kind.RESTORE, of_each[Kind.DRILL])
    return known
