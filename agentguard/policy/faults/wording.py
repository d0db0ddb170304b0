"""What Cedar's validation has against a condition, in words that name the fix.

Cedar says which types it saw and which it wanted, and not what to write. What it says in
a way that is not known here is told as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.policy.text.lexer import Kind
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Op, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from collections.abc import Set as AbstractSet

    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.text.lexer import Token
    from agentguard.policy.text.tree import Node

_UNEXPECTED: Final = re.compile(r"unexpected type: expected (?P<wanted>.*) but saw (?P<got>.*)", re.DOTALL)
_APART: Final = re.compile(r"the types (?P<one>.*?) and (?P<other>.*) are not compatible", re.DOTALL)
_TAG: Final = re.compile(
    r"unable to guarantee safety of access to tag `(?P<tag>.*)` on entity type `(?P<type>[^`]+)`", re.DOTALL
)
_LITERAL: Final = re.compile(
    r"error during extension function argument validation: "
    r"failed to parse as (?:a )?(?P<kind>.+?)(?: value)?: `(?P<text>.*)`",
    re.DOTALL,
)
_COUNT: Final = re.compile(
    r"wrong number of arguments in extension function application\. Expected (?P<wanted>\d+), got (?P<got>\d+)"
)
_MADE: Final = re.compile(r"extension constructors may not be called with non-literal expressions.*", re.DOTALL)
_EMPTY: Final = re.compile(r"empty set literals are forbidden in policies.*", re.DOTALL)

_INTERNAL: Final = "__cedar::internal::"
_ANY_ENTITY: Final = f"{_INTERNAL}AnyEntity"
_ANY_SET: Final = f"Set<{_INTERNAL}Any>"
_ANY_RECORD: Final = f"{_INTERNAL}OpenRecord"
_SAMPLES: Final = {
    "decimal": 'decimal("100.0")',
    "datetime": 'datetime("2026-01-31")',
    "duration": 'duration("1h30m")',
    "ipaddr": 'ip("10.0.0.1")',
}
_CALLED: Final = {
    "String": "a text",
    "Long": "a whole number",
    "Bool": "a truth value",
    "decimal": "a decimal",
    "datetime": "a datetime",
    "duration": "a duration",
    "ipaddr": "an IP address",
}
# What has to follow each kind of value for it to be a condition.
_ASKED: Final = {
    "String": '`… == "x"`',
    "Long": "`… > 0`",
    "decimal": '`….greaterThan(decimal("100.0"))`',
    "datetime": '`… < datetime("2026-01-31")`',
    "duration": '`… < duration("1h")`',
    "ipaddr": '`….isInRange(ip("10.0.0.0/8"))`',
    "a set": '`….contains("x")`',
    "a record": '`….member == "x"`',
}
_FORMS: Final = {
    "decimal": 'digits with a point, and at most four of them after it: `decimal("12.50")`',
    "datetime": 'a day, or a moment with its zone: `datetime("2026-01-31T08:00:00Z")`',
    "duration": 'd, h, m, s and ms in this order: `duration("1h30m")`',
    "IP address": 'an address or a range: `ip("10.0.0.0/8")`',
}
_DECIMALS: Final = (
    'Cedar compares decimals by name, not with `<` or `>`: write `….greaterThan(decimal("100.0"))`, '
    "or `greaterThanOrEqual`, `lessThan`, `lessThanOrEqual`"
)
_RECKONED: Final = {
    "datetime": 'write `….offset(duration("1h"))` or `….durationSince(…)`',
    "duration": "write `….toMinutes()`",
}
_NO_VALUE: Final = 'a set equals no single value: write `….contains("x")`'
_UNLIKE: Final = {
    frozenset(("Long", "decimal")): 'a decimal equals nothing but a decimal: write `== decimal("100.0")`',
    frozenset(("Long", "String")): "a text equals no whole number: put it into quotes, or leave them out, on one side",
    frozenset(("Bool", "String")): "a truth value equals no text: write `true` or `false` without quotes",
    frozenset(("a record",)): "these records have other members: compare member by member, `….a == …`",
}
_IN: Final = (
    '`in` asks about entities alone: write them as `Group::"x"`, and ask `["x"].contains(…)` about other values'
)
_WRITTEN_OUT: Final = (
    'what makes a decimal, an IP address or a time takes a text that is written out, as `decimal("12.50")`, '
    "and no value of the call: give the tool's argument that type, or compare it as a text"
)
_TAGS: Final = frozenset(("hasTag", "getTag"))


_SIGNS: Final = frozenset(("+", "-", "*"))


class Said(NamedTuple):
    """What to say of a mistake: the message with its fix, and the name of the kind of mistake."""

    what: str
    name: str


class Blamed(NamedTuple):
    """What Cedar has something against.

    Attributes:
        policy: The policy.
        at: The part of it that is at fault.
        tagged: The entity types that have tags.
    """

    policy: Policy
    at: Sequence[Token]
    tagged: Collection[str]


def worded(message: str, blamed: Blamed) -> Said:
    """Return what to say in place of a message of Cedar's."""
    for pattern, tell, name in _KNOWN:
        if found := pattern.fullmatch(message):
            return Said(tell(found, blamed), name)
    return Said(f"does not fit the tools: {message}: change one of the two", "invalid")


def _unexpected(found: re.Match[str], blamed: Blamed) -> str:
    wanted, got = found["wanted"].split(", or "), found["got"]
    texts = {token.text for token in blamed.at}
    if _ANY_ENTITY in wanted:
        return _no_entity(got, texts, of_members=any(one.startswith(_ANY_RECORD) for one in wanted))
    if _ANY_SET in wanted:
        fix = '`… like "*x*"` to look into a text, or ' if got == "String" else ""
        return f"{_called(got)} is no set: write {fix}`[…]` for a set of one"
    if "Long" in wanted:
        return _ordered(got, texts)
    (kind, *_) = wanted
    if kind in _SAMPLES:
        return f"{_called(got)} is no {_noun(kind)}: write `{_SAMPLES[kind]}`"
    if kind == "Bool":
        asked = _ASKED.get(_kind(got), '`… == User::"x"`')
        return f"{_called(got)} is no condition: compare it, {asked}"
    return f"{_called(got)} stands where {_called(kind)} has to: change it"


def _no_entity(got: str, texts: AbstractSet[str], *, of_members: bool) -> str:
    if of_members:
        fix = "ask one of its methods, `….isEmpty()`" if _kind(got) == "a set" else "leave out what follows it"
        return f"{_called(got)} has no members: {fix}"
    return f"only an entity has tags, and this is {_called(got)}: ask `… has x`" if texts & _TAGS else _IN


def _ordered(got: str, texts: AbstractSet[str]) -> str:
    """Return what to say of a value that Cedar cannot order, or reckon with, as it does with whole numbers."""
    if got == "decimal":
        return _DECIMALS
    if texts & _SIGNS:
        fix = _RECKONED.get(got, "compare it as it is")
        return f"Cedar reckons with whole numbers alone, and this is {_called(got)}: {fix}"
    if got in _SAMPLES:
        return f"{_called(got)} is compared with another alone: write `{_SAMPLES[got]}`"
    return f"{_called(got)} is not more or less than another: compare it with `==`"


def _apart(found: re.Match[str], blamed: Blamed) -> str:
    sides = found["one"], found["other"]
    kinds = frozenset(map(_kind, sides))
    if sides[0] == f"Set<{sides[1]}>" or sides[1] == f"Set<{sides[0]}>":
        return _NO_VALUE
    if kinds == {"an entity"}:
        return f"`{sides[0]}` and `{sides[1]}` are two types: write a condition for each, joined with `||`"
    if kinds == {"an entity", "String"}:
        return f"an entity equals no text: {_as_entity(sides, blamed.at)}"
    if kinds in _UNLIKE:
        return _UNLIKE[kinds]
    # A text or a number comes second, for it is what people write in place of the others.
    first, second = sorted(sides, key=lambda side: side not in _SAMPLES)
    fix = f"write `{_SAMPLES[first]}`" if first in _SAMPLES else "compare what is alike"
    return f"{_called(first)} equals no {_noun(second)}: {fix}"


def _as_entity(sides: Sequence[str], at: Sequence[Token]) -> str:
    """Return what to write in place of a text that is compared with an entity, or the other way round."""
    type_ = next(side for side in sides if _kind(side) == "an entity")
    written = {token.text for token in at if token.kind is Kind.STRING}
    text = next(iter(written)) if len(written) == 1 else '"x"'
    if any(token.text == "::" for token in at) and len(written) == 1:
        return f"write {text} alone where a text is meant"
    return f"write `{type_}::{text}`"


def _tag(found: re.Match[str], blamed: Blamed) -> str:
    tag, type_ = found["tag"], found["type"]
    if type_ not in blamed.tagged:
        return f"`{type_}` has no tags: declare them, `entity {type_} tags String;`, or ask for an attribute"
    return f"it may have no tag `{tag}`: test it first, `….hasTag({tag}) && …`"


def _literal(found: re.Match[str], _: Blamed) -> str:
    form = _FORMS.get(found["kind"], "what Cedar can read")
    return f"`{found['text']}` is no {found['kind']}: write {form}"


def _count(found: re.Match[str], blamed: Blamed) -> str:
    """Return what to say of a call with too many or too few arguments; Cedar counts what a method is called of."""
    wanted, got = int(found["wanted"]), int(found["got"])
    start, end = blamed.at[0].offset, blamed.at[-1].offset
    bodies = (clause.body for clause in syntax_of(blamed.policy).clauses)
    calls = (node for body in bodies for node in walk(body) if start <= node.start <= end and _is_call(node, got))
    call = next(calls)
    of = call.op is Op.METHOD
    fix = "leave out the others" if got > wanted else "add what is missing"
    return f"`{'….' * of}{call.value}(…)` wants {_arguments(wanted - of)}, got {got - of}: {fix}"


def _is_call(node: Node, parts: int) -> bool:
    return node.op in {Op.CALL, Op.METHOD} and len(node.parts) == parts


def _arguments(count: int) -> str:
    return f"{count or 'no'} argument{'' if count == 1 else 's'}"


_KNOWN: Final[Sequence[tuple[re.Pattern[str], Callable[[re.Match[str], Blamed], str], str]]] = (
    (_UNEXPECTED, _unexpected, "type-mismatch"),
    (_APART, _apart, "type-mismatch"),
    (_TAG, _tag, "tag-without-has"),
    (_LITERAL, _literal, "bad-literal"),
    (_COUNT, _count, "wrong-arguments"),
    (_MADE, lambda *_: _WRITTEN_OUT, "not-a-literal"),
    (_EMPTY, lambda *_: "Cedar takes no empty set: ask `….isEmpty()`, or write what is in it", "empty-set"),
)


def _kind(type_: str) -> str:
    """Return the name of a scalar, or what else it is."""
    if type_ in _CALLED:
        return type_
    if type_.startswith("Set<"):
        return "a set"
    return "a record" if type_.startswith("{") else "an entity"


def _called(type_: str) -> str:
    """Return what people call a value of a type."""
    kind = _kind(type_)
    return f"an entity, of type `{type_}`" if kind == "an entity" else _CALLED.get(kind, kind)


def _noun(type_: str) -> str:
    kind = _kind(type_)
    return _CALLED.get(kind, kind).partition(" ")[2]
