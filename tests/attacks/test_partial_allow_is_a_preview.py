"""Partial evaluation that allows.

What it says before the arguments are known is only a preview: it evaluates without the
schema, and what is unknown may still deny. So only its Deny counts, and its Allow is
never the decision.
"""

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide, may_ever
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, reads, searches

CAROL = unsafe_invocation("a", user="carol")


def test_what_may_be_allowed_is_still_decided_with_everything() -> None:
    """Here even a policy that permits all is not enough."""
    policies = policy_set(ALL)

    assert may_ever(CAROL, "read", policies)
    assert decide(reads(CAROL), policies).reason is Reason.MISSING_ENTITY
    invocation = unsafe_invocation("a")
    assert may_ever(invocation, "search", policies)
    assert decide(searches(invocation, rows="1"), policies).reason is Reason.INVALID_ARGUMENT


def test_what_can_never_be_allowed_is_a_no() -> None:
    """And the decision agrees."""
    policies = policy_set(ALL, '@id("no") forbid (principal in Agent::"a", action, resource);')
    invocation = unsafe_invocation("a")

    assert not may_ever(invocation, "search", policies)
    assert decide(searches(invocation), policies).reason is Reason.POLICY
