"""Actions that wake a vault without a host, put it to sleep, or give up its machine."""

from typing import Annotated

import msgspec
from msgspec import Struct

from chalicelib.commands import Hold, Rebuild, Release
from chalicelib.operators.action import Action
from chalicelib.operators.vaults import known_vault, view_of
from chalicelib.operators.views import VaultView
from chalicelib.wiring import Wiring

Minutes = Annotated[int, msgspec.Meta(ge=1, le=24 * 60)]


class VaultAnswer(Struct, frozen=True, kw_only=True):
    vault: VaultView


class Wake(Action, tag="wake"):
    """Stays awake so long without a run, within the day's budget of restores."""

    vault_id: str
    minutes: Minutes = 60

    def answer(self, wired: Wiring) -> VaultAnswer:
        """Raises UnknownVault, WindowSpent."""
        known_vault(wired, self.vault_id)
        vault = wired.control.apply(self.vault_id, Hold(seconds=self.minutes * 60))
        return VaultAnswer(vault=view_of(wired, vault))


class Sleep(Action, tag="sleep"):
    """Ends a `wake`. Live runs go on, unless `cut`."""

    vault_id: str
    cut: bool = False

    def answer(self, wired: Wiring) -> VaultAnswer:
        """Raises UnknownVault."""
        known_vault(wired, self.vault_id)
        vault = wired.control.apply(self.vault_id, Release(cut=self.cut))
        return VaultAnswer(vault=view_of(wired, vault))


class RebuildVault(Action, tag="rebuild_vault"):
    """Gives up the machine; the next wake launches a new one, of the newest template, with the same volumes."""

    vault_id: str

    def answer(self, wired: Wiring) -> VaultAnswer:
        """Raises UnknownVault, VaultBusy."""
        known_vault(wired, self.vault_id)
        return VaultAnswer(vault=view_of(wired, wired.control.apply(self.vault_id, Rebuild())))
