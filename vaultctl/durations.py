"""Durations as people write them: `90m`, `24h`, `7d`, `1h30m`."""

import re

from vaultctl.failures import usage

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"([0-9]{1,9})([smhdw])")


def seconds(text: str, name: str) -> int:
    """Whole seconds above 0. Raises Failure (usage) that names `name` and shows what would do."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        hint = f"; did you mean {text}h?" if text.isascii() and text.isdecimal() and text != "0" else ""
        raise usage(f"{name}: {text!r} is no duration; write 90m, 24h, 7d or 1h30m (units: s, m, h, d, w){hint}")
    units = [unit for _, unit in parts]
    if len(set(units)) != len(units):
        raise usage(f"{name}: {text!r} names a unit twice")
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if total < 1:
        raise usage(f"{name}: {text!r} must be longer than nothing")
    return total


def minutes(text: str, name: str) -> int:
    """Whole minutes. Raises Failure (usage), also where seconds are left over."""
    found = seconds(text, name)
    if found % 60:
        raise usage(f"{name}: {text!r} must be whole minutes, such as 90m")
    return found // 60


def text(length: int) -> str:
    """As short as `seconds` reads it: `1d`, `36h` is `1d12h`."""
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, length = divmod(length, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
