"""Python values as Cedar values, strictly: exactly, or not at all.

`shape_of` and `record_of` compile a type once, when the server starts; `to_cedar` then
converts each call's values by it. Two guards stand around that: no value is larger than
the limits, and no key of a value from outside means something to Cedar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.composites import ESCAPES, Shape, quoted
from agentguard.policy.conversion.scalars import (
    PART_BYTES,
    Budget,
    datetime_json,
    decimal_json,
    decimal_units,
    duration_json,
    units_of_json,
)
from agentguard.policy.conversion.shapes import Field, Scaled, Spend, is_total, record_of, shape_of

if TYPE_CHECKING:
    from agentguard.policy.conversion.scalars import CedarJson

__all__ = [
    "Field",
    "Scaled",
    "Shape",
    "Spend",
    "check_no_escapes",
    "check_readings",
    "datetime_json",
    "decimal_json",
    "decimal_units",
    "duration_json",
    "is_total",
    "quoted",
    "record_of",
    "shape_of",
    "to_cedar",
    "units_of_json",
]

_DEFAULT_LIMITS: Final = Limits()
# How often Cedar may read the largest arguments for one call. It takes up to 50 ms each
# time, so that one call costs less than two seconds, and 500 short ids pass.
_READINGS: Final = 32


def to_cedar(value: object, shape: Shape, limits: Limits) -> CedarJson:
    """Convert a value to Cedar JSON. The result shares nothing mutable with *value*.

    Raises:
        Refusal: INVALID_ARGUMENT, if the value is not of the shape, is not exact in
            Cedar, or passes one of *limits*: ``arguments_bytes`` (texts in UTF-8, and a
            constant for each part), ``string_bytes``, ``argument_nesting``.
    """
    if shape.depth > limits.argument_nesting:
        raise Refusal(Reason.INVALID_ARGUMENT, "the value is nested deeper than the limit")
    return shape.convert(value, Budget(total_bytes=limits.arguments_bytes, string_bytes=limits.string_bytes))


def check_readings(context: Mapping[str, object], times: int, limits: Limits) -> None:
    """Refuse a context that is too large to be read that often.

    Cedar reads it anew for each link of the chain of delegation and each resource, so that
    many ids beside a large text would cost minutes.

    Args:
        context: Cedar JSON, as `to_cedar` made it.
        times: How often it will be read: links times resources.
        limits: The bounds.

    Raises:
        Refusal: INVALID_ARGUMENT, if what is read in all passes a multiple of ``arguments_bytes``.
    """
    if times > 1 and _size(context) * times > _READINGS * limits.arguments_bytes:
        raise Refusal(Reason.INVALID_ARGUMENT, "the arguments are too large for so many resources")


def _size(value: object) -> int:
    """Return what Cedar JSON counts: its texts, and a constant for each part, keys among them."""
    size = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        size += PART_BYTES
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict):
            size += sum(PART_BYTES + len(key) for key in item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return size


def check_no_escapes(value: object, limits: Limits = _DEFAULT_LIMITS) -> None:
    """Refuse a value from outside that Cedar would read as more than data.

    ``{"__extn": {"fn": "unknown", …}}`` in an attribute keeps a forbid from firing.

    Raises:
        Refusal: INVALID_ARGUMENT, if a mapping anywhere in it has the key ``__extn``,
            ``__entity`` or ``__expr``, or one that is no string; if it is nested past
            ``argument_nesting``; or if it has more parts than ``arguments_bytes``.
    """
    level: list[object] = [value]
    depth = parts = 0
    # Level by level and not recursively: it may be nested 10,000 deep, or hold itself.
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                if not all(isinstance(key, str) and key not in ESCAPES for key in item):
                    raise Refusal(Reason.INVALID_ARGUMENT, "a key is no string, or is one that Cedar reserves")
                inner = list(item.values())
            elif isinstance(item, (list, tuple, set, frozenset)):
                inner = list(item)
            else:
                continue
            parts += len(inner)
            if depth == limits.argument_nesting or parts > limits.arguments_bytes:
                raise Refusal(Reason.INVALID_ARGUMENT, "the value is nested too deep, or has too many parts")
            below.extend(inner)
        level = below
        depth += 1
