"""The Cedar schema of a server, made from its guarded tools, resources and prompts.

The schema comes in parts: the entity types, and the text of each action. A call then
needs the types and its own action alone, and costs the same however many tools a server
has. Types that the security team declares in a fragment are not generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from agentguard.errors import ConfigurationError
from agentguard.model import EntityUid
from agentguard.policy.conversion.values import Field, quoted, record_of
from agentguard.policy.grants import GROUPS, METHODS
from agentguard.policy.problem import Problem, refused
from agentguard.policy.schemas.fragments import OURS, EntityType, Fragment, read_fragment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agentguard.policy.conversion.values import Shape

__all__ = [
    "ATTRIBUTES",
    "CLAIMS",
    "CONTEXT",
    "CREDENTIALS",
    "GROUPS",
    "METHODS",
    "EntityType",
    "Fragment",
    "GuardedTool",
    "OwnType",
    "SchemaTexts",
    "action_of",
    "credential_tool",
    "method_tool",
    "read_fragment",
    "schema_texts",
]

_UNDECLARED_PARENT: Final = "undeclared-parent"

ATTRIBUTES: Final = {
    "agent": "Agent",
    "user?": "User",
    "task?": "Task",
    "purpose?": "String",
    "issuer": "String",
    "scopes": "Set<String>",
    "grade": "String",
    "issued_at": "datetime",
    "ends_at": "datetime",
    "lifetime": "duration",
    "delegation_depth": "Long",
}
"""What every invocation has, as Cedar schema text."""

CLAIMS: Final[Mapping[type, str]] = {str: "String", int: "Long", bool: "Bool", frozenset: "Set<String>"}
"""The Cedar types of mapped claims."""

CONTEXT: Final[Mapping[str, str]] = {
    "now": "datetime",
    "local": "{ weekday: Long, minute: Long }",
    "environment": "String",
    "transport": "String",
    "run": "{ calls: Long, calls_of_this_tool: Long, denied: Long, labels: Set<String>, "
    "spent: {}, shared: Bool, started_at: datetime }",
    "approval?": "{ channel: String, approver?: User, at: datetime }",
}
"""What every action's context has beside the arguments, as Cedar schema text; `spent` has a server's totals."""


CREDENTIALS: Final = "credentials/issue"
"""The action by which a tool gets a credential."""


class OwnType(StrEnum):
    """What the guard judges, by the type of the entity that stands for it."""

    TOOL = "Tool"
    RESOURCE = "Resource"
    PROMPT = "Prompt"
    SERVER = "Server"

    @property
    def word(self) -> str:
        """What messages call one."""
        return self.value.lower()


_METHOD_OF: Final = {OwnType.RESOURCE: "resources/read", OwnType.PROMPT: "prompts/get"}


def action_of(kind: OwnType, name: str) -> str:
    """Return the id of the action of a tool, resource or prompt."""
    return f"{_METHOD_OF[kind]}/{name}" if kind in _METHOD_OF else name


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedTool:
    """A tool, resource or prompt under the decorator, or a method that the guard judges.

    Attributes:
        name: The action's id: a tool's registered name, ``resources/read/notes``, or
            ``resources/read``.
        server: The server's name.
        input: The record of its arguments.
        facts: What its declared pure function adds, a record; None without one.
        resource_type: The type of the entities that it acts on; None where that is *itself*.
        groups: Which groups its action is in: some of `GROUPS`, or one of `METHODS`.
        kind: What it is.
        unseen: The names of arguments that reach it and no policy.
        totals: The totals of a run that it adds to, sorted.
        labels: What a run carries once it was let run.
    """

    name: str
    server: str
    input: Shape
    facts: Shape | None = None
    resource_type: str | None = None
    groups: frozenset[str] = frozenset()
    kind: OwnType = OwnType.TOOL
    unseen: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()

    @property
    def itself(self) -> EntityUid:
        """The entity that stands for it: the tool, the resource, the prompt; for a method, the server."""
        if self.kind is OwnType.SERVER:
            return EntityUid(self.kind.value, self.server)
        return EntityUid(self.kind.value, self.name.removeprefix(action_of(self.kind, "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaTexts:
    """A server's schema in its parts.

    Attributes:
        types: The entity types and the groups of actions, as Cedar schema text.
        actions: The text of each action, by name.
        above: The `METHODS` that each action is in, by its name.
        entities: Every entity type, by name, the generated ones included.
        ours: The types whose entities the guard alone makes.
    """

    types: str
    actions: Mapping[str, str]
    above: Mapping[str, frozenset[str]]
    entities: Mapping[str, EntityType]
    ours: frozenset[str]

    @property
    def full(self) -> str:
        """The whole schema."""
        # A method is an action itself, with the others of its kind in it.
        above = frozenset[str]().union(*self.above.values()) - self.actions.keys()
        return "\n".join((self.types, *_groups(above), *self.actions.values()))

    def alone(self, action: str) -> str:
        """The types and one action: all that a call of it needs."""
        return "\n".join((self.types, *_groups(self.above[action]), self.actions[action]))


def method_tool(method: str, server: str) -> GuardedTool:
    """Return one of `METHODS` as what the guard judges on *server*."""
    shape = record_of({METHODS[method]: Field(str)}, where=method)
    return GuardedTool(name=method, server=server, input=shape, kind=OwnType.SERVER)


def credential_tool(server: str, names: Collection[str]) -> GuardedTool:
    """Return what the guard judges on *server* whenever a tool wants one of the credentials that there are."""
    shape = record_of({"credential": Field(Literal[tuple(sorted(names))]), "tool": Field(str)}, where=CREDENTIALS)
    return GuardedTool(name=CREDENTIALS, server=server, input=shape, resource_type="Credential", kind=OwnType.SERVER)


def credentials_of(tool: GuardedTool) -> tuple[str, ...]:
    """Return the credentials that there are, of what `credential_tool` gave."""
    (names,) = (member.shape.members for member in tool.input.parts if member.name == "credential")
    return tuple(str(name) for name in names)


def schema_texts(
    tools: Sequence[GuardedTool], fragments: Sequence[Fragment], *, grouped: frozenset[str], claims: Mapping[str, type]
) -> SchemaTexts:
    """Make the schema of a server.

    Args:
        tools: All that the guard judges there.
        fragments: The team's own types.
        grouped: Which of ``Agent``, ``User``, ``Task`` may be in a ``Group``.
        claims: The claims that become attributes of an invocation, with their types.

    Raises:
        PolicyError: If fragments declare the same twice, one of the guard's own types, or
            the type of what is acted on outside of what acts on it.
        ConfigurationError: If tools have the same name, or the name of a group, or a
            claim cannot be an attribute.
    """
    # A team may have `Resource` or `Prompt` to itself where the guard has no use for them.
    ours = OURS | {tool.kind.value for tool in tools}
    _check_names(tools, ours)
    totals = totals_of(tools)
    acted_on: dict[str, set[OwnType]] = {}
    for tool in tools:
        if tool.resource_type is not None:
            acted_on.setdefault(tool.resource_type, set()).add(tool.kind)
    declared = _declared(fragments, acted_on, ours)
    generated = _generated(declared, acted_on, grouped, ours)
    opened = {name: fragment.path for fragment in fragments for name, _ in fragment.namespaces}
    types = "\n".join(
        (
            *(fragment.text for fragment in fragments),
            *_entity_texts(generated, acted_on, opened),
            _invocation(claims),
            *_groups(GROUPS),
        )
    )
    invocation = EntityType("Invocation", ("Agent", "Task"), attributes=True)
    everything = (*declared.values(), *generated, invocation)
    return SchemaTexts(
        types=types,
        actions={tool.name: _action(tool, totals) for tool in tools},
        above={tool.name: tool.groups & METHODS.keys() for tool in tools},
        entities={entity.name: entity for entity in everything},
        ours=ours,
    )


def _check_names(tools: Iterable[GuardedTool], ours: frozenset[str]) -> None:
    seen: dict[str, OwnType] = {}
    for tool in tools:
        what = f"{tool.kind.word} `{tool.itself.id}`"
        if tool.name in GROUPS or (tool.name in METHODS and tool.kind is not OwnType.SERVER):
            message = f"{what} has the name of a group of actions: rename it"
            raise ConfigurationError(message)
        if tool.name == CREDENTIALS and tool.kind is not OwnType.SERVER:
            # Also where nothing gives credentials: the guard's own is neither counted nor looked through.
            message = f"{what} has the name of the action by which tools get credentials: rename it"
            raise ConfigurationError(message)
        if tool.name in seen:
            other = (
                "twice" if seen[tool.name] is tool.kind else f"as action `{tool.name}`, as a {seen[tool.name].word} is"
            )
            message = f"{what} is guarded {other}: rename one"
            raise ConfigurationError(message)
        if tool.resource_type in ours:
            message = f"{what} acts on `{tool.resource_type}`, which the guard makes: name a type of your own"
            raise ConfigurationError(message)
        seen[tool.name] = tool.kind


def _acts_on(kinds: Collection[OwnType]) -> str:
    """Return who does, for a message."""
    return " and ".join(f"a {kind.word}" for kind in OwnType if kind in kinds) + (
        " acts on" if len(kinds) == 1 else " act on"
    )


def _within(kinds: Collection[OwnType]) -> str:
    """Return what to declare a type with."""
    return f"`in [{', '.join(kind for kind in OwnType if kind in kinds)}]`"


def _declared(
    fragments: Iterable[Fragment], acted_on: Mapping[str, Collection[OwnType]], ours: frozenset[str]
) -> dict[str, EntityType]:
    problems: list[Problem] = []

    def tell(fragment: Fragment, entity: EntityType, what: str, name: str) -> None:
        column, length = entity.at
        problems.append(Problem(fragment.path, entity.line, what, column=column, length=length, name=name))

    declared: dict[str, EntityType] = {}
    namespaces: dict[str, str] = {}
    for fragment in fragments:
        for name, line in fragment.namespaces:
            if name in namespaces:
                what = f"namespace `{name}` is in {namespaces[name]} too: put it in one place"
                problems.append(Problem(fragment.path, line, what, name="duplicate-type"))
            namespaces[name] = fragment.path
        for entity in fragment.entities:
            if entity.name in declared:
                tell(fragment, entity, f"`{entity.name}` is declared twice: remove one", "duplicate-type")
            if entity.name.rpartition("::")[2] in ours:
                what = f"`{entity.name}` is a type that the guard makes here: rename this one"
                tell(fragment, entity, what, "reserved-type")
            kinds = acted_on.get(entity.name, ())
            if not {*kinds} <= {*entity.parents}:
                what = f"`{entity.name}` is what {_acts_on(kinds)}: declare it {_within(kinds)}"
                tell(fragment, entity, what, _UNDECLARED_PARENT)
            declared[entity.name] = entity
    if problems:
        raise refused(problems)
    return declared


def _generated(
    declared: Mapping[str, EntityType],
    acted_on: Mapping[str, Collection[OwnType]],
    grouped: frozenset[str],
    ours: frozenset[str],
) -> list[EntityType]:
    parents: dict[str, list[str]] = {name: [] for name in ("Agent", "User", "Task", "Server")}
    parents |= {kind.value: ["Server"] for kind in OwnType if kind in ours and kind is not OwnType.SERVER}
    if grouped or any("Group" in entity.parents for entity in declared.values()):
        parents["Group"] = []
    for name in grouped:
        parents[name].append("Group")
    for name, kinds in sorted(acted_on.items()):
        parents.setdefault(name, []).extend(kind.value for kind in OwnType if kind in kinds)
    return [EntityType(name, tuple(above)) for name, above in parents.items() if name not in declared]


def _entity_texts(
    entities: Iterable[EntityType], acted_on: Mapping[str, Collection[OwnType]], opened: Mapping[str, str]
) -> list[str]:
    texts = []
    namespaces: dict[str, list[str]] = {}
    for entity in entities:
        namespace, _, name = entity.name.rpartition("::")
        above = f" in [{', '.join(entity.parents)}]" if entity.parents else ""
        text = f"entity {name}{above};"
        if namespace in opened:
            kinds = acted_on[entity.name]
            what = f"{_acts_on(kinds)} `{entity.name}`, which is not declared: declare it {_within(kinds)}"
            raise refused([Problem(opened[namespace], 0, what, name=_UNDECLARED_PARENT)])
        if namespace:
            namespaces.setdefault(namespace, []).append(text)
        else:
            texts.append(text)
    return texts + [f"namespace {name} {{ {' '.join(inner)} }}" for name, inner in namespaces.items()]


def _invocation(claims: Mapping[str, type]) -> str:
    attributes = [f"{name}: {type_}" for name, type_ in ATTRIBUTES.items()]
    for name, kind in sorted(claims.items()):
        if name in ATTRIBUTES or f"{name}?" in ATTRIBUTES:
            message = f"claim `{name}` has the name of an attribute that every invocation has: map it to another name"
            raise ConfigurationError(message)
        if kind not in CLAIMS:
            message = f"claim `{name}` wants type str, int, bool or frozenset, got `{kind}`: name one of these"
            raise ConfigurationError(message)
        # A token may lack a mapped claim.
        attributes.append(f"{quoted(name)}?: {CLAIMS[kind]}")
    return f"entity Invocation in [Agent, Task] = {{ {', '.join(attributes)} }};"


def _groups(names: Collection[str]) -> tuple[str, ...]:
    """Return the text of actions that are groups and nothing more."""
    return (f"action {', '.join(map(quoted, sorted(names)))};",) if names else ()


def totals_of(tools: Iterable[GuardedTool]) -> tuple[str, ...]:
    """Return every total that some tool adds to, sorted."""
    return tuple(sorted({total for tool in tools for total in tool.totals}))


def context_types(totals: Iterable[str]) -> dict[str, str]:
    """Return `CONTEXT` at a server with these totals."""
    inner = ", ".join(f"{total}: decimal" for total in totals)
    spent = f"spent: {{ {inner} }}" if inner else "spent: {}"
    return {name: type_.replace("spent: {}", spent) for name, type_ in CONTEXT.items()}


def _action(tool: GuardedTool, totals: Sequence[str]) -> str:
    groups = ", ".join(f"Action::{quoted(group)}" for group in sorted(tool.groups))
    context = [
        f"input: {tool.input.cedar}",
        *(f"{name}: {type_}" for name, type_ in context_types(totals).items()),
    ]
    if tool.facts is not None:
        context.append(f"facts: {tool.facts.cedar}")
    return (
        f"action {quoted(tool.name)}{f' in [{groups}]' if groups else ''} appliesTo {{ principal: [Invocation], "
        f"resource: [{tool.resource_type or tool.itself.type}], context: {{ {', '.join(context)} }} }};"
    )
