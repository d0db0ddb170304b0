from __future__ import annotations

from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.lifecycle.delegation import Bounds, bounds_of, check_child, read_bounds, read_scopes
from agentguard.model import Reason
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, reads, searches

READS = 'permit (principal, action, resource) when { context.input has id && context.input.id == "r1" };'
PARENT = unsafe_invocation("planner", scopes=frozenset({"read", "write"}))


def bounds(**asked: Any) -> Bounds:
    """Return what a run was asked to be granted."""
    return read_bounds(**{"tools": None, "arguments": None, "grant": None, **asked})


def test_listed_tools_and_values_become_cedar() -> None:
    """And stay known, so that a child's can be compared."""
    found = bounds(tools=["read", "search"], arguments={"read": {"id": ["r1"]}})

    assert found.tools == frozenset({"read", "search"})
    assert found.arguments == {"read": {"id": ["r1"]}}
    run = unsafe_invocation("a", grant=found.text)
    assert decide(reads(run), policy_set(ALL)).allowed
    assert decide(searches(run), policy_set(ALL)).allowed
    assert decide(reads(run, id_="r2"), policy_set(ALL)).reason is Reason.GRANT


def test_cedar_is_taken_as_it_is() -> None:
    """What it permits, only a server can tell."""
    assert bounds(grant=READS) == Bounds(text=READS)


def test_beside_cedar_listed_tools_bind_as_well() -> None:
    """A call is permitted by the text and is one of a listed tool; a union would grant more than either."""
    both = bounds(tools=["read", 'a "quoted" tool'], grant="permit (principal, action, resource);\n")
    narrow = bounds(tools=["read"], grant=READS)
    policies = policy_set(ALL)

    assert both.tools == frozenset({"read", 'a "quoted" tool'})
    assert decide(reads(unsafe_invocation("a", grant=narrow.text)), policies).allowed
    assert not decide(reads(unsafe_invocation("a", grant=narrow.text), id_="r2"), policies).allowed
    assert not decide(searches(unsafe_invocation("a", grant=narrow.text)), policies).allowed


def test_listed_tools_beside_cedar_leave_the_other_tools_out() -> None:
    """Whatever the text permits."""
    text = bounds(tools=["read"], grant="permit (principal, action, resource);").text
    run, policies = unsafe_invocation("a", grant=text), policy_set(ALL)

    assert decide(reads(run), policies).allowed
    assert not decide(searches(run), policies).allowed


def test_bounds_are_read_again_from_a_grant() -> None:
    """As far as it is a list; whoever resumes a run has its token alone."""
    listed = bounds(tools=["read", "search"], arguments={"read": {"id": ["r1"]}})

    assert bounds_of(listed.text) == listed
    assert bounds_of(READS) == Bounds(text=READS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "a run wants tools= or grant=, got neither: say what it may call"),
        ({"arguments": {"read": {"id": ["r1"]}}}, "a run wants tools= or grant=, got neither"),
        ({"tools": "read"}, "`tools` wants a list of names, got the text `read`: put it into brackets"),
        ({"tools": []}, "a grant wants at least one tool, got none"),
        ({"tools": [], "grant": READS}, "a grant wants at least one tool, got none"),
        ({"tools": ["\ud800"], "grant": READS}, "a grant cannot name a tool"),
        ({"tools": ["read"], "arguments": {"read": {"id": ["r1"]}}, "grant": READS}, "write the values into the grant"),
        ({"grant": ""}, "a grant wants a `permit`, got none"),
        ({"grant": "forbid (principal, action, resource);"}, "a grant wants a `permit`, got none"),
        ({"grant": "nonsense"}, "a grant"),
        ({"tools": ["read"], "grant": "nonsense"}, "a grant"),
        ({"tools": ["read"], "grant": READS + " " * 5000 + READS}, "a grant holds at most 4096 bytes"),
    ],
)
def test_what_grants_nothing_or_is_no_grant_is_refused(asked: dict[str, Any], message: str) -> None:
    """Before anything is signed."""
    with pytest.raises(ConfigurationError) as refused:
        bounds(**asked)

    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        ("read", "`scopes` wants a list of scopes, got the text `read`: put it into brackets"),
        (["read write"], "a scope wants text without blanks, got `read write`: list scopes one by one"),
        ([""], "a scope wants text without blanks, got ``"),
    ],
)
def test_scope_that_a_token_would_change_is_refused(scopes: Any, message: str) -> None:
    """Joined by blanks, one with a blank would come out as two."""
    with pytest.raises(ConfigurationError) as refused:
        read_scopes(scopes)

    assert message in str(refused.value)
    assert read_scopes(["read", "write"]) == {"read", "write"}


GRANTED = Bounds(text="", tools=frozenset({"read", "search"}), arguments={"read": {"id": ["r1", "r2"], "deep": [True]}})


def asked(tools: set[str], **arguments: Any) -> Bounds:
    """Return what a child asks for."""
    return Bounds(text="", tools=frozenset(tools), arguments=arguments)


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [
        (GRANTED, asked({"search"})),
        (GRANTED, asked({"read", "search"}, read={"id": ["r1"], "deep": [True]})),
        (GRANTED, asked({"search"}, search={"text": ["x"]})),
        (GRANTED, Bounds(text="cedar")),
        (Bounds(text="cedar"), asked({"read", "export"})),
    ],
)
def test_child_that_asks_for_no_more_passes(granted: Bounds, wanted: Bounds) -> None:
    """What stands in Cedar text is judged by the server."""
    check_child(PARENT, granted, wanted, frozenset({"read"}), (60, 60))


@pytest.mark.parametrize(
    ("wanted", "scopes", "seconds", "message"),
    [
        (asked({"search"}), set(), (61, 60), "ends_in= up to `60`, when its parent ends, got `61`"),
        (asked({"search"}), {"read", "own"}, (60, 60), "scopes among `read`, `write`, got also `own`"),
        (asked({"search", "drop"}), set(), (60, 60), "tools among `read`, `search`, got also `drop`"),
        (asked({"read"}, read={"id": ["r1"]}), set(), (60, 60), "`deep` of `read` among `True`, got any"),
        (
            asked({"read"}, read={"id": ["r1", "r9"], "deep": [True]}),
            set(),
            (60, 60),
            "`id` of `read` among `r1`, `r2`, got also `r9`",
        ),
        (
            asked({"read"}, read={"id": ["r1"], "deep": [1]}),
            set(),
            (60, 60),
            "`deep` of `read` among `True`, got also `1`",
        ),
        (
            asked({"drop"}),
            {"own"},
            (61, 60),
            (
                "a child has no more than its parent; wants ends_in= up to `60`, when its parent ends, got `61`; "
                "scopes among `read`, `write`, got also `own`; tools among `read`, `search`, got also `drop`: "
                "ask for less"
            ),
        ),
    ],
)
def test_child_that_asks_for_more_is_told_what_is_too_much(
    wanted: Bounds, scopes: set[str], seconds: tuple[int, int], message: str
) -> None:
    """All of it at once."""
    with pytest.raises(ConfigurationError) as refused:
        check_child(PARENT, GRANTED, wanted, frozenset(scopes), seconds)

    assert message in str(refused.value)


def test_scopes_of_a_parent_that_has_none_are_refused() -> None:
    """The message says so."""
    with pytest.raises(ConfigurationError, match="scopes among none, got also `read`"):
        check_child(unsafe_invocation("a"), GRANTED, asked({"search"}), frozenset({"read"}), (1, 1))
