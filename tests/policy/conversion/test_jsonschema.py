"""JSON Schemas as shapes of raw arguments: what is mapped, what is refused, what is left unseen."""

import enum
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, create_model

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.jsonschema import arguments_of
from agentguard.policy.conversion.scalars import CedarJson
from agentguard.policy.conversion.values import to_cedar
from tests.policy.asking import cedar_says

STRING = {"type": "string"}


def an_object(*required: str, **properties: object) -> dict[str, Any]:
    """Return the schema of an object."""
    return {"type": "object", "properties": properties, "required": list(required)}


def mapped(schema: object, arguments: object, *, lenient: bool = False) -> CedarJson:
    """Return what policies see of raw arguments."""
    return to_cedar(arguments, arguments_of(schema, where="t", lenient=lenient).shape, Limits())


def cedar_of(schema: object) -> str:
    """Return the Cedar type of one argument that is always given."""
    record = arguments_of(an_object("a", a=schema), where="t").shape.cedar
    assert record.startswith('{ "a": ')
    return record.removeprefix('{ "a": ').removesuffix(" }")


def refuses(schema: object, *values: object) -> None:
    """Make sure that no one of *values* passes for an argument of *schema*."""
    for value in values:
        with pytest.raises(Refusal) as caught:
            mapped(an_object("a", a=schema), {"a": value})
        assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("schema", "cedar"),
    [
        ({"type": "string", "title": "A", "description": "d", "default": "x", "maxLength": 3}, "String"),
        ({"type": "string", "format": "date-time"}, "String"),
        ({"type": "integer", "minimum": 0}, "Long"),
        ({"type": "number"}, "decimal"),
        ({"type": "boolean"}, "Bool"),
        ({"enum": ["a", "b"]}, "String"),
        ({"type": "integer", "enum": [1, 2]}, "Long"),
        ({"enum": [True]}, "Bool"),
        ({"const": "a"}, "String"),
        ({"type": "array", "items": {"type": "integer"}}, "Set<Long>"),
        ({"type": "array", "items": {"type": "array", "items": STRING}}, "Set<Set<String>>"),
        (an_object("x", x=STRING, y={"type": "integer"}), '{ "x": String, "y"?: Long }'),
        ({"properties": {"x": STRING}}, '{ "x"?: String }'),
        ({"type": "object", "additionalProperties": False}, "{  }"),
        (
            {"type": "object", "additionalProperties": {"type": "number"}},
            'Set<{ "key": String, "value": decimal }>',
        ),
        ({"$ref": "#/properties/a/x-of", "x-of": STRING}, "String"),
        ({"allOf": [STRING], "description": "as pydantic 1 wrote it"}, "String"),
        ({"type": "string", "anyOf": [{"minLength": 1}, {"pattern": "x"}]}, "String"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, "decimal"),
        ({"type": ["number", "integer"]}, "decimal"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "String"),
        ({"anyOf": [{"enum": ["a"]}, STRING]}, "String"),
    ],
)
def test_a_schema_has_a_cedar_type(schema: object, cedar: str) -> None:
    """Each declared type has one counterpart; annotations and constraints change nothing."""
    assert cedar_of(schema) == cedar


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [STRING, {"type": "null"}]},
        {"oneOf": [{"type": "null"}, STRING]},
        {"type": ["string", "null"]},
        {"type": ["null", "string"], "default": None},
        {"enum": ["a", None]},
        {"anyOf": [{"const": "a"}, {"const": None}]},
    ],
)
def test_null_is_absent(schema: object) -> None:
    """Cedar has no null: null is missing there. Whether the caller has to say it is the schema's to tell."""
    whole = an_object("a", a=schema)

    assert arguments_of(whole, where="t").shape.cedar == '{ "a"?: String }'
    assert mapped(whole, {"a": None}) == {}
    assert mapped({**whole, "required": []}, {}) == {}
    with pytest.raises(Refusal):
        mapped(whole, {})
    assert mapped(whole, {"a": "a"}) == {"a": "a"}


def test_the_schemas_of_pydantic_are_mapped() -> None:
    """What the SDK and FastMCP make of a signature, `$defs` included."""

    class Suit(enum.Enum):
        HEARTS = "hearts"
        SPADES = "spades"

    class Line(BaseModel):
        sku: str
        count: int = 1

    class Address(BaseModel):
        city: str
        post_code: str | None = None

    formats: Any = Literal["csv", "json"]
    model: type[BaseModel] = create_model(
        "Arguments",
        suit=(Suit, ...),
        lines=(list[Line], ...),
        home=(Address | None, None),
        rates=(dict[str, float], ...),
        due=(datetime, ...),
        key=(UUID, ...),
        fmt=(formats, "csv"),
        level=(Literal[1, 2] | None, None),
        share=(int | float, 0),
    )
    arguments = {
        "suit": "spades",
        "lines": [{"sku": "a", "count": 2}, {"sku": "b"}],
        "home": {"city": "Zug", "post_code": None},
        "rates": {"x": 0.5},
        "due": "2026-01-01T00:00:00Z",
        "key": "0b5c9a9c-6f4c-4d8e-9b1e-2a4f8f0a7b11",
        "level": 2,
        "share": 1,
    }

    shape = arguments_of(model.model_json_schema(), where="t").shape
    cedar = to_cedar(arguments, shape, Limits())

    assert cedar == {
        **{name: arguments[name] for name in ("suit", "lines", "due", "key", "level")},
        "home": {"city": "Zug"},
        "rates": [{"key": "x", "value": {"__extn": {"fn": "decimal", "arg": "0.5000"}}}],
        "share": {"__extn": {"fn": "decimal", "arg": "1.0000"}},
    }
    assert cedar_says('context.v0.home.city == "Zug" && !(context.v0 has fmt)', cedar, types=shape.cedar)


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        (STRING, [1, None, ["a"], {"a": "b"}, True]),
        ({"type": "integer"}, [1.0, True, "1", 2**63, -(2**63) - 1, None]),
        ({"type": "number"}, [True, "1", 0.00001, 1e300, float("nan"), float("inf"), 2**63, None]),
        ({"type": "boolean"}, [0, 1, "true", None]),
        ({"enum": ["a", "b"]}, ["c", "A", 0, None, ["a"]]),
        ({"enum": [0, 1]}, [False, True, 1.0, "0"]),
        ({"type": "array", "items": STRING}, ["a", {"0": "a"}, [1], [None], [["a"]]]),
        (an_object("x", x=STRING), [{}, {"x": 1}, {"x": "a", "y": 1}, "{}", [], {"x": None}]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"x": "1"}, {"__extn": 1}, {1: 1}, []]),
        ({"anyOf": [{"const": "a"}, {"const": "b"}]}, ["c", None]),
        ({"type": "object", "additionalProperties": False}, [{"x": 1}]),
        ({"type": ["string", "null"]}, ["null", " null\n", 0]),
    ],
)
def test_a_value_that_is_not_of_its_declared_type_is_refused(schema: object, values: list[object]) -> None:
    """Nothing is coerced and nothing is rounded: the tool might read it as something else."""
    refuses(schema, *values)


def test_the_whole_of_the_arguments_is_an_object() -> None:
    """Nothing else passes for no arguments."""
    others: tuple[object, ...] = (None, [], "", 0)
    for value in others:
        with pytest.raises(Refusal):
            mapped(an_object(), value)


@pytest.mark.parametrize("more", [{}, {"additionalProperties": True}, {"additionalProperties": STRING}])
def test_an_undeclared_argument_is_refused_whatever_the_schema_says_of_others(more: dict[str, object]) -> None:
    """It would reach the tool without having been judged."""
    for lenient in (False, True):
        with pytest.raises(Refusal, match="refused"):
            mapped({**an_object("a", a=STRING), **more}, {"a": "x", "b": "y"}, lenient=lenient)
        with pytest.raises(Refusal, match="refused"):
            mapped(an_object("a", a={**an_object("x", x=STRING), **more}), {"a": {"x": "x", "y": "y"}}, lenient=lenient)


def test_an_argument_that_is_required_has_to_be_there() -> None:
    """A policy that reads it need not ask whether it is."""
    schema = an_object("a", a=STRING, b=STRING)

    assert mapped(schema, {"a": "x"}) == {"a": "x"}
    with pytest.raises(Refusal):
        mapped(schema, {"b": "x"})


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({}, "declare exactly what it holds"),
        (True, "declare exactly what it holds"),
        (None, "declare exactly what it holds"),
        ({"type": "object"}, "declare its `properties`, or what `additionalProperties` are"),
        ({"type": "object", "additionalProperties": True}, "declare its `properties`"),
        ({"type": "object", "patternProperties": {"^x": STRING}}, "declare its `properties`"),
        ({"type": "object", "properties": [STRING]}, "let it be an object with properties"),
        ({"type": "array"}, "declare what `items` are"),
        ({"type": "array", "items": True}, "declare exactly what it holds"),
        ({"type": "array", "items": STRING, "prefixItems": [STRING]}, "declare what `items` are"),
        ({"type": "array", "items": {"type": ["string", "null"]}}, "take null only for"),
        ({"type": "object", "additionalProperties": {"type": ["string", "null"]}}, "take null only for"),
        ({"type": "null"}, "take one type"),
        ({"const": None}, "take one type"),
        ({"type": ["string", "integer"]}, "take one type"),
        ({"type": []}, "take one type"),
        ({"type": [["string"]]}, "declare exactly what it holds"),
        ({"type": {"a": "string"}}, "declare exactly what it holds"),
        ({"type": "file"}, "declare exactly what it holds"),
        ({"anyOf": [STRING, {"type": "array", "items": STRING}]}, "take one type"),
        ({"anyOf": [{"type": "array", "items": STRING}] * 2}, "take one type"),
        ({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "x"}]}, "take one type"),
        ({"anyOf": {"type": "string"}}, "declare exactly what it holds"),
        ({"allOf": [STRING, {"maxLength": 3}]}, "declare exactly what it holds"),
        ({"enum": ["a", 1]}, "let its values be all strings or all whole numbers"),
        ({"enum": [0.5, 1.5]}, "let its values be all strings or all whole numbers"),
        ({"enum": []}, "let its values be all strings or all whole numbers"),
        ({"enum": [["a"]]}, "let its values be all strings or all whole numbers"),
        ({"enum": {"a": 1}}, "let its values be all strings or all whole numbers"),
        ({"enum": ["x" * 70_000]}, "mend its values"),
        ({"const": 2**63}, "mend its values"),
        ({"$ref": "#/$defs/none"}, "refer to something in the same schema"),
        ({"$ref": "https://example.com/s.json"}, "refer to something in the same schema"),
        ({"$ref": "other.json#/a"}, "refer to something in the same schema"),
        ({"$ref": "#/required/x"}, "refer to something in the same schema"),
        ({"$ref": 5}, "put nothing beside `$ref`"),
        ({"$ref": "#/properties", "type": "object"}, "put nothing beside `$ref`"),
        (an_object(__extn=STRING), "give it a short name"),
        (an_object(**{"x" * 257: STRING}), "give it a short name"),
        (an_object(**{"\ud800": STRING}), "give it a short name"),
        ({"type": "object", "properties": {1: STRING}}, "give it a short name"),
    ],
)
def test_what_cedar_cannot_hold_is_refused_with_the_fix(schema: object, says: str) -> None:
    """Or, where that is asked for, the argument reaches the tool unseen."""
    whole = an_object(a=schema, b=STRING)

    with pytest.raises(UnmappableTypeError) as caught:
        arguments_of(whole, where="t")

    assert says in str(caught.value)
    assert str(caught.value).startswith("`t.a")
    assert "\n" not in str(caught.value)
    lenient = arguments_of(whole, where="t", lenient=True)
    assert lenient.unseen == {"a": str(caught.value)}
    assert lenient.shape.cedar == '{ "b"?: String }'
    assert to_cedar({"a": {"any": ["thing", 1.5]}, "b": "x"}, lenient.shape, Limits()) == {"b": "x"}
    assert to_cedar({"b": "x"}, lenient.shape, Limits()) == {"b": "x"}


def test_an_optional_argument_may_be_missing_beside_one_that_is_unseen() -> None:
    """What is counted is what was sent, not what could have been."""
    schema = an_object(a=STRING, b=STRING, c={}, d={})

    for sent in ({"a": "x", "c": 1}, {"c": 1, "d": 2}, {"d": None}, {}):
        assert mapped(schema, sent, lenient=True) == {key: value for key, value in sent.items() if key in {"a", "b"}}
    for sent in ({"e": 1}, {"a": "x", "c": 1, "e": 1}):
        with pytest.raises(Refusal):
            mapped(schema, sent, lenient=True)


@pytest.mark.parametrize("root", [True, None, [], {"type": "array", "items": STRING}, {"$ref": "#"}, {"$ref": "#/x"}])
def test_a_tool_whose_arguments_are_no_object_takes_none(root: object) -> None:
    """It is refused; or it can be called with nothing, and with nothing else."""
    with pytest.raises(UnmappableTypeError, match="`t` has JSON Schema"):
        arguments_of(root, where="t")

    assert mapped(root, {}, lenient=True) == {}
    with pytest.raises(Refusal):
        mapped(root, {"a": 1}, lenient=True)


@pytest.mark.parametrize("root", [{}, {"type": "object"}, {"type": "object", "required": "nothing"}, an_object()])
def test_a_tool_may_have_no_arguments(root: object) -> None:
    """However its schema says so."""
    assert mapped(root, {}) == {}
    with pytest.raises(Refusal):
        mapped(root, {"a": 1})


def test_a_root_that_is_a_reference_is_followed() -> None:
    """So pydantic writes a model that is its own root."""
    schema = {
        "$ref": "#/$defs/A~1b~0c",
        "$defs": {"A/b~c": an_object("a", a={"$ref": "#/$defs/list/1"}), "list": [{}, STRING]},
    }

    assert mapped(schema, {"a": "x"}) == {"a": "x"}


def test_a_name_is_shown_short_and_on_one_line() -> None:
    """The log shows names that other programs chose."""
    with pytest.raises(UnmappableTypeError) as caught:
        arguments_of(an_object(**{"x\ny" + "z" * 200: {"type": "a\nb"}}), where="t\u2028" + "z" * 200)

    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "\u00e9", "\x00", "if", "__entityx", "x" * 256])
def test_any_other_name_is_cedars_too(name: str) -> None:
    """Weird is not wrong."""
    shape = arguments_of(an_object(name, **{name: STRING}), where="t").shape

    cedar = to_cedar({name: "x"}, shape, Limits())

    assert cedar == {name: "x"}
    assert cedar_says("true", cedar, types=shape.cedar)
