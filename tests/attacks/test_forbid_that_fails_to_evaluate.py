"""A forbid whose evaluation fails, in a policy that was found valid.

Cedar skips it: everything permitted and one broken forbid is an Allow, with the error
only mentioned. Any evaluation error denies here.
"""

import cedarpy

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from tests.policy.records import ALL, policy_set, searches, uid

FORBID = """
@id("overflows") forbid (principal, action == Action::"search", resource)
when { context.input.rows + 9223372036854775807 > 0 };
"""


def test_cedar_alone_allows() -> None:
    """The trap: the sum of two numbers that does not fit in 64 bits."""
    request = {
        "principal": uid("Invocation", "r"),
        "action": uid("Action", "search"),
        "resource": uid("Tool", "search"),
        "context": {"input": {"rows": 1}},
    }

    answer = cedarpy.is_authorized(request, ALL + FORBID, "[]")

    assert answer.allowed
    assert len(answer.diagnostics.errors) == 1


def test_a_forbid_that_fails_to_evaluate_denies() -> None:
    """The caller chooses the number, so the caller could choose to break the forbid."""
    policies = policy_set(ALL, FORBID)

    assert decide(searches(rows=0), policies).reason is Reason.POLICY
    assert decide(searches(rows=1), policies).reason is Reason.POLICY_ERROR
