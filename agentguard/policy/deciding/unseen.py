"""Arguments that reach a tool and no policy, and who asks for them all the same.

``context.input has path`` is false where a tool takes a path that policies do not see: a
forbid on it is quietly without effect, and so is what a grant takes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.text.lexer import Kind, tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from agentguard.policy.deciding.sketch import Part
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.policy.text.lexer import Token

# What stands before a member's name.
_OF: Final = frozenset((".", "[", "has"))


def asked_unseen(text: str, part: Part, tools: Iterable[GuardedTool]) -> Iterator[tuple[GuardedTool, str, Token]]:
    """Yield what a policy asks for and is not shown: of which tool, the argument's name, and where.

    Args:
        text: The policy.
        part: The same, as it is asked about.
        tools: What can be called.
    """
    concerned = [tool for tool in tools if tool.unseen and {*part.keys}.intersection(keys_of(tool.name, tool.groups))]
    found = tokens(text) if concerned else ()
    for tool in concerned:
        for name, token in dict(_asked_of_input(found, tool.unseen)).items():
            yield tool, name, token


def _asked_of_input(found: Sequence[Token], names: Collection[str]) -> Iterator[tuple[str, Token]]:
    """Yield where one of *names* is asked of `input`: `input.x`, `input["x"]`, `input has x`, `has input.x`."""
    for at, token in enumerate(found):
        name = _member(token)
        if name in names and found[at - 1].text in _OF and _may_be_input(found[: at - 1]):
            yield name, token


def _may_be_input(found: Sequence[Token]) -> bool:
    """Return whether what ends here may be `input`: it has the name, or comes out of brackets."""
    at = len(found) - 1
    if _member(found[at - 1] if found[at].text == "]" else found[at]) == "input":
        return True
    # `{i: context.input}.i` is still it, and so is `{i: context.input}["i"]`.
    while found[at].text == "]" or (found[at].kind is Kind.NAME and found[at - 1].text in {".", "has"}):
        at -= 3 if found[at].text == "]" else 2
    return found[at].text in {")", "}"}


def _member(token: Token) -> str:
    """Return the name that a token could be of a record's member; empty for other tokens."""
    if token.kind is Kind.STRING:
        return unquote(token.text)
    return token.text if token.kind is Kind.NAME else ""
