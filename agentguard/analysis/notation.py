"""Cedar values as Cedar writes them, for people to read, and back and forth to whole numbers.

What a caller chose stands among them, so nothing here can steer a terminal or end a line.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from agentguard.policy.conversion.extensions import units_in
from agentguard.policy.conversion.scalars import LONG_MAX, LONG_MIN
from agentguard.policy.deciding.reach import uid_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.policy.conversion.scalars import CedarJson

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHOWN: Final = 160
_DECIMAL: Final = re.compile(r"(-?[0-9]+\.[0-9]+?)0*")
_COUNTED: Final = re.compile(r"(-?)([0-9]+)ms")
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def written(value: object, most: int = _SHOWN) -> str:
    """Return Cedar JSON in Cedar's notation, cut where it passes *most* characters."""
    text = _written(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return _record(value) if isinstance(value, dict) else str(value)


def _record(value: Mapping[str, object]) -> str:
    if isinstance(entity := value.get("__entity"), dict):
        return entity_text(*uid_of(entity))
    if isinstance(call := value.get("__extn"), dict):
        return f"{call['fn']}({_quoted(_short(str(call['fn']), str(call['arg'])))})"
    return f"{{{', '.join(f'{name_text(name)}: {_written(item)}' for name, item in value.items())}}}"


def _short(kind: str, argument: str) -> str:
    """Return a function's argument as people write it; Cedar reads the same in it."""
    if kind == "datetime":
        return argument.replace(".000Z", "Z")
    if kind == "decimal" and (match := _DECIMAL.fullmatch(argument)):
        return match[1]
    if kind == "duration" and (match := _COUNTED.fullmatch(argument)):
        left = int(match[2])
        parts = []
        for size, unit in _UNITS:
            count, left = divmod(left, size)
            parts += [f"{count}{unit}"] if count else []
        return match[1] + "".join(parts or ["0s"])
    return argument


def _quoted(text: str) -> str:
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    shown = (c if c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in cut)
    return f'"{"".join(shown)}"'


def entity_text(type_: str, id_: str) -> str:
    """Return an entity as Cedar writes it."""
    return f"{type_}::{_quoted(id_)}"


def name_text(name: str) -> str:
    """Return a member's name as Cedar writes it."""
    return name if _NAME.fullmatch(name) else _quoted(name)


def path_text(names: Sequence[str]) -> str:
    """Return a path, the variable first, as Cedar writes it."""
    first, *rest = names
    return first + "".join(f".{name}" if _NAME.fullmatch(name) else f"[{_quoted(name)}]" for name in rest)


def units_of(value: object) -> tuple[str, int] | None:
    """Return the type of a value, and the value as a whole number, if its type has an order.

    A decimal counts ten thousandths; a datetime and a duration count milliseconds, the one from 1970.
    """
    if type(value) is int:
        return "Long", value
    call = value.get("__extn") if isinstance(value, dict) else None
    if not isinstance(call, dict):
        return None
    kind = str(call.get("fn"))
    found = units_in(kind, str(call.get("arg")))
    return None if found is None else (kind, found)


def of_units(kind: str, units: int) -> CedarJson | None:
    """Return what `units_of` counted as Cedar JSON; None if the type has no such value."""
    if not LONG_MIN <= units <= LONG_MAX:
        return None
    if kind == "Long":
        return units
    if kind == "duration":
        argument = f"{units}ms"
    elif kind == "decimal":
        whole, part = divmod(abs(units), 10_000)
        argument = f"{'-' if units < 0 else ''}{whole}.{part:04}"
    else:
        try:
            moment = _UNIX + units * _MILLISECOND
        except OverflowError:
            return None
        argument = f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return {"__extn": {"fn": kind, "arg": argument}}
