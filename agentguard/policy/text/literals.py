"""Find the entities that a policy's text names, and how it uses them.

Cedar answers a question about an entity that it does not have, such as
``User::"boss" in Group::"board"``, with a silent no. So what a policy asks *about*, and
does not merely compare with, has to be known when the policy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.model import EntityUid
from agentguard.policy.text.lexer import Kind, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.policy.text.lexer import Token

_COMPARES: Final = frozenset(("==", "!="))
_BEFORE_IN_LIST: Final = frozenset("[,")
_AFTER_IN_LIST: Final = frozenset("],")


@dataclass(frozen=True, slots=True)
class Literal:
    """An entity in a policy's text.

    Attributes:
        uid: The entity.
        offset: Where it starts, in characters from the policy's first token.
        asked: Whether the policy asks about it: its attributes, or what it is in.
        against: The name that it is compared with by `==` or `!=`, or empty.
    """

    uid: EntityUid
    offset: int
    asked: bool
    against: str


def literals(tokens: Sequence[Token]) -> tuple[Literal, ...]:
    """Return every entity that the tokens of a policy name, in order."""
    found = []
    for at, token in enumerate(tokens):
        if token.kind is Kind.STRING and at > 1 and tokens[at - 1].text == "::":
            start = at - 1
            while tokens[start].text == "::" and tokens[start - 1].kind is Kind.NAME:
                start -= 2
            start += 1
            type_ = "".join(part.text for part in tokens[start : at - 1])
            before = [part.text for part in tokens[max(start - 3, 0) : start]]
            after = [part.text for part in tokens[at + 1 : at + 4]]
            found.append(
                Literal(
                    uid=EntityUid(type_, unquote(token.text)),
                    offset=tokens[start].offset - tokens[0].offset,
                    asked=_is_asked(before, after),
                    against=_compared_with(before, after),
                )
            )
    return tuple(found)


def _is_asked(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether this is anything but an operand of `==`, right of `in`, or in a list.

    A list can only be searched, so what stands in it is compared. Everything that is not
    recognised counts as asked.
    """
    last = before[-1:]
    if after[:1] and after[0] in _AFTER_IN_LIST and last and last[0] in _BEFORE_IN_LIST:
        return False
    if after[:1] and after[0] in {".", "[", "has", "in", "is", "like"}:
        return True
    if last == ["("] and before[-2:-1] == ["contains"]:
        return False
    compared = bool(after[:1] and after[0] in _COMPARES)
    return not (compared or (last and (last[0] in _COMPARES or last[0] == "in")))


def _compared_with(before: Sequence[str], after: Sequence[str]) -> str:
    """Return the bare name on the other side of `==` or `!=`."""
    if len(before) > 1 and before[-1] in _COMPARES and before[-3:-2] != ["."]:
        return before[-2]
    if len(after) > 1 and after[0] in _COMPARES and after[2:3] not in (["."], ["["], ["::"]):
        return after[1]
    return ""
