"""What is known of every request for one tool, before there is any.

The schema says of which types principal, resource and context are, and the guard makes some of
their values itself. So much of a condition is settled for a tool, whatever it is called with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.analysis.proofs.constants import constant_of
from agentguard.model import EntityUid, Grade
from agentguard.policy.schemas.types import CedarType
from agentguard.policy.text.tree import Op

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.policy.schemas.types import Member, SchemaTypes
    from agentguard.policy.text.tree import Node

# What the guard alone fills in.
BOUNDS: Final[Mapping[tuple[str, ...], tuple[int, int]]] = {
    ("context", "local", "weekday"): (1, 7),
    ("context", "local", "minute"): (0, 24 * 60 - 1),
    # No token has room for more.
    ("principal", "delegation_depth"): (0, 2**31 - 1),
}
CHOICES: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    ("principal", "grade"): frozenset(Grade),
    ("context", "transport"): frozenset(("http", "stdio")),
}


@dataclass(frozen=True, slots=True)
class Environment:
    """One tool, with the types of all that a request for it holds."""

    tool: GuardedTool
    types: SchemaTypes
    _above: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    @property
    def resource_type(self) -> str:
        """The type of what it acts on."""
        return self.tool.resource_type or self.tool.itself.type

    def type_of(self, node: Node) -> CedarType | None:
        """Return the type of a variable, an attribute or a constant; None for what is not known."""
        names: list[str] = []
        while node.op is Op.ATTRIBUTE:
            names.append(str(node.value))
            (node,) = node.parts
        type_ = self._root(node)
        while type_ is not None and names:
            member = self.members(type_).get(names.pop())
            type_ = member.type if member is not None else None
        return type_

    def _root(self, node: Node) -> CedarType | None:
        if node.op is Op.VARIABLE:
            if node.value == "context":
                return self.types.actions[self.tool.name].context
            types = {"principal": "Invocation", "resource": self.resource_type}
            name = types.get(str(node.value), "Action")
            return CedarType(name=name, is_entity=True)
        constant = constant_of(node)
        if constant is None:
            return None
        if isinstance(constant.value, EntityUid):
            return CedarType(name=constant.value.type, is_entity=True)
        return CedarType(name=constant.kind)

    def members(self, type_: CedarType) -> Mapping[str, Member]:
        """Return what a record or an entity holds."""
        if not type_.is_entity:
            return type_.members
        declared = self.types.entities.get(type_.name)
        return {} if declared is None else declared.attributes.members

    def may_be_in(self, inner: str, outer: str) -> bool:
        """Whether an entity of one type can be, or be in, one of another."""
        return inner == outer or outer in self._ancestors(inner)

    def _ancestors(self, name: str) -> frozenset[str]:
        found = self._above.get(name)
        if found is None:
            seen: set[str] = set()
            pending = {name}
            while pending:
                declared = self.types.entities.get(pending.pop())
                parents = set(declared.parents if declared is not None else ()) - seen
                seen |= parents
                pending |= parents
            found = self._above[name] = frozenset(seen)
        return found

    def settled(self, atom: Node) -> bool | None:
        """Return what a condition without operators of truth is at every request; None if that differs."""
        match atom.op:
            case Op.IS:
                type_ = self.type_of(atom.parts[0])
                return type_.name == atom.value if type_ is not None and type_.is_entity else None
            case Op.HAS if isinstance(atom.value, tuple):
                return self._has(atom.parts[0], str(atom.value[0]))
            case Op.IN:
                return self._in(*atom.parts)
            case Op.EQUAL:
                return self._equal(*atom.parts)
            case Op.METHOD if atom.value == "hasTag":
                return self._has_tag(atom.parts[0])
        return None

    def _has_tag(self, of: Node) -> bool | None:
        type_ = self.type_of(of)
        declared = None if type_ is None else self.types.entities.get(type_.name)
        return False if declared is not None and declared.tags is None else None

    def _has(self, of: Node, name: str) -> bool | None:
        type_ = self.type_of(of)
        if type_ is None:
            return None
        member = self.members(type_).get(name)
        if member is None:
            return False
        return True if member.required else None

    def _equal(self, left: Node, right: Node) -> bool | None:
        types = [self.type_of(side) for side in (left, right)]
        names = [type_.name for type_ in types if type_ is not None and type_.is_entity]
        if len(names) > 1 and names[0] != names[1]:
            return False
        known = [self.made(side) for side in (left, right)]
        return None if None in known else known[0] == known[1]

    def _in(self, left: Node, right: Node) -> bool | None:
        inner = self.type_of(left)
        outer = right.parts if right.op is Op.SET else (right,)
        if inner is None or not inner.is_entity:
            return None
        answers = [self._in_one(left, inner.name, one) for one in outer]
        if True in answers:
            return True
        return None if None in answers else False

    def _in_one(self, left: Node, inner: str, right: Node) -> bool | None:
        uid, itself = self.made(right), self.made(left)
        if inner == "Action":
            if uid is None or itself != EntityUid("Action", self.tool.name):
                # Of another action, written out, nothing is known but its name.
                return True if uid is not None and uid == itself else None
            return uid.id in {self.tool.name, *self.tool.groups}
        outer = self.type_of(right)
        if outer is not None and outer.is_entity and not self.may_be_in(inner, outer.name):
            return False
        if uid is None or itself != self.tool.itself:
            return True if uid is not None and uid == itself else None
        # The guard makes it, in the server and in nothing else.
        return uid == itself or uid == EntityUid("Server", self.tool.server)

    def made(self, node: Node) -> EntityUid | None:
        """Return the entity that an expression is at every request; None if that differs."""
        if node.op is Op.ENTITY and isinstance(node.value, EntityUid):
            return node.value
        if node.op is Op.VARIABLE and node.value == "action":
            return EntityUid("Action", self.tool.name)
        if node.op is Op.VARIABLE and node.value == "resource" and self.tool.resource_type is None:
            return self.tool.itself
        return None
