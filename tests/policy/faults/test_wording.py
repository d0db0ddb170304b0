"""What Cedar has against a condition, in words that name the fix."""

import re
from typing import Final

import pytest

from agentguard.policy.faults.wording import Blamed, worded
from tests.policy.records import forbid, problems

TYPES: Final = """entity Record in [Tool] = {
  name: String, sealed: Bool, price: decimal, at: datetime, ip: ipaddr, marks: Set<String>, size: { a: Long },
} tags String;"""
IN: Final = '`in` asks about entities alone: write them as `Group::"x"`, and ask `["x"].contains(…)` about other values'
EMPTY: Final = "Cedar takes no empty set: ask `….isEmpty()`, or write what is in it"
NUMBER: Final = "a text equals no whole number: put it into quotes, or leave them out, on one side"
REAL: Final = 'digits with a point, and at most four of them after it: `decimal("12.50")`'


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('principal.agent == "bob"', 'an entity equals no text: write `Agent::"bob"`'),
        ('["bob"].contains(resource)', 'an entity equals no text: write `Record::"bob"`'),
        ("principal.scopes.contains(principal.agent)", 'an entity equals no text: write `Agent::"x"`'),
        ('principal.grade == User::"bob"', 'an entity equals no text: write "bob" alone where a text is meant'),
        (
            'principal in [Agent::"a", User::"bob"]',
            "`Agent` and `User` are two types: write a condition for each, joined with `||`",
        ),
        ('principal in "x"', IN),
        ('principal.grade in ["run"]', IN),
        ("context.local.weekday in 1", IN),
        ('context.hasTag("x")', "only an entity has tags, and this is a record: ask `… has x`"),
        ("resource.marks.isEmpty", "a set has no members: ask one of its methods, `….isEmpty()`"),
        ("resource.name.first == 1", "a text has no members: leave out what follows it"),
        (
            'resource.name.contains("a")',
            'a text is no set: write `… like "*x*"` to look into a text, or `[…]` for a set of one',
        ),
        (
            "principal.scopes.containsAny(principal.agent)",
            "an entity, of type `Agent` is no set: write `[…]` for a set of one",
        ),
        ("resource.name", 'a text is no condition: compare it, `… == "x"`'),
        ("resource", 'an entity, of type `Record` is no condition: compare it, `… == User::"x"`'),
        ("resource.marks && true", 'a set is no condition: compare it, `….contains("x")`'),
        ('resource.name > "a"', "a text is not more or less than another: compare it with `==`"),
        ('resource.name + "a" == 1', "Cedar reckons with whole numbers alone, and this is a text: compare it as it is"),
        (
            "context.now - 5 == context.now",
            (
                "Cedar reckons with whole numbers alone, and this is a datetime: "
                'write `….offset(duration("1h"))` or `….durationSince(…)`'
            ),
        ),
        ("principal.lifetime > 900", 'a duration is compared with another alone: write `duration("1h30m")`'),
        ('resource.at > "2025-01-01"', 'a text is no datetime: write `datetime("2026-01-31")`'),
        ('resource.ip.isInRange("10.0.0.0/8")', 'a text is no IP address: write `ip("10.0.0.1")`'),
        ("resource.hasTag(5)", "a whole number stands where a text has to: change it"),
        ('resource.at == "2025-01-01"', 'a datetime equals no text: write `datetime("2026-01-31")`'),
        ("5 == resource.ip", 'an IP address equals no whole number: write `ip("10.0.0.1")`'),
        ('context.local.minute == "5"', NUMBER),
        ('resource.sealed == "true"', "a truth value equals no text: write `true` or `false` without quotes"),
        (
            "resource.size == {a: 5, b: 1}",
            "these records have other members: compare member by member, `….a == …`",
        ),
        ("resource.size == 5", "a whole number equals no record: compare what is alike"),
        ("[].contains(resource.name)", EMPTY),
        ("resource.marks == []", EMPTY),
        ('resource.getTag("x") == "y"', 'it may have no tag `"x"`: test it first, `….hasTag("x") && …`'),
        (
            'principal.agent.getTag("x") == "y"',
            "`Agent` has no tags: declare them, `entity Agent tags String;`, or ask for an attribute",
        ),
        (
            'resource.at > datetime("tomorrow")',
            '`"tomorrow"` is no datetime: write a day, or a moment with its zone: `datetime("2026-01-31T08:00:00Z")`',
        ),
        ('resource.price == decimal("1.23456")', f'`"1.23456"` is no decimal: write {REAL}'),
        (
            'principal.lifetime < duration("1 hour")',
            '`"1 hour"` is no duration: write d, h, m, s and ms in this order: `duration("1h30m")`',
        ),
        ('resource.ip == ip("x")', '`"x"` is no IP address: write an address or a range: `ip("10.0.0.0/8")`'),
        (
            "decimal(resource.name) == resource.price",
            (
                "what makes a decimal, an IP address or a time takes a text that is written out, "
                'as `decimal("12.50")`, '
                "and no value of the call: give the tool's argument that type, or compare it as a text"
            ),
        ),
        ('decimal("1.0", "2.0") == resource.price', "`decimal(…)` wants 1 argument, got 2: leave out the others"),
        ("decimal() == resource.price", "`decimal(…)` wants 1 argument, got 0: add what is missing"),
        ("resource.at.toDate(5) == resource.at", "`….toDate(…)` wants no arguments, got 1: leave out the others"),
    ],
)
def test_mistake_is_told_with_what_to_write(condition: str, wanted: str) -> None:
    """Not with the types that Cedar saw alone."""
    head = 'principal, action == Action::"read", resource'

    assert f"a.cedar:2: {wanted}" in problems(forbid(condition, head), types=TYPES)


def test_what_is_not_known_is_told_as_it_is() -> None:
    """A later Cedar may say something new."""
    said = worded("something new", Blamed(policy=None, at=(), tagged=()))  # type: ignore[arg-type]

    assert said == ("does not fit the tools: something new: change one of the two", "invalid")


def test_literal_of_a_kind_that_is_not_known_is_told_all_the_same() -> None:
    """A later Cedar may have more of them."""
    message = 'error during extension function argument validation: failed to parse as a colour value: `"x"`'

    said = worded(message, Blamed(policy=None, at=(), tagged=()))  # type: ignore[arg-type]

    assert said == ('`"x"` is no colour: write what Cedar can read', "bad-literal")


def test_no_message_holds_a_word_that_is_cedars_own() -> None:
    """`__cedar::internal` is nobody's vocabulary."""
    (found,) = problems(forbid('principal in "x"'))

    assert re.search("__cedar|internal", found) is None
