"""Which totals of a run a guarded function adds to; and that nothing is spent where nobody would count it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, get_args

import pydantic
import typing_extensions

from agentguard.errors import ConfigurationError
from agentguard.policy.conversion.values import Spend

if TYPE_CHECKING:
    import inspect
    from collections.abc import Collection, Iterable, Mapping

    from agentguard.policy.conversion.values import Shape


def declared_totals(
    arguments: Shape,
    facts: Shape | None,
    parameters: Mapping[str, inspect.Parameter],
    *,
    exclude: Collection[str],
    injected: Collection[str],
    what: str,
) -> frozenset[str]:
    """Return the totals that arguments and facts add to before a call is judged.

    Args:
        arguments: What policies see of the arguments.
        facts: What they see besides.
        parameters: All of the function's, by name.
        exclude: Those that they do not see.
        injected: Those that no caller gives.
        what: Whose they are, for messages.

    Raises:
        ConfigurationError: If what is spent stands where it would not be counted.
    """
    for name, parameter in parameters.items():
        if name in exclude and _is_spent(parameter.annotation):
            message = f"{what} spends `{name}`, which policies do not see: take it out of exclude="
            raise ConfigurationError(message)
        if name in injected and _is_spent(parameter.annotation):
            message = f"{what} spends `{name}`, which no caller gives: let the tool add it with guard.spend"
            raise ConfigurationError(message)
        if parameter.default is Spend or isinstance(parameter.default, Spend):
            message = f'{what} has a `Spend` for the default of `{name}`: write `Annotated[Decimal, Spend("payments")]`'
            raise ConfigurationError(message)
    found = set()
    for shape in (arguments, facts):
        for member in () if shape is None else shape.parts:
            if member.shape.spends:
                found.add(member.shape.spends)
            elif hidden := _spent_within(member.shape):
                message = (
                    f"{what}: `{hidden}` is spent inside of `{member.name}`, where it is not counted: "
                    "let facts= return the sum, with `Spend` on it"
                )
                raise ConfigurationError(message)
    return frozenset(found)


def _spent_within(shape: Shape) -> str:
    """Return a total that a part of *shape* adds to; empty if none does."""
    parts = [member.shape for member in shape.parts]
    if shape.element is not None:
        parts.append(shape.element)
    return next((found for part in parts if (found := part.spends or _spent_within(part))), "")


def _is_spent(annotation: object) -> bool:
    """Return whether anything in a type is spent, however deep: Cedar may have no counterpart for it."""
    seen: dict[int, object] = {}
    left = [annotation]
    while left:
        one = left.pop()
        if one is Spend or isinstance(one, Spend):
            return True
        if id(one) not in seen:
            # Kept, so that none gets the id of another.
            seen[id(one)] = one
            left += _parts(one)
    return False


def _parts(annotation: object) -> Iterable[object]:
    """Return what a type is made of."""
    yield from get_args(annotation)
    # What an alias stands for, and a `NewType`.
    yield from (getattr(annotation, name, None) for name in ("__value__", "__supertype__"))
    if not isinstance(annotation, type):
        return
    if issubclass(annotation, pydantic.BaseModel):
        for info in annotation.model_fields.values():
            yield info.annotation
            yield from info.metadata
    elif dataclasses.is_dataclass(annotation) or typing_extensions.is_typeddict(annotation):
        yield from _hints(annotation)


def _hints(kind: type) -> Iterable[object]:
    try:
        return typing_extensions.get_type_hints(kind, include_extras=True).values()
    except Exception:  # noqa: BLE001  whatever it is: what its framework gives a function, nobody may be able to read
        return ()
