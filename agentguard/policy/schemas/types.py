"""The types of a Cedar schema, read from its text.

Whoever has to know what a value should look like, and has no Python of the server, asks
here: which attributes an entity type has, which context an action. Names are resolved as
Cedar does it, common types are written out, and the annotations of ours that Cedar keeps
and does not read are read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from agentguard.limits import Limits
from agentguard.policy.conversion.plain import value_of
from agentguard.policy.conversion.shapes import is_total
from agentguard.policy.schemas.schematext import CEDAR, Name, SchemaReader, SetOf, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.policy.schemas.schematext import RecordOf, Written, WrittenMember

__all__ = ["ActionDecl", "CedarType", "EntityDecl", "Member", "SchemaTypes", "read_types", "value_of"]

SCALARS: Final = frozenset(("String", "Long", "Bool", "decimal", "datetime", "duration", "ipaddr"))
CHOSEN: Final = frozenset(("String", "Long", "Bool"))
"""Types whose values may be few: an annotation `@one_of` lists them."""

_NUMBERS: Final = frozenset(("Long", "decimal"))
_LIMITS: Final = Limits()
# Common types that name each other twice would be written out a million times.
_MOST_PARTS: Final = 1_000_000
# Cedar takes a second for so many steps from what is in something to all that it is in.
_MOST_STEPS: Final = 250_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a record: what it holds, and whether it is always there."""

    type: CedarType
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarType:
    """A type, with no name in it left to be looked up.

    Attributes:
        name: ``String``, ``Long``, ``Bool``, ``decimal``, ``datetime``, ``duration``, ``ipaddr``,
            ``Set``, ``Record``, or an entity type's full name.
        element: What a set holds.
        members: What a record holds, in order.
        one_of: The values that there are, as text, where they are few.
        spends: The total that a number of it adds to; empty for none.
        is_entity: Whether its values are entities.
    """

    name: str
    element: CedarType | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    spends: str = ""
    is_entity: bool = False

    def __str__(self) -> str:
        if self.element is not None:
            return f"Set<{self.element}>"
        return "a record" if self.name == "Record" else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityDecl:
    """An entity type.

    Attributes:
        name: Its full name.
        parents: The full names of the types that it may be in.
        attributes: The record of its attributes.
        tags: What its tags hold; None where it has none.
        ids: The only ids that there are, of an enumerated type.
        line: Where it is declared.
    """

    name: str
    parents: tuple[str, ...] = ()
    attributes: CedarType
    tags: CedarType | None = None
    ids: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDecl:
    """An action.

    Attributes:
        name: Its id.
        groups: The ids of the actions that it is in.
        principals: Who can ask for it; empty for a mere group.
        resources: What it can be done to; empty for a mere group.
        context: The record of its context; None for a mere group.
        annotations: What stands above it, by name.
        line: Where it is declared.
    """

    name: str
    groups: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    context: CedarType | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaTypes:
    """All that a schema declares, by name, in its order."""

    entities: Mapping[str, EntityDecl]
    actions: Mapping[str, ActionDecl]


def read_types(schema_text: str, limits: Limits = _LIMITS) -> SchemaTypes:
    """Return what a schema declares.

    It does not rely on Cedar having read the text before, nor does it check all that Cedar does.

    Args:
        schema_text: What passed `check_schema_bounds`.
        limits: ``policy_nesting`` bounds types with all that they name written out.

    Raises:
        LexError: At what is no schema, at a name that nothing declares, at what is declared
            twice, and where types that name each other are too large.
    """
    return _Resolver(SchemaReader(schema_text), limits).resolved()


class _Sized(NamedTuple):
    """A type with what it is written out to."""

    type: CedarType
    parts: int = 1
    depth: int = 0


class _Resolver:
    """Looks names up."""

    def __init__(self, reader: SchemaReader, limits: Limits) -> None:
        self._reader = reader
        self._limits = limits
        self._left = _MOST_PARTS
        self._known: dict[str, _Sized] = {}
        self._open: set[str] = set()
        self._depth = 0
        self._breaks = [found.start() for found in re.finditer("\n", reader.text)]

    def resolved(self) -> SchemaTypes:
        reader = self._reader
        # Cedar writes them out too where nothing names them.
        for name, written in reader.common.items():
            self._common(name, Name(name, "", written.offset))
        entities = {
            name: EntityDecl(
                name=name,
                parents=self._entities(one.parents),
                attributes=self._whole(one.attributes),
                tags=None if one.tags is None else self._whole(one.tags),
                ids=one.ids,
                line=self._line(one.offset),
            )
            for name, one in reader.entities.items()
        }
        actions = {
            name: ActionDecl(
                name=name,
                groups=one.groups,
                principals=self._entities(one.principals),
                resources=self._entities(one.resources),
                context=None if one.context is None else self._record(one.context, one.offset),
                annotations=one.annotations,
                line=self._line(one.offset),
            )
            for name, one in reader.actions.items()
        }
        for one in reader.actions.values():
            for group in one.groups:
                if group not in actions:
                    reader.refuse(one.offset, f"action {shown(one.name)} is in {shown(group)}, which is no action")
        self._bound_chains({name: one.parents for name, one in entities.items()})
        self._bound_chains({name: one.groups for name, one in actions.items()})
        return SchemaTypes(entities=entities, actions=actions)

    def _bound_chains(self, above: Mapping[str, tuple[str, ...]]) -> None:
        """Refuse what is in each other so often that Cedar, which writes out all of it, would take minutes."""
        steps = 0
        for name in above:
            seen = {name}
            pending = [name]
            while pending:
                parents = above[pending.pop()]
                steps += len(parents)
                if steps > _MOST_STEPS:
                    what = f"what is declared here is in other things more than {_MOST_STEPS} times: nest it less"
                    self._reader.refuse(0, what)
                pending += (parent for parent in parents if parent not in seen)
                seen.update(parents)

    def _entities(self, names: Iterable[Name]) -> tuple[str, ...]:
        found = []
        for name in names:
            known = [full for full in _meant(name) if full in self._reader.entities]
            if not known:
                self._reader.refuse(name.offset, f"there is no entity type `{name.path}`: declare it")
            found.append(known[0])
        return tuple(found)

    def _record(self, written: Written, offset: int) -> CedarType:
        found = self._whole(written)
        if found.name != "Record":
            self._reader.refuse(offset, f"a context is a record, got {found}: mend it")
        return found

    def _whole(self, written: Written) -> CedarType:
        found = self._type(written)
        self._left -= found.parts
        if self._left < 0:
            what = f"all types together are written out to at most {_MOST_PARTS} parts: name fewer in each other"
            self._reader.refuse(written.offset, what)
        return found.type

    def _type(self, written: Written) -> _Sized:
        self._depth += 1
        if self._depth > self._limits.policy_nesting:
            self._too_large(written.offset)
        found = self._named(written) if isinstance(written, Name) else self._made(written)
        self._depth -= 1
        if found.depth > self._limits.policy_nesting or found.parts > _MOST_PARTS:
            self._too_large(written.offset)
        return found

    def _too_large(self, offset: int) -> NoReturn:
        self._reader.refuse(offset, "this type is too large when all that it names is written out: split it")

    def _made(self, written: SetOf | RecordOf) -> _Sized:
        if isinstance(written, SetOf):
            inner = self._type(written.element)
            return _Sized(CedarType(name="Set", element=inner.type), inner.parts + 1, inner.depth + 1)
        members: dict[str, Member] = {}
        parts, depth = 1, 0
        for member in written.members:
            inner = self._type(member.type)
            type_ = self._among(member, inner.type) if member.one_of else inner.type
            if member.spends:
                type_ = self._spending(member, type_)
            members[member.name] = Member(type=type_, required=member.required)
            parts, depth = parts + inner.parts, max(depth, inner.depth)
        return _Sized(CedarType(name="Record", members=members), parts, depth + 1)

    def _among(self, member: WrittenMember, type_: CedarType) -> CedarType:
        """Return a type, or what its sets hold, with the values that there are."""
        if type_.element is not None:
            return replace(type_, element=self._among(member, type_.element))
        if type_.name not in CHOSEN:
            what = f"@one_of lists values of String, Long or Bool, and {shown(member.name)} is {type_}: remove it"
            self._reader.refuse(member.offset, what)
        return replace(type_, one_of=member.one_of)

    def _spending(self, member: WrittenMember, type_: CedarType) -> CedarType:
        """Return a type with the total that numbers of it add to."""
        if type_.name not in _NUMBERS or not is_total(member.spends):
            what = (
                f"@spends names a total, such as `payments`, for a Long or a decimal, got {shown(member.spends)} "
                f"for {shown(member.name)}, which is {type_}: remove it"
            )
            self._reader.refuse(member.offset, what)
        return replace(type_, spends=member.spends)

    def _named(self, name: Name) -> _Sized:
        if not name.path.startswith(CEDAR):
            for full in _meant(name):
                if full in self._reader.common:
                    return self._common(full, name)
                if full in self._reader.entities:
                    return _Sized(CedarType(name=full, is_entity=True))
        plain = name.path.removeprefix(CEDAR)
        if plain not in SCALARS:
            self._reader.refuse(name.offset, f"there is no type `{name.path}`: declare it")
        return _Sized(CedarType(name=plain))

    def _common(self, full: str, name: Name) -> _Sized:
        if full not in self._known:
            if full in self._open:
                self._reader.refuse(name.offset, f"`{full}` contains itself: take a type that does not")
            self._open.add(full)
            self._known[full] = self._type(self._reader.common[full])
            self._open.discard(full)
        return self._known[full]

    def _line(self, offset: int) -> int:
        return bisect_right(self._breaks, offset) + 1


def _meant(name: Name) -> tuple[str, ...]:
    """Return the full names that a name could have, the nearest first."""
    if name.namespace and "::" not in name.path:
        return f"{name.namespace}::{name.path}", name.path
    return (name.path,)
