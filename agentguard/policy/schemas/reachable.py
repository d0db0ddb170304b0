"""Which entity types a call can reach, by the schema alone.

A type whose entities have attributes or parents needs somebody who knows them: a loader,
or the entity file. Without either, every call that reaches one is denied, and it is
kinder to say so when the server starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.policy.problem import Problem
from agentguard.policy.schemas.declarations import closure
from agentguard.policy.schemas.fragments import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agentguard.policy.files.entityfile import StaticEntity
    from agentguard.policy.schemas.declarations import Declaration
    from agentguard.policy.schemas.fragments import EntityType, Fragment
    from agentguard.policy.schemas.schema import GuardedTool, SchemaTexts

_UNSOURCED: Final = "unsourced-type"


def unsourced_types(
    schema: SchemaTexts,
    declared: Mapping[str, Declaration],
    fragments: Sequence[Fragment],
    tools: Sequence[GuardedTool],
    sourced: Collection[str],
) -> list[Problem]:
    """Return a problem for every type that a call can reach and nobody knows.

    Args:
        schema: The schema in its parts.
        declared: What `read_declarations` gave for its types.
        fragments: Where the team's types are declared.
        tools: What can be called.
        sourced: The types that have a loader or an entity in the entity file.
    """
    resources = {
        tool.resource_type: f"{tool.kind.word} `{tool.itself.id}`" for tool in tools if tool.resource_type is not None
    }
    # What a server itself acts on is in it, as what a tool acts on is in that.
    of_servers = {tool.resource_type for tool in tools if tool.kind.value == "Server"}
    # `context.approval` names a user.
    roots = {"Invocation", "User", *resources}
    referred = closure({name for root in roots & declared.keys() for name in declared[root].names}, declared)
    problems = []
    for entity in schema.entities.values():
        if entity.bare or entity.name in sourced or entity.name in schema.ours:
            continue
        if entity.name in referred or (entity.name in resources and not _made_whole(entity, schema.ours, of_servers)):
            fix = f'register a loader, @guard.entity("{entity.name}"), or list its entities in cedarentities.json'
            what = f"`{entity.name}` has attributes or parents that nobody knows: {fix}"
            problems.append(_problem(entity, fragments, resources, what))
    return problems


def twice_sourced(entities: Iterable[StaticEntity], loaders: Collection[str], file: str) -> list[Problem]:
    """Return a problem for every type that a loader knows and *file* lists too.

    What is listed is never asked for, so a loader that knows better, such as that a record
    is secret by now, would be passed over. Those who act, and their groups, may be both:
    the security team lists some by name, since what a policy asks about has to be listed.
    """
    first: dict[str, StaticEntity] = {}
    for entity in entities:
        first.setdefault(entity.uid.type, entity)
    return [
        first[name].problem(
            file,
            f"`{name}` has a loader too, which would not be asked for `{first[name].uid}`: "
            "remove its entities here, or the loader",
            "twice-sourced",
            name,
        )
        for name in first.keys() & (set(loaders) - VOCABULARY)
    ]


def _made_whole(entity: EntityType, ours: frozenset[str], of_servers: Collection[str | None]) -> bool:
    """Whether the guard can make such a resource without asking: all it has is what acts on it."""
    others = {"Invocation"} if entity.name in of_servers else {"Invocation", "Server"}
    return {*entity.parents} <= ours - others and not (entity.attributes or entity.tags)


def _problem(entity: EntityType, fragments: Sequence[Fragment], resources: dict[str, str], what: str) -> Problem:
    for fragment in fragments:
        if entity in fragment.entities:
            column, length = entity.at
            return Problem(fragment.path, entity.line, what, column=column, length=length, name=_UNSOURCED)
    return Problem(resources.get(entity.name, "schema"), 0, what, name=_UNSOURCED)
