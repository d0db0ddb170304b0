"""A schema of blanks.

cedarpy takes blank text for no schema, and nothing is checked. A guard has a schema
always: handles of a schema that holds at least what the guard makes.
"""

import json

import cedarpy
import pytest

from agentguard.errors import PolicyError
from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from tests.policy.records import ALL, policy_set, searches, uid


def test_cedar_alone_checks_nothing() -> None:
    """The trap: an entity of a type that does not exist."""
    nonsense = json.dumps([{"uid": uid("No", "thing"), "attrs": {"a": 1}, "parents": []}])

    assert len(cedarpy.Entities.from_json_str(nonsense, " \n")) == 1
    with pytest.raises(ValueError, match="deserialization"):
        cedarpy.Entities.from_json_str(nonsense, cedarpy.Schema.from_str(" \n"))


def test_blank_types_of_the_team_leave_the_check_in_place() -> None:
    """For policies, entities and contexts."""
    policies = policy_set(ALL, types=" \n", entities="[]", loaders=[])

    assert decide(searches(rows=1), policies).allowed
    assert decide(searches(rows="1"), policies).reason is Reason.INVALID_ARGUMENT
    with pytest.raises(PolicyError, match="has no attribute `agnet`"):
        policy_set('@id("a") forbid (principal, action, resource) when { principal.agnet == 1 };', types=" \n")
