"""The permit that came closest."""

from agentguard.analysis.explanations.nearest import nearest
from agentguard.testing import unsafe_invocation
from tests.policy.records import policy_set, reads, record, searches

POLICIES = policy_set(
    """@id("billing") permit (principal in Agent::"billing-agent", action == Action::"search", resource)
    when { principal has purpose && principal.purpose == "monthly close" }
    unless { context.input.rows > 5 };""",
    '@id("anybody") permit (principal in Agent::"other", action == Action::"search", resource);',
    """@id("owner") permit (principal, action == Action::"read", resource is Record)
    when { resource has owner && principal has user && resource.owner == principal.user };""",
    """@id("never") forbid (principal, action == Action::"search", resource) when { context.input.rows == 13 };""",
)


def test_the_permit_for_this_principal_of_which_least_differs_is_the_nearest() -> None:
    """With the condition that differs first, and its value."""
    near = nearest([searches(unsafe_invocation("billing-agent", purpose="month close"))], POLICIES)

    assert near is not None
    assert (near.policy.id, near.condition, near.shown) == (
        "billing",
        'principal.purpose == "monthly close"',
        '"month close"',
    )
    assert near.values == (("principal.purpose", '"month close"'),)
    assert (near.differs, near.wanted) == (1, True)


def test_one_of_an_unless_has_to_be_false() -> None:
    """The condition holds, and should not."""
    near = nearest([searches(unsafe_invocation("billing-agent", purpose="monthly close"), rows=6)], POLICIES)

    assert near is not None
    assert (near.condition, near.shown, near.wanted) == ("context.input.rows > 5", "6 > 5", False)


def test_where_no_permit_is_for_this_principal_the_head_differs() -> None:
    """The one with the fewest conditions that differ."""
    near = nearest([searches(unsafe_invocation("nobody"))], POLICIES)

    assert near is not None
    assert (near.policy.id, near.condition, near.shown) == (
        "anybody",
        'principal in Agent::"other"',
        'in Agent::"nobody"',
    )


def test_the_first_request_that_no_permit_matched_counts() -> None:
    """Of several resources."""
    mine = record("r1", owner={"__entity": {"type": "User", "id": "bob"}})
    near = nearest(
        [
            reads(unsafe_invocation("a", user="bob"), mine),
            reads(unsafe_invocation("a", user="bob"), record("r2"), id_="r2"),
        ],
        POLICIES,
    )

    assert near is not None
    assert (near.policy.id, near.condition, near.shown) == ("owner", "resource has owner", "absent")


def test_a_denial_for_another_reason_has_no_nearest_permit() -> None:
    """A forbid, an allow, or no permit that is about the action."""
    run = unsafe_invocation("billing-agent", purpose="monthly close")

    assert nearest([searches(run, rows=13)], POLICIES) is None
    assert nearest([searches(run, rows=1)], POLICIES) is None
    assert nearest([searches()], policy_set('@id("a") permit (principal, action == Action::"read", resource);')) is None
    assert nearest([], POLICIES) is None
