"""Find which part of a policy Cedar's validation means, which it does not say.

A policy that is cut off after an operand of `&&` or `||` is still a policy, and Cedar has
the same against it as soon as the operand at fault is in it. So the shortest beginning
that it objects to in the same words ends with that operand.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.policy.text.lexer import Kind, tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.text.lexer import Token

_JOINS: Final = frozenset(("&&", "||"))
_OPENS: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSES: Final = frozenset(_OPENS.values())
_CLAUSES: Final = frozenset(("when", "unless"))
# What stands before the name of a member.
_OF: Final = frozenset((".", "[", "has"))


class Part(NamedTuple):
    """A part of a policy's text: the offset of its first character, and how many it has."""

    offset: int
    length: int


class _Cut(NamedTuple):
    """Where a policy can be cut off: before which token, and what closes the brackets that are open there."""

    before: int
    closing: str


def operand(policy: Policy, objects: Callable[[str], bool]) -> tuple[Token, ...]:
    """Return the tokens of the operand at fault; those of the whole policy if it is not in a condition.

    Args:
        policy: A policy that Cedar objects to.
        objects: Whether it has the same against another policy's text.
    """
    found = tokens(policy.text)
    cuts = _cuts(found)
    first = bisect_left(cuts, 1, key=lambda cut: int(objects(_beginning(policy.text, found, cut))))
    if first == len(cuts):
        return found
    end = cuts[first].before
    return found[_start(found, end) : end]


def _beginning(text: str, found: Sequence[Token], cut: _Cut) -> str:
    last = found[cut.before - 1]
    return f"{text[: last.offset + len(last.text)]}{cut.closing};"


def _cuts(found: Sequence[Token]) -> list[_Cut]:
    """Return where a policy can be cut off, in order."""
    cuts: list[_Cut] = []
    # Brackets that are open, and whether what stands in them can be cut off.
    opened: list[tuple[str, bool]] = []
    in_clause = False
    for at, token in enumerate(found):
        whole = all(can for _, can in opened)
        if token.text in _JOINS and in_clause and whole:
            cuts.append(_Cut(at, "".join(_OPENS[bracket] for bracket, _ in reversed(opened))))
        elif token.text in _OPENS:
            clause = not opened and found[at - 1].text in _CLAUSES
            in_clause |= clause
            opened.append((token.text, clause or (token.text == "(" and not _is_called(found, at))))
        elif token.text in _CLOSES and opened:
            if len(opened) == 1 and token.text == "}":
                cuts.append(_Cut(at, "}"))
            opened.pop()
        elif token.text == "if" and opened:
            # Without its `else` it would be no expression.
            opened[-1] = (opened[-1][0], False)
    return cuts


def _is_called(found: Sequence[Token], at: int) -> bool:
    return found[at - 1].kind is Kind.NAME


def _start(found: Sequence[Token], end: int) -> int:
    """Return which token begins the operand that ends before *end*, within brackets."""
    depth, at = 0, end
    start: int | None = None
    while depth >= 0:
        at -= 1
        depth += (found[at].text in _CLOSES) - (found[at].text in _OPENS)
        if depth == 0 and found[at].text in _JOINS and start is None:
            start = at + 1
        elif depth == 0 and found[at].text == "if":
            # What is joined within its parts is no operand by itself.
            start = at
    return at + 1 if start is None else start


def whole(found: Sequence[Token]) -> Part:
    """Return the part that some tokens, at least one, are."""
    first, last = found[0], found[-1]
    return Part(first.offset, last.offset + len(last.text) - first.offset)


def member(found: Sequence[Token], path: str) -> Part:
    """Return where *path* is asked for, such as `input.rows`: as `.rows`, `["rows"]`, or after `has`."""
    above, _, name = path.rpartition(".")
    above = above.rpartition(".")[2]
    places = [at for at in range(2, len(found)) if _name(found[at]) == name and found[at - 1].text in _OF]
    close = [at for at in places if above and above in {_name(found[at - 2]), _name(found[at - 3])}]
    # Of some names Cedar tells no more than that they are quoted.
    return next((whole([found[at]]) for at in close or places), whole(found))


def entity(found: Sequence[Token], type_: str, id_: str) -> Part:
    """Return where an entity of that type and id is named."""
    return next(
        (
            whole(found[at - 2 : at + 1])
            for at in range(2, len(found))
            if found[at].kind is Kind.STRING
            and [token.text for token in found[at - 2 : at]] == [type_, "::"]
            and _name(found[at]) == id_
        ),
        whole(found),
    )


def named(found: Sequence[Token], path: str) -> Part:
    """Return where a type, or any other name with `::` between its parts, is used."""
    parts = path.split("::")
    size = 2 * len(parts) - 1
    spans = (found[at : at + size] for at in range(len(found) - size + 1))
    return next((whole(span) for span in spans if [token.text for token in span[::2]] == parts), whole(found))


def _name(token: Token) -> str:
    """Return the name that a token could be of a record's member; empty for other tokens."""
    if token.kind is Kind.STRING:
        try:
            return unquote(token.text)
        except ValueError:
            # A pattern of `like` has escapes of its own.
            return ""
    return token.text if token.kind is Kind.NAME else ""
