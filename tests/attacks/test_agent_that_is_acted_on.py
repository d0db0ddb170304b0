"""A tool that acts on agents: the one that calls may be the one that is acted on, or in what is."""

from __future__ import annotations

from typing import Any

import pytest

from agentguard.model import AccessRequest, EntityUid, Reason
from agentguard.policy.engine import decide, never
from agentguard.policy.listing import possible
from agentguard.policy.values import Field, record_of
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, context, policy_set, tool, uid

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
