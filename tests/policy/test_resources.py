"""Guarded resources and prompts as policies and grants see them, judged by the real engine."""

from __future__ import annotations

import pytest

from agentguard.errors import ConfigurationError
from agentguard.model import AccessRequest, EntityUid, Invocation, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.engine import PolicySet, decide, may_ever
from agentguard.policy.grants import METHODS, grant_text, listed_in
from agentguard.policy.schemas.schema import GuardedTool, OwnType, action_of, method_tool
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, READ, SEARCH, TYPES, context, forbid, policy_set, problems

BOTH = TYPES.replace("[Tool]", "[Tool, Resource]")


def guarded(kind: OwnType, name: str, *, resource: str | None = None) -> GuardedTool:
    """Return a guarded resource or prompt with one parameter."""
    return GuardedTool(
        name=action_of(kind, name),
        server="records",
        input=record_of({"id": Field(str)}, where=name),
        resource_type=resource,
        groups=frozenset({action_of(kind, "").rstrip("/")}),
        kind=kind,
    )


NOTES = guarded(OwnType.RESOURCE, "notes")
RECORD = guarded(OwnType.RESOURCE, "record", resource="Record")
SUMMARY = guarded(OwnType.PROMPT, "summary")
PLAIN = tuple(method_tool(method, "records") for method in METHODS)
TOOLS = (READ, SEARCH, NOTES, RECORD, SUMMARY, *PLAIN)


def compiled(*policies: str) -> PolicySet:
    """Return policies for a server that has some of everything."""
    return policy_set(*policies, tools=TOOLS, types=BOTH)


def asks(tool: GuardedTool, invocation: Invocation | None = None) -> AccessRequest:
    """Return a request that uses *tool* on what stands for it."""
    values = {METHODS.get(tool.name, "id"): "x"}
    return AccessRequest(
        invocation=invocation or unsafe_invocation("reader"),
        action=tool.name,
        resource=tool.itself,
        context=context(**values),
        entities=(),
    )


@pytest.mark.parametrize(
    ("head", "allowed"),
    [
        ('action == Action::"resources/read"', {"resources/read"}),
        ('action in Action::"resources/read"', {"resources/read", "resources/read/notes"}),
        ('action in [Action::"prompts/get"]', {"prompts/get", "prompts/get/summary"}),
        ('action == Action::"prompts/get/summary"', {"prompts/get/summary"}),
        ('action in Action::"tools/call"', set()),
    ],
)
def test_a_method_is_one_action_and_the_group_of_others(head: str, allowed: set[str]) -> None:
    """`==` is what nobody guards, `in` is everything; what could ever be allowed says the same."""
    policies = compiled(f'@id("p") permit (principal, {head}, resource);')
    ways = (NOTES, SUMMARY, *PLAIN)

    assert {tool.name for tool in ways if decide(asks(tool), policies).allowed} == allowed
    assert {tool.name for tool in ways if may_ever(unsafe_invocation("reader"), tool.name, policies)} == allowed


@pytest.mark.parametrize("head", ['action == Action::"resources/read"', 'action in Action::"resources/read"'])
def test_a_forbid_holds_for_the_same(head: str) -> None:
    """The policies that are left out for an action could not have matched it."""
    policies = compiled(ALL, f'@id("p") forbid (principal, {head}, resource);')

    assert not decide(asks(PLAIN[0]), policies).allowed
    assert decide(asks(NOTES), policies).allowed is ("==" in head)


def test_what_stands_for_a_resource_is_in_the_server() -> None:
    """So one rule reaches everything of it."""
    policies = compiled(
        '@id("p") permit (principal, action, resource) when { resource in Server::"records" };',
        forbid('resource == Resource::"notes"'),
    )

    assert decide(asks(SUMMARY), policies).allowed
    assert decide(asks(PLAIN[0]), policies).allowed
    assert decide(asks(NOTES), policies).reason is Reason.POLICY


def test_what_could_never_be_used_is_known_without_its_parameters() -> None:
    """By what stands for it, which the guard makes; the server stands for a method."""
    policies = compiled(
        ALL,
        forbid('resource == Resource::"notes"'),
        forbid('resource == Server::"records"').replace('"a"', '"b"'),
        forbid('resource == Record::"x"').replace('"a"', '"c"'),
    )
    reader = unsafe_invocation("reader")

    assert not may_ever(reader, NOTES.name, policies)
    assert not may_ever(reader, PLAIN[1].name, policies)
    assert may_ever(reader, RECORD.name, policies)
    assert may_ever(reader, SUMMARY.name, policies)


def test_a_known_entity_is_in_the_resource_that_acts_on_it() -> None:
    """And not in the tool that acts on the same type."""
    listed = '[{ "uid": { "type": "Record", "id": "x" }, "attrs": { "sensitivity": "normal" }, "parents": [] }]'
    policies = policy_set(
        '@id("p") permit (principal, action, resource in Resource::"record");',
        tools=TOOLS,
        types=BOTH,
        entities=listed,
        loaders=[],
    )
    request = asks(RECORD)

    def on_record(tool: GuardedTool) -> AccessRequest:
        return AccessRequest(
            invocation=request.invocation,
            action=tool.name,
            resource=EntityUid("Record", "x"),
            context=request.context,
            entities=(),
        )

    assert decide(on_record(RECORD), policies).allowed
    assert not decide(on_record(READ), policies).allowed


def test_a_type_that_is_only_in_what_acts_on_it_needs_no_loader() -> None:
    """The guard makes it whole, whoever acts on it."""
    policies = policy_set(ALL, tools=TOOLS, types="entity Record in [Tool, Resource];", loaders=[])

    assert "all" in policies.policies


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('resource == Resource::"nots"', "a.cedar:2: no resource is called `nots`: did you mean `notes`?"),
        ('resource in Prompt::"sumary"', "a.cedar:2: no prompt is called `sumary`: did you mean `summary`?"),
        (
            'resource == Resource::"record"',
            (
                "a.cedar:2: `resource` is a `Record` when `record` is used, never the resource: "
                'write `action == Action::"resources/read/record"`, or `resource in Resource::"record"`'
            ),
        ),
        (
            'action == Action::"resources/read/nots"',
            "a.cedar:2: there is no action `resources/read/nots`: did you mean `resources/read/notes`?",
        ),
    ],
)
def test_what_can_never_match_is_refused(condition: str, wanted: str) -> None:
    """With line and fix, as for tools."""
    assert wanted in problems(forbid(condition), tools=TOOLS, types=BOTH)


def test_a_parameter_that_only_some_have_is_told() -> None:
    """The URI is what the method itself is judged on."""
    policy = forbid('context.input.uri like "x"', 'principal, action in Action::"resources/read", resource')

    (found,) = problems(policy, tools=TOOLS, types=BOTH)

    assert "this applies to `resources/read/notes` and 1 more too, which has no argument `uri`" in found


def test_entities_of_the_guards_own_types_are_refused() -> None:
    """Where it makes them; a loader too."""
    listed = '[{ "uid": { "type": "Prompt", "id": "x" }, "attrs": {}, "parents": [] }]'

    assert problems(ALL, tools=TOOLS, types=BOTH, entities=listed) == [
        'cedarentities.json:1: `Prompt::"x"` is made by the guard: remove it'
    ]
    with pytest.raises(ConfigurationError, match="entity type `Resource` is made by the guard"):
        policy_set(ALL, tools=TOOLS, types=BOTH, loaders=["Record", "Resource"])


def test_a_team_may_have_types_of_these_names_where_nothing_of_the_kind_is_guarded() -> None:
    """They were there before."""
    types = f"{TYPES} entity Resource = {{ size: Long }}; entity Prompt;"
    listed = '[{ "uid": { "type": "Resource", "id": "x" }, "attrs": { "size": 1 }, "parents": [] }]'

    policies = policy_set(ALL, types=types, entities=listed)

    assert EntityUid("Resource", "x") in policies.static_uids


def test_a_grant_that_lists_a_method_stands_for_what_nobody_guards() -> None:
    """Beside other names too, where Cedar's `in` would read it as all that is in it."""
    policies = compiled(ALL)
    text = grant_text(tools=["resources/read", "search", "prompts/get/summary", "read"])
    granted = unsafe_invocation("reader", grant=text)

    assert decide(asks(PLAIN[0], granted), policies).allowed
    assert decide(asks(SUMMARY, granted), policies).allowed
    assert decide(asks(NOTES, granted), policies).reason is Reason.GRANT
    assert decide(asks(PLAIN[1], granted), policies).reason is Reason.GRANT


@pytest.mark.parametrize("tools", [["resources/read"], ["a", "resources/read", "b", "prompts/get"]])
def test_a_grant_of_methods_can_be_read_again(tools: list[str]) -> None:
    """So that a child can be refused what its parent does not have."""
    arguments = {"resources/read": {"uri": ["x://y"]}, "b": {"id": ["1"]}} if "b" in tools else {}

    found = listed_in(grant_text(tools=tools, arguments=arguments))

    assert found is not None
    assert (set(found[0]), found[1]) == (set(tools), arguments)
