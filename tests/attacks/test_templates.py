"""A policy with a slot.

It parses and validates, and is never applied: a forbid written so forbids nothing.
"""

import cedarpy

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.policy.files.reader import read_policies
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, LIMITS, policy_set, searches, uid

TEMPLATE = '@id("slot") forbid (principal == ?principal, action, resource);'


def test_cedar_alone_allows() -> None:
    """The trap: the set is one policy and a template that does nothing."""
    request = {"principal": uid("A", "a"), "action": uid("Action", "a"), "resource": uid("A", "a")}

    assert cedarpy.validate_policies(TEMPLATE, 'entity A; action "a" appliesTo { principal: [A], resource: [A] };')
    assert cedarpy.is_authorized(request, ALL + TEMPLATE, "[]").allowed


def test_a_template_in_the_folder_is_refused() -> None:
    """With the fix."""
    policies, (problem,) = read_policies("a.cedar", f"{ALL}\n{TEMPLATE}", LIMITS)

    assert len(policies) == 1
    assert str(problem) == (
        "a.cedar:2: `?principal` makes this a template, which never applies: write the entity itself"
    )


def test_a_template_in_a_grant_denies() -> None:
    """It would bound nothing."""
    grant = "permit (principal, action, resource); forbid (principal == ?principal, action, resource);"

    assert decide(searches(unsafe_invocation("a", grant=grant)), policy_set(ALL)).reason is Reason.GRANT
