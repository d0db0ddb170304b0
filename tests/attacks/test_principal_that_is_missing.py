"""A principal that is not among the entities.

Cedar answers all the same, as if it were in nothing. Here the engine makes the principal
itself, from the verified invocation, for every link of the chain.
"""

import cedarpy

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, searches, uid

FORBID = '@id("not-this-one") forbid (principal in Agent::"mallory", action, resource);'


def test_cedar_alone_allows() -> None:
    """The trap: nobody said which agent the run is of, and nobody asked."""
    request = {"principal": uid("Invocation", "r"), "action": uid("Action", "a"), "resource": uid("Tool", "t")}

    answer = cedarpy.is_authorized(request, ALL + FORBID, "[]")

    assert answer.allowed
    assert answer.diagnostics.errors == []


def test_the_agent_is_always_known() -> None:
    """Of an ancestor too."""
    policies = policy_set(ALL, FORBID)
    mallory = unsafe_invocation("mallory", run_id="m")

    assert decide(searches(mallory), policies).reason is Reason.POLICY
    denied = decide(searches(unsafe_invocation("good", run_id="g", ancestors=(mallory,))), policies)
    assert (denied.reason, denied.link) == (Reason.POLICY, 0)
