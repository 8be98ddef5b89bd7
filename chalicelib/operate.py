"""What operators can ask: the `operate` Lambda, which only IAM protects. No HTTP route leads here."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from chalicelib import errors, wiring
from chalicelib.http import Wire


class Invite(Wire, tag_field="action", tag="invite"):
    """A one-use code with which a host enrols."""

    host: str
    size_gib: int
    every_seconds: int = 86400


class Hosts(Wire, tag_field="action", tag="hosts"):
    """All hosts."""


class Vaults(Wire, tag_field="action", tag="vaults"):
    """All vaults, with what is under way."""


class Windows(Wire, tag_field="action", tag="windows"):
    """Archived windows of a vault, newest first."""

    vault_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=400)] = 14


class RestorePoints(Wire, tag_field="action", tag="restore_points"):
    """A host's restore points, oldest first."""

    host: str


Action = Invite | Hosts | Vaults | Windows | RestorePoints


def operate(event: dict[str, Any]) -> dict[str, Any]:
    """Do what `event["action"]` asks; an error comes back as `{"error": {"code", "message"}}`, like over HTTP."""
    try:
        action: Action = msgspec.convert(event, Action)
        answer: dict[str, Any] = msgspec.to_builtins(_ACTIONS[type(action)](action))
    except msgspec.ValidationError as error:
        return _error(errors.BadRequest(str(error)))
    except errors.NightvaultError as error:
        return _error(error)
    return answer


def _error(error: errors.NightvaultError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error)}}


def _invite(action: Invite) -> dict[str, object]:
    code = wiring.enrolment().invite(action.host, action.size_gib, action.every_seconds)
    return {"host": action.host, "code": code}


def _hosts(_: Hosts) -> dict[str, object]:
    public = [{**msgspec.to_builtins(host), "token_hash": None} for host in wiring.store().hosts()]
    return {"hosts": public}


def _vaults(_: Vaults) -> dict[str, object]:
    # A launch under way holds the machine's code in clear, and the agent its token's hash: not for display.
    public = [{**msgspec.to_builtins(v), "launch": None, "agent": None} for v in wiring.store().vaults()]
    return {"vaults": public}


def _windows(action: Windows) -> dict[str, object]:
    return {"windows": wiring.store().windows(action.vault_id, action.limit)}


def _restore_points(action: RestorePoints) -> dict[str, object]:
    if wiring.store().host(action.host) is None:
        raise errors.UnknownHost(action.host)
    return {"restore_points": wiring.store().points(action.host)}


_ACTIONS: dict[type[Action], Callable[[Any], dict[str, object]]] = {
    Invite: _invite,
    Hosts: _hosts,
    Vaults: _vaults,
    Windows: _windows,
    RestorePoints: _restore_points,
}
