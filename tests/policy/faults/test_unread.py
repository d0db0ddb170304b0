"""What Cedar's parser has against a policy, in words that name the fix, and where."""

import pytest

from agentguard.policy.faults.unread import Told, told
from agentguard.policy.files.reader import read_policies
from tests.policy.records import LIMITS


def problem(condition: str, head: str = "principal, action, resource") -> tuple[int, int, str]:
    """Return line, column and words of the one problem of a policy on two lines."""
    _, (found,) = read_policies("a.cedar", f'@id("a") forbid ({head})\nwhen {{ {condition} }};', LIMITS)
    return found.line, found.column, found.what


@pytest.mark.parametrize(
    ("condition", "column", "wanted"),
    [
        ("context.x == null", 21, "Cedar has no `null`: ask whether it is there, `… has x`"),
        ("principal.agent == Agent", 27, '`Agent` is no entity: write its id in quotes, `Agent::"x"`'),
        ("resource == A::B::c", 20, '`A::B::c` is no entity: write its id in quotes, `A::B::"c"`'),
        (
            "zed == 1",
            8,
            (
                "`zed` is no variable: there is `principal`, `action`, `resource`, `context`, "
                "and a text stands in quotes"
            ),
        ),
        ("context.x.contain(1)", 18, "Cedar has no method `contain`: did you mean `contains`?"),
        (
            "context.x.upper()",
            18,
            "Cedar has no method `upper`: compare a text with `==` or `like`, and ask a set `….contains(…)`",
        ),
        ("dezimal(1)", 8, "Cedar has no function `dezimal`: did you mean `decimal`?"),
        ("context.x.isEmpty(1)", 18, "`….isEmpty(…)` wants no arguments, got 1: leave out the others"),
        ("context.x.contains()", 18, "`….contains(…)` wants 1 argument, got 0: add what is missing"),
        ("context.x / 2 > 1", 18, "Cedar does not divide: multiply the other side"),
        ("context.x % 2 > 1", 18, "Cedar has no remainder: have the tool work it out, with facts="),
        (
            "9223372036854775808 == 1",
            8,
            "a whole number has at most 64 bits, got `9223372036854775808`: take a smaller one",
        ),
        ("context == {a: 1, a: 2}", 20, "`a` is in this record twice: remove one"),
        ("context.if == 1", 16, '`if` is a word of Cedar\'s: put it into quotes, `["if"]`'),
        ("context.x like 5", 18, '`like` wants a pattern in quotes, got `5`: write `like "a*"`'),
        ('principal is "User"', 18, '`is` wants a type, got `"User"`: write it without quotes, `is User`'),
        ("", 1, "`when` is empty: write a condition into it, or remove it"),
    ],
)
def test_mistake_in_a_condition_is_told_where_it_is(condition: str, column: int, wanted: str) -> None:
    """With what to write instead."""
    assert problem(condition) == (2, column, wanted)


@pytest.mark.parametrize(
    ("condition", "column"),
    [
        ("1 < 2 < 3", 14),
        ('"a" == "b" == "c"', 19),
        ("(1 < 2) && 1 < 2 < 3", 25),
        ("[1 < 2, 3 < 4].contains(true) == true == false", 46),
        ("if 1 < 2 then 1 < 2 else 1 < 2 < 3", 39),
    ],
)
def test_second_comparison_of_a_chain_is_found(condition: str, column: int) -> None:
    """Those in brackets, and those that are joined, are no chain."""
    assert problem(condition) == (
        2,
        column,
        "comparisons are not chained: join two with `&&`, or put one into brackets",
    )


@pytest.mark.parametrize(
    ("head", "column", "wanted"),
    [
        ("principal, action is Action, resource", 36, "every action is one: leave `is` out of the head"),
        (
            "principal, resource, action",
            29,
            "a head names principal, action and resource, in this order: put `resource` in its place",
        ),
        (
            "agent, action, resource",
            18,
            "a head names `principal`, `action` and `resource`, got `agent`: write one of them",
        ),
        (
            'principal in [Agent::"a"], action, resource',
            1,
            ("a head compares with one entity, and only `action in` takes several: write `when { principal in […] }`"),
        ),
        (
            'principal, action == Action::"a" || action == Action::"b", resource',
            51,
            'a head has no `||`: write `action in [Action::"a", Action::"b"]`, or a `when`',
        ),
    ],
)
def test_mistake_in_a_head_is_told_where_it_is(head: str, column: int, wanted: str) -> None:
    """As in a condition."""
    assert problem("true", head) == (1, column, wanted)


def test_head_without_brackets_is_no_policy_inside_another() -> None:
    """There is none above it to be ended."""
    _, (found,) = read_policies("a.cedar", '@id("a") permit principal, action, resource;', LIMITS)

    assert found.what == "`principal` cannot stand here: look for a missing comma, bracket or operator before it"


def test_what_is_not_known_is_told_as_it_is() -> None:
    """A later Cedar may say something new, or count otherwise."""
    assert told("something new", ()) == Told("Cedar cannot read this policy: something new")
    assert told("multiple relational operators (>, ==)", ()).at is None
    assert told("multiple relational operators (>, ==)", ()).what.startswith("comparisons are not chained")
