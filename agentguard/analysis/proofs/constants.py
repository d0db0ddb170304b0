"""Values that a policy's text writes out, compared as Cedar compares them.

``decimal("1.0")`` and ``decimal("1.00")`` are one value, and so are a time and the same time
in another zone. What cannot be read for certain is no constant here: nothing is claimed of it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.model import EntityUid
from agentguard.policy.arithmetic import CALCULATES, number_of
from agentguard.policy.tree import Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.policy.tree import Node

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_DURATION: Final = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_UNITS: Final = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Constant(NamedTuple):
    """A value: of a Cedar type, or of the kind ``entity``. Two that are equal in Cedar are equal.

    A decimal is a whole number of ten-thousandths; a datetime and a duration are milliseconds.
    """

    kind: str
    value: bool | int | str | EntityUid


ORDERED: Final = frozenset(("Long", "decimal", "datetime", "duration"))
"""The kinds whose values are whole numbers here, in Cedar's order."""


def constant_of(node: Node) -> Constant | None:
    """Return the value that an expression writes out, or that all is written out of; None for any other."""
    if node.op is Op.LITERAL:
        return Constant({bool: "Bool", int: "Long"}.get(type(node.value), "String"), node.value)  # type: ignore[arg-type]
    if node.op in CALCULATES:
        number = number_of(node)
        return None if number is None else Constant("Long", number)
    if node.op is Op.ENTITY and isinstance(node.value, EntityUid):
        return Constant("entity", node.value)
    if node.op is not Op.CALL or node.value not in _READERS or len(node.parts) != 1:
        return None
    (text,) = node.parts
    if text.op is not Op.LITERAL or not isinstance(text.value, str):
        return None
    name = str(node.value)
    value = _READERS[name](text.value)
    return None if value is None else Constant(name, value)


def _decimal(text: str) -> int | None:
    if (match := _DECIMAL.fullmatch(text)) is None:
        return None
    value = int(match[2]) * 10_000 + int(match[3].ljust(4, "0"))
    return -value if match[1] else value


def _datetime(text: str) -> int | None:
    if (match := _DATETIME.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second, milliseconds = (int(match[part] or 0) for part in range(1, 8))
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        zone = timezone(-offset if match[8] == "-" else offset)
        found = datetime(year, month, day, hour, minute, second, milliseconds * 1000, tzinfo=zone)
    except ValueError:
        return None
    return (found - _EPOCH) // _MILLISECOND


def _duration(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()[1:]):
        return None
    value = sum(int(match[part] or 0) * unit for part, unit in enumerate(_UNITS, 2))
    return -value if match[1] else value


_READERS: Final[dict[str, Callable[[str], int | None]]] = {
    "decimal": _decimal,
    "datetime": _datetime,
    "duration": _duration,
}


def like(text: str, pattern: tuple[str | None, ...]) -> bool:
    """Whether *text* matches a pattern, in time linear in both for each piece."""
    first = pattern[0] if pattern and pattern[0] is not None else ""
    if None not in pattern:
        return text == first
    last = pattern[-1] or ""
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    # The pieces between, each as early as it can be.
    for piece in pattern[pattern.index(None) : len(pattern) - 1]:
        if piece is not None:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
    return True
