"""Everything that decides, compiled once for each version and each invocation.

Parsing is the dear part of asking Cedar, and what is parsed grows with the folder. So
policies are parsed in slices, entities once for each invocation, and schemas once for
each action: a call then costs the same with ten policies and with ten thousand.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import EntityUid, Reason
from agentguard.policy.conversion.values import record_of
from agentguard.policy.deciding.kept import Kept
from agentguard.policy.deciding.reach import KnownEntities, Uid, ancestors, json_text, parents_of, resolve, uid_of
from agentguard.policy.deciding.sketch import Sketches, part_of
from agentguard.policy.deciding.slicing import PolicyIndex, Scope
from agentguard.policy.deciding.unseen import asked_unseen
from agentguard.policy.grants import check_grant
from agentguard.policy.schemas.schema import GuardedTool, totals_of
from agentguard.policy.text.lexer import statements, tokens
from agentguard.policy.text.literals import literals
from agentguard.request import principal_entities, principal_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.limits import Limits
    from agentguard.model import Decision, Invocation
    from agentguard.policy.deciding.sketch import Part
    from agentguard.policy.schemas.schema import SchemaTexts
    from agentguard.policy.text.literals import Literal

# What is kept, over all invocations of a version; a call that finds nothing compiles its own
# part again. Invocations come and go by the thousand, and each brings its own.
#
# Pairs of an invocation and an action: 20 KB each, so 20 MB, and one is prepared in 0.2 ms.
_KEPT_LINKS: Final = 1_000
# Grants: at most 160 KB each.
_KEPT_GRANTS: Final = 1_000
# Parsed policies, over all slices: 5 KB each, and a copy beside a grant 1 KB. The rest of a
# slice counts as some more of them.
_KEPT_POLICIES: Final = 50_000
_SLICE_POLICIES: Final = 10

# Schemas by their text: 100 KB each or more. Policies change more often than the tools that they
# are compiled for, and a schema is the dear part of that.
_KEPT_SCHEMAS: Final = 128

_NUMBERED: Final = re.compile(r"^for policy `policy[0-9]+`, ")
_NO_ACTION: Final = re.compile(r'unrecognized action `Action::"(?P<action>[^`"]*)"`')


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy of the organisation.

    Attributes:
        id: Its ``@id``.
        text: Its text, annotations included.
        scope: What its head demands of principal and action.
        part: The same policy, as it is asked about for all actions at once.
        literals: The entities that it names.
        advice: Its ``@advice``: what it says to a caller that it stops.
        approval: Whether it has ``@obligation("approval")``: a person can lift it.
        prompt: Its ``@approval_prompt``: what it says to that person.
        scopes: Its ``@scopes``: what it looks for in a token.
        owner: Its ``@owner``: who answers for it.
        file: The file that it stands in, relative to the folder.
        line: Its first line there.
        column: Where in that line it begins.
    """

    id: str
    text: str
    scope: Scope
    part: Part
    literals: tuple[Literal, ...] = ()
    advice: str | None = None
    approval: bool = False
    prompt: str | None = None
    scopes: frozenset[str] = frozenset()
    owner: str | None = None
    file: str = ""
    line: int = 0
    column: int = 1


@dataclass(frozen=True, slots=True)
class Action:
    """What all requests for one action share."""

    tool: GuardedTool
    uid: dict[str, str]
    schema: cedarpy.Schema
    # The server, and the tool, resource or prompt in it, which the guard makes.
    entities: tuple[dict[str, object], ...]
    # Known entities that it could act on, as they are when it does: in the tool, or what else it is.
    resources: Mapping[Uid, str]


@dataclass(frozen=True, slots=True)
class Slice:
    """A few policies, parsed.

    Attributes:
        handle: The policies.
        names: The organisation's ids by Cedar's positional ones. The ids that are not
            among them are a grant's.
        granted: Whether a grant is among the policies, and so must permit too.
        answers: Decisions by what Cedar answered.
    """

    handle: cedarpy.PolicySet
    names: Mapping[str, str]
    granted: bool = False
    answers: dict[tuple[object, ...], Decision] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant that was found valid."""

    text: str
    handle: cedarpy.PolicySet


@dataclass(slots=True)
class Link:
    """One link of a chain of delegation, ready for one action.

    Attributes:
        base: The principal with all that it reaches, the action, the tool, the server.
        present: What *base* holds, and what needs no presence.
        unresolved: What the principal reaches and only the request can bring.
        closure: The principal and what it is in, without what the request brings.
    """

    principal: dict[str, str]
    grant: Grant | None
    base: cedarpy.Entities
    present: set[Uid]
    unresolved: set[Uid]
    closure: frozenset[Uid]
    never: tuple[Decision | None] | None = None


class PolicySet:
    """One version of everything that decides, compiled.

    Built by `agentguard.policy.files.source.compile_policies` alone.

    Attributes:
        version: ``sha256:`` over everything that decides.
        label: What people call this version, if anything.
        activated_at: Since when it is in force, unix seconds; the guard sets it.
        policies: The organisation's policies by id.
        static_uids: The entities of ``cedarentities.json``.
        known: What these hold, ready to be looked up.
        plain: For each entity type, the attributes that can refer to nothing.
        limits: The bounds that requests must stay under.
        actions: All that can be asked for, by name.
        anything: An action of which nothing is known.
        sketches: The policies, to be asked about all actions at once.
    """

    def __init__(
        self,
        *,
        version: str,
        policies: Sequence[Policy],
        tools: Sequence[GuardedTool],
        schema: SchemaTexts,
        plain: Mapping[str, frozenset[str]],
        entities: Sequence[Mapping[str, object]],
        limits: Limits,
        label: str | None = None,
    ) -> None:
        self.version = version
        self.label = label
        self.activated_at: int | None = None
        self.policies: Mapping[str, Policy] = {policy.id: policy for policy in policies}
        self.static_uids = frozenset(EntityUid(*uid_of(entity["uid"])) for entity in entities)
        self.limits = limits
        self._schema = schema_of_text(schema.full)
        self.plain = plain
        self.known = KnownEntities(entities, self.plain)
        # Types whose entities have attributes, tags or parents: one that is missing
        # would change an answer.
        self._solid = frozenset(name for name, entity in schema.entities.items() if not entity.bare)
        self._asked = frozenset(
            (literal.uid.type, literal.uid.id) for policy in policies for literal in policy.literals if literal.asked
        )
        self._index = PolicyIndex({policy.id: policy.scope for policy in policies})
        self.actions = {tool.name: _action(tool, schema, entities) for tool in tools}
        self.totals = totals_of(tools)
        self._hiding = [tool for tool in tools if tool.unseen]
        self._principals = frozenset((uid.type, uid.id) for uid in self._index.principals)
        self._links: Kept[tuple[Invocation, str | None], Link] = Kept(_KEPT_LINKS)
        self._grants: Kept[str, Grant | str] = Kept(_KEPT_GRANTS)
        self._slices: Kept[tuple[str, frozenset[Uid]], Slice] = Kept(_KEPT_POLICIES)
        self._granted: Kept[tuple[str, frozenset[Uid], str], Slice] = Kept(_KEPT_POLICIES)
        self.anything = _anything(schema, self.actions.values())
        self.sketches = Sketches(
            (None if (uid := policy.scope.principal) is None else (uid.type, uid.id), policy.part)
            for policy in self.policies.values()
        )

    def action(self, name: str) -> Action:
        """Return what is known of an action.

        Raises:
            Refusal: UNGUARDED, if there is no such action.
        """
        action = self.actions.get(name)
        if action is None:
            raise Refusal(Reason.UNGUARDED, f"nothing of the action `{name}` is guarded by these policies")
        return action

    def knows(self, tool: GuardedTool) -> bool:
        """Return whether they were compiled for *tool* as it is."""
        action = self.actions.get(tool.name)
        return action is not None and action.tool is tool

    def link(self, invocation: Invocation, action: Action, *, supposing: frozenset[str] | None = None) -> Link:
        """Return *invocation* ready for *action*, from the cache if it was there before.

        Args:
            invocation: One link of a chain.
            action: What is asked for.
            supposing: The scopes that its token is supposed to have; then nothing is kept.

        Raises:
            Refusal: GRANT, if its grant is not valid here.
        """
        if supposing is not None:
            return self._prepare(invocation, action, scopes=supposing)
        # An invocation is itself and equal to no other, so that none can be taken for it.
        key = (invocation, None if action is self.anything else action.tool.name)
        return self._links.get(key) or self._links.put(key, self._prepare(invocation, action))

    def _prepare(self, invocation: Invocation, action: Action, *, scopes: frozenset[str] | None = None) -> Link:
        grant = None if invocation.grant is None else self._grant(invocation.grant)
        own = KnownEntities((*principal_entities(invocation, scopes=scopes), *action.entities), self.plain)
        start = self._asked.union(*own.refers_to.values())
        # What the call may act on is left to the call: there it is in the tool.
        later = action.resources
        used, absent = resolve(start, self.known, own.refers_to, later)
        reached = start.union(*(self.known.refers_to[uid] for uid in used))
        principal = principal_uid(invocation)
        uid = (principal.type, principal.id)
        delta = [*own.text.values(), *(self.known.text[known] for known in used)]
        try:
            base = cedarpy.Entities.from_json_str(f"[{','.join(delta)}]", action.schema)
        except ValueError as error:
            # A mapped claim of another type than was declared, for one.
            raise Refusal(
                Reason.INTERNAL_ERROR, f"the invocation does not fit the schema: {str(error).partition('`')[0]}"
            ) from None
        return Link(
            principal=principal.as_json(),
            grant=grant,
            base=base,
            present=own.refers_to.keys() | used,
            unresolved={missing for missing in absent if missing[0] in self._solid} | (reached & later.keys()),
            closure=ancestors((uid,), own.parents, self.known.parents),
        )

    def slice(self, link: Link, action: Action, closure: frozenset[Uid]) -> Slice:
        """Return the policies that *link* could be decided by, its grant included."""
        named = closure & self._principals
        if link.grant is None:
            return self._organisation(action, named)
        # Runs with the same grant share what was parsed for it.
        key = (action.tool.name, named, link.grant.text)
        found = self._granted.get(key)
        if found is None:
            found = _with_grant(self._organisation(action, named), link.grant)
            self._granted.put(key, found, _SLICE_POLICIES + len(found.handle))
        return found

    def organisation(self, action: Action, closure: frozenset[Uid]) -> Slice:
        """Return the organisation's policies that a principal within *closure* could be decided by."""
        return self._organisation(action, closure & self._principals)

    def _organisation(self, action: Action, named: frozenset[Uid]) -> Slice:
        key = (action.tool.name, named)
        found = self._slices.get(key)
        if found is None:
            uids = frozenset(EntityUid(*uid) for uid in named)
            ids = self._index.select(action.tool.name, action.tool.groups, uids)
            handle = cedarpy.PolicySet.from_str("\n".join(self.policies[id_].text for id_ in ids))
            # Cedar numbers the policies of a text in order.
            found = Slice(handle, {f"policy{place}": id_ for place, id_ in enumerate(ids)})
            self._slices.put(key, found, _SLICE_POLICIES + len(ids))
        return found

    def _grant(self, text: str) -> Grant:
        """Return a grant that is valid on this server.

        Raises:
            Refusal: GRANT, if it is not.
        """
        found = self._grants.get(text) or self._grants.put(text, self._checked_grant(text))
        if isinstance(found, str):
            raise Refusal(Reason.GRANT, found)
        return found

    def _checked_grant(self, text: str) -> Grant | str:
        try:
            # Bounds first: Cedar's parser can end the process.
            check_grant(text, self.limits)
            found = literals(tokens(text))
            validation = cedarpy.validate_policies(text, self._schema)
            handle = cedarpy.PolicySet.from_str(text)
        except (ConfigurationError, ValueError) as error:
            return f"the grant is not valid: {error}"
        if not validation.validation_passed:
            return _misfit(validation.errors[0].error, self.actions)
        if any(literal.asked and literal.uid.type in self._solid for literal in found):
            return "the grant asks about an entity that the request does not bring"
        for statement in statements(text):
            for tool, name, _ in asked_unseen(statement.text, part_of(statement), self._hiding):
                return f"the grant asks for argument `{name}` of `{tool.name}`, which policies do not see"
        return Grant(text, handle)

    def missing(self, uids: set[Uid]) -> set[str]:
        """Return the types of those of *uids* whose absence would change an answer."""
        return {type_ for type_, _ in uids if type_ in self._solid}


def _misfit(message: str, tools: Iterable[str]) -> str:
    """Return what Cedar has against a grant, without the number that it gives to policies that have no name."""
    message = _NUMBERED.sub("", message)
    if (found := _NO_ACTION.fullmatch(message)) is None:
        return f"the grant is not valid here: {message}"
    close = difflib.get_close_matches(found["action"], sorted(tools), n=1)
    fix = f"did you mean `{close[0]}`?" if close else "grant tools that this server has"
    return f"the grant names `{found['action']}`, which is no tool here: {fix}"


@lru_cache(maxsize=_KEPT_SCHEMAS)
def schema_of_text(text: str) -> cedarpy.Schema:
    """Return a schema, parsed.

    Raises:
        ValueError: If Cedar does not take it.
    """
    return cedarpy.Schema.from_str(text)


def _action(tool: GuardedTool, schema: SchemaTexts, known: Sequence[Mapping[str, object]]) -> Action:
    # The types and this one action: a schema of all tools costs each call some
    # microseconds a tool.
    own = schema_of_text(schema.alone(tool.name))
    server = {"type": "Server", "id": tool.server}
    itself = tool.itself.as_json()
    entities: tuple[dict[str, object], ...] = ({"uid": server, "attrs": {}, "parents": []},)
    if itself != server:
        entities += ({"uid": itself, "attrs": {}, "parents": [server]},)
    resources: dict[Uid, str] = {}
    for entity in known:
        uid = uid_of(entity["uid"])
        if uid[0] == tool.resource_type:
            above = [{"type": type_, "id": id_} for type_, id_ in sorted(parents_of(entity))]
            resources[uid] = json_text({**entity, "parents": [*above, itself]})
    return Action(tool, {"type": "Action", "id": tool.name}, own, entities, resources)


def _anything(schema: SchemaTexts, actions: Iterable[Action]) -> Action:
    """Return an action of which nothing is known, not even what it could act on."""
    tool = GuardedTool(name="", server="", input=record_of({}, where=""))
    resources = {uid: text for action in actions for uid, text in action.resources.items()}
    return Action(tool, {}, schema_of_text(schema.types), (), resources)


def _with_grant(organisation: Slice, grant: Grant) -> Slice:
    """Add a grant's policies to the organisation's: one evaluation judges both.

    Cedar keeps the ids of the policies that were there. Those of the added ones are not
    in their order, so a grant's policies are not told apart.
    """
    return Slice(organisation.handle.with_added_str(grant.text), organisation.names, granted=True)
