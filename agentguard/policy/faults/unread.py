"""What Cedar's parser has against a policy, in words that name the fix, and where it is where Cedar does not say.

What it says in a way that is not known here is told as it is.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.policy.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentguard.policy.text.lexer import Token

_METHODS: Final = (
    "contains", "containsAll", "containsAny", "isEmpty", "hasTag", "getTag",
    "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
    "isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
    "offset", "durationSince", "toDate", "toTime",
    "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays",
)  # fmt: skip
_FUNCTIONS: Final = ("decimal", "ip", "datetime", "duration")
_VARIABLES: Final = ("principal", "action", "resource", "context")
_NOTHING: Final = frozenset(("null", "nil", "none", "None", "undefined"))
_COMPARISONS: Final = frozenset(("==", "!=", "<", "<=", ">", ">=", "in", "has", "like", "is"))
_BRACKETS: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


class Told(NamedTuple):
    """What to say, and the token that it is about, where that is known."""

    what: str
    at: Token | None = None


def told(message: str, found: Sequence[Token]) -> Told:
    """Return what to say in place of a message of Cedar's parser.

    Args:
        message: What it says.
        found: The policy's tokens.
    """
    for pattern, tell in _KNOWN:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            return tell(match, found)
    return Told(f"Cedar cannot read this policy: {message}")


def _variable(match: re.Match[str], found: Sequence[Token]) -> Told:
    name = match[1]
    type_, _, id_ = name.rpartition("::")
    at = _first(name.partition("::")[0])(found)
    if name in _NOTHING:
        return Told(f"Cedar has no `{name}`: ask whether it is there, `… has x`", at)
    if type_ or name[:1].isupper():
        entity = f'{type_}::"{id_}"' if type_ else f'{name}::"x"'
        return Told(f"`{name}` is no entity: write its id in quotes, `{entity}`", at)
    known = ", ".join(f"`{one}`" for one in _VARIABLES)
    return Told(f"`{name}` is no variable: there is {known}, and a text stands in quotes", at)


def _first(*texts: str) -> Callable[[Sequence[Token]], Token | None]:
    return lambda found: next((token for token in found if token.text in texts), None)


def _chained(_: re.Match[str], found: Sequence[Token]) -> Told:
    """Find the second comparison of those that are not in brackets of their own."""
    seen = [False]
    at = None
    for token in found:
        step = _BRACKETS.get(token.text, 0)
        if step > 0:
            seen.append(False)
        elif step < 0 and len(seen) > 1:
            seen.pop()
        elif token.text in {"&&", "||", ",", "then", "else"}:
            seen[-1] = False
        elif token.text in _COMPARISONS:
            if seen[-1]:
                at = token
                break
            seen[-1] = True
    return Told("comparisons are not chained: join two with `&&`, or put one into brackets", at)


def _call(match: re.Match[str], found: Sequence[Token]) -> Told:
    wanted, got = int(match[2]), int(match[3])
    fix = "leave out the others" if got > wanted else "add what is missing"
    arguments = f"{wanted or 'no'} argument{'' if wanted == 1 else 's'}"
    return Told(f"`….{match[1]}(…)` wants {arguments}, got {got}: {fix}", _first(match[1])(found))


def _method(match: re.Match[str], found: Sequence[Token]) -> Told:
    name = match[1]
    close = difflib.get_close_matches(name, _METHODS, n=1)
    fix = (
        f"did you mean `{close[0]}`?" if close else "compare a text with `==` or `like`, and ask a set `….contains(…)`"
    )
    return Told(f"Cedar has no method `{name}`: {fix}", _first(name)(found))


def _function(match: re.Match[str], found: Sequence[Token]) -> Told:
    name = match[1]
    return Told(f"Cedar has no function `{name}`: {did_you_mean(name, _FUNCTIONS)}", _first(name)(found))


def _says(what: str, *texts: str) -> Callable[[re.Match[str], Sequence[Token]], Told]:
    return lambda match, found: Told(what.format(*match.groups()), _first(*texts, *match.groups())(found))


_KNOWN: Final[Sequence[tuple[str, Callable[[re.Match[str], Sequence[Token]], Told]]]] = (
    (r"invalid variable: (\S+)", _variable),
    (r"`(\w+)` is not a valid method", _method),
    (r"`(\w+)` is not a valid function", _function),
    (r"call to `(\w+)` requires exactly (\d+) arguments?, but got (\d+) arguments?", _call),
    (r"multiple relational operators .*", _chained),
    (r"division is not supported", _says("Cedar does not divide: multiply the other side", "/")),
    (
        r"remainder/modulo is not supported",
        _says("Cedar has no remainder: have the tool work it out, with facts=", "%"),
    ),
    (
        r"integer literal `(\d+)` is too large",
        _says("a whole number has at most 64 bits, got `{0}`: take a smaller one"),
    ),
    (r"duplicate key `(.+)` in record literal", _says("`{0}` is in this record twice: remove one")),
    (
        r"this identifier is reserved and cannot be used: (\w+)",
        _says('`{0}` is a word of Cedar\'s: put it into quotes, `["{0}"]`'),
    ),
    (
        r"right hand side of a `like` expression must be a pattern literal, but got `(.+)`",
        _says('`like` wants a pattern in quotes, got `{0}`: write `like "a*"`', "like"),
    ),
    (
        r"right hand side of an `is` expression must be an entity type name, but got `(.+)`",
        _says("`is` wants a type, got `{0}`: write it without quotes, `is User`", "is"),
    ),
    (r"`is` cannot appear in the action scope", _says("every action is one: leave `is` out of the head", "is")),
    (
        r"found the variable `(\w+)` where the variable `\w+` must be used",
        _says("a head names principal, action and resource, in this order: put `{0}` in its place"),
    ),
    (
        r"found an invalid variable in the policy scope: (\w+)",
        _says("a head names `principal`, `action` and `resource`, got `{0}`: write one of them"),
    ),
    (
        r"expected single entity uid(?: or template slot)?, found set of entity uids",
        _says(
            "a head compares with one entity, and only `action in` takes several: write `when {{ principal in […] }}`"
        ),
    ),
    (
        r"expected an entity uid, found an? `(&&|\|\|)` expression",
        _says('a head has no `{0}`: write `action in [Action::"a", Action::"b"]`, or a `when`'),
    ),
    (
        r"`(when|unless)` condition clause cannot be empty",
        _says("`{0}` is empty: write a condition into it, or remove it"),
    ),
)
