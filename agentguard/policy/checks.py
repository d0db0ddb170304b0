"""What Cedar's validation leaves unsaid, or says in its own words.

Every check returns problems with file, line and the fix. None of them is needed for a
decision; all of them are for policies that would be quietly without effect.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.policy.lexer import Kind, position, tokens
from agentguard.policy.reader import Problem, did_you_mean, line_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agentguard.policy.compiled import Policy
    from agentguard.policy.entityfile import StaticEntity
    from agentguard.policy.fragments import Fragment
    from agentguard.policy.literals import Literal
    from agentguard.policy.schema import GuardedTool

_PREFIX: Final = re.compile(r"(?:for policy `policy[0-9]+`, )?(.*)", re.DOTALL)
_NO_ATTRIBUTE: Final = re.compile(
    r"attribute `(?P<path>[^`]+)` "
    r'(?:in context for Action::"(?P<action>[^`"]*)"|on entity type `(?P<type>[^`]+)`) not found'
)
_OPTIONAL: Final = re.compile(
    r"unable to guarantee safety of access to optional attribute `(?P<path>[^`]+)`(?P<where>.*)"
)
_NO_ACTION: Final = re.compile(r'unrecognized action `Action::"(?P<action>[^`"]*)"`')
_NO_TYPE: Final = re.compile(r"unrecognized entity type `(?P<type>[^`]+)`")
_NOWHERE: Final = "unable to find an applicable action given the policy scope constraints"


def invalid_policies(
    policies: Sequence[Policy], schema: cedarpy.Schema, tools: Sequence[GuardedTool], types: Iterable[str]
) -> list[Problem]:
    """Return a problem for every policy that does not fit the schema."""
    result = cedarpy.validate_policies("\n".join(policy.text for policy in policies), schema)
    problems: dict[int, list[Problem]] = {}
    for error in result.errors:
        # Cedar numbers the policies of a text in order.
        place = int(error.policy_id.removeprefix("policy"))
        match = _PREFIX.fullmatch(error.error)
        message = match[1] if match else error.error
        if message == _NOWHERE and place in problems:
            # It follows from an action or a type that is not known.
            continue
        problems.setdefault(place, []).append(_invalid(policies[place], message, tools, types))
    return [problem for found in problems.values() for problem in dict.fromkeys(found)]


def _invalid(policy: Policy, message: str, tools: Sequence[GuardedTool], types: Iterable[str]) -> Problem:
    actions = {tool.name: tool for tool in tools}
    if found := _NO_ACTION.fullmatch(message):
        known = {*actions, *(group for tool in tools for group in tool.groups)}
        what = f"no tool is called `{found['action']}`: {did_you_mean(found['action'], known)}"
        return _at(policy, found["action"], what)
    if found := _NO_TYPE.fullmatch(message):
        what = f"there is no entity type `{found['type']}`: {did_you_mean(found['type'], types)}"
        return _at(policy, found["type"], what)
    if found := _NO_ATTRIBUTE.fullmatch(message):
        return _no_attribute(policy, found, actions)
    if found := _OPTIONAL.fullmatch(message):
        record, _, name = found["path"].rpartition(".")
        owner = f"context.{record}".rstrip(".") if " in context " in found["where"] else "…"
        what = f"`{found['path']}` may be absent: test it first, `{owner} has {name} && …`"
        return _at(policy, name, what)
    if message == _NOWHERE:
        what = "no tool fits principal, action and resource together: compare them with the tools' resources"
        return Problem(policy.file, policy.line, what)
    return Problem(policy.file, policy.line, f"does not fit the tools: {message}: change one of the two")


def _no_attribute(policy: Policy, found: re.Match[str], actions: Mapping[str, GuardedTool]) -> Problem:
    record, _, name = found["path"].rpartition(".")
    tool = actions.get(found["action"] or "")
    if tool is None:
        what = f"`{found['type'] or 'context'}` has no attribute `{found['path']}`: correct the name, or declare it"
    elif record != "input":
        what = f"the context of `{tool.name}` has no `{found['path']}`: correct the name"
    elif policy.scope.actions == frozenset((tool.name,)):
        what = f"`{tool.name}` has no argument `{name}`: {did_you_mean(name, _members(tool.input.cedar))}"
    else:
        what = (
            f"this applies to `{tool.name}` too, which has no argument `{name}`: "
            "name the actions that it is for in its head"
        )
    return _at(policy, name, what)


def _members(record: str) -> list[str]:
    """Return the names in a record type's text, one level of braces deep."""
    names, depth = [], 0
    found = tokens(record)
    for token, after in pairwise(found):
        depth += (token.text == "{") - (token.text == "}")
        if depth == 1 and token.kind in (Kind.NAME, Kind.STRING) and after.text in {":", "?"}:
            names.append(token.text.strip('"'))
    return names


def _at(policy: Policy, word: str, what: str) -> Problem:
    """Return the problem at the line where *word* is used, or where the policy starts."""
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", policy.text)
    return Problem(policy.file, line_of(policy, match.start() if match else 0), what)


def invalid_schema(fragments: Sequence[Fragment], message: str) -> str:
    """Return what Cedar has against the joined schema, with the place where it can be."""
    words = re.findall(r"`([^`]+)`", message) + re.findall(r": (\S+)$", message)
    for word in words:
        for fragment in fragments:
            match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", fragment.text)
            if match is not None:
                line, _ = position(fragment.text, match.start())
                return str(Problem(fragment.path, line, f"{message}: correct or declare it"))
    where = ", ".join(fragment.path for fragment in fragments) or "the generated schema"
    return f"{where}: {message}: compare it with Cedar's schema grammar"


def vain_comparisons(policies: Iterable[Policy], tools: Iterable[GuardedTool]) -> list[Problem]:
    """Return a problem for every comparison with a tool that no request can meet.

    A tool that names another resource is never the resource itself, so a forbid on
    ``resource == Tool::"read_record"`` would be quietly without effect.
    """
    resources = {tool.name: tool.resource_type for tool in tools}
    return [
        Problem(policy.file, line_of(policy, literal.offset), what)
        for policy in policies
        for literal in policy.literals
        if literal.uid.type == "Tool" and (what := _vain(literal, resources))
    ]


def _vain(literal: Literal, resources: Mapping[str, str | None]) -> str:
    name = literal.uid.id
    if name not in resources:
        return f"no tool is called `{name}`: {did_you_mean(name, resources)}"
    if literal.against == "resource" and resources[name] is not None:
        return (
            f"`resource` is a `{resources[name]}` when `{name}` is called, never the tool: "
            f'write `action == Action::"{name}"`, or `resource in {literal.uid}`'
        )
    return ""


def unknown_entities(
    policies: Iterable[Policy], present: Iterable[StaticEntity], solid: Collection[str], file: str
) -> list[Problem]:
    """Return a problem for every entity that a policy asks about and nobody can know."""
    known = {entity.uid for entity in present}

    def vain(literal: Literal) -> bool:
        return literal.asked and literal.uid.type in solid and literal.uid not in known

    return [
        Problem(
            policy.file,
            line_of(policy, literal.offset),
            f"asks about `{literal.uid}`, which {file} does not have: add it there, or compare with `==`",
        )
        for policy in policies
        for literal in policy.literals
        if vain(literal)
    ]
