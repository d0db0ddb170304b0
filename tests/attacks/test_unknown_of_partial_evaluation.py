"""`unknown`, a value that only partial evaluation should have.

cedarpy is built with partial evaluation, so JSON can hold one: a forbid that looks at it
fails to evaluate, and Cedar skips it. The schema of the context stops it there. Nothing
of Cedar's stops it in an entity's attribute, where it even passes for a value of any type.
"""

import json

import cedarpy
import pytest

from agentguard.errors import PolicyError
from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from tests.policy.records import ALL, ENTITIES, TYPES, policy_set, reads, record, searches, uid

NO_ETC = """
@id("no-etc") forbid (principal, action == Action::"search", resource) when { context.input.text like "/etc/*" };
"""
UNREAD = '@id("unread") forbid (principal, action, resource is Record) when { resource.sensitivity == "never" };'
SPELLINGS: list[object] = [
    {"__extn": {"fn": "unknown", "arg": "x"}},
    {"__extn": {"fn": "unknown", "args": ["x"]}},
    {"__extn": {"fn": "unknown", "arg": "x", "more": 1}},
    {"__extn": {"fn": "unknown", "arg": "x"}, "more": 1},
    # Not taken by this version, and refused all the same.
    {"__extn": ["unknown", "x"]},
]
# Cedar reads these as calls too, where the schema has an extension type.
UNMARKED: list[object] = [
    {"fn": "unknown", "arg": "x"},
    {"fn": "unknown", "args": ["x"]},
    # Not taken by this version, and refused all the same.
    ["unknown", "x"],
]


def cedar(record_: dict[str, object], text: object, policies: str, schema: str) -> cedarpy.AuthzResult:
    """Ask Cedar with checked entities, and an unchecked context."""
    types = cedarpy.Schema.from_str(schema)
    request = {
        "principal": uid("Agent", "a"),
        "action": uid("Action", "search"),
        "resource": uid("Record", "r1"),
        "context": {"input": {"text": text}},
    }
    return cedarpy.is_authorized(request, policies, cedarpy.Entities.from_json_str(json.dumps([record_]), types))


@pytest.mark.parametrize("value", SPELLINGS[:1])
def test_cedar_alone_allows_one_in_the_context(value: object) -> None:
    """The trap: the forbid does not fire."""
    types = f"entity User, Agent, Tool; {TYPES} action search;"

    assert not cedar(record(), "/etc/passwd", ALL + NO_ETC, types).allowed
    assert cedar(record(), value, ALL + NO_ETC, types).allowed


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("sensitivity", value) for value in SPELLINGS[:-1]), *(("price", value) for value in UNMARKED[:-1])],
)
def test_cedar_alone_takes_one_in_an_attribute(name: str, value: object) -> None:
    """The trap: checked against the schema, an attribute that is a string, and another that is a decimal."""
    types = f"entity User, Agent, Tool; {TYPES} action search;"
    forbid = f"forbid (principal, action, resource) when {{ resource.{name} == resource.{name} }};"

    assert cedar(record("r1", **{name: value}), "x", f"{ALL} {forbid}", types).allowed


@pytest.mark.parametrize("value", [*SPELLINGS, *UNMARKED])
def test_one_in_the_context_denies(value: object) -> None:
    """Even where no policy looks at it."""
    assert decide(searches(text=value), policy_set(ALL, NO_ETC)).reason is Reason.INVALID_ARGUMENT
    assert decide(searches(rows=value), policy_set(ALL)).reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("value", [*SPELLINGS, *UNMARKED])
@pytest.mark.parametrize("name", ["sensitivity", "sealed", "price", "owner"])
def test_one_in_an_attribute_denies(name: str, value: object) -> None:
    """Even where no policy looks at it."""
    decision = decide(reads(None, record("r1", **{name: value})), policy_set(ALL, UNREAD))

    assert decision.reason is Reason.MISSING_ENTITY


@pytest.mark.parametrize("value", [*SPELLINGS, *UNMARKED])
def test_one_in_the_entity_file_is_refused(value: object) -> None:
    """When the server starts."""
    entities = json.loads(ENTITIES)
    entities[0]["attrs"] = {"limit": value}

    with pytest.raises(PolicyError, match=r'cedarentities.json:1: `User::"alice"`'):
        policy_set(ALL, types=f"{TYPES} entity User in [Group] = {{ limit?: decimal }};", entities=json.dumps(entities))
