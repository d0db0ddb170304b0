"""Values that a policy's text writes out, compared as Cedar compares them.

``decimal("1.0")`` and ``decimal("1.00")`` are one value, and so are a time and the same time
in another zone. What cannot be read for certain is no constant here: nothing is claimed of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.model import EntityUid
from agentguard.policy.conversion.extensions import units_in
from agentguard.policy.text.arithmetic import CALCULATES, number_of
from agentguard.policy.text.tree import Op

if TYPE_CHECKING:
    from agentguard.policy.text.tree import Node


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
    if node.op is Op.LITERAL and isinstance(node.value, (bool, int, str)):
        return Constant({bool: "Bool", int: "Long"}.get(type(node.value), "String"), node.value)
    if node.op in CALCULATES:
        number = number_of(node)
        return None if number is None else Constant("Long", number)
    if node.op is Op.ENTITY and isinstance(node.value, EntityUid):
        return Constant("entity", node.value)
    if node.op is not Op.CALL or len(node.parts) != 1:
        return None
    (text,) = node.parts
    if text.op is not Op.LITERAL or not isinstance(text.value, str):
        return None
    name = str(node.value)
    value = units_in(name, text.value)
    return None if value is None else Constant(name, value)


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
