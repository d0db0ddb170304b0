"""The small changes of one policy's text that whoever tests it should notice.

Each is one replacement of consecutive characters, so that everything outside of the named
place stays as somebody wrote it. The places are found in the tokens: brackets, then `||`
and `&&`, then one comparison, as Cedar's grammar has it. Whether the changed text is still
a policy, and fits the schema, is for whoever makes one of it to find out.

What changes nothing, or nothing that another change does not show too, is left out: beside
`> 500` that becomes `>= 500`, `> 499` would ask the same question again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from agentguard.model import printable
from agentguard.policy.text.lexer import Kind, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLOSED_BY: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_CLOSED_BY.values())
_CLAUSES: Final = frozenset(("when", "unless"))
_EFFECTS: Final = {"permit": "forbid", "forbid": "permit"}
_JOINS: Final = {"&&": "||", "||": "&&"}
_SUMS: Final = {"+": "-", "-": "+", "*": "+"}
_COMPARES: Final = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_RELATIONS: Final = frozenset((*_COMPARES, "in", "has", "like", "is"))
_METHODS: Final = {
    "greaterThan": "greaterThanOrEqual",
    "greaterThanOrEqual": "greaterThan",
    "lessThan": "lessThanOrEqual",
    "lessThanOrEqual": "lessThan",
    "containsAll": "containsAny",
    "containsAny": "containsAll",
}
_SIGNS: Final = {"greaterThan": ">", "greaterThanOrEqual": ">=", "lessThan": "<", "lessThanOrEqual": "<="}
# Moving the comparison does the same as moving the number on its right by so much; on its left, by the opposite.
_SAME_SHIFT: Final = {">": -1, ">=": 1, "<": 1, "<=": -1}
_EXTENSIONS: Final = frozenset(("decimal", "datetime", "duration", "ip"))
_KEYWORDS: Final = frozenset(("if", "then", "else", "in", "has", "like", "is"))
_DECIMAL: Final = re.compile(r"-?\d{1,15}\.\d{1,4}", re.ASCII)
_RANGE: Final = re.compile(r"([0-9A-Fa-f:.]+)/(\d{1,3})", re.ASCII)
_BITS: Final = (32, 128)
_STEP: Final = Decimal("0.0001")
_DURATION: Final = re.compile(
    r"(?=-?\d)(-)?(?:(\d{1,15})d)?(?:(\d{1,15})h)?(?:(\d{1,15})m)?(?:(\d{1,15})s)?(?:(\d{1,15})ms)?", re.ASCII
)
_MILLISECONDS: Final = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_SHOWN: Final = 96


@dataclass(frozen=True, slots=True)
class Edit:
    """One change.

    Attributes:
        start: Where the text that goes begins, in characters from the policy's first.
        end: Where it ends.
        text: What comes in its place.
        what: What was changed, in one line that names no position.
    """

    start: int
    end: int
    text: str
    what: str


def edits_of(text: str) -> tuple[Edit, ...]:
    """Return the changes of one policy that Cedar parsed before, in the order of their places.

    No two of them say the same of what they changed.
    """
    found = sorted(_Policy(text).edits(), key=lambda edit: (edit.start, edit.end))
    seen: dict[str, int] = {}
    unique = []
    for edit in found:
        times = seen[edit.what] = seen.get(edit.what, 0) + 1
        what = edit.what if times == 1 else f"{edit.what} ({times})"
        unique.append(Edit(edit.start, edit.end, edit.text, what))
    return tuple(unique)


class _Policy:
    """One policy as tokens. Places are indices of tokens; a range ends before its second."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._texts = [token.text for token in self._tokens]
        self._closing = self._brackets()

    def _brackets(self) -> dict[int, int]:
        opened, closing = [], {}
        for at, text in enumerate(self._texts):
            if text in _CLOSED_BY:
                opened.append(at)
            elif text in _CLOSING:
                closing[opened.pop()] = at
        return closing

    def edits(self) -> Iterator[Edit]:
        at = 0
        while self._texts[at] == "@":
            start, at = at, self._past(at)
            if self._texts[start + 1] == "obligation":
                # Of all annotations the one that decides: without it nobody is asked, and there is no question to put.
                at = self._past(at) if self._texts[at : at + 2] == ["@", "approval_prompt"] else at
                yield self._without(self._tokens[start].offset, self._end(at - 1), (start, at))
        other = _EFFECTS[self._texts[at]]
        yield self._replaced(at, at + 1, other, f"`{self._texts[at]}` became `{other}`")
        end = self._closing[at + 1]
        for start, stop in self._items(at + 2, end):
            yield from self._head(start, stop)
        at = end + 1
        while self._texts[at] in _CLAUSES:
            end = self._closing[at + 1]
            yield self._without(self._tokens[at].offset, self._end(end), (at, end + 1))
            yield from self._expression(at + 2, end, None, truth=True)
            at = end + 1

    def _past(self, at: int) -> int:
        """Return the token after an annotation."""
        return at + (5 if self._texts[at + 2] == "(" else 2)

    def _head(self, start: int, stop: int) -> Iterator[Edit]:
        """Yield the ways to demand less of principal, action or resource."""
        if stop - start == 1:
            return
        variable = self._texts[start]
        yield self._replaced(start, stop, variable, f"`{self._shown(start, stop)}` became `{variable}`")
        if self._texts[start + 1] == "is":
            yield from self._within(start, stop)
        if self._texts[start + 2] == "[":
            yield from self._elements(start + 2, stop - 1)

    def _within(self, start: int, stop: int) -> Iterator[Edit]:
        """Yield a test of a type and of what something is in, without the second."""
        if "in" in self._texts[start:stop]:
            within = self._texts.index("in", start)
            yield self._without(self._end(within - 1), self._end(stop - 1), (within, stop))

    def _expression(self, start: int, stop: int, around: tuple[int, int] | None, *, truth: bool) -> Iterator[Edit]:
        """Yield the changes of one expression.

        Args:
            start: Its first token.
            stop: The one after its last.
            around: What to name as the place of a change in it; None for the expression's own parts.
            truth: Whether it is a truth value that nobody negates otherwise.
        """
        while self._is_word(start, "if"):
            then, otherwise = self._branches(start)
            whole = self._shown(start, stop)
            yield self._replaced(start, stop, self._span(then + 1, otherwise), f"`{whole}` became its `then`")
            yield self._replaced(start, stop, self._span(otherwise + 1, stop), f"`{whole}` became its `else`")
            yield from self._expression(start + 1, then, None, truth=True)
            yield from self._expression(then + 1, otherwise, around, truth=False)
            start = otherwise + 1
        either = list(self._items(start, stop, "||"))
        yield from self._joined(either)
        for first, last in either:
            both = list(self._items(first, last, "&&"))
            yield from self._joined(both)
            alone = len(either) == len(both) == 1
            for operand in both:
                yield from self._operand(*operand, operand if around is None or not alone else around)
                if truth or not alone:
                    yield from self._negated(*operand)

    def _branches(self, start: int) -> tuple[int, int]:
        """Return where the `then` and the `else` of an `if` stand."""
        words: list[int] = []
        waiting = 0
        at = start
        while len(words) < len(("then", "else")):
            at = self._closing.get(at, at) + 1
            if self._is_word(at, "if"):
                waiting += 2
            elif self._is_word(at, "then") or self._is_word(at, "else"):
                if not waiting:
                    words.append(at)
                waiting -= bool(waiting)
        return words[0], words[1]

    def _joined(self, operands: Sequence[tuple[int, int]]) -> Iterator[Edit]:
        """Yield each operand dropped, and each operator between them turned."""
        if len(operands) == 1:
            return
        yield from self._dropped(operands)
        for (_, end), _ in pairwise(operands):
            sign = self._texts[end]
            what = f"`{sign}` became `{_JOINS[sign]}` in `{self._shown(operands[0][0], operands[-1][1])}`"
            yield self._replaced(end, end + 1, _JOINS[sign], what)

    def _dropped(self, items: Sequence[tuple[int, int]]) -> Iterator[Edit]:
        """Yield each of several items dropped, with what stands between it and its neighbour."""
        yield self._without(self._tokens[items[0][0]].offset, self._tokens[items[1][0]].offset, items[0])
        for before, item in pairwise(items):
            yield self._without(self._end(before[1] - 1), self._end(item[1] - 1), item)

    def _negated(self, start: int, stop: int) -> Iterator[Edit]:
        operator = self._operator(start, stop)
        if operator is not None and self._texts[operator] in {"==", "!="}:
            # The comparison that becomes the other one says so already.
            return
        what = f"`{self._shown(start, stop)}` was negated"
        if self._texts[start] == "!" and operator is None:
            yield self._replaced(start, stop, self._span(start + 1, stop), what)
        else:
            yield self._replaced(start, stop, f"!({self._span(start, stop)})", what)

    def _operand(self, start: int, stop: int, around: tuple[int, int]) -> Iterator[Edit]:
        """Yield the changes of what is joined by `&&` and `||`: one comparison, or one value."""
        operator = self._operator(start, stop)
        if operator is None:
            yield from self._value(start, stop, around)
            return
        sign = self._texts[operator]
        if sign in _COMPARES:
            yield self._became(operator, operator + 1, _COMPARES[sign], around)
        same = _SAME_SHIFT.get(sign, 0)
        yield from self._value(start, operator, around, same=-same)
        if sign == "like":
            yield from self._pattern(operator + 1, around)
        elif sign == "is":
            yield from self._within(operator, stop)
        elif sign != "has":
            yield from self._value(operator + 1, stop, around, same=same)

    def _operator(self, start: int, stop: int) -> int | None:
        """Return where a comparison has its operator, or None if there is no comparison."""
        at = start
        while at < stop:
            if self._texts[at] in _RELATIONS and not self._is_member(at):
                return at
            at = self._closing.get(at, at) + 1
        return None

    def _pattern(self, at: int, around: tuple[int, int]) -> Iterator[Edit]:
        pattern = self._texts[at]
        # What stands behind a backslash is itself.
        stars = [found.start() for found in re.finditer(r"\\.|\*", pattern) if found[0] == "*"]
        for other in dict.fromkeys(('"*"', *(f"{pattern[:star]}{pattern[star + 1 :]}" for star in stars))):
            if other != pattern:
                yield self._became(at, at + 1, other, around)

    def _value(self, start: int, stop: int, around: tuple[int, int], *, same: int = 0) -> Iterator[Edit]:
        """Yield the changes of a value: of its literals, its arithmetic, and what stands in its brackets.

        Args:
            start: Its first token.
            stop: The one after its last.
            around: What to name as the place.
            same: By which step to leave a literal alone, since the comparison's change does that too.
        """
        same *= -1 if self._texts[start] == "-" else 1
        whole = stop - start - (self._texts[start] == "-")
        at = start
        while at < stop:
            text = self._texts[at]
            token = self._tokens[at]
            if text in _EXTENSIONS and not self._is_member(at) and self._texts[at + 1] == "(":
                end = self._closing[at + 1] + 1
                yield from self._extension(at, end, around, same if whole == end - at else 0)
                at = end
                continue
            if token.kind is Kind.INTEGER:
                for step in (-1, 1):
                    if step != same or whole > 1:
                        yield self._became(at, at + 1, str(int(text) + step), around)
            elif token.kind is Kind.STRING and self._texts[at - 1] != "::":
                yield self._became(at, at + 1, f'{text[:-1]}~"', around)
            elif text in _SUMS and at > start and self._ends_value(at - 1):
                yield self._became(at, at + 1, _SUMS[text], around)
            elif self._is_turned(at):
                yield self._became(at, at + 1, _METHODS[text], around)
            elif text in _CLOSED_BY:
                yield from self._bracket(at, around)
            at = self._closing.get(at, at) + 1

    def _is_turned(self, at: int) -> bool:
        """Return whether a method stands here that has an opposite; of one element, all are contained as any is."""
        if self._texts[at] not in _METHODS or not self._is_member(at) or self._texts[at + 1] != "(":
            return False
        return self._texts[at + 2] != "[" or len(list(self._items(at + 3, self._closing[at + 2]))) != 1

    def _bracket(self, at: int, around: tuple[int, int]) -> Iterator[Edit]:
        """Yield the changes of what stands in one pair of brackets."""
        end = self._closing[at]
        opening = self._texts[at]
        if opening == "[" and self._ends_value(at - 1):
            # The name of an attribute.
            return
        items = list(self._items(at + 1, end))
        if opening == "[" and len(items) > 1:
            # What a changed element would show, a dropped one shows.
            yield from self._elements(at, end)
            return
        if opening == "(" and self._ends_value(at - 1):
            same = _SAME_SHIFT.get(_SIGNS.get(self._texts[at - 1], ""), 0)
            for item in items:
                # An argument: bare, it is what the method compares with.
                yield from (
                    self._value(*item, around, same=same)
                    if self._is_bare(*item)
                    else self._expression(*item, around, truth=False)
                )
            return
        for start, stop in items:
            yield from self._expression(start + 2 if opening == "{" else start, stop, around, truth=False)

    def _is_bare(self, start: int, stop: int) -> bool:
        """Return whether a value is one literal of an extension type."""
        return self._texts[start] in _EXTENSIONS and self._closing.get(start + 1) == stop - 1

    def _elements(self, opening: int, closing: int) -> Iterator[Edit]:
        items = list(self._items(opening + 1, closing))
        if len(items) > 1:
            yield from self._dropped(items)

    def _extension(self, start: int, stop: int, around: tuple[int, int], same: int) -> Iterator[Edit]:
        """Yield an extension value moved by its smallest step."""
        name, text = self._texts[start], self._texts[start + 2]
        for step in (-1, 1):
            if step != same and (moved := _moved(name, text, step)):
                yield self._became(start, stop, moved, around)

    def _items(self, start: int, stop: int, separator: str = ",") -> Iterator[tuple[int, int]]:
        """Yield the ranges between separators, outside of brackets; a last separator ends nothing."""
        first = at = start
        while at < stop:
            if self._texts[at] == separator:
                yield first, at
                first = at + 1
            at = self._closing.get(at, at) + 1
        if first < stop:
            yield first, stop

    def _is_word(self, at: int, word: str) -> bool:
        """Return whether a keyword stands here, and no member of that name."""
        return self._texts[at] == word and not self._is_member(at)

    def _is_member(self, at: int) -> bool:
        before = self._texts[at - 1]
        return before == "." or (before == "has" and self._texts[at - 2] != ".")

    def _ends_value(self, at: int) -> bool:
        """Return whether a value can end here, so that what follows is an operator, a call or an index."""
        token = self._tokens[at]
        if token.kind is Kind.NAME:
            return token.text not in _KEYWORDS or self._is_member(at)
        return token.kind in {Kind.STRING, Kind.INTEGER} or token.text in {")", "]"}

    def _became(self, start: int, stop: int, other: str, around: tuple[int, int]) -> Edit:
        what = f"`{self._shown(start, stop)}` became `{printable(other)}` in `{self._shown(*around)}`"
        return self._replaced(start, stop, other, what)

    def _without(self, start: int, end: int, dropped: tuple[int, int]) -> Edit:
        return Edit(start, end, "", f"`{self._shown(*dropped)}` was dropped")

    def _replaced(self, start: int, stop: int, other: str, what: str) -> Edit:
        return Edit(self._tokens[start].offset, self._end(stop - 1), other, what)

    def _span(self, start: int, stop: int) -> str:
        return self._text[self._tokens[start].offset : self._end(stop - 1)]

    def _end(self, at: int) -> int:
        return self._tokens[at].offset + len(self._texts[at])

    def _shown(self, start: int, stop: int) -> str:
        """Return some tokens in one line, without what stands between them but one blank."""
        parts = [self._texts[start]]
        for before in range(start, stop - 1):
            parts += [" "] * (self._tokens[before + 1].offset > self._end(before)) + [self._texts[before + 1]]
        line = printable("".join(parts))
        return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _moved(name: str, literal: str, step: int) -> str:
    """Return the value of an extension type one step further; empty for one that has no steps."""
    value = literal[1:-1]
    if name == "datetime":
        return f'datetime({literal}).offset(duration("{step}ms"))'
    if name == "ip" and (match := _RANGE.fullmatch(value)):
        bits = int(match[2]) + step
        return f'ip("{match[1]}/{bits}")' if 0 <= bits <= _BITS[":" in value] else ""
    if name == "decimal" and _DECIMAL.fullmatch(value):
        return f'decimal("{Decimal(value) + step * _STEP:f}")'
    if name == "duration" and (match := _DURATION.fullmatch(value)):
        parts = zip(match.groups()[1:], _MILLISECONDS, strict=True)
        total = sum(int(count) * size for count, size in parts if count is not None)
        return f'duration("{(-total if match[1] else total) + step}ms")'
    return ""
