"""What a condition looks at: which parts of a request, and whose attributes and parents.

Whoever knows only a part of a request has to know which conditions it settles. So this
errs on one side: it may name what makes no difference, and never leaves out what does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.policy.schemas.types import CedarType
from agentguard.policy.text.arithmetic import CALCULATES, fits_always, number_of
from agentguard.policy.text.tree import Node, Op

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.policy.schemas.types import ActionDecl, SchemaTypes

Path = tuple[str, ...]
"""Names from a variable on, or `ENTITIES` and a type."""

ENTITIES: Final = "entities"
"""What stands before an entity type: the attributes, tags and parents of its entities. Alone, those of any type."""

ITSELF: Final = "itself"
"""Below ``principal``: which entity it is, whatever it is in and has."""

PRINCIPAL: Final = "Invocation"
_ACTION: Final = "Action"
_SOUND_METHODS: Final = frozenset(
    (
        "contains", "containsAll", "containsAny", "isEmpty", "hasTag",
        "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
        "isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
        "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays", "toTime",
    )
)  # fmt: skip
_TAGS: Final = frozenset(("getTag", "hasTag"))


class Look(NamedTuple):
    """One thing that is looked at.

    Attributes:
        path: Where, ``("context", "input", "max_rows")``.
        presence: Whether all that counts is if it is there.
    """

    path: Path
    presence: bool = False

    def touches(self, unknown: Path) -> bool:
        """Return whether what lies at, or below, an unknown path could make a difference here."""
        if len(unknown) <= len(self.path):
            return self.path[: len(unknown)] == unknown
        return not self.presence and unknown[: len(self.path)] == self.path


@dataclass(frozen=True, slots=True)
class Looks:
    """What a condition looks at, and whether it may fail for some values."""

    at: frozenset[Look]
    may_err: bool

    def touched(self, unknown: frozenset[Path]) -> frozenset[Path]:
        """Return which of several unknown paths could make a difference."""
        return frozenset(path for path in unknown if any(look.touches(path) for look in self.at))


class Looking:
    """Reads conditions on one action."""

    def __init__(self, types: SchemaTypes, action: ActionDecl, resource_type: str) -> None:
        self._types = types
        self._variables = {
            "principal": CedarType(name=PRINCIPAL, is_entity=True),
            "action": CedarType(name=_ACTION, is_entity=True),
            "resource": CedarType(name=resource_type, is_entity=True),
            "context": action.context or CedarType(name="Record"),
        }

    def of(self, node: Node) -> Looks:
        """Return what an expression looks at."""
        found: set[Look] = set()
        may_err = False
        pending = [node]
        while pending:
            node = pending.pop()
            if node.op in CALCULATES and number_of(node) is not None:
                continue
            may_err |= _may_err(node)
            if node.op in {Op.VARIABLE, Op.ATTRIBUTE, Op.HAS}:
                base = self._follow(node, found)
                pending += [] if base is None else [base]
                continue
            if node.op is Op.IS and len(node.parts) == 1:
                # An entity is of one type, whoever it is: of a variable that is known.
                pending += () if node.parts[0].op is Op.VARIABLE else node.parts
                continue
            if node.op in {Op.IN, Op.IS}:
                found.update(self._above(node.parts[0]))
                if _is_in_others(node):
                    found.add(Look(("principal",), presence=True))
                    continue
            elif node.op is Op.METHOD and node.value in _TAGS:
                found.update(self._inside(self._type(node.parts[0])))
            pending += node.parts
        return Looks(frozenset(found), may_err)

    def _follow(self, node: Node, found: set[Look]) -> Node | None:
        """Take a chain of members: add what it looks at, and return what it begins with if that is no variable."""
        names: list[str] = []
        presence = node.op is Op.HAS
        if isinstance(node.value, tuple):
            names += [str(name) for name in reversed(node.value)]
            (node,) = node.parts
        while node.op is Op.ATTRIBUTE:
            names.append(str(node.value))
            (node,) = node.parts
        type_ = self._type(node)
        path = [str(node.value)] if node.op is Op.VARIABLE else None
        if path in (["action"], ["principal"], ["resource"]):
            # Of one that is unknown nothing is known; whatever else it has is told by its path.
            found.update(_uid(path[0], alone=not names))
        for name in reversed(names):
            if type_ is None or (type_.is_entity and path != ["principal"]):
                # Past here it is what the entity has: who it is was looked at on the way.
                if path is not None:
                    _add(path, found, presence=False)
                found.update(self._inside(type_))
                path = None
            type_ = self._member(type_, name)
            if path is not None:
                path.append(name)
        if path is not None:
            _add(path, found, presence=presence)
        return None if node.op is Op.VARIABLE else node

    def _type(self, node: Node) -> CedarType | None:
        """Return what an expression is, as far as that can be told without its values."""
        names: list[str] = []
        while node.op is Op.ATTRIBUTE:
            names.append(str(node.value))
            (node,) = node.parts
        type_: CedarType | None = None
        if node.op is Op.VARIABLE:
            type_ = self._variables[str(node.value)]
        elif node.op is Op.ENTITY:
            type_ = CedarType(name=str(getattr(node.value, "type", "")), is_entity=True)
        for name in reversed(names):
            type_ = self._member(type_, name)
        return type_

    def _member(self, type_: CedarType | None, name: str) -> CedarType | None:
        if type_ is None:
            return None
        if type_.is_entity:
            declared = self._types.entities.get(type_.name)
            type_ = None if declared is None else declared.attributes
        member = None if type_ is None else type_.members.get(name)
        return None if member is None else member.type

    def _above(self, node: Node) -> Iterator[Look]:
        """Yield the looks of whoever asks what an entity is in."""
        type_ = self._type(node)
        # A run that is named is not known to be the one that calls.
        if type_ is None or not type_.is_entity or (type_.name == PRINCIPAL and node.op is not Op.VARIABLE):
            yield Look((ENTITIES,))
            return
        seen: set[str] = set()
        pending = [type_.name]
        while pending:
            name = pending.pop()
            if name in seen or name == _ACTION:
                continue
            seen.add(name)
            declared = self._types.entities.get(name)
            pending += () if declared is None else declared.parents
            if name != PRINCIPAL:
                yield Look((ENTITIES, name))

    @staticmethod
    def _inside(type_: CedarType | None) -> Iterator[Look]:
        """Yield the look of whoever asks what an entity has, other than the principal."""
        if type_ is None or not type_.is_entity or type_.name == PRINCIPAL:
            yield Look((ENTITIES,))
        else:
            yield Look((ENTITIES, type_.name))


def _uid(variable: str, *, alone: bool) -> Iterator[Look]:
    if variable == "principal":
        yield Look(("principal", ITSELF)) if alone else Look(("principal",), presence=True)
    elif variable == "resource":
        yield Look(("resource",))


def _add(path: list[str], found: set[Look], *, presence: bool) -> None:
    if path not in (["action"], ["principal"], ["resource"]):
        found.add(Look(tuple(path), presence))


def _is_in_others(node: Node) -> bool:
    """Return whether it asks if the principal is in entities that are named, and that it cannot be itself."""
    left, right = node.parts
    named = right.parts if right.op is Op.SET else (right,)
    return (
        left.op is Op.VARIABLE
        and left.value == "principal"
        and all(one.op is Op.ENTITY and getattr(one.value, "type", PRINCIPAL) != PRINCIPAL for one in named)
    )


def _may_err(node: Node) -> bool:
    if node.op in CALCULATES:
        # Such as a sum that is too large.
        return True
    if node.op is Op.METHOD:
        return node.value not in _SOUND_METHODS and not fits_always(node)
    # A constant was tried when the policy was loaded.
    return node.op is Op.CALL and any(part.op is not Op.LITERAL for part in node.parts)
