"""What Cedar's validation says, in words that name the fix.

Every check returns problems with file and line.
"""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.policy.faults.culprit import entity, member, named, operand, whole
from agentguard.policy.faults.vain import never_the_run
from agentguard.policy.faults.wording import Blamed, worded
from agentguard.policy.files.several import COMMON, split
from agentguard.policy.problem import Problem, did_you_mean
from agentguard.policy.schemas.schema import CONTEXT, GROUPS, totals_of
from agentguard.policy.text.lexer import Kind, position, tokens
from agentguard.policy.text.placing import problem_at
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Op

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.faults.culprit import Part
    from agentguard.policy.schemas.fragments import Fragment
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.policy.text.lexer import LexError, Token

_PREFIX: Final = re.compile(r"(?:for policy `policy[0-9]+`, )?(.*)", re.DOTALL)
_NOT_IN_CONTEXT: Final = re.compile(
    r'attribute `(?P<path>[^`]+)` in context for Action::"(?P<action>[^`"]*)" not found'
)
_NO_ATTRIBUTE: Final = re.compile(r"attribute `(?P<path>[^`]+)` on entity type `(?P<type>[^`]+)` not found")
_BAD_SCHEMA: Final = "bad-schema"
_RUN: Final = "Invocation"
_PATH: Final = re.compile(r"\w+(?:::\w+)*")
# Searching costs some validations, and a folder that is all wrong is not searched to its end.
_SEARCHED: Final = 20
_TOGETHER: Final = 20
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
    tagged: Collection[str],
) -> list[Problem]:
    """Return a problem for every mistake of a policy that does not fit the schema.

    Args:
        policies: What to check.
        schema: The whole schema.
        tools: All that the guard judges.
        attributes: The names of the attributes of each entity type.
        tagged: The entity types that have tags.
    """
    problems: dict[int, list[Problem]] = {}
    # Cedar tells what the context lacks once for each action that a policy applies to.
    lacking: dict[tuple[int, str], list[str]] = {}
    said: dict[tuple[int, str], str] = {}
    searched = 0

    def tokens_at_fault(place: int, message: str) -> tuple[Token, ...]:
        nonlocal searched
        searched += 1
        if searched > _SEARCHED:
            return tokens(policies[place].text)
        return operand(policies[place], lambda text: message in _messages(text, schema))

    for place, error in _errors(policies, schema):
        message = _message(error)
        found = problems.setdefault(place, [])
        if lack := _NOT_IN_CONTEXT.fullmatch(message):
            lacking.setdefault((place, lack["path"]), []).append(lack["action"])
            said.setdefault((place, lack["path"]), message)
        elif message != _NOWHERE:
            blamed = Blamed(policies[place], tokens_at_fault(place, message), tagged)
            found.append(_invalid(blamed, message, tools, attributes))
        elif not (found or _is_for_others(policies[place]) or any(map(never_the_run, policies[place].literals))):
            # Else it follows from an action or a type that is not known, or `vain_comparisons` tells it.
            found.append(_nowhere(policies[place], tools))
    for (place, path), actions in lacking.items():
        at = tokens_at_fault(place, said[place, path])
        problems[place].append(_lacks(policies[place], path, at, actions, tools))
    return [problem for found in problems.values() for problem in dict.fromkeys(found)]


def _message(error: str) -> str:
    match = _PREFIX.fullmatch(error)
    return match[1] if match else error


def _errors(policies: Sequence[Policy], schema: cedarpy.Schema) -> Iterator[tuple[int, str]]:
    """Yield what Cedar has against each policy, and the policy's place.

    A few at a time: Cedar holds the interpreter meanwhile, and a server that compiles other
    policies in a thread goes on answering.
    """
    for start in range(0, len(policies), _TOGETHER):
        some = policies[start : start + _TOGETHER]
        for error in cedarpy.validate_policies("\n".join(policy.text for policy in some), schema).errors:
            # Cedar numbers the policies of a text in order.
            yield start + int(error.policy_id.removeprefix("policy")), error.error


def _messages(text: str, schema: cedarpy.Schema) -> set[str]:
    return {_message(error.error) for error in cedarpy.validate_policies(text, schema).errors}


def _invalid(
    blamed: Blamed, message: str, tools: Sequence[GuardedTool], attributes: Mapping[str, Collection[str]]
) -> Problem:
    policy, at = blamed.policy, blamed.at
    everything = tokens(policy.text)
    if found := _NO_ACTION.fullmatch(message):
        known = {*(tool.name for tool in tools), *(group for tool in tools for group in tool.groups)}
        what = f"there is no action `{found['action']}`: {did_you_mean(found['action'], known)}"
        return _problem(policy, entity(everything, "Action", found["action"]), what, "unknown-action")
    if found := _NO_TYPE.fullmatch(message):
        what = f"there is no entity type `{found['type']}`: {did_you_mean(found['type'], attributes)}"
        return _problem(policy, named(everything, found["type"]), what, "unknown-type")
    if found := _NO_ATTRIBUTE.fullmatch(message):
        _, _, name = found["path"].rpartition(".")
        close = difflib.get_close_matches(name, sorted(attributes.get(found["type"], ())), n=1)
        fix = f"did you mean `{close[0]}`?" if close else "correct the name, or declare it"
        what = f"`{found['type']}` has no attribute `{found['path']}`: {fix}"
        return _problem(policy, member(at, found["path"]), what, "unknown-attribute")
    if found := _OPTIONAL.fullmatch(message):
        record, _, name = found["path"].rpartition(".")
        owner = f"context.{record}".rstrip(".") if " in context " in found["where"] else "…"
        what = f"`{found['path']}` may be absent: test it first, `{owner} has {name} && …`"
        return _problem(policy, member(at, found["path"]), what, "optional-without-has")
    said = worded(message, blamed)
    return _problem(policy, whole(at), said.what, said.name)


def _problem(policy: Policy, part: Part, what: str, name: str) -> Problem:
    return problem_at(policy, part.offset, part.length, what, name)


def _nowhere(policy: Policy, tools: Sequence[GuardedTool]) -> Problem:
    """Return what is wrong with a head that nothing passes."""
    found = tokens(policy.text)
    part = whole([next((token for token in found if token.text in {"permit", "forbid"}), found[0])])
    principal, actions = policy.scope.principal, policy.scope.actions or frozenset()
    groups = sorted(actions & GROUPS)
    head = syntax_of(policy)
    what = "no tool fits principal, action and resource together: compare them with the tools' resources"
    if groups and head.action.op is Op.EQUAL:
        part = entity(found, "Action", groups[0])
        what = f'`{groups[0]}` is a group of actions, and no call is one: write `action in Action::"{groups[0]}"`'
    elif groups and not actions & {group for tool in tools for group in tool.groups}:
        part = entity(found, "Action", groups[0])
        what = f'no tool here is in `Action::"{groups[0]}"`: annotate those that are, or remove this policy'
    elif head.principal.op is Op.IS and head.principal.value != _RUN:
        what = (
            f"`principal` is a run, and never of type `{head.principal.value}`: leave `is {head.principal.value}` out"
        )
    elif principal is not None and principal.type in {"User", "Group"}:
        of = "==" if principal.type == "User" else "in"
        what = (
            f"a run is never in a {principal.type.lower()}{' of users' if of == 'in' else ''}: leave `principal` alone "
            f"in the head, and write `when {{ principal has user && principal.user {of} {principal} }}`"
        )
    return _problem(policy, part, what, "impossible-head")


def _is_for_others(policy: Policy) -> bool:
    """Whether a policy that servers have in common is about groups of actions: not every server has a tool in each."""
    actions = policy.scope.actions
    if actions is None or not actions <= GROUPS or split(policy.file)[0] != COMMON:
        return False
    return syntax_of(policy).action.op is Op.IN


def _lacks(
    policy: Policy, path: str, at: Sequence[Token], actions: Sequence[str], tools: Sequence[GuardedTool]
) -> Problem:
    """Return what to do about a *path* that the contexts of *actions* do not have."""
    record, _, name = path.rpartition(".")
    lack = f"has no `{path}`"
    part = member(at, path)
    if record == "input":
        return _problem(policy, part, _no_argument(policy, name, actions, tools), "unknown-argument")
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
    elif record == "run.spent":
        totals = totals_of(tools)
        fix = (
            did_you_mean(name, totals) if totals else "no tool adds to a total, so declare it, with `Spend` or spends="
        )
        what = f"the context {lack}: {fix}"
    elif record in _RECORDS:
        what = f"the context {lack}: {did_you_mean(name, _members(_RECORDS[record]))}"
    else:
        within = {member for tool in tools if tool.name in actions for member in _members(tool.input.cedar, deep=True)}
        close = difflib.get_close_matches(name, sorted(within), n=1)
        fix = f"did you mean `{close[0]}`?" if close else "correct the name"
        what = f"the context of {_listed(actions)} {lack}: {fix}"
    return _problem(policy, part, what, "unknown-fact" if "facts" in {path, record} else "unknown-context")


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


def _members(record: str, *, deep: bool = False) -> list[str]:
    """Return the names in a record type's text, one level of braces deep, or more if *deep*."""
    names, depth = [], 0
    found = tokens(record)
    for token, after in pairwise(found):
        depth += (token.text == "{") - (token.text == "}")
        if (depth == 1 or deep) and token.kind in (Kind.NAME, Kind.STRING) and after.text in {":", "?"}:
            names.append(token.text.strip('"'))
    return names


def invalid_types(fragments: Sequence[Fragment], error: LexError) -> Problem:
    """Return what is wrong with the team's own types, which begin the schema that was read, one after the other."""
    start = 0
    for fragment in fragments:
        if error.offset <= start + len(fragment.text):
            line, column = position(fragment.text, error.offset - start)
            word = _PATH.match(fragment.text, error.offset - start)
            length = len(word[0]) if word else 1
            return Problem(fragment.path, line, error.what, column=column, length=length, name=_BAD_SCHEMA)
        start += len(fragment.text) + 1
    return Problem("", 0, f"the generated schema: {error.what}", name=_BAD_SCHEMA)


def invalid_schema(fragments: Sequence[Fragment], message: str) -> Problem:
    """Return what Cedar has against the joined schema, with the place where it can be."""
    words = re.findall(r"`([^`]+)`", message) + re.findall(r": (\S+)$", message)
    for word in words:
        for fragment in fragments:
            match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", fragment.text)
            if match is not None:
                line, column = position(fragment.text, match.start())
                what = f"{message}: correct or declare it"
                return Problem(fragment.path, line, what, column=column, length=len(word), name=_BAD_SCHEMA)
    where = ", ".join(fragment.path for fragment in fragments) or "the generated schema"
    return Problem("", 0, f"{where}: {message}: compare it with Cedar's schema grammar", name=_BAD_SCHEMA)
