"""Entities that were built without the schema.

The groups of an action are in the schema alone. Without it a forbid on
``action in Action::"read-only"`` never matches, and nothing says so.
"""

import json

import cedarpy

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from tests.policy.records import ALL, policy_set, reads, searches, uid

FORBID = '@id("no-reading") forbid (principal, action in Action::"read-only", resource);'
SCHEMA = cedarpy.Schema.from_str(
    'entity A; action "read-only"; action "read" in [Action::"read-only"] appliesTo { principal: [A], resource: [A] };'
)


def test_cedar_alone_allows() -> None:
    """The trap: even with the schema on the request."""
    request = {"principal": uid("A", "a"), "action": uid("Action", "read"), "resource": uid("A", "a")}
    one = json.dumps([{"uid": uid("A", "a"), "attrs": {}, "parents": []}])
    without = cedarpy.Entities.from_json_str(one)

    assert cedarpy.is_authorized(request, ALL + FORBID, without, SCHEMA).allowed
    assert not cedarpy.is_authorized(request, ALL + FORBID, cedarpy.Entities.from_json_str(one, SCHEMA), SCHEMA).allowed


def test_a_forbid_on_a_group_of_actions_denies() -> None:
    """With loaded entities, and with none."""
    policies = policy_set(ALL, FORBID)

    assert decide(reads(), policies).reason is Reason.POLICY
    assert decide(searches(), policies).reason is Reason.POLICY
