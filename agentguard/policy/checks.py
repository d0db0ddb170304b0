"""What Cedar's validation says, in words that name the fix.

Every check returns problems with file and line.
"""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.policy.lexer import Kind, position, tokens
from agentguard.policy.reader import Problem, did_you_mean, line_of
from agentguard.policy.schema import CONTEXT
from agentguard.policy.vain import never_the_run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from agentguard.policy.compiled import Policy
    from agentguard.policy.fragments import Fragment
    from agentguard.policy.schema import GuardedTool

_PREFIX: Final = re.compile(r"(?:for policy `policy[0-9]+`, )?(.*)", re.DOTALL)
_NOT_IN_CONTEXT: Final = re.compile(
    r'attribute `(?P<path>[^`]+)` in context for Action::"(?P<action>[^`"]*)" not found'
)
_NO_ATTRIBUTE: Final = re.compile(r"attribute `(?P<path>[^`]+)` on entity type `(?P<type>[^`]+)` not found")
_WORDS: Final = {
    re.compile(r"unexpected type: expected (?:.*\b)?Long but saw decimal"): (
        'Cedar compares decimals by name, not with `<` or `>`: write `….greaterThan(decimal("100.0"))`, '
        "or `greaterThanOrEqual`, `lessThan`, `lessThanOrEqual`"
    ),
    re.compile(r"the types (?:(\w+) and Set<\1>|Set<(\w+)> and \2) are not compatible"): (
        'a set equals no single value: write `….contains("x")`'
    ),
    re.compile(r"the types (?:Long and decimal|decimal and Long) are not compatible"): (
        'a decimal equals nothing but a decimal: write `== decimal("100.0")`'
    ),
}
_OPTIONAL: Final = re.compile(
    r"unable to guarantee safety of access to optional attribute `(?P<path>[^`]+)`(?P<where>.*)"
)
_NO_ACTION: Final = re.compile(r'unrecognized action `Action::"(?P<action>[^`"]*)"`')
_NO_TYPE: Final = re.compile(r"unrecognized entity type `(?P<type>[^`]+)`")
_NOWHERE: Final = "unable to find an applicable action given the policy scope constraints"
_RECORDS: Final = {name.rstrip("?"): type_ for name, type_ in CONTEXT.items() if type_.startswith("{")}


def invalid_policies(
    policies: Sequence[Policy],
    schema: cedarpy.Schema,
    tools: Sequence[GuardedTool],
    attributes: Mapping[str, Collection[str]],
) -> list[Problem]:
    """Return a problem for every mistake of a policy that does not fit the schema.

    Args:
        policies: What to check.
        schema: The whole schema.
        tools: All that the guard judges.
        attributes: The names of the attributes of each entity type.
    """
    result = cedarpy.validate_policies("\n".join(policy.text for policy in policies), schema)
    problems: dict[int, list[Problem]] = {}
    # Cedar tells what the context lacks once for each action that a policy applies to.
    lacking: dict[tuple[int, str], list[str]] = {}
    for error in result.errors:
        # Cedar numbers the policies of a text in order.
        place = int(error.policy_id.removeprefix("policy"))
        match = _PREFIX.fullmatch(error.error)
        message = match[1] if match else error.error
        found = problems.setdefault(place, [])
        if lack := _NOT_IN_CONTEXT.fullmatch(message):
            lacking.setdefault((place, lack["path"]), []).append(lack["action"])
        elif message != _NOWHERE:
            found.append(_invalid(policies[place], message, tools, attributes))
        elif not found and not any(never_the_run(literal) for literal in policies[place].literals):
            # Else it follows from an action or a type that is not known, or `vain_comparisons` tells it.
            found.append(_nowhere(policies[place]))
    for (place, path), actions in lacking.items():
        problems[place].append(_lacks(policies[place], path, actions, tools))
    return [problem for found in problems.values() for problem in dict.fromkeys(found)]


def _invalid(
    policy: Policy, message: str, tools: Sequence[GuardedTool], attributes: Mapping[str, Collection[str]]
) -> Problem:
    if found := _NO_ACTION.fullmatch(message):
        known = {*(tool.name for tool in tools), *(group for tool in tools for group in tool.groups)}
        what = f"there is no action `{found['action']}`: {did_you_mean(found['action'], known)}"
        return _at(policy, found["action"], what)
    if found := _NO_TYPE.fullmatch(message):
        what = f"there is no entity type `{found['type']}`: {did_you_mean(found['type'], attributes)}"
        return _at(policy, found["type"], what)
    if found := _NO_ATTRIBUTE.fullmatch(message):
        _, _, name = found["path"].rpartition(".")
        close = difflib.get_close_matches(name, sorted(attributes.get(found["type"], ())), n=1)
        fix = f"did you mean `{close[0]}`?" if close else "correct the name, or declare it"
        return _at(policy, name, f"`{found['type']}` has no attribute `{found['path']}`: {fix}")
    if found := _OPTIONAL.fullmatch(message):
        record, _, name = found["path"].rpartition(".")
        owner = f"context.{record}".rstrip(".") if " in context " in found["where"] else "…"
        what = f"`{found['path']}` may be absent: test it first, `{owner} has {name} && …`"
        return _at(policy, name, what)
    what = next((what for pattern, what in _WORDS.items() if pattern.fullmatch(message)), "")
    return Problem(policy.file, policy.line, what or f"does not fit the tools: {message}: change one of the two")


def _nowhere(policy: Policy) -> Problem:
    principal = policy.scope.principal
    if principal is not None and principal.type == "User":
        what = (
            f"a run is never in a user: leave `principal` alone in the head, and write "
            f"`when {{ principal has user && principal.user == {principal} }}`"
        )
    else:
        what = "no tool fits principal, action and resource together: compare them with the tools' resources"
    return Problem(policy.file, policy.line, what)


def _lacks(policy: Policy, path: str, actions: Sequence[str], tools: Sequence[GuardedTool]) -> Problem:
    """Return what to do about a *path* that the contexts of *actions* do not have."""
    record, _, name = path.rpartition(".")
    lack = f"has no `{path}`"
    if record == "input":
        return _at(policy, name, _no_argument(policy, name, actions, tools))
    if path == "facts" or record == "facts":
        facts = {fact for tool in tools if tool.facts is not None for fact in _members(tool.facts.cedar)}
        close = difflib.get_close_matches(name, sorted(facts), n=1) if record else ()
        fix = f"did you mean `{close[0]}`?" if close else "give the tool facts=, or name other actions in the head"
        what = f"the context of {_listed(actions)} {lack}: {fix}"
    elif path == "local.hour":
        what = f"the context {lack}: compare `context.local.minute`, the minute of the day, where 9:00 is 540"
    elif not record:
        known = {*(name.rstrip("?") for name in CONTEXT), "input", "facts"}
        what = f"the context {lack}: {did_you_mean(name, known)}"
    elif record in _RECORDS:
        what = f"the context {lack}: {did_you_mean(name, _members(_RECORDS[record]))}"
    else:
        what = f"the context of {_listed(actions)} {lack}: correct the name"
    return _at(policy, name, what)


def _no_argument(policy: Policy, name: str, actions: Sequence[str], tools: Sequence[GuardedTool]) -> str:
    arguments = {tool.name: _members(tool.input.cedar) for tool in tools}
    if policy.scope.actions == frozenset(actions):
        known = {argument for action in actions for argument in arguments[action]}
        return f"{_listed(actions)} has no argument `{name}`: {did_you_mean(name, known)}"
    if len(set(actions)) == len(arguments):
        known = {argument for of_one in arguments.values() for argument in of_one}
        return f"no tool has an argument `{name}`: {did_you_mean(name, known)}"
    return (
        f"this applies to {_listed(actions)} too, which has no argument `{name}`: "
        "name the actions that it is for in its head"
    )


def _listed(actions: Sequence[str]) -> str:
    first, *others = sorted(set(actions))
    return f"`{first}`" + (f" and {len(others)} more" if others else "")


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
