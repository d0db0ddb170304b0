"""A tool that acts on agents: the one that calls may be the one that is acted on, or in what is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentguard.model import AccessRequest, EntityUid, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.deciding.listing import possible
from agentguard.testing import unsafe_invocation
from tests.policy.records import (
    ALL,
    READ,
    TYPES,
    context,
    policy_set,
    reads,
    record,
    reference,
    tool,
    uid,
)

RETIRE = tool("retire", record_of({"name": Field(str)}, where="retire"), resource="Agent")
CALLER = unsafe_invocation("a")
IN_THE_TOOL = (
    'principal in Tool::"retire"',
    'principal in Server::"records"',
    'principal is Invocation in Tool::"retire"',
)


def retires(*entities: dict[str, object]) -> AccessRequest:
    """Return a request of the agent to retire itself."""
    return AccessRequest(
        invocation=CALLER,
        action="retire",
        resource=EntityUid("Agent", "a"),
        context=context(name="a"),
        entities=entities,
    )


@pytest.mark.parametrize("head", IN_THE_TOOL)
@pytest.mark.parametrize("loaded", [False, True])
def test_forbid_on_who_is_in_the_tool_reaches_an_agent_that_is_acted_on(head: str, loaded: bool) -> None:
    """What a call acts on is in the tool. A forbid that says so in its head must not be left out as another's."""
    known = '[{ "uid": { "type": "Agent", "id": "a" }, "attrs": {}, "parents": [] }]'
    policies = policy_set(
        ALL,
        f'@id("f") forbid ({head}, action, resource);',
        tools=(RETIRE,),
        types="entity Agent in [Tool];",
        entities="[]" if loaded else known,
        loaders=("Agent",) if loaded else (),
    )
    entity: dict[str, Any] = {"uid": uid("Agent", "a"), "attrs": {}, "parents": [uid("Tool", "retire")]}

    assert decide(retires(*[entity] * loaded), policies).reason is Reason.POLICY


@pytest.mark.parametrize(
    "policy",
    [
        'permit (principal in Group::"ops", action, resource);',
        'permit (principal, action, resource) when { principal in Group::"ops" };',
        'permit (principal, action, resource) when { principal.agent in Group::"ops" };',
    ],
)
def test_what_an_agent_is_in_is_known_before_it_acts_on_agents(policy: str) -> None:
    """A call that is allowed must not end before its arguments are looked at, nor be missing from a list."""
    policies = policy_set(
        f'@id("p") {policy}',
        tools=(RETIRE,),
        types="entity Agent in [Tool, Group];",
        entities="""[
          { "uid": { "type": "Agent", "id": "a" }, "attrs": {}, "parents": [{ "type": "Group", "id": "ops" }] },
          { "uid": { "type": "Agent", "id": "b" }, "attrs": {}, "parents": [] }
        ]""",
        loaders=(),
    )

    assert decide(retires(), policies).allowed
    assert never(CALLER, "retire", policies) is None
    assert possible(CALLER, policies) == {"retire"}
    assert never(unsafe_invocation("b"), "retire", policies) is not None
    assert possible(unsafe_invocation("b"), policies) == frozenset()


HEAD = "principal, action, resource"
IN_THE_TOOL_WHERE_IT_ACTS = (
    'permit (principal in Tool::"retire", action, resource);',
    'permit (principal, action, resource) when { principal in Server::"records" };',
    'permit (principal, action, resource) when { principal.agent in [Tool::"retire"] };',
    f'permit ({HEAD}); @id("f") forbid ({HEAD}) unless {{ principal in Tool::"retire" }};',
)


@pytest.mark.parametrize("policy", IN_THE_TOOL_WHERE_IT_ACTS)
@pytest.mark.parametrize("loaded", [False, True])
def test_agent_that_could_act_on_itself_is_not_sent_away_before_it_does(policy: str, loaded: bool) -> None:
    """It is in the tool then, which it is not before."""
    known = '[{ "uid": { "type": "Agent", "id": "a" }, "attrs": {}, "parents": [] }]'
    policies = policy_set(
        f'@id("p") {policy}',
        tools=(RETIRE,),
        types="entity Agent in [Tool];",
        entities="[]" if loaded else known,
        loaders=("Agent",) if loaded else (),
    )
    before: list[dict[str, Any]] = [{"uid": uid("Agent", "a"), "attrs": {}, "parents": []}] * loaded
    at_the_call = [{**entity, "parents": [uid("Tool", "retire")]} for entity in before]

    assert decide(retires(*at_the_call), policies).allowed
    assert never(CALLER, "retire", policies, before) is None
    assert possible(CALLER, policies, before) == {"retire"}


def grouped(condition: str, groups: int = 2) -> PolicySet:
    """Return policies for a tool that acts on groups; each is in the next one."""
    chain = [
        {"uid": uid("Group", f"g{at}"), "attrs": {}, "parents": [uid("Group", f"g{at + 1}")] * (at + 1 < groups)}
        for at in range(groups)
    ]
    alice = {"uid": uid("User", "alice"), "attrs": {}, "parents": [uid("Group", "g0")]}
    return policy_set(
        f'@id("p") permit (principal, action, resource) when {{ principal has user && {condition} }};',
        tools=(tool("disband", record_of({"name": Field(str)}, where="disband"), resource="Group"),),
        types="entity Group in [Tool, Group];",
        entities=json.dumps([alice, *chain]),
        loaders=(),
    )


@pytest.mark.parametrize("condition", ['principal.user in Group::"g1"', 'principal.user in Tool::"disband"'])
def test_what_a_user_is_in_by_way_of_what_could_be_acted_on_is_known_before(condition: str) -> None:
    """The group between the two is known, though a call may act on it."""
    policies = grouped(condition)
    alice = unsafe_invocation("a", user="alice")
    asked = AccessRequest(
        invocation=alice, action="disband", resource=EntityUid("Group", "g1"), context=context(name="g1")
    )

    assert decide(asked, policies).allowed
    assert never(alice, "disband", policies) is None
    assert possible(alice, policies) == {"disband"}


@pytest.mark.parametrize(("groups", "hidden"), [(16, True), (17, False)])
def test_what_no_group_could_make_allowed_is_hidden_up_to_a_number_of_groups(groups: int, hidden: bool) -> None:
    """Each that the caller is in is asked about; where there are many, the call itself is judged."""
    policies = grouped('principal.scopes.contains("x")', groups)
    alice = unsafe_invocation("a", user="alice")

    assert (never(alice, "disband", policies) is not None) is hidden
    assert (possible(alice, policies) == frozenset()) is hidden


def test_record_of_the_user_that_could_be_acted_on_is_in_the_tool_then() -> None:
    """The loader is asked about the user before the call, and does not know what that acts on."""
    policies = policy_set(
        """@id("p") permit (principal, action, resource) when {
          principal has user && principal.user has favourite && principal.user.favourite in Tool::"read" };""",
        tools=(READ,),
        types=f"{TYPES} entity User = {{ favourite?: Record }};",
        entities="[]",
        loaders=("Record", "User"),
    )
    alice = unsafe_invocation("reader", user="alice")
    user: dict[str, Any] = {
        "uid": uid("User", "alice"),
        "attrs": {"favourite": reference("Record", "r1")},
        "parents": [],
    }
    before = [user, {**record("r1"), "parents": []}]

    assert decide(reads(alice, user, record("r1")), policies).allowed
    assert never(alice, "read", policies, before) is None
    assert possible(alice, policies, before) == {"read"}
