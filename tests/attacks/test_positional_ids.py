"""The id that Cedar gives a policy is its place in the text.

The same policy is `policy0` in one slice and `policy7` in the next, and the policies of a
grant that is added get what numbers are free, in any order. Decisions name policies by
`@id`, and a grant by the link that it belongs to.
"""

import cedarpy

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, searches, uid

FIRST = '@id("first") permit (principal in Agent::"a", action, resource);'
GRANT = "permit (principal, action, resource); forbid (principal, action, resource);"


def test_cedar_alone_names_places() -> None:
    """The trap: an added forbid, the second of two, gets the first free number."""
    request = {"principal": uid("A", "a"), "action": uid("Action", "a"), "resource": uid("A", "a")}
    added = cedarpy.PolicySet.from_str(ALL).with_added_str(GRANT)

    assert cedarpy.is_authorized(request, ALL, "[]").diagnostics.reasons == ["policy0"]
    assert cedarpy.is_authorized(request, added, "[]").diagnostics.reasons == ["policy1"]


def test_a_decision_names_the_policy_wherever_it_stands() -> None:
    """For an agent with a policy of its own before, and for one without."""
    policies = policy_set(FIRST, ALL)

    assert decide(searches(unsafe_invocation("a")), policies).policy_ids == ("all", "first")
    assert decide(searches(unsafe_invocation("b")), policies).policy_ids == ("all",)


def test_a_grants_policies_are_never_taken_for_the_organisations() -> None:
    """However many there are of each."""
    for count in range(1, 6):
        policies = policy_set(*(ALL.replace('"all"', f'"all-{place}"') for place in range(count)))
        for more in range(4):
            invocation = unsafe_invocation("a", grant=GRANT + "permit (principal, action, resource);" * more)
            decision = decide(searches(invocation), policies)

            assert (decision.reason, decision.policy_ids) == (Reason.GRANT, ("grant:0",))
