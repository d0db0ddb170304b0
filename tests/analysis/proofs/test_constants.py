"""Constants are read as Cedar reads them, and what is no constant is none."""

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.analysis.proofs.constants import Constant, constant_of, like
from agentguard.model import EntityUid
from agentguard.policy.text.syntax import syntax_of_text
from agentguard.policy.text.tree import Node


def node(text: str) -> Node:
    """Return the tree of an expression."""
    (clause,) = syntax_of_text(f"permit (principal, action, resource) when {{ {text} }};").clauses
    return clause.body


def cedar(condition: str) -> bool:
    """Return what Cedar says of a condition."""
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    request = {"principal": 'A::"a"', "action": 'Action::"b"', "resource": 'C::"c"', "context": {}}
    answer = cedarpy.is_authorized(request, text, [])
    assert answer.diagnostics.errors == []
    return answer.decision is cedarpy.Decision.Allow


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-5", Constant("Long", -5)),
        ("17 * 60 + 30", Constant("Long", 1050)),
        ("-(8 - 10)", Constant("Long", 2)),
        ("-9223372036854775808", Constant("Long", -(2**63))),
        ("true", Constant("Bool", value=True)),
        ('"a"', Constant("String", "a")),
        ('A::B::"c"', Constant("entity", EntityUid("A::B", "c"))),
        ('decimal("-1.5")', Constant("decimal", -15_000)),
        ('decimal("0.0001")', Constant("decimal", 1)),
        ('datetime("1970-01-02")', Constant("datetime", 86_400_000)),
        ('datetime("1970-01-01T01:00:00.001+0100")', Constant("datetime", 1)),
        ('datetime("1969-12-31T23:00:00-0100")', Constant("datetime", 0)),
        ('duration("-1d2h3m4s5ms")', Constant("duration", -93_784_005)),
    ],
)
def test_a_constant_has_a_kind_and_a_value(text: str, wanted: Constant) -> None:
    """Numbers are whole, in the smallest unit that Cedar has."""
    assert constant_of(node(text)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "context.a",
        "9223372036854775807 + 1",
        "-9223372036854775807 - 1 - 1",
        "4611686018427387904 * 2 - 1",
        "context.a + 1",
        'ip("10.0.0.1")',
        'decimal("1")',
        'decimal("1.00000")',
        "decimal(context.a)",
        "decimal(5)",
        'decimal("1.0", "2.0")',
        'datetime("2026-02-30")',
        'datetime("2026-13-01T00:00:00Z")',
        'datetime("2026-01-01T00:00:00+9900")',
        'datetime("tomorrow")',
        'duration("")',
        'duration("-")',
        'duration("1m1h")',
        'toString("a")',
    ],
)
def test_what_is_not_certain_is_no_constant(text: str) -> None:
    """Nothing is claimed of it then."""
    assert constant_of(node(text)) is None


TIMES = st.datetimes().map(lambda time: time.strftime("%Y").zfill(4) + time.strftime("-%m-%dT%H:%M:%S.123+0130"))
SAME = [
    ('decimal("1.0")', 'decimal("1.00")'),
    ('datetime("2026-11-24T11:00:00+0100")', 'datetime("2026-11-24T10:00:00Z")'),
    ('datetime("2026-11-24")', 'datetime("2026-11-24T00:00:00Z")'),
    ('duration("1h")', 'duration("60m")'),
    ('duration("1d")', 'duration("24h")'),
    ('decimal("-0.0")', 'decimal("0.0")'),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_constants_are_equal_where_cedar_says_so(left: str, right: str) -> None:
    """Spelling makes no difference."""
    assert cedar(f"{left} == {right}")
    assert constant_of(node(left)) == constant_of(node(right))


@settings(max_examples=30, deadline=None)
@given(TIMES, TIMES)
def test_times_are_ordered_as_cedar_orders_them(left: str, right: str) -> None:
    """In any zone."""
    first, second = constant_of(node(f'datetime("{left}")')), constant_of(node(f'datetime("{right}")'))

    assert first is not None
    assert second is not None
    assert (first.value < second.value) is cedar(f'datetime("{left}") < datetime("{right}")')  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "pattern", "wanted"),
    [
        ("abc", ("a", None, "x", None, "c"), False),
        ("abxc", ("a", None, "x", None, "c"), True),
        ("aa", ("a", None, "a", None, "a"), False),
        ("", (None,), True),
        ("", (), True),
        ("a", (), False),
        ("ab", ("a", None), True),
    ],
)
def test_like_goes_through_the_pieces_of_a_pattern(text: str, pattern: tuple[str | None, ...], wanted: bool) -> None:
    """A text is long enough for all of them, in their order."""
    assert like(text, pattern) is wanted


@settings(max_examples=80, deadline=None)
@given(st.text("ab*", max_size=6), st.lists(st.sampled_from(["a", "b", "ab", "*", r"\*"]), max_size=5))
def test_like_answers_as_cedar_does(text: str, pieces: list[str]) -> None:
    """With any pieces between any stars."""
    condition = f'"{text}" like "{"".join(pieces)}"'
    pattern = node(condition).value

    assert isinstance(pattern, tuple)
    assert like(text, pattern) is cedar(condition)
