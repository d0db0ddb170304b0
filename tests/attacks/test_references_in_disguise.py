"""A reference to an entity that does not look like one.

With a schema, Cedar reads a record with a type and an id, and even a list of the two, as
an entity, and takes what else is in the record without a word. A check that everything
is there has to see each of these.
"""

import json

import cedarpy
import pytest

from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from tests.policy.records import ALL, TYPES, policy_set, reads, record, uid

OWNED = """
@id("owned") forbid (principal, action, resource is Record)
when { resource has owner && resource.owner in Group::"staff" };
"""
DISGUISES: list[object] = [
    {"__entity": {"type": "User", "id": "carol"}},
    {"__entity": {"type": "User", "id": "carol", "more": 1}},
    {"__entity": {"type": "User", "id": "carol"}, "more": 1},
    {"__entity": ["User", "carol"]},
    {"type": "User", "id": "carol"},
    {"type": "User", "id": "carol", "more": 1},
    ["User", "carol"],
]


@pytest.mark.parametrize("owner", DISGUISES)
def test_cedar_alone_takes_each_for_the_entity(owner: object) -> None:
    """The trap: it is equal to the entity, and checked against the schema."""
    types = cedarpy.Schema.from_str(f"entity User, Tool; {TYPES}")
    loaded = cedarpy.Entities.from_json_str(json.dumps([record(owner=owner)]), types)
    request = {"principal": uid("User", "a"), "action": uid("Action", "read"), "resource": uid("Record", "r1")}

    answer = cedarpy.is_authorized(
        request, 'permit (principal, action, resource) when { resource.owner == User::"carol" };', loaded
    )

    assert answer.allowed


@pytest.mark.parametrize("owner", DISGUISES)
def test_an_entity_that_is_not_there_denies_in_each_disguise(owner: object) -> None:
    """Whether she is of the staff cannot be known."""
    assert decide(reads(None, record(owner=owner)), policy_set(ALL, OWNED)).reason is Reason.MISSING_ENTITY


def test_what_only_looks_like_a_reference_is_none() -> None:
    """Where the schema has no entity, two strings are two strings."""
    types = TYPES.replace("sealed", "labels?: Set<String>, sealed")

    assert decide(reads(None, record(labels=["User", "carol"])), policy_set(ALL, types=types)).allowed
