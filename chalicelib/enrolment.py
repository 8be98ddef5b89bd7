"""Enrolling hosts, and the agents of vaults, by one-use codes. Only hashes of codes and secrets are stored."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.auth import HOST_NAME, new_secret, sha256, token
from chalicelib.commands import AgentEnrolled, HostPlaced
from chalicelib.draft import Decision
from chalicelib.errors import BadRequest, CodeRefused, LostRace
from chalicelib.lifecycle import decide
from chalicelib.model import MAX_HOSTS, MAX_SIZE_GIB, Code, Host, Slot, Vault, max_size
from chalicelib.ports import Conflict

if TYPE_CHECKING:
    from chalicelib.control import Control

CODE_LIFE = timedelta(hours=24)
FIRST_UID = 20001
RACES = 20


class Invited(Struct, frozen=True, kw_only=True):
    """A code as it is shown, once; its hash is what is stored."""

    code: str
    expires_at: datetime


class Enrolled(Struct, frozen=True, kw_only=True):
    """What a newcomer is told, once. `token` is shown here and nowhere else."""

    name: str
    token: str


def agent_code(vault_id: str, code_hash: str, now: datetime) -> Code:
    """The code with which a freshly launched machine's agent enrols."""
    return Code(code_hash=code_hash, name=f"@{vault_id}", expires_at=now + CODE_LIFE)


class Enrolment:
    """Invitations and their use."""

    def __init__(self, control: "Control") -> None:
        self._control = control
        self._store = control.store

    def invite(self, host: str, size_gib: int, every_seconds: int, max_size_gib: int | None = None) -> Invited:
        """A code, valid for 24 hours and one use, with which `host` enrols; shown once, stored as a hash.

        `max_size_gib`: how far its volume may grow; None: ten times `size_gib`, at most what AWS makes.

        For a name that is known it gives the host a new key and token, and keeps its volume and history.
        Raises BadRequest that names the field.
        """
        if not HOST_NAME.fullmatch(host):
            raise BadRequest(
                f"host: {host[:40]!r} must be 1 to 32 letters, digits, '-' or '_', beginning with a letter or digit"
            )
        if not 1 <= size_gib <= MAX_SIZE_GIB:
            raise BadRequest(f"size_gib: {size_gib} must be from 1 to {MAX_SIZE_GIB}")
        if every_seconds < 1:
            raise BadRequest(f"every_seconds: {every_seconds} must be a whole number of seconds above 0")
        limit = max_size(size_gib) if max_size_gib is None else max_size_gib
        if not size_gib <= limit <= MAX_SIZE_GIB:
            raise BadRequest(f"max_size_gib: {limit} must be from size_gib ({size_gib}) to {MAX_SIZE_GIB}")
        secret = new_secret()
        code = Code(
            code_hash=sha256(secret),
            name=host,
            expires_at=self._control.clock.now() + CODE_LIFE,
            size_gib=size_gib,
            every_seconds=every_seconds,
            max_size_gib=limit,
        )
        self._store.put_code(code)
        self._control.telemetry.event("invited", host=host, size_gib=size_gib, every_seconds=every_seconds)
        return Invited(code=secret, expires_at=code.expires_at)

    def enroll(self, code: str, public_key: str) -> Enrolled:
        """Use a code. Raises CodeRefused for one that is unknown, expired or used, and then nothing has changed."""
        invitation = self._store.code(sha256(code))
        now = self._control.clock.now()
        if invitation is None or invitation.used_at or invitation.expires_at <= now:
            raise CodeRefused
        for _ in range(RACES):
            secret = new_secret()
            host, decision = self._enrol(invitation, public_key, secret, now)
            try:
                vault = self._store.redeem(invitation, decision.vault, host, now)
            except Conflict:
                continue
            self._control.telemetry.event("enrolled", who=invitation.name, vault_id=vault.vault_id)
            self._control.carry_out(vault, decision)
            return Enrolled(name=invitation.name, token=token(invitation.name, secret))
        raise LostRace("enrolment: the vault is being written by too many at once; try again")

    def _enrol(self, code: Code, public_key: str, secret: str, now: datetime) -> tuple[Host | None, Decision]:
        policy = self._control.policy
        if code.name.startswith("@"):
            vault = self._store.vault(code.name[1:])
            if vault is None:
                raise CodeRefused
            key = " ".join(public_key.split()[:2])
            enrolled = AgentEnrolled(token_hash=sha256(secret), host_key=key)
            return None, decide(vault, enrolled, now, policy)
        vault, slot = self._place(code, public_key)
        host = Host(
            name=code.name,
            vault_id=vault.vault_id,
            token_hash=sha256(secret),
            uid=slot.uid,
            size_gib=slot.size_gib,
            every_seconds=slot.every_seconds,
            enrolled_at=now,
        )
        if known := self._store.host(code.name):
            # A new key is no reason to let go of its history.
            host = replace(host, retention=known.retention, kept_since=known.kept_since)
        return host, decide(vault, HostPlaced(host=code.name, slot=slot), now, policy)

    def _place(self, code: Code, public_key: str) -> tuple[Vault, Slot]:
        """The host's own slot, or the one that it had before it was retired, if its vault has room.

        Else the first free one of the first vault with room, or of the next vault.
        """
        vaults = sorted(self._store.vaults(), key=lambda vault: int(vault.vault_id.rsplit("-", 1)[1]))
        for vault in vaults:
            if known := vault.hosts.get(code.name):
                slot = replace(
                    known.with_key(public_key),
                    every_seconds=code.every_seconds,
                    max_size_gib=max(code.max_size_gib, known.size_gib),
                )
                return vault, slot
        # Accounts are numbered across the stack, so that no volume's owner ever means another host.
        # Records of retired hosts count too: a number is never given twice.
        taken = [slot.uid for vault in vaults for slot in (*vault.hosts.values(), *vault.retired.values())]
        taken += [host.uid for host in self._store.hosts()]
        fresh = Slot(
            number=0,
            uid=max(taken, default=FIRST_UID - 1) + 1,
            public_key=public_key,
            size_gib=code.size_gib,
            every_seconds=code.every_seconds,
            max_size_gib=code.max_size_gib,
        )
        for vault in vaults:
            kept = vault.retired.get(code.name)
            if (number := _free_number(vault)) is not None and kept and not kept.doomed:
                return vault, replace(
                    kept.with_key(public_key),
                    number=number,
                    every_seconds=code.every_seconds,
                    max_size_gib=max(code.max_size_gib, kept.size_gib),
                )
        for vault in vaults:
            if (number := _free_number(vault)) is not None:
                return vault, replace(fresh, number=number)
        return Vault(vault_id=f"vault-{len(vaults) + 1}"), fresh


def _free_number(vault: Vault) -> int | None:
    """The lowest that no device of its machine has: a retired host's volume may still be attached."""
    there = (*vault.hosts.values(), *(slot for slot in vault.retired.values() if slot.attached_to))
    return min(set(range(MAX_HOSTS)) - {slot.number for slot in there}, default=None)
