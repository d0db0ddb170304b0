"""How large a supposed value is, as the guard counts a real one.

What is read from a file has its type already, and the guard's own bounds are those of the
values that a tool gets: past them a call is denied, whatever the policies say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from agentguard.policy.conversion.scalars import PART_BYTES, Budget, encoded_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.limits import Limits
    from agentguard.policy.conversion.scalars import CedarJson
    from agentguard.policy.schemas.types import CedarType

# A call of an extension: itself, its two keys and its argument.
_CALL_BYTES: Final = 4 * PART_BYTES


def check_size(value: CedarJson, type_: CedarType, limits: Limits) -> None:
    """Pass a value that the guard would take.

    Args:
        value: Cedar JSON of the type.
        type_: Its type, which bounds how deep it is nested.
        limits: The bounds.

    Raises:
        Refusal: INVALID_ARGUMENT, if it passes ``arguments_bytes`` or ``string_bytes``.
    """
    _take(value, type_, Budget(total_bytes=limits.arguments_bytes, string_bytes=limits.string_bytes))


def _take(value: CedarJson, type_: CedarType, budget: Budget) -> None:
    if isinstance(value, str):
        budget.take(PART_BYTES + encoded_size("value", value, budget))
    elif isinstance(value, list):
        budget.take(PART_BYTES)
        for item in value:
            _take(item, cast("CedarType", type_.element), budget)
    elif not isinstance(value, dict):
        budget.take(PART_BYTES)
    elif type_.name != "Record" or type_.is_entity:
        budget.take(_CALL_BYTES)
    else:
        _take_record(value, type_, budget)


def _take_record(value: Mapping[str, CedarJson], type_: CedarType, budget: Budget) -> None:
    # The keys that are missing count too, as they do there.
    budget.take(PART_BYTES + sum(PART_BYTES + len(name) for name in type_.members))
    for name, item in value.items():
        _take(item, type_.members[name].type, budget)
