"""Policies without what their heads demand of the action."""

import cedarpy
import pytest

from agentguard.policy.deciding import sketch
from agentguard.policy.deciding.sketch import Part, Sketch, Sketches, keys_of, part_of, sketch_of
from agentguard.policy.text.lexer import statements

NOTHING = cedarpy.Entities.from_json_str("[]")


def part(text: str) -> Part:
    """Return the only policy of a text."""
    (statement,) = statements(text)
    return part_of(statement)


@pytest.mark.parametrize(
    ("demand", "actions", "groups"),
    [
        ("action", None, False),
        ('action == Action::"a"', {"a"}, False),
        ('action in Action::"a"', {"a"}, True),
        ('action in [Action::"a,", Action::"b)"]', {"a,", "b)"}, True),
        ("action in []", set(), True),
    ],
)
def test_demand_is_taken_off_and_kept_beside(demand: str, actions: set[str] | None, groups: bool) -> None:
    """What stands around it stays as it was, but for the annotations."""
    found = part(f'@id("x") @note("a, (b") @permit forbid (principal, {demand}, resource) when {{ 1 < 2 }};')

    assert found.text == "forbid (principal, action, resource) when { 1 < 2 };"
    assert (found.permit, found.actions, found.groups) == (False, actions, groups)


def test_demand_that_is_not_understood_stays() -> None:
    """Taken off, a forbid would hit every action, and everything would be hidden."""
    for demand in ('action == Other::Action::"a"', 'action in [Action::"a", Other::Action::"b"]'):
        found = part(f"forbid (principal, {demand}, resource);")

        assert found.text == f"forbid (principal, {demand}, resource);"
        assert (found.actions, found.sees_action) == (None, True)


def test_comment_between_the_parts_of_a_head_is_no_part_of_it() -> None:
    """Nor does it swallow what comes after."""
    found = part('permit (\n  principal, // who, and\n  action == Action::"a", // what\n  resource // on what\n);')

    assert len(cedarpy.PolicySet.from_str(found.text)) == 1
    assert found.actions == frozenset({"a"})


@pytest.mark.parametrize(
    ("text", "principal", "action", "resource"),
    [
        ("permit (principal, action, resource);", False, False, False),
        ('permit (principal, action == Action::"a", resource) when { context.input.n > 1 };', False, False, False),
        ("permit (principal is Invocation, action, resource);", True, False, False),
        ("permit (principal, action, resource is Record);", False, False, True),
        ("permit (principal, action, resource,);", False, False, True),
        ("permit (principal, action, resource) when { principal.n > 1 };", True, False, False),
        ('permit (principal, action, resource) when { action in Action::"g" };', True, True, False),
        ("permit (principal, action, resource) unless { resource.n > 1 };", False, False, True),
        ('permit (principal, action, resource) when { context.t in Server::"s" };', True, False, True),
        ('permit (principal, action, resource) when { context["principal"] like "resource" };', False, False, False),
    ],
)
def test_what_a_policy_may_look_at_is_read_from_its_names(
    text: str, principal: bool, action: bool, resource: bool
) -> None:
    """A name that is an attribute's counts as well: that costs a question, and no more."""
    found = part(text)

    assert (found.sees_principal, found.sees_action, found.sees_resource) == (principal, action, resource)


def test_action_has_the_keys_of_what_it_is_and_what_it_is_in() -> None:
    """To be equal to a group is another matter than to be in it."""
    keys = keys_of("a", ["g"])

    def fits(demand: str) -> bool:
        return not set(part(f"permit (principal, {demand}, resource);").keys).isdisjoint(keys)

    assert [fits(f"action{demand}") for demand in ("", ' == Action::"a"', ' in Action::"a"', ' in Action::"g"')] == (
        [True] * 4
    )
    assert not any(fits(f"action{demand}") for demand in (' == Action::"g"', ' in Action::"b"', " in []"))


def test_what_needs_no_principal_is_settled_once_for_all() -> None:
    """The others are asked about each."""
    found = sketch_of(
        "permit (principal, action, resource) when { 1 < 2 };"
        "forbid (principal, action, resource) when { 1 > 2 };"
        "permit (principal, action, resource) when { context.input.n > 1 };"
        'permit (principal, action, resource) when { principal == Invocation::"r" };'
        "forbid (principal, action, resource) when { resource.n > 1 };"
    )

    assert found.same == ((0,), (2, 4))
    settled = found.ask({"principal": 'Invocation::"r"'}, NOTHING)
    assert settled == ((3,), ())
    assert found.ask({"principal": 'Invocation::"r"'}, NOTHING, (0, 3)) == ((0, 3), ())


def test_question_that_cedar_does_not_take_settles_nothing() -> None:
    """It must not read as if no policy held."""
    found = sketch_of("permit (principal, action, resource) when { principal.n > 1 };")

    assert found.ask({"principal": "nobody"}, NOTHING) is None


def test_sketches_are_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whom a principal is, and a grant's by its text."""
    monkeypatch.setattr(sketch, "_KEPT_POLICIES", 30)
    anyone, mine = part("permit (principal, action, resource);"), part("forbid (principal, action, resource);")
    sketches = Sketches([(None, anyone), (("Agent", "a"), mine), (("Agent", "b"), mine)])

    first = sketches.organisation(frozenset({("Agent", "a"), ("Invocation", "1")}))

    assert first.parts == (anyone, mine)
    assert sketches.organisation(frozenset({("Agent", "a"), ("Invocation", "2")})) is first
    assert sketches.organisation(frozenset()).parts == (anyone,)
    sketches.organisation(frozenset({("Agent", "b")}))
    assert sketches.organisation(frozenset({("Agent", "a")})) is not first
    assert sketches.grant(anyone.text) is sketches.grant(anyone.text)


def test_sketch_of_no_policies_settles_that_nothing_holds() -> None:
    """An agent for whom nobody wrote a policy is shown nothing."""
    assert Sketch.of([]).same == ((), ())
