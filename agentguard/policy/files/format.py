"""Lay out Cedar policies as Cedar's own formatter does, and as nothing else.

What comes out is compared with what went in, token by token and comment by comment: a
formatter that changed a policy, or lost why it is there, would do so without a trace.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.policy.files.reader import read_policies
from agentguard.policy.problem import Problem, refused
from agentguard.policy.text.lexer import LexError, check_bounds, statements, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.limits import Limits
    from agentguard.policy.text.lexer import Statement

# A string is passed over whole: it may hold two slashes.
_COMMENT: Final = re.compile(r'"(?:\\[^\n]|[^"\\])*+"|(?P<comment>//[^\n\r]*)')
_MOST: Final = 5
_REST_OF_LINE: Final = re.compile(r"[^\S\n\r]*(?://[^\n\r]*)?")
_CLOSING: Final = frozenset(")]}")


def formatted(file: str, text: str, limits: Limits) -> str:
    """Return *text* in Cedar's layout: the same policies, with the same comments.

    Args:
        file: How messages call it.
        text: Policies and comments.
        limits: The bounds; Cedar's parser can end the process.

    Raises:
        PolicyError: If it holds anything but policies, or cannot be laid out as it stands.
    """
    try:
        found = statements(text)
        for statement in found:
            check_bounds(text, statement.tokens, limits)
    except LexError as error:
        raise refused([error.within(file)]) from None
    try:
        result = _laid_out(text, found)
    except ValueError as error:
        _, problems = read_policies(file, text, limits)
        raise refused(problems or [Problem(file, 0, f"cannot be formatted: {error}", name="syntax")]) from None
    if _comments(text) != _comments(result):
        what = "a comment would be lost: move it to a line of its own, above the policy"
        raise refused([Problem(file, _first_lost(text, result), what, name="lost-comment")])
    if _without_last_commas(text) != _without_last_commas(result):
        raise refused([Problem(file, 0, "a policy would be changed: leave this file as it is", name="changed-policy")])
    return result


def _laid_out(text: str, found: Sequence[Statement]) -> str:
    """Return Cedar's layout of each policy with the comments that belong to it.

    Its formatter takes a text whole as well, in time that grows with the square of it.
    """
    parts = []
    start = 0
    for statement in found:
        # A comment in the line that a policy ends in is about that policy, one below it about the next.
        end = next(_REST_OF_LINE.finditer(text, statement.offset + len(statement.text))).end()
        parts.append(_settled(text[start:end]))
        start = end
    parts.append(_settled(text[start:]))
    first, last = "\n\n".join(parts[:-1]), parts[-1]
    return "\n".join(part for part in (first, last) if part) + "\n" * bool(first or last)


def _settled(text: str) -> str:
    """Return what Cedar's formatter leaves alone: a comment amid an expression can move more than once."""
    for _ in range(_MOST):
        before, text = text, cedarpy.format_policies(text).strip()
        if text == before:
            break
    return text


def _comments(text: str) -> list[str]:
    return [match["comment"].rstrip() for match in _COMMENT.finditer(text) if match["comment"]]


def _first_lost(text: str, result: str) -> int:
    """Return the line of the first comment that is not where it was among the others."""
    found = [match for match in _COMMENT.finditer(text) if match["comment"]]
    kept = _comments(result)
    at = next(at for at in range(len(found)) if kept[at : at + 1] != [found[at]["comment"].rstrip()])
    return text.count("\n", 0, found[at].start()) + 1


def _without_last_commas(text: str) -> list[str]:
    """Return the tokens of a text, without the commas that end a list and change nothing."""
    found = [token.text for token in tokens(text)]
    return [one for one, after in pairwise([*found, ""]) if not (one == "," and after in _CLOSING)]
