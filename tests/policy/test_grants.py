"""Grants are written as Cedar's JSON, and bounded before Cedar reads one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.policy.grants import GROUPS, check_grant, grant_text, listed_in

LIMITS = Limits()
ONE = grant_text(tools=["a"], arguments={"a": {"id": ["r1"]}})


def permitted(text: str, tool: str, **arguments: object) -> bool:
    """Return whether a grant permits a call, without an error."""
    anyone = {"type": "Anyone", "id": "a"}
    answer = cedarpy.is_authorized(
        {
            "principal": anyone,
            "action": {"type": "Action", "id": tool},
            "resource": anyone,
            "context": json.dumps({"input": arguments}),
        },
        text,
        "[]",
    )
    assert answer.diagnostics.errors == []
    return answer.allowed


def test_a_grant_permits_its_tools_and_no_others() -> None:
    """Naming a tool twice changes nothing."""
    text = grant_text(tools=["read", "search", "read"])

    assert [permitted(text, tool) for tool in ("read", "search", "delete")] == [True, True, False]
    assert text == grant_text(tools=["read", "search"])


def test_a_bounded_argument_has_to_be_given_and_among_the_values() -> None:
    """All bounds of a tool hold together; other tools are not bounded."""
    text = grant_text(
        tools=["read", "search"], arguments={"read": {"id": ["r1", "r2"], "limit": [1, -5], "all-of": [False]}}
    )

    good: dict[str, object] = {"id": "r2", "limit": -5, "all-of": False}
    assert permitted(text, "read", **good)
    for name, wrong in {"id": "r3", "limit": 2, "all-of": True}.items():
        assert not permitted(text, "read", **{**good, name: wrong})
        assert not permitted(text, "read", **{key: value for key, value in good.items() if key != name})
    assert permitted(text, "search", id="r3")


def test_a_grant_for_bounded_tools_alone_has_one_permit_for_each() -> None:
    """There is no permit without a bound."""
    text = grant_text(tools=["a", "b"], arguments={"a": {"x": [1]}, "b": {"x": [2]}})

    assert len(cedarpy.PolicySet.from_str(text)) == 2
    assert not permitted(text, "a", x=2)


@settings(max_examples=100, deadline=None)
@given(
    tool=st.text(min_size=1, max_size=40).filter(lambda name: name not in GROUPS),
    argument=st.text(min_size=1, max_size=40),
    value=st.text(max_size=40),
)
def test_no_name_or_value_becomes_policy_text(tool: str, argument: str, value: str) -> None:
    """Quotes, comments and all: what goes in is what Cedar compares with."""
    text = grant_text(tools=[tool], arguments={tool: {argument: [value]}})

    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    assert policy["action"]["entity"]["id"] == tool
    (condition,) = policy["conditions"]
    assert condition["body"]["&&"]["left"]["has"]["attr"] == argument
    assert condition["body"]["&&"]["right"]["contains"]["left"]["Set"] == [{"Value": value}]


@pytest.mark.parametrize(
    ("tools", "arguments", "what"),
    [
        ([], None, "at least one tool, got none"),
        ("read", None, "`tools` wants a list of names, got the text `read`: put it into brackets"),
        (
            ["b"],
            {"b": {"x": "csv"}},
            "the values of argument `x` want a list, got the text `csv`: put it into brackets",
        ),
        (["a"], {"b": {"x": [1]}}, "bounds arguments of `b`"),
        (["a"], {"a": {"x": []}}, "the values of argument `x`"),
        (["a"], {"a": {"x": [1, True]}}, "the values of argument `x`"),
        (["a"], {"a": {"x": ["a", 1]}}, "the values of argument `x`"),
        (["a"], {"a": {"x": [1.5]}}, "the values of argument `x`"),
        (["a"], {"a": {"x": [2**63]}}, "64 bits"),
        (["a"], {"a": {"x": ["\ud800"]}}, "lone surrogates"),
        (["a"], {"a": {"\ud800": ["x"]}}, "lone surrogates"),
        (["\ud800"], None, "lone surrogates"),
        (["a" * 5_000], None, "at most 4096 bytes"),
    ],
)
def test_a_grant_that_cannot_be_written_is_refused(
    tools: Sequence[str], arguments: Mapping[str, Mapping[str, Sequence[Any]]] | None, what: str
) -> None:
    """One line, with the fix."""
    with pytest.raises(ConfigurationError, match=what):
        grant_text(tools=tools, arguments=arguments)


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource);",
        'forbid (principal, action == Action::"a", resource); permit (principal, action, resource);',
        "// what this run is for\npermit (principal, action, resource) when { context.input.n < 5 };",
    ],
)
def test_a_plain_grant_passes(text: str) -> None:
    """Whether its tools exist is for the server to say."""
    check_grant(text, LIMITS)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "wants a `permit`, got none"),
        ("// permit", "wants a `permit`, got none"),
        ("forbid (principal, action, resource);", "wants a `permit`, got none"),
        ("permit (principal, action, resource)", "does not parse"),
        ("permit nonsense;", "does not parse"),
        ('@id("a") permit (principal, action, resource);', "has an annotation in line 1"),
        (
            "permit (principal, action, resource);\npermit (principal == ?principal, action, resource);",
            "template in line 2",
        ),
        ('permit (principal, action, resource) when { "', "never ends"),
        ("permit (principal, action, resource) when { # };", "not part of Cedar"),
        ('permit (principal, action, resource) when { "\ud800" == "" };', "surrogates"),
        ("permit (principal, action, resource);" * 200, "at most 4096 bytes"),
        (f"permit (principal, action, resource) when {{ {'(' * 101}true{')' * 101} }};", "nested at most 100 deep"),
        (f"permit (principal, action, resource) when {{ {'if true then true else ' * 101}true }};", "nested at most"),
        (f"permit (principal, action, resource) when {{ {'true||' * 501}true }};", "at most 500 operators"),
    ],
)
def test_a_grant_from_outside_is_bounded_before_cedar_reads_it(text: str, what: str) -> None:
    """Past its bounds, Cedar's parser would end the process."""
    with pytest.raises(ConfigurationError, match=what):
        check_grant(text, LIMITS)


def test_what_a_written_grant_lists_can_be_read_again() -> None:
    """With tools and values that look like policy text, and with more policies than digits."""
    names = [f't{number} "x"' for number in range(12)]
    arguments: Mapping[str, Mapping[str, Sequence[str | int | bool]]] = {
        names[3]: {"a b": ["\n", "]"], "n": [3, -5]},
        names[7]: {"deep": [True]},
        **{name: {"id": ["r1"]} for name in names[8:]},
    }

    found = listed_in(grant_text(tools=names, arguments=arguments))

    assert found is not None
    assert (set(found[0]), found[1]) == (set(names), arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "permit (principal, action, resource);",
        'permit(principal, action in [Action::"a"], resource);',
        'permit(principal, action == Action::"a", resource) when { true };',
        ONE.replace("when", "unless"),
        ONE.replace(".id", ".name"),
        'permit(principal, action == Action::"a", resource);\nforbid(principal, action == Action::"b", resource);',
        'permit(principal == Agent::"x", action == Action::"a", resource);',
        'permit(principal, action == Action::"a", resource); ',
    ],
)
def test_text_that_was_written_otherwise_lists_nothing(text: str) -> None:
    """Only the engine can tell what it permits."""
    assert listed_in(text) is None
