"""Actions about vaults: what is under way, and what was."""

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Struct

from chalicelib import errors
from chalicelib.model import Vault
from chalicelib.operators.action import Action
from chalicelib.operators.views import VaultView, WindowView, vault_view, window_view
from chalicelib.wiring import Wiring

Days = Annotated[int, msgspec.Meta(ge=1, le=400)]


class VaultsAnswer(Struct, frozen=True, kw_only=True):
    vaults: list[VaultView]


class Vaults(Action, tag="vaults"):
    """All vaults, with what is under way."""

    def answer(self, wired: Wiring) -> VaultsAnswer:
        return VaultsAnswer(vaults=[view_of(wired, vault) for vault in wired.store.vaults()])


class WindowsAnswer(Struct, frozen=True, kw_only=True):
    windows: list[WindowView]
    hosts: list[str]


class Windows(Action, tag="windows"):
    """Windows that opened within so many days, newest first: archived ones and those under way."""

    days: Days = 14
    vault_id: str | None = None

    def answer(self, wired: Wiring) -> WindowsAnswer:
        """Raises UnknownVault."""
        now = wired.clock.now()
        since = now - timedelta(days=self.days)
        vaults = [known_vault(wired, self.vault_id)] if self.vault_id is not None else wired.store.vaults()
        found = [vault.window for vault in vaults if vault.window]
        for vault in vaults:
            found += wired.store.windows(vault.vault_id, since=since)
        found.sort(key=lambda window: (window.opened_at, window.window_id), reverse=True)
        hosts = {host for vault in vaults for host in vault.hosts} | {r.host for w in found for r in w.runs.values()}
        return WindowsAnswer(windows=[window_view(window, now) for window in found], hosts=sorted(hosts))


def known_vault(wired: Wiring, vault_id: str) -> Vault:
    """Raises UnknownVault."""
    vault = wired.store.vault(vault_id)
    if vault is None:
        raise errors.UnknownVault(vault_id)
    return vault


def view_of(wired: Wiring, vault: Vault) -> VaultView:
    """VAULT as it is now."""
    return vault_view(vault, wired.clock.now())
