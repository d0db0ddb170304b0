import json

import pytest

from agentguard.policy.deciding.reach import (
    KnownEntities,
    Uid,
    UnsafeValueError,
    add_references,
    ancestors,
    json_text,
    parents_of,
    references_of,
    resolve,
    uid_of,
)
from tests.policy.records import record, reference, uid

PLAIN = {"Record": frozenset({"labels"})}
BOSS = ("User", "boss")


def found_in(value: object, *, special: bool = True) -> set[Uid]:
    """Return what a value could refer to."""
    found: set[Uid] = set()
    add_references(value, found, special=special)
    return found


def test_json_is_written_as_cedar_reads_it() -> None:
    """Compact, and in UTF-8."""
    value = {"a": [1, True, "é\n"], "b": {}}

    assert json.loads(json_text(value)) == value


@pytest.mark.parametrize("value", ["\ud800", {"a": object()}], ids=["surrogate", "object"])
def test_what_is_no_json_is_refused(value: object) -> None:
    """Nothing is written in its place."""
    with pytest.raises(ValueError, match="serializ"):
        json_text(value)


def test_json_nested_too_deep_is_refused() -> None:
    """And does not end the process."""
    value: object = 1
    for _ in range(10_000):
        value = [value]

    with pytest.raises(ValueError, match="depth"):
        json_text(value)


@pytest.mark.parametrize(
    "value",
    [
        'User::"boss"',
        ["User", "boss"],
        {"type": "User"},
        {"type": "User", "name": "boss"},
        {"type": "User", "id": 1},
        {"type": 1, "id": "boss"},
        {"type": "User", "id": "boss", "more": 1},
        reference("User", "boss"),
    ],
)
def test_an_entity_is_named_in_one_way_alone(value: object) -> None:
    """Cedar takes other spellings, which would hide it from the check that it is there."""
    assert uid_of(uid("User", "boss")) == BOSS
    with pytest.raises(UnsafeValueError):
        uid_of(value)


@pytest.mark.parametrize(
    "value",
    [
        reference("User", "boss"),
        uid("User", "boss"),
        {**uid("User", "boss"), "more": 1},
        ["User", "boss"],
        [{"deep": [["User", "boss"]]}],
    ],
)
def test_everything_that_cedar_could_read_as_an_entity_counts_as_one(value: object) -> None:
    """With a schema, Cedar reads a record or a list as an entity without being told."""
    assert BOSS in found_in(value)


@pytest.mark.parametrize(
    "value", [["User", "boss"], uid("User", "boss"), {"fn": "unknown", "arg": "x"}, ["unknown", "x"]]
)
def test_a_plain_attribute_holds_no_reference(value: object) -> None:
    """Where the schema has no entity or extension type, a list of two strings is just that."""
    assert found_in(value, special=False) == set()


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        {"__extn": {"fn": "unknown", "arg": "x"}},
        {"__extn": {"fn": "unknown", "args": ["x"]}},
        {"__extn": {"fn": "decimal", "arg": {"__extn": {"fn": "unknown", "arg": "x"}}}},
        {"__extn": {"fn": "decimal", "arg": "1.0", "more": 1}},
        {"__extn": ["unknown", "x"]},
        {"__extn": {"fn": "decimal", "arg": "1.0"}, "more": 1},
        {"__entity": uid("User", "boss"), "more": 1},
        {"__entity": ["User", "boss"]},
        {"__entity": {**uid("User", "boss"), "more": 1}},
        {"__expr": 'User::"boss"'},
        [[{"a": {"__extn": {"fn": "unknown", "arg": "x"}}}]],
        {1: "a"},
        None,
        1.5,
        b"a",
        {"a"},
        ("User", "boss"),
    ],
)
def test_what_is_not_plainly_a_value_is_refused(value: object, special: bool) -> None:
    """`unknown` makes a forbid not fire, and the rest is no Cedar JSON or hides in it."""
    with pytest.raises(UnsafeValueError):
        found_in(value, special=special)


@pytest.mark.parametrize(
    "value", [{"fn": "unknown", "arg": "x"}, {"fn": "unknown", "args": ["x"]}, ["unknown", "x"], ["unknown", ["x"]]]
)
def test_a_call_that_is_not_marked_as_one_is_refused(value: object) -> None:
    """Where the schema has an extension type, Cedar reads these as calls."""
    with pytest.raises(UnsafeValueError):
        found_in(value)


def test_values_and_the_four_functions_pass() -> None:
    """They refer to nothing."""
    calls = [{"__extn": {"fn": name, "arg": "1"}} for name in ("decimal", "datetime", "duration", "ip")]
    value = {"a": ["x", "y", "z"], "b": calls, "c": {"fn": "decimal", "arg": "1.0"}, "d": [1, 2], "e": True}

    assert found_in(value) == set()


def test_an_entity_refers_to_its_parents_and_what_its_attributes_and_tags_name() -> None:
    """A plain attribute is left out, an undeclared type has none."""
    entity = record(owner=reference("User", "boss"), labels=["User", "x"])
    entity["tags"] = {"a": reference("User", "tag")}

    assert references_of(entity, PLAIN) == (
        ("Record", "r1"),
        {("Tool", "read"), BOSS, ("User", "tag")},
    )
    assert references_of(entity, {})[1] == {("Tool", "read"), BOSS, ("User", "tag"), ("User", "x")}
    assert parents_of(entity) == {("Tool", "read")}


@pytest.mark.parametrize(
    "entity",
    [
        [uid("Record", "r1"), {}, []],
        {"uid": uid("Record", "r1"), "attrs": {}},
        {"uid": ["Record", "r1"], "attrs": {}, "parents": []},
        {"uid": uid("Record", "r1"), "attrs": [], "parents": []},
        {"uid": uid("Record", "r1"), "attrs": {}, "parents": {}},
        {"uid": uid("Record", "r1"), "attrs": {}, "parents": [reference("User", "boss")]},
        {"uid": uid("Record", "r1"), "attrs": {}, "parents": [], "more": 1},
        {"uid": uid("Record", "r1"), "attrs": {1: "a"}, "parents": []},
        {"uid": uid("Record", "r1"), "attrs": {"a": None}, "parents": []},
    ],
)
def test_an_entity_of_another_form_is_refused(entity: object) -> None:
    """Cedar takes lists for records, and ignores what it does not know."""
    with pytest.raises(UnsafeValueError):
        references_of(entity, PLAIN)


def test_references_are_followed_through_the_known_and_the_given() -> None:
    """What is done is not looked at again; what is nowhere is told."""
    known = KnownEntities(
        [
            {"uid": uid("A", "known"), "attrs": {}, "parents": [uid("A", "top"), uid("A", "nowhere")]},
            {"uid": uid("A", "top"), "attrs": {}, "parents": [uid("A", "known")]},
            {"uid": uid("A", "other"), "attrs": {}, "parents": []},
        ],
        {},
    )
    given: dict[Uid, set[Uid]] = {("A", "given"): {("A", "known")}, ("A", "top"): {("A", "both")}}

    used, absent = resolve([("A", "given"), ("A", "done")], known, given, {("A", "done")})

    assert used == {("A", "known"), ("A", "top")}
    assert absent == {("A", "nowhere"), ("A", "both")}
    assert json.loads(known.text[("A", "other")])["uid"] == uid("A", "other")


def test_ancestors_are_followed_to_the_top() -> None:
    """A circle ends too."""
    one: dict[Uid, frozenset[Uid]] = {("A", "a"): frozenset({("A", "b")})}
    two: dict[Uid, frozenset[Uid]] = {("A", "b"): frozenset({("A", "c"), ("A", "a")})}

    assert ancestors([("A", "a")], one, two) == {("A", "a"), ("A", "b"), ("A", "c")}
