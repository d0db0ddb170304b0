"""The attack: a tool of another program declares a schema that has no end, or hides what it takes.

The schema of a tool behind a proxy is written by whoever wrote that program. Reading one
that multiplies, nests or refers to itself must end; and nothing that it says may let a
value reach the tool that policies did not see, but for arguments that are named as such.
"""

from typing import Any

import pytest
from mcp.server.mcpserver.utilities.func_metadata import func_metadata

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.limits import Limits
from agentguard.policy.conversion.jsonschema import arguments_of
from agentguard.policy.conversion.values import to_cedar

STRING = {"type": "string"}


def nested(depth: int) -> dict[str, Any]:
    """Return an array of arrays of arrays."""
    schema: dict[str, Any] = STRING
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def laughs() -> dict[str, Any]:
    """Return definitions that each name the next one ten times: ten thousand million strings."""
    defs: dict[str, Any] = {"l10": STRING}
    for level in range(10):
        properties = {str(n): {"$ref": f"#/$defs/l{level + 1}"} for n in range(10)}
        defs[f"l{level}"] = {"type": "object", "properties": properties}
    return {"properties": {"a": {"$ref": "#/$defs/l0"}}, "$defs": defs}


CHAIN = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(20_000)}
SCHEMAS: dict[str, tuple[dict[str, Any], str]] = {
    "a definition that holds itself": (
        {
            "properties": {"a": {"$ref": "#/$defs/tree"}},
            "$defs": {"tree": {"type": "object", "properties": {"inner": {"$ref": "#/$defs/tree"}}}},
        },
        "take a type that does not contain itself",
    ),
    "a reference to itself": ({"properties": {"a": {"$ref": "#/properties/a"}}}, "does not contain itself"),
    "two references to each other": (
        {
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}},
            "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"allOf": [{"$ref": "#/$defs/b"}]}},
        },
        "does not contain itself",
    ),
    "the whole as a part of itself": ({"properties": {"a": {"$ref": "#"}}}, "does not contain itself"),
    "references that multiply": (laughs(), "let all of the tool have at most 1000 parts"),
    "a chain of references": ({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": CHAIN}, "at most 1000 parts"),
    "nesting without end": ({"properties": {"a": nested(10_000)}}, "nest at most 32 deep"),
    "alternatives without end": ({"properties": {"a": {"anyOf": [STRING] * 50_000}}}, "at most 1000 parts"),
    "types without end": ({"properties": {"a": {"type": ["string"] * 50_000}}}, "at most 1000 parts"),
    "members without end": ({"properties": {"a": {"enum": [str(n) for n in range(50_000)]}}}, "mend its values"),
    "a pointer without end": ({"properties": {"a": {"$ref": "#" + "/a" * 500_000}}}, "refer to something"),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_without_end_is_refused_or_its_argument_unseen(name: str) -> None:
    """The other arguments of the tool are judged all the same."""
    schema, says = SCHEMAS[name]
    whole = {"type": "object", **schema, "properties": {"b": STRING, **schema["properties"]}}

    with pytest.raises(UnmappableTypeError, match=says):
        arguments_of(whole, where="t")

    lenient = arguments_of(whole, where="t", lenient=True)
    assert list(lenient.unseen) == ["a"]
    assert to_cedar({"a": {"x": 1}, "b": "y"}, lenient.shape, Limits()) == {"b": "y"}


def test_a_thousand_arguments_is_the_most() -> None:
    """The others are undeclared, and a call that has them is refused."""
    whole = {"type": "object", "properties": {f"a{n}": STRING for n in range(50_000)}}

    with pytest.raises(UnmappableTypeError, match="parts"):
        arguments_of(whole, where="t")

    lenient = arguments_of(whole, where="t", lenient=True)
    assert len(lenient.unseen) < 10
    assert to_cedar({"a0": "x"}, lenient.shape, Limits()) == {"a0": "x"}
    for name in ("a1000", "a49999"):
        with pytest.raises(Refusal):
            to_cedar({name: "x"}, lenient.shape, Limits())


def test_arguments_that_are_all_unseen_are_bounded_too() -> None:
    """What a schema leaves unseen is shown to people."""
    whole = {"type": "object", "properties": {f"a{n}": {} for n in range(50_000)}}

    assert len(arguments_of(whole, where="t", lenient=True).unseen) == 1_000


@pytest.mark.parametrize("key", ["__extn", "__entity", "__expr"])
@pytest.mark.parametrize("lenient", [False, True])
def test_a_reserved_key_is_never_declared(key: str, lenient: bool) -> None:
    """Cedar would run ``{"__extn": {"fn": "unknown"}}`` instead of comparing it."""
    hostile = {key: {"fn": "unknown", "arg": "x"}}
    declared = {"type": "object", "properties": {key: {"type": "object", "properties": {"fn": STRING, "arg": STRING}}}}
    mapping = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": STRING}}
    cases = [
        (declared, hostile),
        ({"type": "object", "properties": {"a": declared}}, {"a": hostile}),
        ({"type": "object", "properties": {"a": mapping}}, {"a": hostile}),
    ]

    for schema, arguments in cases:
        try:
            found = arguments_of(schema, where="t", lenient=lenient)
        except UnmappableTypeError:
            assert not lenient
            continue
        try:
            seen = to_cedar(arguments, found.shape, Limits())
        except Refusal:
            continue
        # The call as a whole is refused for the key, wherever it stands: see the raw tools.
        assert seen == {}
        assert list(found.unseen) == ["a"]


def test_the_text_of_null_does_not_pass_for_an_argument_that_is_there() -> None:
    """The SDK's servers parse it: a policy would see an account, and the tool would have none."""

    def pay(account: str | None = None) -> None:
        """Do what a tool of the SDK does."""

    assert func_metadata(pay).validate_arguments({"account": " null"}) == {"account": None}
    schema = {"properties": {"account": {"anyOf": [STRING, {"type": "null"}], "default": None}}}
    shape = arguments_of(schema, where="t").shape

    for text in ("null", " null", "null\n", "\tnull\r "):
        with pytest.raises(Refusal):
            to_cedar({"account": text}, shape, Limits())
    for text in ("nil", "NULL", '"null"', "\u00a0null", "\ufeffnull"):
        assert to_cedar({"account": text}, shape, Limits()) == {"account": text}
