"""Which entity types a call can reach, by the schema alone.

A type whose entities have attributes or parents needs somebody who knows them: a loader,
or the entity file. Without either, every call that reaches one is denied, and it is
kinder to say so when the server starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.policy.lexer import Kind, tokens
from agentguard.policy.reader import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agentguard.policy.fragments import EntityType, Fragment
    from agentguard.policy.lexer import Token
    from agentguard.policy.schema import GuardedTool, SchemaTexts

_OURS: Final = frozenset(("Invocation", "Server", "Tool"))


def unsourced_types(
    schema: SchemaTexts, fragments: Sequence[Fragment], tools: Sequence[GuardedTool], sourced: Collection[str]
) -> list[Problem]:
    """Return a problem for every type that a call can reach and nobody knows.

    Args:
        schema: The schema in its parts.
        fragments: Where the team's types are declared.
        tools: What can be called.
        sourced: The types that have a loader or an entity in the entity file.
    """
    resources = {tool.resource_type: tool.name for tool in tools if tool.resource_type is not None}
    names = _references(schema.types)
    # `context.approval` names a user.
    roots = {"Invocation", "User", *resources}
    referred = _closure({name for root in roots for name in names.get(root, ())}, names)
    problems = []
    for entity in schema.entities.values():
        if entity.bare or entity.name in sourced or entity.name in _OURS:
            continue
        if entity.name in referred or (entity.name in resources and not _made_whole(entity)):
            fix = f'register a loader, @guard.entity("{entity.name}"), or list its entities in cedarentities.json'
            what = f"`{entity.name}` has attributes or parents that nobody knows: {fix}"
            problems.append(_problem(entity, fragments, resources, what))
    return problems


def _made_whole(entity: EntityType) -> bool:
    """Whether the guard can make such a resource without asking: all it has is its tool."""
    return entity.parents == ("Tool",) and not (entity.attributes or entity.tags)


def _problem(entity: EntityType, fragments: Sequence[Fragment], resources: dict[str, str], what: str) -> Problem:
    for fragment in fragments:
        if entity in fragment.entities:
            return Problem(fragment.path, entity.line, what)
    return Problem(f"tool `{resources[entity.name]}`" if entity.name in resources else "schema", 0, what)


def _closure(start: set[str], names: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = list(start)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += names.get(name, ())
    return found


def _references(types: str) -> dict[str, set[str]]:
    """Return, for each type that valid schema text declares, the names that it is made of."""
    found: dict[str, set[str]] = {}
    namespace = ""
    rest = list(tokens(types))[::-1]
    while rest:
        token = rest.pop()
        if token.text == "namespace":
            namespace = _path(rest)
        elif token.text == "}":
            namespace = ""
        elif token.text in {"entity", "type"}:
            names, body = _declaration(rest)
            for name in names:
                found.setdefault(f"{namespace}::{name}".removeprefix("::"), set()).update(
                    option for word in body for option in (f"{namespace}::{word}".removeprefix("::"), word)
                )
        elif token.text == "action":
            _declaration(rest)
    return found


def _path(rest: list[Token]) -> str:
    """Take a name with its namespace."""
    parts = [rest.pop().text]
    while rest[-1].text == "::":
        rest.pop()
        parts.append(rest.pop().text)
    return "::".join(parts)


def _declaration(rest: list[Token]) -> tuple[list[str], set[str]]:
    """Take a declaration: the names before `in` or `=` or a brace, and those after."""
    names: list[str] = []
    body: set[str] = set()
    declaring = True
    while (token := rest[-1]).text != ";":
        if token.kind is not Kind.NAME:
            declaring = declaring and token.text not in {"=", "{"}
            rest.pop()
        elif token.text in {"in", "enum", "tags"} and rest[-2].text not in {":", "?"}:
            declaring = False
            rest.pop()
        else:
            path = _path(rest)
            if declaring:
                names.append(path)
            elif rest[-1].text not in {":", "?"}:
                body.add(path)
    return names, body
