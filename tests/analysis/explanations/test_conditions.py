"""The conditions of a policy, with the values that they looked at."""

import pytest

from agentguard.analysis.explanations.conditions import Condition, conditions_by, conditions_of, pieces_of
from agentguard.analysis.known import Known
from agentguard.model import AccessRequest
from agentguard.policy.deciding.trial import Question
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, reads, record, searches

LONGEST = 9_223_372_036_854_775_807


def conditions(policy: str, request: AccessRequest) -> tuple[Condition, ...]:
    """Return the conditions of one policy as a request finds them."""
    policies = policy_set(ALL, f'@id("p") {policy}')
    (found,) = conditions_of([policies.policies["p"].text], Question(request, policies), Known(request, policies, 0))
    return found


def told(policy: str, request: AccessRequest) -> list[tuple[str, str, bool | None, bool, str]]:
    """Return place, text, answer, whether it was looked at, and values of each condition."""
    return [(one.piece.place, one.text, one.holds, one.looked_at, one.shown) for one in conditions(policy, request)]


def test_a_policy_is_split_into_head_and_operands() -> None:
    """`when` at every `&&`, `unless` at every `||`, and no further."""
    found = told(
        """permit (principal in Agent::"a", action == Action::"search", resource)
        when { principal has purpose && (principal.purpose == "x" || context.input.rows > 5) }
        unless { context.input.rows < 0 || context.input.text == "no" };""",
        searches(unsafe_invocation("a", purpose="x"), rows=1),
    )

    assert found == [
        ("principal", 'principal in Agent::"a"', True, True, 'in Agent::"a"'),
        ("action", 'action == Action::"search"', True, True, ""),
        ("when", "principal has purpose", True, True, '"x"'),
        (
            "when",
            'principal.purpose == "x" || context.input.rows > 5',
            True,
            True,
            'principal.purpose: "x", context.input.rows: 1',
        ),
        ("unless", "context.input.rows < 0", False, True, "1 < 0"),
        ("unless", 'context.input.text == "no"', False, True, '"x"'),
    ]


def test_after_the_first_that_differs_nothing_is_looked_at() -> None:
    """As in Cedar: what a `has` guards is not asked for what is not there."""
    found = conditions(
        """forbid (principal, action == Action::"search", resource)
        when { context.input has price && context.input.price.greaterThan(decimal("1.0")) };""",
        searches(),
    )

    assert [(one.text, one.holds, one.looked_at, one.met) for one in found] == [
        ('action == Action::"search"', True, True, True),
        ("context.input has price", False, True, False),
        ('context.input.price.greaterThan(decimal("1.0"))', None, False, False),
    ]
    assert found[-1].values == (("context.input.price", "absent"),)
    assert found[-1].shown == 'absent.greaterThan(decimal("1.0"))'


def test_one_that_cannot_be_evaluated_is_neither() -> None:
    """Cedar would skip the policy; what comes after it is not looked at."""
    found = told(
        f"""forbid (principal, action == Action::"search", resource)
        when {{ context.input.rows + {LONGEST} > 0 && context.input.rows > 0 }};""",
        searches(rows=1),
    )

    assert found[1:] == [
        ("when", f"context.input.rows + {LONGEST} > 0", None, True, f"1 + {LONGEST} > 0"),
        ("when", "context.input.rows > 0", True, False, "1 > 0"),
    ]


def test_comments_and_breaks_are_left_out() -> None:
    """The text is for one line; values are then told beside it."""
    (_, found) = conditions(
        """forbid (principal, action == Action::"search", resource)
        when { context.input.rows // how many
          > 500 };""",
        searches(rows=501),
    )

    assert found.text == "context.input.rows > 500"
    assert found.shown == "501"
    assert found.holds is True


def test_values_that_are_too_long_for_one_line_are_told_by_themselves() -> None:
    """An argument may be as long as it likes."""
    policy = """forbid (principal, action == Action::"search", resource)
        when { [context.input.text].contains("x") && context.input.rows - context.input.rows < 0 };"""
    (_, first, second) = conditions(policy, searches(text="y" * 100, rows=4))

    assert first.shown == f'"{"y" * 100}"'
    assert second.shown == "4 - 4 < 0"
    (_, first) = conditions(
        """forbid (principal, action == Action::"search", resource)
        when { if context.input.text like "a*" then context.input.rows + 1 > 5 else false };""",
        searches(text="y" * 100),
    )
    assert first.shown == f'context.input.text: "{"y" * 100}", context.input.rows: 1'


@pytest.mark.parametrize(
    ("condition", "shown"),
    [
        ("resource is Record", 'Record::"r1"'),
        ('resource is Record in Tool::"read"', 'Record::"r1" in Tool::"read"'),
        ("principal has user", "absent"),
        ("resource has owner && resource.owner == principal.user", "absent"),
        ("1 < 2", ""),
    ],
)
def test_what_is_shown_of_entities(condition: str, shown: str) -> None:
    """What they are in only where that is asked."""
    found = conditions(
        f'permit (principal, action == Action::"read", resource is Record) when {{ {condition} }};'.replace(
            "== principal.user", '== User::"bob"'
        ),
        reads(unsafe_invocation("a"), record("r1")),
    )

    assert found[2].shown == shown


def test_answers_can_come_from_elsewhere_and_some_be_unknown() -> None:
    """What cannot be told may be as wanted, so the next is looked at."""
    policies = policy_set(
        """@id("p") permit (principal, action == Action::"search", resource)
        when { context.input.rows > 1 && context.input.rows > 2 && context.input.rows > 3 };"""
    )
    text = policies.policies["p"].text
    pieces = pieces_of(text)
    request = searches()

    found = conditions_by(text, Known(request, policies, 0), lambda piece: piece is not pieces[2], unknown={pieces[1]})

    assert [(one.holds, one.looked_at, one.unknown) for one in found] == [
        (True, True, False),
        (None, True, True),
        (False, True, False),
        (True, False, False),
    ]
