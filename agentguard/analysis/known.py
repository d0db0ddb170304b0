"""What a request says at each path of a policy: `context.input.max_rows`, `principal.user.team`.

A path leads through records and through entities, as Cedar follows it. What is not on record
is not known, and is not the same as what is not there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.analysis.notation import entity_text, written
from agentguard.policy.deciding.reach import ancestors, parents_of, uid_of
from agentguard.request import principal_entities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.deciding.reach import Uid


class _Nothing:
    """What stands for a value that is none."""

    __slots__ = ("_word",)

    def __init__(self, word: str) -> None:
        self._word = word

    def __repr__(self) -> str:
        return self._word


ABSENT: Final = _Nothing("absent")
"""There is nothing at the path."""

UNKNOWN: Final = _Nothing("unknown")
"""What is at the path is not on record."""

ANCESTORS: Final = "ancestors"
RESOURCE: Final = "resource"
"""Words for what no path names and may be unknown too: who delegated, and what was acted on."""


class Holder(NamedTuple):
    """Where a value stands: in the context, the principal or the resource, or an entity.

    Attributes:
        entity: The entity; None for the context.
        names: The way from there.
    """

    entity: Uid | None
    names: tuple[str, ...]


class Known:
    """What a request says, as one link of its chain sees it.

    Attributes:
        request: The request.
        depth: The place of the link.
        principal: The entity of its run.
    """

    def __init__(
        self, request: AccessRequest, policies: PolicySet, depth: int, unknown: frozenset[str] = frozenset()
    ) -> None:
        self.request = request
        self.depth = depth
        self._policies = policies
        self._unknown = unknown
        (principal,) = principal_entities(request.invocation.chain[depth])
        self.principal = uid_of(principal["uid"])
        self._entities: dict[Uid, Mapping[str, object]] = {uid_of(entity["uid"]): entity for entity in request.entities}
        self._entities[self.principal] = principal

    def value(self, path: Sequence[str]) -> object:
        """Return Cedar JSON, `ABSENT` or `UNKNOWN`; a variable alone is the entity that it stands for."""
        return self._follow(path)[0]

    def holder(self, path: Sequence[str]) -> Holder | None:
        """Return where the value of a path stands, whether or not there is one; None if nothing leads there."""
        return self._follow(path)[1]

    def text(self, path: Sequence[str], *, within: bool = False) -> str:
        """Return the value of a path in Cedar's notation.

        Args:
            path: The path.
            within: Whether to say, of an entity, what it is in.
        """
        value = self.value(path)
        if isinstance(value, _Nothing):
            return repr(value)
        if not within or (uid := entity_of(value)) is None:
            return written(value)
        above = [entity_text(*one) for one in sorted(self.above(uid) - {uid})]
        if not self.is_whole(uid):
            above.append("what is unknown")
        # A run's own name says nothing to anybody.
        name = "" if uid == self.principal else f"{written(value)} "
        return f"{name}in {', '.join(above) or 'nothing'}"

    def above(self, uid: Uid) -> frozenset[Uid]:
        """Return an entity and everything that it is in."""
        given = {known: parents_of(entity) for known, entity in self._entities.items()}
        return ancestors((uid,), given, self._policies.known.parents)

    def is_given(self, uid: Uid) -> bool:
        """Return whether the request itself brings an entity."""
        return uid in self._entities

    def is_whole(self, uid: Uid) -> bool:
        """Return whether everything that an entity is in is known."""
        return not any(self._is_hidden(one) for one in self.above(uid))

    def _is_hidden(self, uid: Uid) -> bool:
        """Return whether a loader was asked for an entity, and what it said is not on record."""
        return f"{uid[0]}.*" in self._unknown and uid not in self._policies.known.text

    def _follow(self, path: Sequence[str]) -> tuple[object, Holder | None]:
        first, *names = path
        delegated = self.depth < len(self.request.invocation.ancestors)
        if self._is_unknown(path) or (first == "principal" and delegated and ANCESTORS in self._unknown):
            return UNKNOWN, None
        value: object = self._variable(first)
        holder = Holder(None, ())
        for at, name in enumerate(names, 1):
            if (uid := entity_of(value)) is not None:
                if self._is_hidden(uid):
                    return UNKNOWN, None
                value, holder = self._attributes(uid), Holder(uid, ())
            if not isinstance(value, dict) or "__extn" in value:
                return ABSENT, None
            value, holder = value.get(name, ABSENT), Holder(holder.entity, (*holder.names, name))
            if value is ABSENT:
                return ABSENT, holder if at == len(names) else None
        return value, holder

    def _variable(self, name: str) -> object:
        if name == "context":
            return dict(self.request.of_link(self.depth))
        if name == "principal":
            type_, id_ = self.principal
        elif name == "resource":
            type_, id_ = self.request.resource.type, self.request.resource.id
        else:
            type_, id_ = "Action", self.request.action
        return {"__entity": {"type": type_, "id": id_}}

    def _attributes(self, uid: Uid) -> dict[str, object]:
        entity = self._entities.get(uid)
        if entity is None:
            known = self._policies.known.text.get(uid)
            entity = {} if known is None else json.loads(known)
        attributes = entity.get("attrs", {})
        return dict(attributes) if isinstance(attributes, dict) else {}

    def _is_unknown(self, path: Sequence[str]) -> bool:
        """Return whether a path is among what is unknown, leads to it, or lies below it."""
        if not self._unknown:
            return False
        asked = ".".join(path)
        return any(
            asked == one or asked.startswith(f"{one}.") or (len(path) > 1 and one.startswith(f"{asked}."))
            for one in self._unknown
        )


def entity_of(value: object) -> Uid | None:
    """Return the entity that a value refers to, if it does."""
    if isinstance(value, dict) and "__entity" in value:
        return uid_of(value["__entity"])
    return None
