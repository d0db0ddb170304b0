"""Policies without what their heads demand of the action, so that one question serves all actions.

A server lists hundreds of tools, and most policies look at nothing but the principal and
the arguments. Asked about an action that is not known, Cedar could settle none that names
one in its head. So that demand is taken off here, and kept beside the text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import cedarpy

from agentguard.policy.deciding.kept import Kept
from agentguard.policy.text.lexer import Kind, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.model import Invocation
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.text.lexer import Statement, Token

# What is kept, over all invocations of a version. Parsed policies weigh 5 KB each; the rest
# of a sketch counts as some more of them, and a grant as its 4 KiB of text.
_KEPT_POLICIES: Final = 10_000
_SKETCH_POLICIES: Final = 10
_KEPT_GRANTS: Final = 1_000
# Names of actions, over all answers: 64 bytes each.
_KEPT_NAMES: Final = 100_000

_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
# What a condition has to name to look at the action, or at what it acts on: a variable, or
# one of the entities that the guard makes for each action.
_OF_ACTION: Final = frozenset(("action", "Action"))
_OF_RESOURCE: Final = frozenset(("resource", "Tool", "Resource", "Prompt", "Server"))


Key = tuple[bool, str] | None
"""An action's id, and whether to be in it is enough; None where any action will do."""


@dataclass(frozen=True, slots=True)
class Part:
    """One policy of a sketch.

    Attributes:
        text: The policy without its annotations, and without what its head demands of the action.
        permit: Whether it permits.
        actions: The ids of which the action has to be one, or be in one; None for any.
        groups: Whether to be in one of them is enough.
        sees_principal: Whether it may look at the principal, or at an entity that depends on it.
        sees_action: Whether the rest of it may look at the action.
        sees_resource: Whether it may look at what is acted on.
    """

    text: str
    permit: bool
    actions: frozenset[str] | None
    groups: bool
    sees_principal: bool
    sees_action: bool
    sees_resource: bool

    @property
    def looks_closer(self) -> bool:
        """Whether it can say something else of one action than of another that its head lets pass."""
        return self.sees_action or self.sees_resource

    @property
    def keys(self) -> tuple[Key, ...]:
        """What an action has to have one of, for the head to let it pass; see `keys_of`."""
        if self.actions is None:
            return (None,)
        return tuple((self.groups, id_) for id_ in self.actions)


def keys_of(action: str, groups: Iterable[str]) -> tuple[Key, ...]:
    """Return what heads that let an action pass can ask for.

    Args:
        action: The action's id.
        groups: The ids of the groups that it is in.
    """
    # Each entity is in itself, and equal to itself alone.
    return (None, (False, action), (True, action), *((True, group) for group in groups))


class Settled(NamedTuple):
    """Which policies of a sketch hold whatever is still unknown, and which may hold; by their places."""

    holds: tuple[int, ...]
    may_hold: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A few policies, each without what its head demands of the action.

    Attributes:
        parts: The policies.
        same: What is settled for every principal alike; None if nothing could be.
        others: The places of the policies that have to be asked about each principal.
        closer: Of the policies that may look at the action, or at what it acts on, the places
            by their keys.
        kept: Some of the policies, parsed, by their places.
    """

    parts: tuple[Part, ...]
    same: Settled | None
    others: tuple[int, ...]
    closer: Mapping[Key, tuple[int, ...]]
    kept: dict[tuple[int, ...], cedarpy.PolicySet] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Sketch:
        """Parse *parts*, and settle what needs no principal."""
        every = tuple(parts)
        same = tuple(place for place, part in enumerate(every) if not part.sees_principal)
        others = tuple(place for place, part in enumerate(every) if part.sees_principal)
        closer: dict[Key, tuple[int, ...]] = {}
        for place, part in enumerate(every):
            if part.looks_closer:
                closer |= {key: (*closer.get(key, ()), place) for key in part.keys}
        settled = _ask({}, _parsed(every, same), cedarpy.Entities.from_json_str("[]"), same)
        return cls(every, settled, others, closer)

    def ask(
        self, request: dict[str, str], around: cedarpy.Entities, places: tuple[int, ...] | None = None
    ) -> Settled | None:
        """Ask some of the policies, `others` if nothing else is said; None if Cedar did not take the question.

        Args:
            request: What is known of principal, action and resource, as Cedar writes them.
            around: What is known of entities.
            places: The places of those to ask.
        """
        places = self.others if places is None else places
        if (handle := self.kept.get(places)) is None:
            handle = self.kept[places] = _parsed(self.parts, places)
        return _ask(request, handle, around, places)


def _parsed(parts: Sequence[Part], places: Iterable[int]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str("\n".join(parts[place].text for place in places))


def _ask(
    request: dict[str, str], handle: cedarpy.PolicySet, around: cedarpy.Entities, places: Sequence[int]
) -> Settled | None:
    asked = cedarpy.is_authorized_partial(request, handle, around)
    holds, may_hold = asked.diagnostics.reasons, asked.diagnostics.nontrivial_residuals
    if asked.decision is cedarpy.Decision.NoDecision and not may_hold:
        return None
    # Cedar numbers the policies of a text in order, `policy0` is the first, and names them in any order.
    return Settled(*(tuple(sorted(places[int(id_[6:])] for id_ in ids)) for ids in (holds, may_hold)))


def sketch_of(text: str) -> Sketch:
    """Return the policies of *text*, which Cedar parsed before."""
    return Sketch.of(map(part_of, statements(text)))


def part_of(statement: Statement, action: Mapping[str, object] | None = None) -> Part:
    """Return one policy, which Cedar parsed before.

    Args:
        statement: The policy.
        action: What its head demands of the action, as Cedar's JSON, if that is known.
    """
    tokens = statement.tokens
    start = 0
    while tokens[start].text == "@":
        start += 5 if tokens[start + 2].text == "(" else 2
    commas, end = _commas(tokens, start)

    def text(first: int, last: int | None = None) -> str:
        """Return what stands from one token up to another, or to the policy's end."""
        stop = None if last is None else tokens[last].offset - statement.offset
        return statement.text[tokens[first].offset - statement.offset : stop]

    names = {token.text for token in tokens[end:] if token.kind is Kind.NAME}
    # An entity that a condition names may be there for one principal and not for another.
    by_name = any(token.text == "::" for token in tokens[end:])
    part = Part(
        text=text(start),
        permit=tokens[start].text == "permit",
        actions=None,
        groups=False,
        sees_principal=commas[0] != start + 3 or by_name or "principal" in names,
        sees_action=True,
        sees_resource=end != commas[1] + 2 or not names.isdisjoint(_OF_RESOURCE),
    )
    if action is None:
        head = json.loads(cedarpy.policies_to_json_str(f"{text(start, end)});"))
        action = head["staticPolicies"]["policy0"]["action"]
    if (demand := _demand(action)) is None:
        # What is not understood stays where it is: taken off, a forbid would hit more than it says.
        return part
    return replace(
        part,
        text=f"{text(start, commas[0])}, action{text(commas[1])}",
        actions=demand[0],
        groups=demand[1],
        sees_action=not names.isdisjoint(_OF_ACTION),
    )


def _commas(tokens: Sequence[Token], start: int) -> tuple[list[int], int]:
    """Return where the commas between principal, action and resource stand, and the head's closing bracket."""
    commas: list[int] = []
    depth = 0
    at = start
    while True:
        at += 1
        text = tokens[at].text
        depth += (text in _OPENING) - (text in _CLOSING)
        if depth == 0:
            return commas, at
        if depth == 1 and text == ",":
            commas.append(at)


def _demand(constraint: Mapping[str, object]) -> tuple[frozenset[str] | None, bool] | None:
    """Return the ids of a head's actions, and whether to be in one is enough; None for what is not recognised."""
    match constraint:
        case {"op": "All"}:
            return None, False
        case {"op": "==" | "in" as op, "entity": {"type": "Action", "id": str(id_)}}:
            return frozenset((id_,)), op == "in"
        case {"op": "in", "entities": [*uids]}:
            ids = [uid["id"] for uid in uids if isinstance(uid, dict) and uid.get("type") == "Action"]
            return (frozenset(ids), True) if len(ids) == len(uids) else None
    return None


class Sketches:
    """The policies of one version as sketches, and what was found with them.

    Attributes:
        answers: For an invocation, the actions that it might be allowed.
    """

    def __init__(self, policies: Iterable[tuple[Uid | None, Part]]) -> None:
        """Take the policies in their order, each with the principal that its head demands."""
        self._parts: list[Part] = []
        self._by_principal: dict[Uid | None, list[int]] = {}
        for place, (principal, part) in enumerate(policies):
            self._parts.append(part)
            self._by_principal.setdefault(principal, []).append(place)
        self._organisation: Kept[frozenset[Uid], Sketch] = Kept(_KEPT_POLICIES)
        self._grants: Kept[str, Sketch] = Kept(_KEPT_GRANTS)
        self.answers: Kept[Invocation, frozenset[str]] = Kept(_KEPT_NAMES)

    def organisation(self, closure: frozenset[Uid]) -> Sketch:
        """Return the policies that a principal within *closure* could be decided by."""
        named = closure.intersection(self._by_principal)
        found = self._organisation.get(named)
        if found is None:
            places = sorted(place for uid in (None, *named) for place in self._by_principal.get(uid, ()))
            found = Sketch.of(self._parts[place] for place in places)
            self._organisation.put(named, found, _SKETCH_POLICIES + len(places))
        return found

    def grant(self, text: str) -> Sketch:
        """Return a grant's policies; runs with the same one share them."""
        return self._grants.get(text) or self._grants.put(text, sketch_of(text))
