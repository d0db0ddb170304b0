"""Grants: Cedar text, signed into a token, that bounds what one run may do.

A grant comes from outside, so `check_grant` bounds it before Cedar's parser sees it.
One that is written here is built as Cedar's JSON and rendered by Cedar: a tool's name or
an argument's value cannot become policy text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.errors import ConfigurationError, Refusal
from agentguard.limits import Limits
from agentguard.policy.conversion.values import shape_of, to_cedar
from agentguard.policy.text.lexer import Kind, LexError, check_bounds, statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.policy.text.lexer import Statement

GROUPS: Final = frozenset({"tools/call", "read-only", "destructive", "open-world", "idempotent"})
"""The groups of actions: every tool's, and one for each hint of its annotations."""

METHODS: Final[Mapping[str, str]] = {"resources/read": "uri", "prompts/get": "name"}
"""Methods that are actions too: on the server, for what nobody guards; and the argument that each judges.

Each is the group of the actions of guarded resources, or prompts, as well.
"""

_LIMITS: Final = Limits()
_NAME: Final = shape_of(str, where="a name")
_VALUES: Final = {kind: shape_of(kind, where="a value") for kind in (str, int, bool)}
_INPUT: Final = {".": {"left": {"Var": "context"}, "attr": "input"}}


def grant_text(
    *, tools: Sequence[str], arguments: Mapping[str, Mapping[str, Sequence[str | int | bool]]] | None = None
) -> str:
    """Write a grant that permits *tools*, and no others.

    Args:
        tools: The tools' names. ``resources/read`` and ``prompts/get`` stand for what nobody
            guards; a guarded one is named with its method, as in ``resources/read/notes``.
        arguments: For a tool, the values that an argument may have, by its name; a call
            without that argument is not permitted.

    Returns:
        Cedar text: one permit for the tools without *arguments*, and one for each other and
        for a method.

    Raises:
        ConfigurationError: If a list is empty, a name is that of a group of actions, a tool
            has arguments but is not among *tools*, a value is none that Cedar holds, or the
            text is too large.
    """
    arguments = arguments or {}
    if isinstance(tools, str):
        message = f"`tools` wants a list of names, got the text `{tools}`: put it into brackets"
        raise ConfigurationError(message)
    names = list(dict.fromkeys(tools))
    if not names:
        message = "a grant wants at least one tool, got none: name what the run may call"
        raise ConfigurationError(message)
    # Beside another name, a group would stand for every tool in it.
    if groups := sorted(GROUPS.intersection(names)):
        message = f"a grant lists tools, got the group `{groups[0]}`: name each tool, or write the grant in Cedar"
        raise ConfigurationError(message)
    stray = sorted(set(arguments) - set(names))
    if stray:
        message = f"a grant bounds arguments of `{stray[0]}`, which is not among its tools: add it to tools="
        raise ConfigurationError(message)
    # In a list, a method would stand for every action that is in it: it has a permit of its own.
    free = [name for name in names if name not in arguments and name not in METHODS]
    policies = [_permit(free, {})] if free else []
    policies += [_permit([name], arguments.get(name, {})) for name in names if name not in free]
    static = {f"policy{place}": policy for place, policy in enumerate(policies)}
    text = cedarpy.policies_from_json_str(
        json.dumps({"templates": {}, "staticPolicies": static, "templateLinks": []})
    ).strip()
    check_grant(text, _LIMITS)
    return text


def _permit(tools: Sequence[str], arguments: Mapping[str, Sequence[str | int | bool]]) -> dict[str, object]:
    actions = [{"type": "Action", "id": _name(tool)} for tool in tools]
    return {
        "effect": "permit",
        "principal": {"op": "All"},
        "action": {"op": "in", "entities": actions} if len(actions) > 1 else {"op": "==", "entity": actions[0]},
        "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": _one_of(name, values)} for name, values in arguments.items()],
    }


def _one_of(argument: str, values: Sequence[str | int | bool]) -> dict[str, object]:
    if isinstance(values, str):
        message = f"the values of argument `{argument}` want a list, got the text `{values}`: put it into brackets"
        raise ConfigurationError(message)
    kinds = {type(value) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in _VALUES:
        message = (
            f"a grant wants the values of argument `{argument}` all strings, all whole numbers or all bools, "
            "at least one: list what the run may use"
        )
        raise ConfigurationError(message)
    try:
        allowed = [{"Value": to_cedar(value, _VALUES[kind], _LIMITS)} for value in values]
    except Refusal as refusal:
        message = f"a grant cannot hold a value of argument `{argument}`: {refusal.detail}"
        raise ConfigurationError(message) from refusal
    name = _name(argument)
    given = {"has": {"left": _INPUT, "attr": name}}
    among = {"contains": {"left": {"Set": allowed}, "right": {".": {"left": _INPUT, "attr": name}}}}
    return {"&&": {"left": given, "right": among}}


def _name(name: str) -> object:
    try:
        return to_cedar(name, _NAME, _LIMITS)
    except Refusal as refusal:
        message = f"a grant cannot name a tool or an argument like this: {refusal.detail}"
        raise ConfigurationError(message) from refusal


def listed_in(text: str) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, Sequence[str | int | bool]]]] | None:
    """Return the tools and the values of their arguments that a grant lists.

    Args:
        text: A grant.

    Returns:
        What `grant_text` wrote it from; None if that is not what wrote it.
    """
    tools: list[str] = []
    arguments: dict[str, dict[str, list[str | int | bool]]] = {}
    try:
        check_grant(text, _LIMITS)
        for policy in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values():
            action = policy["action"]
            names = [entity["id"] for entity in action.get("entities", None) or [action["entity"]]]
            tools += names
            for condition in policy["conditions"]:
                given, among = condition["body"]["&&"]["left"], condition["body"]["&&"]["right"]
                values = [value["Value"] for value in among["contains"]["left"]["Set"]]
                arguments.setdefault(names[0], {})[given["has"]["attr"]] = values
        written = grant_text(tools=tools, arguments=arguments)
    except (ConfigurationError, ValueError, LookupError, TypeError, AttributeError):
        return None
    # Read loosely, and believed only if it leads back to the very text.
    return (tuple(tools), arguments) if written == text else None


def check_grant(text: str, limits: Limits) -> None:
    """Refuse a grant that is not plain, small Cedar policies that permit something.

    It may still name what a server does not have: the server validates it.

    Raises:
        ConfigurationError: If it is longer than ``grants_bytes``, passes a bound of
            policies, does not parse, has an annotation or a slot, or no permit.
    """
    try:
        size = len(text.encode())
        if size > limits.grants_bytes:
            message = f"a grant holds at most {limits.grants_bytes} bytes, this one {size}: grant fewer things"
            raise ConfigurationError(message)
        # Bounds first: brackets nested 700 deep end the process in Cedar's parser.
        found = statements(text)
        for statement in found:
            check_bounds(text, statement.tokens, limits)
        effects = {_effect(statement) for statement in found}
        if "permit" not in effects:
            message = "a grant wants a `permit`, got none: it would allow nothing"
            raise ConfigurationError(message)
        cedarpy.PolicySet.from_str(text)
    except (LexError, UnicodeEncodeError) as error:
        message = f"a grant is not Cedar: {error}"
        raise ConfigurationError(message) from error
    except ValueError as error:
        message = f"a grant does not parse: {' '.join(str(error).split())}"
        raise ConfigurationError(message) from error


def _effect(statement: Statement) -> str:
    for token in statement.tokens:
        if token.kind is Kind.SLOT or token.text == "@":
            what = "a template" if token.kind is Kind.SLOT else "an annotation"
            message = f"a grant has {what} in line {statement.line}: write plain policies"
            raise ConfigurationError(message)
    return statement.tokens[0].text
