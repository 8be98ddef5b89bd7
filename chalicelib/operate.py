"""What operators can ask: the `operate` Lambda, which only IAM protects. No HTTP route leads here.

The contract is docs/operate.md; each action is a struct in chalicelib/operators/, and ACTIONS says where.
"""

from importlib import import_module
from typing import Any

import msgspec

from chalicelib import errors, wiring

# Every action, with the module and the struct that answers it: to add one, add its line. Imported when it is asked
# for, so that nobody's cold start pays for what others use.
ACTIONS = {
    "about": "stack:About",
    "invite": "hosts:Invite",
    "hosts": "hosts:Hosts",
    "host": "hosts:OneHost",
    "restore_points": "hosts:RestorePoints",
    "retention": "keeping:HostRetention",
    "drill": "drills:Drill",
    "lock": "keeping:Lock",
    "unlock": "keeping:Unlock",
    "accept": "keeping:Accept",
    "change_host": "changes:ChangeHost",
    "rotate": "changes:Rotate",
    "retire": "changes:Retire",
    "vaults": "vaults:Vaults",
    "windows": "vaults:Windows",
    "wake": "waking:Wake",
    "sleep": "waking:Sleep",
    "rebuild_vault": "waking:RebuildVault",
    "doctor": "stack:Doctor",
    "cost": "stack:Cost",
    "refresh_prices": "stack:RefreshPrices",
}
# AWS takes 6 MB as the answer of an invocation: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_ANSWER_BYTES = 6_000_000


def operate(event: dict[str, Any]) -> dict[str, Any]:
    """Do what `event["action"]` asks; an error comes back as `{"error": {"code", "message"}}`, like over HTTP."""
    try:
        action = msgspec.convert(event, action_of(event.get("action")))
        raw = msgspec.json.encode(action.answer(wiring.wired()))
    except msgspec.ValidationError as error:
        return _error(errors.BadRequest(str(error)))
    except errors.NightvaultError as error:
        return _error(error)
    if len(raw) > MAX_ANSWER_BYTES:
        return _error(errors.BadRequest(f"the answer has {len(raw)} bytes, too many; ask for one vault or fewer days"))
    answer: dict[str, Any] = msgspec.json.decode(raw)
    return answer


def action_of(name: object) -> Any:
    """The struct of an action. Raises BadRequest for a name that is none."""
    if not isinstance(name, str) or name not in ACTIONS:
        raise errors.BadRequest(f"action: {str(name)[:40]!r} is none; there are {', '.join(ACTIONS)}")
    module, struct = ACTIONS[name].split(":")
    return getattr(import_module(f"chalicelib.operators.{module}"), struct)


def _error(error: errors.NightvaultError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error)}}
