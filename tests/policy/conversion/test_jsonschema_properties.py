"""For any schema and any JSON value: what is accepted is unchanged and of the declared type; all else is refused."""

from decimal import Decimal
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.jsonschema import arguments_of
from agentguard.policy.conversion.values import check_no_escapes, to_cedar
from tests.policy.asking import cedar_says

MANY = settings(max_examples=100, deadline=None)
FEW = settings(max_examples=60, deadline=None)

NAMES = st.sampled_from(["a", "b", "c", "__extn", "null"])
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5) | st.sampled_from(["null", " null", "1", "true", "[]"]),
    "integer": st.integers() | st.sampled_from([2**63 - 1, 2**63, -(2**63) - 1]),
    "number": st.integers(-(10**16), 10**16) | st.integers(-(10**16), 10**16).map(lambda n: n / 10_000) | st.floats(),
    "boolean": st.booleans(),
}
JSON = st.recursive(
    st.none() | st.one_of(*SCALARS.values()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of objects with properties of *inner*."""
    return st.builds(
        lambda properties, required, more: {
            "type": "object",
            "properties": properties,
            "required": sorted(required & properties.keys()),
            "additionalProperties": more,
        },
        st.dictionaries(st.sampled_from(["a", "b", "c", "null"]), inner, min_size=1, max_size=3),
        st.sets(NAMES),
        st.booleans(),
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of arrays, of maps and of objects."""
    return (
        inner.map(lambda items: {"type": "array", "items": items})
        | inner.map(lambda others: {"type": "object", "additionalProperties": others})
        | objects(inner)
        | objects(st.recursive(inner, nullable))
    )


def nullable(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas that admit null too."""
    return inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})


TYPES = st.sampled_from(sorted(SCALARS)).map(lambda kind: {"type": kind})
ENUMS = st.one_of(
    *(
        st.lists(SCALARS[kind], min_size=1, max_size=3).map(lambda values: {"enum": values})
        for kind in ("string", "integer", "boolean")
    )
)
SCHEMAS = st.recursive(TYPES | ENUMS, containers, max_leaves=5)
ANY_SCHEMAS = st.recursive(
    TYPES
    | ENUMS
    | st.lists(st.sampled_from([*sorted(SCALARS), "null"]), max_size=3, unique=True).map(lambda kinds: {"type": kinds})
    | st.lists(JSON, max_size=3).map(lambda values: {"enum": values})
    | st.just({}),
    lambda inner: containers(inner) | st.lists(inner, min_size=1, max_size=2).map(lambda several: {"anyOf": several}),
    max_leaves=6,
)


def values_of(schema: Any, strays: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return JSON values that satisfy *schema*, but for *strays* here and there."""
    exact: st.SearchStrategy[Any] = JSON
    kinds = schema.get("type", [])
    if schema.get("enum"):
        exact = st.sampled_from(schema["enum"])
    elif "anyOf" in schema:
        exact = st.one_of(*(values_of(inner, strays) for inner in schema["anyOf"]))
    elif kinds == "array":
        exact = st.lists(values_of(schema["items"], strays), max_size=3)
    elif "properties" in schema:
        parts = {name: values_of(inner, strays) for name, inner in schema["properties"].items()}
        required = {name: parts.pop(name) for name in schema["required"]}
        exact = st.fixed_dictionaries(required, optional=parts)
    elif kinds == "object":
        exact = st.dictionaries(NAMES, values_of(schema["additionalProperties"], strays), max_size=3)
    elif kinds:
        named = [kinds] if isinstance(kinds, str) else kinds
        exact = st.one_of(*(SCALARS.get(kind, st.none()) for kind in named))
    return exact if strays.is_empty else st.one_of(*[exact] * 5, strays)


@st.composite
def fitting(draw: st.DrawFn, schema: Any, strays: st.SearchStrategy[Any]) -> Any:
    """Draw one of these values.

    What hypothesis would write of the strategy itself is megabytes long, and it does so where another thread draws
    from `random` meanwhile.
    """
    return draw(values_of(schema, strays))


def same(cedar: Any, value: Any) -> bool:
    """Return whether Cedar JSON is exactly a JSON value."""
    if isinstance(value, bool | str):
        return type(cedar) is type(value) and bool(cedar == value)
    if isinstance(cedar, dict) and "__extn" in cedar:
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        return cedar["__extn"]["fn"] == "decimal" and Decimal(cedar["__extn"]["arg"]) in {exact, Decimal(value)}
    if isinstance(value, int):
        return type(cedar) is int and cedar == value
    if isinstance(value, list):
        return len(cedar) == len(value) and all(map(same, cedar, value))
    if isinstance(cedar, list):
        cedar = {pair["key"]: pair["value"] for pair in cedar}
    if not isinstance(value, dict):
        return False
    there = {key: item for key, item in value.items() if item is not None}
    return there.keys() == cedar.keys() and all(same(cedar[key], item) for key, item in there.items())


def check(schema: Any, value: Any) -> None:
    """Judge *value* as an argument of *schema*: exactly that and of the declared type, or refused."""
    whole = {"type": "object", "properties": {"v0": schema}, "required": ["v0"]}
    try:
        shape = arguments_of(whole, where="t").shape
    except UnmappableTypeError:
        return
    try:
        cedar = to_cedar({"v0": value}, shape, Limits())
    except Refusal as refusal:
        assert refusal.reason is Reason.INVALID_ARGUMENT  # noqa: PT017  either outcome is right
        return
    assert same(cedar, {"v0": value})
    jsonschema.Draft202012Validator(whole).validate({"v0": value})
    # What it holds of extension calls is ours alone.
    check_no_escapes({"v0": value})
    assert cedar_says("true", cedar, types=shape.cedar)


@MANY
@given(data=st.data())
def test_a_value_that_is_accepted_is_unchanged_and_valid(data: st.DataObject) -> None:
    """An independent validator agrees that it is of the declared type, and Cedar takes it."""
    schema = data.draw(SCHEMAS)

    check(schema, data.draw(fitting(schema, st.nothing())))


@MANY
@given(data=st.data())
def test_anything_that_is_not_of_the_declared_type_is_refused(data: st.DataObject) -> None:
    """Whatever comes in for whatever schema."""
    schema = data.draw(ANY_SCHEMAS)

    check(schema, data.draw(fitting(schema, JSON)))


KEYWORDS = st.sampled_from(
    ["type", "enum", "const", "properties", "required", "items", "additionalProperties", "anyOf", "allOf", "$ref"]
)


@FEW
@given(
    schema=st.recursive(
        JSON | st.sampled_from(["#", "#/properties/a", "object", "array", "string"]),
        lambda inner: st.dictionaries(KEYWORDS, inner | st.lists(inner, max_size=3), max_size=4),
        max_leaves=12,
    ),
    value=JSON,
)
def test_no_schema_makes_the_reader_raise_anything_else(schema: Any, value: Any) -> None:
    """Not even one that is none: a refusal at start-up, or a shape."""
    try:
        arguments_of(schema, where="t")
    except UnmappableTypeError as error:
        assert str(error).isprintable()  # noqa: PT017  either outcome is right
    lenient = arguments_of(schema, where="t", lenient=True)
    try:
        cedar = to_cedar(value, lenient.shape, Limits())
    except Refusal:
        return
    assert isinstance(value, dict)
    assert same(cedar, {name: item for name, item in value.items() if name not in lenient.unseen})


@pytest.mark.parametrize(("cedar", "value"), [(1, 1.0), (1, True), ({"a": 1}, {"a": 1, "b": 2}), ([], {"a": 1})])
def test_the_comparison_of_these_tests_tells_values_apart(cedar: object, value: object) -> None:
    """Else the others would say nothing."""
    assert not same(cedar, value)
