"""An entity that was not loaded.

Cedar errs at nothing: who is not there is in no group, and what is not there has no
attribute. So the forbid does not fire.
"""

import json

import cedarpy
import pytest

from agentguard.model import AccessRequest, EntityUid, Reason
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, context, policy_set, reads, record, reference, uid

SUSPENDED = """
@id("suspended") forbid (principal, action, resource)
when { principal has user && principal.user in Group::"suspended" };
"""
SECRET = """
@id("secret") forbid (principal, action, resource is Record)
when { resource has sensitivity && resource.sensitivity == "secret" };
"""
OWNED = """
@id("owned") forbid (principal, action, resource is Record)
when { resource has owner && resource.owner in Group::"suspended" };
"""
ENTITIES = """[
  { "uid": { "type": "User", "id": "mallory" }, "attrs": {}, "parents": [{ "type": "Group", "id": "suspended" }] },
  { "uid": { "type": "User", "id": "bob" }, "attrs": {}, "parents": [] }
]"""


@pytest.mark.parametrize("policy", [SUSPENDED, SECRET])
def test_cedar_alone_allows(policy: str) -> None:
    """The trap: with the user or the record left out, nothing objects and nothing errs."""
    principal = {"uid": uid("Invocation", "r"), "attrs": {"user": reference("User", "mallory")}, "parents": []}
    request = {
        "principal": uid("Invocation", "r"), "action": uid("Action", "read"), "resource": uid("Record", "r1"),
    }  # fmt: skip

    answer = cedarpy.is_authorized(request, ALL + policy, json.dumps([principal]))

    assert answer.allowed
    assert answer.diagnostics.errors == []


def test_a_user_who_is_not_there_denies() -> None:
    """Whether she is suspended cannot be known."""
    policies = policy_set(ALL, SUSPENDED, entities=ENTITIES)

    assert decide(reads(unsafe_invocation("a", user="bob")), policies).allowed
    assert decide(reads(unsafe_invocation("a", user="mallory")), policies).reason is Reason.POLICY
    assert decide(reads(unsafe_invocation("a", user="carol")), policies).reason is Reason.MISSING_ENTITY


def test_a_record_that_is_not_there_denies() -> None:
    """Whether it is secret cannot be known."""
    request = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="read",
        resource=EntityUid("Record", "r1"),
        context=context(id="r1"),
        entities=(record("r2"),),
    )

    assert decide(request, policy_set(ALL, SECRET)).reason is Reason.MISSING_ENTITY


def test_what_a_record_refers_to_and_is_not_there_denies() -> None:
    """However far away it is."""
    policies = policy_set(ALL, OWNED, entities=ENTITIES)

    assert decide(reads(None, record(owner=reference("User", "mallory"))), policies).reason is Reason.POLICY
    assert decide(reads(None, record(owner=reference("User", "carol"))), policies).reason is Reason.MISSING_ENTITY


@pytest.mark.parametrize("user", ["bob", "zoe"])
def test_the_same_one_of_several_is_named_each_time(user: str) -> None:
    """By its type in the text, since the log must not have the id of a private one."""
    policies = policy_set(ALL, SUSPENDED, SECRET, entities=ENTITIES)
    request = AccessRequest(
        invocation=unsafe_invocation("a", user=user),
        action="read",
        resource=EntityUid("Record", "r1"),
        context=context(id="r1"),
    )

    found = decide(request, policies)

    assert found.missing == EntityUid("Record", "r1")
    assert found.errors == (
        "an entity of type `Record` is not there: list it in cedarentities.json, or give its type a loader",
    )
