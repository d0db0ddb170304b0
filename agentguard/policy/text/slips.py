"""What people write who slip, or who know another language: each with what Cedar has for it.

Which effect was meant is said only where the word leaves no doubt: who follows the advice
would permit what should be forbidden.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from agentguard.policy.text.lexer import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.policy.text.lexer import Token

EFFECTS: Final = ("permit", "forbid")

_MEANS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("forbid", "deny", "block", "reject", "prohibit", "disallow", "refuse"), "forbid"),
    **dict.fromkeys(("permit", "allow", "grant"), "permit"),
}
_CLOSE: Final = 0.8
_FOREIGN: Final[Mapping[str, str]] = {"and": "&&", "or": "||"}
_CONDITIONS: Final[Mapping[str, str]] = {"if": "when", "where": "when", "except": "unless"}


def not_an_effect(found: Sequence[Token], at: int) -> str:
    """Return what to say of the token that stands where `permit` or `forbid` should."""
    word = found[at].text
    follows = [token.text for token in found[at + 1 : at + 2]]
    wanted = f"a policy starts with `permit` or `forbid`, got `{word}`"
    if follows == ["("] and found[at + 2 : at + 3] and found[at + 2].kind is Kind.STRING:
        return f"{wanted}: an annotation begins with `@`, write `@{word}(…)`"
    if at > 1 and found[at - 2].text == "@" and follows != ["("] and found[at].kind in {Kind.NAME, Kind.STRING}:
        return f"{wanted}: {_annotated(found[at - 1], found[at])}"
    meant = _MEANS.get(word.lower())
    if meant is not None:
        return f"{wanted}: write `{meant}`"
    close = difflib.get_close_matches(word, EFFECTS, cutoff=_CLOSE)
    # Not `unpermit`, which says the opposite.
    if len(close) == 1 and abs(len(close[0]) - len(word)) <= 1:
        return f"{wanted}: did you mean `{close[0]}`?"
    return f"{wanted}: write one of the two"


def _annotated(name: Token, value: Token) -> str:
    text = value.text if value.kind is Kind.STRING else f'"{value.text}"'
    return f"write `@{name.text}({text})`"


def not_a_token(found: Sequence[Token], at: int) -> str:
    """Return what to say of a token that Cedar did not expect, if it is a slip that is known."""
    token = found[at]
    if token.text in _FOREIGN:
        return f"`{token.text}` is no operator of Cedar: write `{_FOREIGN[token.text]}`"
    if at and found[at - 1].text == "not":
        return "`not` is no operator of Cedar: write `!`"
    unquoted = token.kind in {Kind.NAME, Kind.INTEGER}
    if unquoted and [part.text for part in found[max(at - 3, 0) : at : 2]] == ["@", "("]:
        return f"@{found[at - 2].text} wants a text in quotation marks: {_annotated(found[at - 2], token)}"
    return ""


def not_a_condition(word: str) -> str:
    """Return what to say of a word that stands where `when` or `unless` should."""
    fix = f"write `{_CONDITIONS[word]}`" if word in _CONDITIONS else "write one of the two"
    return f"a condition starts with `when` or `unless`, got `{word}`: {fix}"
