"""Split Cedar text into tokens and statements, and bound it before Cedar parses it.

Cedar's parser recurses: brackets nested 700 deep, or a long `else if` chain, end the
process with a segmentation fault that no `except` can catch. So every text that is not
ours passes through here first. The lexer follows Cedar's own token rules, takes time
linear in the text, and knows where each token stands, which Cedar's errors do not say.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.policy.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentguard.limits import Limits


class Kind(StrEnum):
    """What a token is. Keywords are names: Cedar takes some of them as attributes."""

    NAME = "name"
    STRING = "string"
    INTEGER = "integer"
    SLOT = "slot"
    SYMBOL = "symbol"


class Token(NamedTuple):
    """One token: its kind, its exact text, and where it starts in the whole text."""

    kind: Kind
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy's text, up to and with its semicolon.

    Attributes:
        text: The exact text from the first token on, without leading comments.
        offset: Where it starts in the whole text.
        line: The line of its first token, from 1.
        column: The column of its first token, from 1.
        tokens: Its tokens, with offsets into the whole text.
    """

    text: str
    offset: int
    line: int
    column: int
    tokens: tuple[Token, ...]


class LexError(ValueError):
    """Text that Cedar cannot take, or must not be given.

    Attributes:
        what: What is wrong and the fix, one line, without a position.
        offset: Where, in characters from the start of the text.
        line: Where, from 1.
        column: Where, from 1.
        length: How many characters are at fault.
        name: What kind of mistake it is.
    """

    def __init__(self, text: str, offset: int, what: str, *, length: int = 1, name: str = "syntax") -> None:
        self.what = what
        self.offset = offset
        self.length = length
        self.name = name
        self.line, self.column = position(text, offset)
        super().__init__(f"{self.line}:{self.column}: {what}")

    @classmethod
    def at(cls, text: str, token: Token, what: str, name: str = "syntax") -> LexError:
        """Return the error at a token."""
        return cls(text, token.offset, what, length=len(token.text), name=name)

    def within(self, file: str) -> Problem:
        """Return the same, of a file."""
        return Problem(file, self.line, self.what, column=self.column, length=self.length, name=self.name)


# Possessive quantifiers: an unterminated string fails at once instead of backtracking.
# A comment ends at a carriage return too, as in Cedar: else `// …\rpermit(…)` would be
# a comment here and a policy there.
_TOKEN: Final = re.compile(
    r"""
    (?P<blank>[^\S\x1c-\x1f]++|//[^\n\r]*+)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*+)
    |(?P<string>"(?:\\[^\n]|[^"\\])*+")
    |(?P<integer>[0-9]++)
    |(?P<slot>\?[_a-zA-Z][_a-zA-Z0-9]*+)
    |(?P<symbol>::|==|!=|<=|>=|&&|\|\||[@.,;:(){}\[\]<>=+\-*/%!?])
    """,
    re.VERBOSE,
)

_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_OPERATORS: Final = frozenset(
    (".", "+", "-", "*", "/", "%", "!", "&&", "||", "==", "!=", "<", "<=", ">", ">=", "in", "like", "has", "is", "if")
)
_PAST_LIMIT: Final = "past-limit"
_CHAINED: Final = frozenset((Kind.NAME, Kind.STRING))
_SURROGATES: Final = (0xD800, 0xDFFF)
_ESCAPE: Final = re.compile(
    r"""\\(?:(?P<plain>[nrt0'"\\])|x(?P<hex>[0-7][0-9a-fA-F])|u\{(?P<code>[0-9a-fA-F]{1,6})\}|.?)""", re.DOTALL
)
# What other languages have for it.
_FOREIGN: Final = {
    "'": 'write text in `"`',
    "#": "write `//` before a comment",
    "&": "write `&&`",
    "|": "write `||`",
}
_PLAIN: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "'": "'", '"': '"', "\\": "\\"}


def tokens(text: str) -> tuple[Token, ...]:
    """Return the tokens of Cedar policy or schema text, without blanks and comments.

    Raises:
        LexError: At the first character that starts no token.
    """
    found = []
    end = 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise LexError(text, end, _unreadable(text, end))
        kind = match.lastgroup or "blank"
        if kind != "blank":
            found.append(Token(Kind(kind), match.group(), end))
        end = match.end()
    return tuple(found)


def _unreadable(text: str, offset: int) -> str:
    character = text[offset]
    if character == '"':
        return 'this string never ends: close it with `"`'
    if character == "\ufeff":
        return "the file starts with a byte order mark: save it as UTF-8 without one"
    if character in _FOREIGN:
        return f"`{character}` is not part of Cedar: {_FOREIGN[character]}"
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    return f"`{shown}` is not part of Cedar: remove it"


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of *offset*, both from 1, as editors count them."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def statements(text: str) -> tuple[Statement, ...]:
    """Split policy text at its semicolons.

    A policy holds no semicolon but the one that ends it, so an unclosed bracket does
    not swallow the policies after it. A last policy without a semicolon is returned
    too; Cedar refuses it.

    Raises:
        LexError: At the first character that starts no token.
    """
    found: list[Statement] = []
    current: list[Token] = []
    line, scanned = 1, 0
    everything = tokens(text)
    for at, token in enumerate(everything):
        current.append(token)
        if token.text == ";" or at == len(everything) - 1:
            start = current[0].offset
            line += text.count("\n", scanned, start)
            scanned = start
            column = start - text.rfind("\n", 0, start)
            found.append(Statement(text[start : token.offset + len(token.text)], start, line, column, tuple(current)))
            current = []
    return tuple(found)


def check_bounds(text: str, found: Sequence[Token], limits: Limits) -> None:
    """Refuse one policy that Cedar's recursive parser might not survive.

    Args:
        text: The whole text that the tokens come from.
        found: The tokens of one policy.
        limits: ``policy_bytes``, ``policy_nesting`` and ``policy_operators`` apply.

    Raises:
        LexError: At the token that passes a bound.
    """
    if not found:
        return
    start, end = found[0].offset, found[-1].offset + len(found[-1].text)
    size = len(text[start:end].encode("utf-8", "surrogatepass"))
    if size > limits.policy_bytes:
        what = f"a policy holds at most {limits.policy_bytes} bytes, this one {size}: split it in several"
        raise LexError.at(text, found[0], what, _PAST_LIMIT)
    for token, depth, operators in _measured(found):
        if depth > limits.policy_nesting:
            raise LexError.at(text, token, _too_deep(limits), _PAST_LIMIT)
        if operators > limits.policy_operators:
            what = f"a policy holds at most {limits.policy_operators} operators: split it in several"
            raise LexError.at(text, token, what, _PAST_LIMIT)


def _measured(found: Iterable[Token]) -> Iterator[tuple[Token, int, int]]:
    """Yield each token with the nesting and the operators up to it.

    Every `if` counts as a bracket that only the end of the bracket around it, or a
    comma, closes: an `else if` chain recurses as brackets do.
    """
    open_ifs = [0]
    depth = operators = 0
    chains = False
    for token in found:
        if token.text in _OPENING:
            # `a["b"]["c"]` and `a(b)(c)` build a chain as `a.b.c` does.
            operators += chains
            open_ifs.append(0)
            depth += 1
        elif token.text in _CLOSING and len(open_ifs) > 1:
            depth -= open_ifs.pop() + 1
        elif token.text == ",":
            depth -= open_ifs[-1]
            open_ifs[-1] = 0
        elif token.text in _OPERATORS:
            operators += 1
            if token.text == "if":
                open_ifs[-1] += 1
                depth += 1
        chains = token.kind in _CHAINED or token.text in _CLOSING
        yield token, depth, operators


def check_schema_bounds(text: str, found: Iterable[Token], limits: Limits) -> None:
    """Refuse schema text whose types are nested past ``policy_nesting``.

    Raises:
        LexError: At the token that passes the bound.
    """
    depth = 0
    for token in found:
        if token.text in _OPENING or token.text == "<":
            depth += 1
            if depth > limits.policy_nesting:
                raise LexError.at(text, token, _too_deep(limits), _PAST_LIMIT)
        elif token.text in _CLOSING or token.text == ">":
            depth -= 1


def _too_deep(limits: Limits) -> str:
    return f"brackets and `if` are nested at most {limits.policy_nesting} deep: flatten or split this"


def unquote(literal: str) -> str:
    """Return the value of a string token.

    Raises:
        ValueError: For an escape that Cedar does not have, or a bare carriage return.
    """
    body = literal[1:-1]
    if "\r" in body:
        message = "a string holds no bare carriage return: write \\r"
        raise ValueError(message)
    return _ESCAPE.sub(_unescape, body)


def _unescape(match: re.Match[str]) -> str:
    plain, code = match["plain"], match["hex"] or match["code"]
    if plain is not None:
        return _PLAIN[plain]
    if code is None or not _is_scalar(int(code, 16)):
        message = f"`{match.group()}` is not an escape that Cedar knows"
        raise ValueError(message)
    return chr(int(code, 16))


def _is_scalar(code: int) -> bool:
    """Whether *code* is a Unicode scalar value: no surrogate, none past the last plane."""
    return 0 <= code < _SURROGATES[0] or _SURROGATES[1] < code <= sys.maxunicode
