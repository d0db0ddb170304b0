"""Policies that are valid, and would be quietly without effect.

A forbid that can never match looks like one that protects. None of these checks is
needed for a decision; each returns problems with file, line and the fix.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from agentguard.model import Grade
from agentguard.policy.deciding.reach import UnsafeValueError, references_of
from agentguard.policy.deciding.unseen import asked_unseen
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.declarations import closure
from agentguard.policy.schemas.schema import CREDENTIALS, OwnType, credentials_of
from agentguard.policy.text.lexer import Kind, tokens, unquote
from agentguard.policy.text.placing import entity_at, problem_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.files.entityfile import StaticEntity
    from agentguard.policy.problem import Problem
    from agentguard.policy.schemas.declarations import Declaration
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.policy.text.lexer import Token
    from agentguard.policy.text.literals import Literal

_UNKNOWN: Final = "unknown-entity"
_COMPARES: Final = frozenset(("==", "!="))
# Who acts, and may be listed by name.
_LISTED: Final = frozenset(("Agent", "User", "Task"))
# Attributes whose values are few, and the guard's own.
_CLOSED: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("principal", "grade"): frozenset(Grade),
    ("context", "transport"): frozenset(("http", "stdio")),
}


def vain_comparisons(policies: Iterable[Policy], tools: Sequence[GuardedTool]) -> list[Problem]:
    """Return a problem for every comparison with a principal, tool or credential that no request can meet.

    A tool that names another resource is never the resource itself, so a forbid on
    ``resource == Tool::"read_record"`` would be quietly without effect.
    """
    lent = next((credentials_of(tool) for tool in tools if tool.name == CREDENTIALS), None)
    made = {(tool.itself.type, tool.itself.id): tool for tool in tools if tool.kind is not OwnType.SERVER}
    return [
        entity_at(policy, literal.offset, what, "impossible-comparison")
        for policy in policies
        for literal in policy.literals
        if (what := never_the_run(literal) or _never_the_tool(literal, made) or _never_lent(literal, lent))
    ]


def _never_lent(literal: Literal, lent: Collection[str] | None) -> str:
    name = literal.uid.id
    if literal.uid.type != "Credential" or lent is None or name in lent:
        return ""
    return f"no credential is called `{name}`: {did_you_mean(name, lent)}"


def never_the_run(literal: Literal) -> str:
    """Return what to write instead of a comparison with `principal` that nothing meets, or nothing."""
    uid = literal.uid
    if literal.against != "principal" or uid.type == "Invocation":
        return ""
    fix = f"principal has user && principal.user == {uid}" if uid.type == "User" else f"principal in {uid}"
    return f"`principal` is a run, and never equals `{uid}`: write `{fix}`"


def _never_the_tool(literal: Literal, made: Mapping[tuple[str, str], GuardedTool]) -> str:
    type_, name = literal.uid.type, literal.uid.id
    tool = made.get((type_, name))
    if tool is not None and literal.against == "resource" and tool.resource_type is not None:
        return (
            f"`resource` is a `{tool.resource_type}` when `{name}` is used, never the {tool.kind.word}: "
            f'write `action == Action::"{tool.name}"`, or `resource in {literal.uid}`'
        )
    names = {id_ for made_type, id_ in made if made_type == type_}
    # Where none is made, the type is a team's own, or nobody's.
    if tool is None and (names or type_ == OwnType.TOOL):
        return f"no {type_.lower()} is called `{name}`: {did_you_mean(name, names)}"
    return ""


def unknown_entities(
    policies: Iterable[Policy], present: Iterable[StaticEntity], solid: Collection[str], file: str
) -> list[Problem]:
    """Return a problem for every entity that a policy asks about and nobody can know."""
    known = {entity.uid for entity in present}

    def vain(literal: Literal) -> bool:
        return literal.asked and literal.uid.type in solid and literal.uid not in known

    return [
        entity_at(
            policy,
            literal.offset,
            f"asks about `{literal.uid}`, which {file} does not have: add it there, or compare with `==`",
            _UNKNOWN,
        )
        for policy in policies
        for literal in policy.literals
        if vain(literal)
    ]


def unlisted_entities(
    policies: Iterable[Policy],
    present: Iterable[StaticEntity],
    *,
    solid: Collection[str],
    groups: Collection[str] | None,
    loaders: Collection[str],
    file: str,
) -> list[Problem]:
    """Return a problem for every agent, user, task or group that no request can have.

    As soon as one user is listed, a call for another one is denied, and what a policy says
    about him says nothing.

    Args:
        policies: What to check.
        present: The entities of *file*.
        solid: The types of which each entity has to be known.
        groups: The groups that there can be; None where a loader may know of more.
        loaders: The types that have a loader.
        file: The file's name, for messages.
    """
    known: dict[str, set[str]] = {}
    for entity in present:
        known.setdefault(entity.uid.type, set()).add(entity.uid.id)
    possible: dict[str, Collection[str]] = {
        name: ids for name, ids in known.items() if name in _LISTED and name in solid and name not in loaders
    }
    if groups is not None:
        possible["Group"] = groups
    return [
        entity_at(policy, literal.offset, _unlisted(literal, possible[literal.uid.type], file), _UNKNOWN)
        for policy in policies
        for literal in policy.literals
        # What is asked about and not there is told by `unknown_entities`.
        if not ((literal.asked and literal.uid.type in solid) or never_the_run(literal))
        and literal.uid.id not in possible.get(literal.uid.type, (literal.uid.id,))
    ]


def _unlisted(literal: Literal, ids: Collection[str], file: str) -> str:
    close = difflib.get_close_matches(literal.uid.id, sorted(ids), n=1)
    fix = f"did you mean `{close[0]}`?" if close else "add it there"
    return f"no call can have to do with `{literal.uid}`, which {file} does not have: {fix}"


def possible_groups(
    present: Iterable[StaticEntity],
    plain: Mapping[str, frozenset[str]],
    declared: dict[str, Declaration],
    entities: Collection[str],
    loaders: Collection[str],
) -> set[str] | None:
    """Return the ids of all groups that anything can be in, or None if a loader may know of more.

    Args:
        present: The entities of the entity file.
        plain: For each entity type, the attributes that can refer to nothing.
        declared: What the types are made of.
        entities: The names of the entity types.
        loaders: The types that have a loader.
    """
    common = {name: declaration for name, declaration in declared.items() if name not in entities}
    for name in loaders:
        if "Group" in closure({name, *declared[name].names}, common):
            return None
    groups: set[str] = set()
    for entity in present:
        try:
            uid, references = references_of(entity.json, plain)
        except UnsafeValueError:
            # It is refused for that.
            return None
        groups.update(id_ for type_, id_ in (uid, *references) if type_ == "Group")
    return groups


def impossible_values(policies: Iterable[Policy]) -> list[Problem]:
    """Return a problem for every comparison with a value that an attribute of the guard's never has."""
    problems = []
    for policy in policies:
        # Most policies say nothing of these, and there may be ten thousand.
        found = tokens(policy.text) if any(name in policy.text for _, name in _CLOSED) else ()
        for path, token in _compared(found):
            value, known = unquote(token.text), _CLOSED[path]
            if value not in known:
                what = f"`{'.'.join(path)}` is never `{value}`: {did_you_mean(value, known)}"
                problems.append(problem_at(policy, token.offset, len(token.text), what, "impossible-value"))
    return problems


def unseen_arguments(policies: Iterable[Policy], tools: Iterable[GuardedTool]) -> list[Problem]:
    """Return a problem for every argument that a policy asks for and is not shown, of a tool that it is for.

    ``context.input has path`` is false where a tool takes a path that policies do not see,
    and a forbid on it would be quietly without effect.
    """
    hiding = [tool for tool in tools if tool.unseen]
    problems = []
    for policy in policies if hiding else ():
        for tool, name, token in asked_unseen(policy.text, policy.part, hiding):
            alone = policy.scope.actions == frozenset((tool.name,))
            fix = "ask for another argument" if alone else "name the actions that it is for in its head"
            what = f"policies do not see argument `{name}` of `{tool.name}`, so this says nothing of it: {fix}"
            problems.append(problem_at(policy, token.offset, len(token.text), what, "unseen-argument"))
    return problems


def _compared(found: Sequence[Token]) -> Iterator[tuple[tuple[str, str], Token]]:
    """Yield the strings that one of the closed attributes is compared with by `==`, `!=` or `contains`."""
    texts = [token.text for token in found]
    for at, text in enumerate(texts):
        for path in _CLOSED:
            root, name = path
            form = [".", name] if texts[at + 1 : at + 2] == ["."] else ["[", f'"{name}"', "]"]
            end = at + 1 + len(form)
            if text == root and texts[at - 1] != "." and texts[at + 1 : end] == form:
                for place in _beside(found, texts, at, end):
                    if found[place].kind is Kind.STRING:
                        yield path, found[place]


def _beside(found: Sequence[Token], texts: Sequence[str], start: int, end: int) -> Iterable[int]:
    """Return the places of what the expression from *start* to *end* is compared with."""
    if texts[end] in _COMPARES:
        return (end + 1,)
    if texts[start - 1] in _COMPARES:
        return (start - 2,)
    if texts[start - 4 : start] == ["]", ".", "contains", "("]:
        opened = max(place for place in range(start - 4) if texts[place] == "[")
        # Not a list but an index: `context.input["words"].contains(…)`.
        if found[opened - 1].kind is not Kind.NAME and texts[opened - 1] not in {"]", ")"}:
            return range(opened + 1, start - 4)
    return ()
