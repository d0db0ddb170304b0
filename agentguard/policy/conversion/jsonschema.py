"""A tool's JSON Schema as the shape of its raw arguments.

Where a server's functions are out of reach, the values to judge are the JSON values that
the caller sent, exactly as the tool gets them. The schema says of which Cedar type each is,
and no more: a constraint such as ``maxLength`` is the tool's to check, since a value that
is judged as it stands cannot mislead a policy. Nothing is guessed and nothing is rounded:
a value that is not exactly of its declared type is refused, and so is one that no property
declares.

Schemas come from other programs. However large, deep or circular one is, reading it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.limits import Limits
from agentguard.policy.conversion import scalars
from agentguard.policy.conversion.composites import ESCAPES, Member, Shape, pairs_of, record_from, set_of
from agentguard.policy.conversion.scalars import Budget, CedarJson, Convert, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_LIMITS: Final = Limits()
_DEEPEST: Final = _LIMITS.argument_nesting
# Subschemas of one tool, each counted as often as it is referred to: ten definitions that
# name each other twice would be a thousand.
_MOST_PARTS: Final = 1_000
_LONGEST_NAME: Final = 256
_SHOWN: Final = 64
# One of these says what a schema's values are; the combinations beside it only narrow them.
_OWN: Final = ("type", "enum", "const", "properties")
_SCALARS: Final[Mapping[str, tuple[str, Callable[[str], Convert]]]] = {
    "string": ("String", scalars.text),
    "integer": ("Long", scalars.whole),
    "number": ("decimal", partial(scalars.decimal, kind=float)),
    "boolean": ("Bool", scalars.truth),
}
_KINDS: Final = {str: "string", int: "integer", bool: "boolean"}
_JSON_SPACE: Final = " \t\n\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The raw arguments of a tool.

    Attributes:
        shape: The record of them that policies see. What no property declares is refused.
        unseen: The arguments that reach the tool without policies seeing them, each with the reason.
    """

    shape: Shape
    unseen: Mapping[str, str]


def arguments_of(schema: object, *, where: str, lenient: bool = False) -> Arguments:
    """Compile the schema of a tool's arguments.

    Args:
        schema: The tool's ``inputSchema``, as JSON.
        where: The tool's name, for messages.
        lenient: Whether an argument that Cedar cannot hold is left unseen, for servers whose
            schemas one cannot change.

    Raises:
        UnmappableTypeError: If Cedar has no exact counterpart; the message has the fix.
    """
    reader = _Reader(schema)
    top = _Place(_printed(where))
    members: list[Member] = []
    unseen: dict[str, str] = {}
    try:
        properties, required = reader.properties(reader.target(schema, top), top)
    except UnmappableTypeError:
        if not lenient:
            raise
        # Such a tool can be called without arguments alone.
        properties, required = {}, frozenset()
    for name, inner in islice(properties.items(), _MOST_PARTS):
        try:
            members.append(reader.member(name, inner, required, top))
        except UnmappableTypeError as error:
            if not lenient:
                raise
            if _can_be_named(name):
                unseen[name] = str(error)
    shape = record_from(members, dict, top.where, closed=True, unseen=frozenset(unseen))
    return Arguments(shape=shape, unseen=unseen)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a schema something stands, and inside which references."""

    where: str
    refs: tuple[str, ...] = ()
    depth: int = 0

    def below(self, suffix: str) -> _Place:
        return replace(self, where=f"{self.where}{suffix}", depth=self.depth + 1)


class _Reader:
    """Reads one schema, and counts what it reads."""

    __slots__ = ("_left", "_root")

    def __init__(self, root: object) -> None:
        self._root = root
        self._left = _MOST_PARTS

    def target(self, schema: object, place: _Place) -> dict[str, Any]:
        """Return a schema without the reference that it is, if it is one."""
        return self._followed(schema, place)[0]

    def properties(self, schema: dict[str, Any], place: _Place) -> tuple[dict[str, Any], frozenset[str]]:
        """Return the properties of an object, and which of them are always there."""
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if schema.get("type", "object") != "object" or not isinstance(properties, dict):
            raise _unmappable(place, schema, "let it be an object with properties")
        names = required if isinstance(required, list) else []
        return properties, frozenset(name for name in names if isinstance(name, str))

    def member(self, name: object, schema: object, required: frozenset[str], place: _Place) -> Member:
        """Compile one property."""
        if not _can_be_named(name):
            raise _unmappable(place.below(f".{_printed(name)}"), schema, "give it a short name that Cedar can have")
        shape, nullable = self._shape(schema, place.below(f".{_printed(name)}"))
        if nullable and shape.cedar == "String":
            shape = replace(shape, convert=_no_text_for_null(place.where, shape.convert))
        return Member(str(name), shape, nullable or name not in required, nullable, given=name in required)

    def _shape(self, schema: object, place: _Place) -> tuple[Shape, bool]:
        """Compile a schema, and tell whether it admits null."""
        shapes: list[Shape] = []
        nullable = False
        for one, there in self._alternatives(schema, place):
            if one.get("type") == "null":
                nullable = True
            elif "enum" in one or "const" in one:
                choice, has_null = self._choice(one, there)
                nullable |= has_null
                shapes += [choice] if choice is not None else []
            else:
                shapes.append(self._plain(one, there))
        if len(shapes) == 1:
            return shapes[0], nullable
        return _merged(shapes, schema, place), nullable

    def _alternatives(self, schema: object, place: _Place) -> Iterator[tuple[dict[str, Any], _Place]]:
        """Yield the schemas of which a value satisfies one: plain ones, each of one type."""
        found, place = self._followed(schema, place)
        if any(key in found for key in _OWN):
            kinds = found.get("type")
            if not isinstance(kinds, list):
                yield found, place
                return
            for kind in kinds:
                # A list in there is no type.
                yield from self._alternatives({**found, "type": kind if isinstance(kind, str) else None}, place)
            return
        for key in ("anyOf", "oneOf", "allOf"):
            inner = found.get(key)
            if isinstance(inner, list) and (key != "allOf" or len(inner) == 1):
                for one in inner:
                    yield from self._alternatives(one, place.below(""))
                return
        yield found, place

    def _followed(self, schema: object, place: _Place) -> tuple[dict[str, Any], _Place]:
        """Count a schema, and follow its references."""
        while True:
            self._left -= 1
            if self._left < 0:
                raise _unmappable(place, schema, f"let all of the tool have at most {_MOST_PARTS} parts")
            if place.depth > _DEEPEST:
                raise _unmappable(place, schema, f"nest at most {_DEEPEST} deep")
            if not isinstance(schema, dict):
                raise _unmappable(place, schema, "declare exactly what it holds")
            ref = schema.get("$ref")
            if ref is None:
                return schema, place
            if not isinstance(ref, str) or any(key in schema for key in _OWN):
                raise _unmappable(place, schema, "put nothing beside `$ref` that has a say")
            if ref in place.refs:
                raise _unmappable(place, schema, "take a type that does not contain itself")
            schema, place = self._resolved(ref, place), replace(place, refs=(*place.refs, ref))

    def _resolved(self, ref: str, place: _Place) -> object:
        """Return what a JSON pointer into the same schema points to (RFC 6901)."""
        node: object = self._root
        first, *rest = ref[: _LONGEST_NAME * _DEEPEST].split("/")
        for part in rest:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list):
                node = next((item for at, item in enumerate(node[:_MOST_PARTS]) if str(at) == name), None)
            else:
                node = node.get(name) if isinstance(node, dict) else None
        if first != "#" or node is None:
            raise _unmappable(place, {"$ref": ref}, "refer to something in the same schema")
        return node

    def _plain(self, schema: dict[str, Any], place: _Place) -> Shape:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if kind == "object":
            return self._object(schema, place)
        if kind == "array":
            inner = place.below("[]")
            if "prefixItems" in schema or "items" not in schema:
                raise _unmappable(inner, schema, "declare what `items` are")
            return set_of(self._never_null(schema["items"], inner), (list,), place.where)
        if isinstance(kind, str) and kind in _SCALARS:
            cedar, converter = _SCALARS[kind]
            return Shape(cedar, convert=converter(place.where))
        raise _unmappable(place, schema, "declare exactly what it holds")

    def _object(self, schema: dict[str, Any], place: _Place) -> Shape:
        others = schema.get("additionalProperties")
        if schema.get("properties") or others is False:
            properties, required = self.properties(schema, place)
            members = [self.member(name, inner, required, place) for name, inner in properties.items()]
            return record_from(members, dict, place.where, closed=True)
        if not isinstance(others, dict):
            raise _unmappable(place, schema, "declare its `properties`, or what `additionalProperties` are")
        key = Shape("String", convert=scalars.text(place.where))
        return pairs_of(key, self._never_null(others, place.below("[]")), place.where)

    def _never_null(self, schema: object, place: _Place) -> Shape:
        shape, nullable = self._shape(schema, place)
        if nullable:
            raise _unmappable(place, schema, "take null only for a whole argument or property")
        return shape

    def _choice(self, schema: dict[str, Any], place: _Place) -> tuple[Shape | None, bool]:
        """Compile an enumeration, and tell whether null is in it; None if that is all."""
        stated = schema["enum"] if "enum" in schema else [schema["const"]]
        values = stated if isinstance(stated, list) else [stated]
        members = [value for value in values if value is not None]
        kinds = {type(value) for value in members}
        if values and not members:
            return None, True
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind not in _KINDS:
            raise _unmappable(place, schema, "let its values be all strings or all whole numbers")
        cedar, converter = _SCALARS[_KINDS[kind]]
        budget = Budget(total_bytes=_LIMITS.string_bytes, string_bytes=_LIMITS.string_bytes)
        try:
            for value in members:
                converter(place.where)(value, budget)
        except Refusal as error:
            raise _unmappable(place, schema, f"mend its values ({error.detail})") from error
        return _among(tuple(dict.fromkeys(members)), cedar, place), len(members) < len(values)


def _among(members: tuple[Any, ...], cedar: str, place: _Place) -> Shape:
    values = {member: member for member in members}
    return Shape(cedar, members, convert=scalars.choice(place.where, values, {type(members[0])}))


def _merged(shapes: Sequence[Shape], schema: object, place: _Place) -> Shape:
    """Return the one scalar that several alternatives amount to."""
    kinds = {shape.cedar for shape in shapes}
    if kinds == {"Long", "decimal"}:
        # A whole number is a number, and reads as one exactly.
        kinds = {"decimal"}
    if len(kinds) != 1 or any(shape.depth for shape in shapes):
        raise _unmappable(place, schema, "take one type, with null only for a whole argument or property")
    (kind,) = kinds
    wide = [shape for shape in shapes if shape.cedar == kind and not shape.members]
    if wide:
        return wide[0]
    return _among(tuple(dict.fromkeys(member for shape in shapes for member in shape.members)), kind, place)


def _no_text_for_null(where: str, convert: Convert) -> Convert:
    """Refuse the text of JSON's null where null may stand.

    The SDK's servers read such an argument as null before their function gets it, while a
    policy would see that the argument is there.
    """

    def strict(value: object, budget: Budget) -> CedarJson:
        if isinstance(value, str) and value.strip(_JSON_SPACE) == "null":
            raise refusal(where, "null itself, not its text", value)
        return convert(value, budget)

    return strict


def _can_be_named(name: object) -> bool:
    if not isinstance(name, str) or name in ESCAPES or len(name) > _LONGEST_NAME:
        return False
    # A lone surrogate has no place in Cedar's text.
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _printed(name: object) -> str:
    """Return a name from outside as a message can hold it: short, and on one line."""
    text = name[:_SHOWN] if isinstance(name, str) else type(name).__name__
    return text if text.isprintable() else ascii(text)


def _unmappable(place: _Place, schema: object, fix: str) -> UnmappableTypeError:
    kind = schema.get("type", next(iter(schema), "{}")) if isinstance(schema, dict) else schema
    # Never all of it: to write out what is nested without end recurses.
    shown = _printed("|".join(map(_printed, kind[:_SHOWN])) if isinstance(kind, list) else kind)
    message = f"`{place.where}` has JSON Schema `{shown}`, which Cedar cannot hold: {fix}"
    return UnmappableTypeError(message)
