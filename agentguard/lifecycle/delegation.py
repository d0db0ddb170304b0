"""What a run is granted, and what of it a child may ask for.

A server judges every link of a chain, so a child that got more than its parent could
not use it. Refusing it where it is asked for tells whoever asked what was too much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.model import EntityUid
from agentguard.policy.grants import check_grant, grant_text, listed_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agentguard.model import Invocation

    Arguments = Mapping[str, Mapping[str, Sequence[str | int | bool]]]

_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run may call.

    Attributes:
        text: The grant, as the token carries it.
        tools: The tools' names, where they were listed.
        arguments: The values that arguments of those tools may have.
    """

    text: str
    tools: frozenset[str] | None = None
    arguments: Arguments = field(default_factory=dict)


def read_bounds(*, tools: Sequence[str] | None, arguments: Arguments | None, grant: str | None) -> Bounds:
    """Return the grant that a run was asked to have.

    Args:
        tools: The tools that it may call.
        arguments: For a tool, the values that an argument may have.
        grant: Cedar text, as it is. With *tools*, both bind: a call is permitted by the
            text and is one of a listed tool.

    Raises:
        ConfigurationError: Nothing is granted, or what is granted is no grant.
    """
    if isinstance(tools, str):
        message = f"`tools` wants a list of names, got the text `{tools}`: put it into brackets"
        raise ConfigurationError(message)
    if grant is None:
        if tools is None:
            message = "a run wants tools= or grant=, got neither: say what it may call"
            raise ConfigurationError(message)
        return Bounds(
            text=grant_text(tools=tools, arguments=arguments), tools=frozenset(tools), arguments=arguments or {}
        )
    if arguments:
        message = "`arguments` bounds what tools= permits, got it beside grant=: write the values into the grant"
        raise ConfigurationError(message)
    if tools is None:
        check_grant(grant, _LIMITS)
        return Bounds(text=grant)
    # Checks the names; a grant that permits no tool is refused as it would be without *grant*.
    grant_text(tools=tools)
    listed = " || ".join(f"action == {EntityUid('Action', tool)}" for tool in dict.fromkeys(tools))
    text = f"{grant.rstrip()}\nforbid (principal, action, resource) unless {{ {listed} }};"
    check_grant(text, _LIMITS)
    return Bounds(text=text, tools=frozenset(tools))


def bounds_of(text: str) -> Bounds:
    """Return what a run may call, as far as its grant alone tells.

    Args:
        text: The grant of a token.
    """
    found = listed_in(text)
    return Bounds(text=text) if found is None else Bounds(text=text, tools=frozenset(found[0]), arguments=found[1])


def read_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return OAuth scopes that are still the same when a token has carried them.

    Raises:
        ConfigurationError: One of them would become several, or none.
    """
    if isinstance(scopes, str):
        message = f"`scopes` wants a list of scopes, got the text `{scopes}`: put it into brackets"
        raise ConfigurationError(message)
    found = frozenset(scopes)
    for scope in sorted(found):
        if scope.split() != [scope]:
            message = f"a scope wants text without blanks, got `{scope}`: list scopes one by one"
            raise ConfigurationError(message)
    return found


def check_child(
    parent: Invocation, granted: Bounds, asked: Bounds, scopes: frozenset[str], seconds: tuple[int, int]
) -> None:
    """Refuse a child that asks for more than its parent has.

    Args:
        parent: The run that delegates.
        granted: What it may call.
        asked: What the child would.
        scopes: The child's scopes.
        seconds: How long the child would last, and how long the parent still does.

    Raises:
        ConfigurationError: With everything that is too much.
    """
    wanted, left = seconds
    problems = []
    if not wanted <= left:
        problems.append(f"ends_in= up to `{left}`, when its parent ends, got `{wanted}`")
    if not scopes <= parent.scopes:
        problems.append(f"scopes among {_listed(parent.scopes)}, got also {_listed(scopes - parent.scopes)}")
    problems += _wider(granted, asked)
    if problems:
        message = f"a child has no more than its parent; wants {'; '.join(problems)}: ask for less"
        raise ConfigurationError(message)


def _wider(granted: Bounds, asked: Bounds) -> Iterator[str]:
    """Yield what listed tools and values are too much; what Cedar text permits, only the server can tell."""
    if granted.tools is None or asked.tools is None:
        return
    if more := asked.tools - granted.tools:
        yield f"tools among {_listed(granted.tools)}, got also {_listed(more)}"
    for tool in sorted(asked.tools & granted.arguments.keys()):
        for argument, values in granted.arguments[tool].items():
            chosen = asked.arguments.get(tool, {}).get(argument)
            where = f"`{argument}` of `{tool}` among {_listed(values)}"
            if chosen is None:
                yield f"{where}, got any"
            # With their types, since to Python True is 1.
            elif others := {(type(value), value) for value in chosen} - {(type(value), value) for value in values}:
                yield f"{where}, got also {_listed(value for _, value in others)}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(f"`{value}`" for value in values)) or "none"
