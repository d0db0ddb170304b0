"""What a principal might be allowed, of all that a server has."""

from typing import Any

import pytest

from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding import listing
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.deciding.listing import possible
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, READ, TYPES, policy_set, reads, tool, uid

READER = unsafe_invocation("reader")


def test_condition_on_arguments_hides_nothing() -> None:
    """Whoever chooses the arguments may choose others."""
    policies = policy_set(
        '@id("a") permit (principal, action == Action::"search", resource) when { context.input.rows > 5 };',
        '@id("b") permit (principal, action == Action::"read", resource) when { resource.sensitivity == "normal" };',
        '@id("c") forbid (principal, action, resource) unless { context has approval };',
    )

    assert possible(READER, policies) == {"read", "search"}


def test_list_is_made_once_for_each_run() -> None:
    """A second run of the same agent has its own; so has one whose groups a loader knows, or with other scopes."""
    policies = policy_set(ALL)
    first = possible(READER, policies)

    assert possible(READER, policies) is first
    assert possible(unsafe_invocation("reader"), policies) is not first
    assert possible(READER, policies, [{"uid": uid("User", "x"), "attrs": {}, "parents": []}]) is not first
    assert possible(READER, policies, supposing=frozenset({"a"})) is not first
    assert possible(READER, policies) is first


def test_scopes_that_are_supposed_count_as_the_tokens() -> None:
    """For this answer alone."""
    policies = policy_set(
        '@id("a") permit (principal, action, resource) when { principal.scopes.contains("write") };',
    )

    assert possible(READER, policies, supposing=frozenset({"write"})) == {"read", "search"}
    assert possible(READER, policies) == frozenset()


@pytest.mark.parametrize("grant", ["permit", 'permit (principal, action == Action::"none", resource);'])
def test_grant_that_is_not_valid_hides_everything(grant: str) -> None:
    """Every call of such a run is denied."""
    assert possible(unsafe_invocation("reader", grant=grant), policy_set(ALL)) == frozenset()


def test_listing_takes_one_place_among_the_runs_that_are_kept() -> None:
    """Lists must not push out what calls have prepared."""
    policies = policy_set(ALL)

    possible(READER, policies)

    assert len(policies._links) == 1


def test_entities_that_cannot_be_read_hide_nothing() -> None:
    """What a loader gives at the call may be otherwise."""
    policies = policy_set('@id("a") forbid (principal, action, resource);')

    assert possible(READER, policies, [{"uid": "nonsense"}]) == {"read", "search"}


def test_entity_in_the_place_of_a_tool_hides_nothing() -> None:
    """There is no telling what the tool then is."""
    policies = policy_set(ALL, '@id("a") forbid (principal, action, resource == Tool::"search");')
    taken: list[dict[str, Any]] = [{"uid": uid("Tool", "search"), "attrs": {}, "parents": []}]

    assert possible(READER, policies) == {"read"}
    assert possible(READER, policies, taken) == {"read", "search"}


def test_question_that_cedar_does_not_take_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is no denial."""
    monkeypatch.setattr(listing, "spelled", lambda _: "nonsense")
    policies = policy_set('@id("a") permit (principal, action, resource) when { principal.scopes.contains("x") };')

    assert possible(READER, policies) == {"read", "search"}


def test_what_a_call_acts_on_is_in_its_tool_and_before_the_call_nobody_knows_what_that_is() -> None:
    """A record that is known without the call is in the tool only where the call acts on it."""
    policies = policy_set(
        """@id("a") permit (principal, action, resource)
        when { principal has user && principal.user has favourite && principal.user.favourite in Tool::"read" };""",
        tools=[READ, tool("look", record_of({"id": Field(str)}, where="look"))],
        types=f"{TYPES} entity User = {{ favourite?: Record }};",
        entities="""[
          { "uid": { "type": "User", "id": "alice" }, "parents": [],
            "attrs": { "favourite": { "__entity": { "type": "Record", "id": "r1" } } } },
          { "uid": { "type": "Record", "id": "r1" }, "attrs": { "sensitivity": "normal" }, "parents": [] }
        ]""",
        loaders=(),
    )
    alice = unsafe_invocation("reader", user="alice")
    asked = reads(alice, {"uid": uid("Agent", "x"), "attrs": {}, "parents": []})

    assert decide(asked, policies).allowed
    assert never(alice, "read", policies) is None
    assert "read" in possible(alice, policies)
