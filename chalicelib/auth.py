"""Who is calling: tokens `nv1.<name>.<secret>`, of which only the secret's SHA-256 is stored."""

import hashlib
import hmac
import re
import secrets

from msgspec import Struct

from chalicelib.model import Host
from chalicelib.ports import Store

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_TOKEN = re.compile(r"Bearer nv1\.(@?[A-Za-z0-9][A-Za-z0-9_-]{0,31})\.([A-Za-z0-9_-]{20,128})")

HOST_ROUTES = ("/start", "/status", "/finish", "/points")
VAULT_ROUTES = ("/report",)


def new_secret() -> str:
    """256 random bits, in characters that need no quoting anywhere."""
    return secrets.token_urlsafe(32)


def sha256(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits, so it needs neither salt nor slowness."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token(name: str, secret: str) -> str:
    return f"nv1.{name}.{secret}"


class Caller(Struct, frozen=True, kw_only=True):
    """A checked token: its owner, and the routes that are open to it."""

    name: str
    routes: tuple[str, ...]


def authenticate(header: str, store: Store) -> Caller | None:
    """The caller that an Authorization header names, or None for a header that is not to be believed."""
    match = _TOKEN.fullmatch(header or "")
    if not match:
        return None
    name, secret = match.groups()
    known = _known_hash(name, store)
    # Compared also for a name that nobody has: the answer's time says nothing about who exists.
    if not hmac.compare_digest(known or "0" * 64, sha256(secret)) or known is None:
        return None
    return Caller(name=name, routes=VAULT_ROUTES if name.startswith("@") else HOST_ROUTES)


def _known_hash(name: str, store: Store) -> str | None:
    if name.startswith("@"):
        vault = store.vault(name[1:])
        return vault.agent.token_hash if vault and vault.agent else None
    host: Host | None = store.host(name)
    return host.token_hash if host else None
