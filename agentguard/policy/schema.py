"""The Cedar schema of a server, made from its guarded tools.

The schema comes in parts: the entity types, and the text of each action. A call then
needs the types and its own action alone, and costs the same however many tools a server
has. Types that the security team declares in a fragment are not generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, PolicyError
from agentguard.policy.fragments import OURS, EntityType, Fragment, read_fragment
from agentguard.policy.grants import GROUPS
from agentguard.policy.values import Field, quoted, record_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.policy.values import Shape

__all__ = [
    "CONTEXT",
    "GROUPS",
    "METHODS",
    "EntityType",
    "Fragment",
    "GuardedTool",
    "SchemaTexts",
    "method_tool",
    "read_fragment",
    "schema_texts",
]

METHODS: Final = {"resources/read": "uri", "prompts/get": "name"}
"""Methods of the protocol that are actions of their own, on the server; and the argument that each judges."""

_ATTRIBUTES: Final = {
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
_NAMES: Final = frozenset(name.rstrip("?") for name in _ATTRIBUTES)
_CLAIMS: Final[Mapping[type, str]] = {str: "String", int: "Long", bool: "Bool", frozenset: "Set<String>"}
CONTEXT: Final[Mapping[str, str]] = {
    "now": "datetime",
    "local": "{ weekday: Long, minute: Long }",
    "environment": "String",
    "transport": "String",
    "approval?": "{ channel: String, approver?: User, at: datetime }",
}
"""What every action's context has beside the arguments, as Cedar schema text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedTool:
    """A tool under the decorator, or another method that the guard judges.

    Attributes:
        name: The action's id: the tool's registered name, or ``resources/read``.
        server: The server's name.
        input: The record of its arguments.
        facts: What its declared pure function adds, a record; None without one.
        resource_type: The type of the entities that it acts on; None for the tool,
            ``Server`` for a method.
        groups: Which of `GROUPS` its action is in.
    """

    name: str
    server: str
    input: Shape
    facts: Shape | None = None
    resource_type: str | None = None
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaTexts:
    """A server's schema in its parts.

    Attributes:
        types: The entity types and the groups of actions, as Cedar schema text.
        actions: The text of each action, by name; valid together with *types*.
        entities: Every entity type, by name, the generated ones included.
    """

    types: str
    actions: Mapping[str, str]
    entities: Mapping[str, EntityType]

    @property
    def full(self) -> str:
        """The whole schema."""
        return "\n".join((self.types, *self.actions.values()))


def method_tool(method: str, server: str) -> GuardedTool:
    """Return one of `METHODS` as what the guard judges on *server*."""
    shape = record_of({METHODS[method]: Field(str)}, where=method)
    return GuardedTool(name=method, server=server, input=shape, resource_type="Server")


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
        PolicyError: If fragments declare the same twice, or a resource's type outside
            of ``Tool``.
        ConfigurationError: If tools have the same name, or the name of a group, or a
            claim cannot be an attribute.
    """
    _check_names(tools)
    resources = {tool.resource_type for tool in tools if tool.resource_type is not None} - OURS
    declared = _declared(fragments, resources)
    generated = _generated(declared, resources, grouped)
    opened = {name: fragment.path for fragment in fragments for name, _ in fragment.namespaces}
    types = "\n".join(
        (
            *(fragment.text for fragment in fragments),
            *_entity_texts(generated, opened),
            _invocation(claims),
            f"action {', '.join(map(quoted, sorted(GROUPS)))};",
        )
    )
    invocation = EntityType("Invocation", ("Agent", "Task"), attributes=True)
    everything = (*declared.values(), *generated, invocation)
    return SchemaTexts(
        types=types,
        actions={tool.name: _action(tool) for tool in tools},
        entities={entity.name: entity for entity in everything},
    )


def _check_names(tools: Iterable[GuardedTool]) -> None:
    seen: set[str] = set()
    for tool in tools:
        if tool.name in GROUPS:
            message = f"tool `{tool.name}` has the name of a group of actions: rename it"
            raise ConfigurationError(message)
        if tool.name in seen:
            message = f"tool `{tool.name}` is guarded twice: rename one"
            raise ConfigurationError(message)
        if tool.resource_type in OURS and tool.name not in METHODS:
            message = (
                f"tool `{tool.name}` acts on `{tool.resource_type}`, which the guard makes: name a type of your own"
            )
            raise ConfigurationError(message)
        seen.add(tool.name)


def _declared(fragments: Iterable[Fragment], resources: Iterable[str]) -> dict[str, EntityType]:
    problems = []
    declared: dict[str, EntityType] = {}
    namespaces: dict[str, str] = {}
    for fragment in fragments:
        for name, line in fragment.namespaces:
            if name in namespaces:
                where = f"{fragment.path}:{line}"
                problems.append(f"{where}: namespace `{name}` is in {namespaces[name]} too: put it in one place")
            namespaces[name] = fragment.path
        for entity in fragment.entities:
            where = f"{fragment.path}:{entity.line}"
            if entity.name in declared:
                problems.append(f"{where}: `{entity.name}` is declared twice: remove one")
            if entity.name in resources and "Tool" not in entity.parents:
                problems.append(f"{where}: `{entity.name}` is what a tool acts on: declare it `in [Tool]`")
            declared[entity.name] = entity
    if problems:
        raise PolicyError(problems)
    return declared


def _generated(
    declared: Mapping[str, EntityType], resources: Iterable[str], grouped: frozenset[str]
) -> list[EntityType]:
    parents: dict[str, list[str]] = {name: [] for name in ("Agent", "User", "Task", "Server")}
    parents["Tool"] = ["Server"]
    if grouped or any("Group" in entity.parents for entity in declared.values()):
        parents["Group"] = []
    for name in grouped:
        parents[name].append("Group")
    for name in sorted(resources):
        parents.setdefault(name, []).append("Tool")
    return [EntityType(name, tuple(above)) for name, above in parents.items() if name not in declared]


def _entity_texts(entities: Iterable[EntityType], opened: Mapping[str, str]) -> list[str]:
    texts = []
    namespaces: dict[str, list[str]] = {}
    for entity in entities:
        namespace, _, name = entity.name.rpartition("::")
        above = f" in [{', '.join(entity.parents)}]" if entity.parents else ""
        text = f"entity {name}{above};"
        if namespace in opened:
            problem = (
                f"{opened[namespace]}: a tool acts on `{entity.name}`, which is not declared: declare it `in [Tool]`"
            )
            raise PolicyError([problem])
        if namespace:
            namespaces.setdefault(namespace, []).append(text)
        else:
            texts.append(text)
    return texts + [f"namespace {name} {{ {' '.join(inner)} }}" for name, inner in namespaces.items()]


def _invocation(claims: Mapping[str, type]) -> str:
    attributes = [f"{name}: {type_}" for name, type_ in _ATTRIBUTES.items()]
    for name, kind in sorted(claims.items()):
        if name in _NAMES:
            message = f"claim `{name}` has the name of an attribute that every invocation has: map it to another name"
            raise ConfigurationError(message)
        if kind not in _CLAIMS:
            message = f"claim `{name}` wants type str, int, bool or frozenset, got `{kind}`: name one of these"
            raise ConfigurationError(message)
        # A token may lack a mapped claim.
        attributes.append(f"{quoted(name)}?: {_CLAIMS[kind]}")
    return f"entity Invocation in [Agent, Task] = {{ {', '.join(attributes)} }};"


def _action(tool: GuardedTool) -> str:
    groups = ", ".join(f"Action::{quoted(group)}" for group in sorted(tool.groups))
    context = [f"input: {tool.input.cedar}", *(f"{name}: {type_}" for name, type_ in CONTEXT.items())]
    if tool.facts is not None:
        context.append(f"facts: {tool.facts.cedar}")
    return (
        f"action {quoted(tool.name)}{f' in [{groups}]' if groups else ''} appliesTo {{ principal: [Invocation], "
        f"resource: [{tool.resource_type or 'Tool'}], context: {{ {', '.join(context)} }} }};"
    )
