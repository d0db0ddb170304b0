"""Cedar's sets and records, from the shapes of their parts.

Where a shape comes from, a Python type or a JSON Schema, is not known here: `policy.shapes`
and `policy.jsonschema` read those.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.policy.conversion.scalars import MISSING, PART_BYTES, Budget, CedarJson, Convert, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ESCAPES: Final = frozenset({"__extn", "__entity", "__expr"})
"""Keys that Cedar's JSON reads as instructions, at any depth."""

# A record of two members: itself and its keys.
_PAIR_BYTES: Final = 3 * PART_BYTES


@dataclass(frozen=True, slots=True)
class Shape:
    """A Cedar type, and how a value becomes one of it.

    Attributes:
        cedar: The type as Cedar schema text.
        members: The values that an enum or a `Literal` has; empty for other types.
        depth: How deep sets and records are nested in it; 0 for a scalar.
        parts: What a record holds.
        element: What a set holds.
        spends: The total that a number of it adds to; empty for none.
        convert: Turns a value into Cedar JSON; `to_cedar` calls it.
    """

    cedar: str
    members: tuple[str | int | bool, ...] = ()
    depth: int = 0
    parts: tuple[Member, ...] = dataclasses.field(default=(), kw_only=True, compare=False, repr=False)
    element: Shape | None = dataclasses.field(default=None, kw_only=True, compare=False, repr=False)
    spends: str = dataclasses.field(default="", kw_only=True, compare=False, repr=False)
    convert: Convert = dataclasses.field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a record.

    Attributes:
        name: Its key.
        shape: What it holds.
        optional: Whether it may be missing.
        nullable: Whether it may be None, which is missing in Cedar.
        given: Whether a value has to have it all the same, if only as None.
    """

    name: str
    shape: Shape
    optional: bool
    nullable: bool
    given: bool = False


def quoted(text: str) -> str:
    """Return *text* as a string literal of Cedar policy or schema text."""
    written = (c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in text)
    return f'"{"".join(written)}"'


def set_of(element: Shape, kinds: tuple[type, ...], where: str) -> Shape:
    """Return the set of what values of exactly *kinds* hold."""

    def convert(value: Any, budget: Budget) -> CedarJson:
        if type(value) not in kinds:
            raise refusal(where, f"a `{kinds[0].__name__}`", value)
        # Each element counts for itself, and an empty set costs Cedar as much as a number.
        budget.take(PART_BYTES)
        return [element.convert(item, budget) for item in value]

    return Shape(f"Set<{element.cedar}>", depth=element.depth + 1, element=element, convert=convert)


def pairs_of(key: Shape, item: Shape, where: str) -> Shape:
    """Return the set of pairs that a `dict` is: Cedar's records have fixed keys."""

    def convert(value: object, budget: Budget) -> CedarJson:
        if type(value) is not dict or not ESCAPES.isdisjoint(value):
            raise refusal(where, "a dict without keys that Cedar reserves", value)
        budget.take(PART_BYTES + _PAIR_BYTES * len(value))
        return [{"key": key.convert(k, budget), "value": item.convert(v, budget)} for k, v in value.items()]

    members = (
        Member("key", key, optional=False, nullable=False),
        Member("value", item, optional=False, nullable=False),
    )
    pair = record_from(members, dict, where, closed=True)
    return Shape(f"Set<{pair.cedar}>", depth=pair.depth + 1, element=pair, convert=convert)


def record_from(
    members: Sequence[Member], kind: type, where: str, *, closed: bool, unseen: frozenset[str] = frozenset()
) -> Shape:
    """Return the record that is read from a `dict`, or from the attributes of a *kind*.

    Args:
        members: What it holds.
        kind: The exact type of its values.
        where: What it is, for messages.
        closed: Whether a `dict` may have no keys but these.
        unseen: Keys that it may have all the same, and that are left out.
    """
    plan = tuple(
        (member.name, member.optional and not member.given, member.nullable, member.shape.convert) for member in members
    )
    size = PART_BYTES + sum(len(member.name) + PART_BYTES for member in members)
    read: Callable[[Any, str, object], object] = dict.get if kind is dict else getattr

    def convert(given: object, budget: Budget) -> CedarJson:
        if type(given) is not kind:
            raise refusal(where, f"a `{kind.__name__}`", given)
        # Either a dict or something that is read by its attributes.
        value: Any = given
        budget.take(size)
        record: dict[str, CedarJson] = {}
        missing = 0
        for name, optional, nullable, part in plan:
            item = read(value, name, MISSING)
            if item is MISSING and optional:
                missing += 1
            elif item is not None or not nullable:
                record[name] = part(item, budget)
        # A key that no member names would reach the tool without having been judged.
        if closed and len(value) + missing != len(plan) + (len(unseen & value.keys()) if unseen else 0):
            # They may be the caller's own words, so none is named.
            raise Refusal(Reason.INVALID_ARGUMENT, f"`{where}` got a key that is not declared")
        return record

    written = (f"{quoted(member.name)}{'?' if member.optional else ''}: {member.shape.cedar}" for member in members)
    cedar = f"{{ {', '.join(written)} }}"
    depth = 1 + max((member.shape.depth for member in members), default=0)
    return Shape(cedar, depth=depth, parts=tuple(members), convert=convert)
