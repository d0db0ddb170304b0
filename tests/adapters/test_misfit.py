"""What did not fit, in the words of whoever declared it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticCustomError

from agentguard.adapters.misfit import UNFIT, has_no_escapes, hear, hearing, unfit
from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.schemas.schema import GuardedTool

SECRET = "hunter2"


class Filter(BaseModel):
    """An argument with members of its own."""

    model_config = ConfigDict(extra="forbid")
    field: str
    rows: list[int] = []


class Strict(BaseModel):
    """The arguments of a tool that takes no others."""

    model_config = ConfigDict(extra="forbid")
    order: int = 1


FIELDS: dict[str, Any] = {
    "order": int,
    "filter": Filter,
    "labels": dict[str, int],
    "kind": Literal["a", "b"],
    "größe": float,
    "flag": bool,
}
TAKES: dict[str, Any] = {**FIELDS, "hidden": list[str], "injected": int}
MEMBERS: dict[str, Any] = {name: (kind, None) for name, kind in TAKES.items()}
ARGUMENTS: type[BaseModel] = create_model("ARGUMENTS", **MEMBERS)
TOOL = GuardedTool(
    name="find",
    server="records",
    input=record_of({name: Field(annotation) for name, annotation in FIELDS.items()}, where="find"),
    unseen=("hidden",),
)


def error_of(run: Callable[[], object]) -> Exception:
    """Return what it raises."""
    with pytest.raises(ValidationError) as refused:
        run()
    return refused.value


def said(arguments: dict[str, object], model: type[BaseModel] = ARGUMENTS) -> str:
    """Return what is said of arguments that do not fit."""
    refusal = unfit(TOOL, [error_of(lambda: model.model_validate(arguments))])
    assert refusal.reason is Reason.INVALID_ARGUMENT
    return refusal.detail


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"order": SECRET}, "`order` wants a whole number, got a string"),
        ({"order": [SECRET]}, "`order` wants a whole number, got a list"),
        ({"order": (SECRET,)}, "`order` wants a whole number, got something else"),
        ({"order": None}, "`order` wants a whole number, got null"),
        ({"flag": 3.5}, "`flag` wants true or false, got a number"),
        ({"größe": True, "kind": True}, "`kind` wants one of the declared values, got true or false"),
        ({"größe": {SECRET: 1}}, "`größe` wants a number, got an object"),
        ({"hidden": SECRET}, "`hidden` wants a list, got a string"),
        ({"filter": {}}, "`filter.field` is missing"),
        ({"filter": {"field": "x", "rows": [1, SECRET]}}, "`filter.rows[]` wants a whole number, got a string"),
        ({"filter": {"field": "x", SECRET: 1}}, "`filter` has more than it declares"),
        ({"labels": {SECRET: SECRET}}, "`labels` wants a whole number, got a string"),
        ({"injected": SECRET}, UNFIT.detail),
    ],
)
def test_argument_is_named_with_what_it_wants_and_no_more(arguments: dict[str, object], says: str) -> None:
    """Neither a value, nor a key that the caller made up."""
    assert said(arguments) == says


def test_argument_that_is_not_declared_is_not_named() -> None:
    """Its name is the caller's."""
    assert said({SECRET: 1}, Strict) == "there is an argument that is not declared"


def test_words_of_a_validator_are_not_repeated() -> None:
    """They may hold the value, and so may its own name for the error."""

    def fail() -> None:
        own = PydanticCustomError(SECRET, SECRET)
        raise ValidationError.from_exception_data(SECRET, [{"type": own, "loc": ("order",), "input": SECRET}])

    assert unfit(TOOL, [error_of(fail)]).detail == "`order` is not as its declaration wants it, got a string"


def test_many_mistakes_are_counted_and_very_many_are_not_read() -> None:
    """A line stays a line, and nobody makes us write out a million errors."""
    many = said({"order": "x", "flag": "x", "kind": "x", "hidden": 1, "größe": "x"})
    flood = said({"hidden": [1] * 2_000})

    assert many.count("wants") == 3
    assert many.endswith("; and 2 more")
    assert flood == UNFIT.detail


def test_error_that_a_framework_wrapped_is_found() -> None:
    """By its cause or its context, however deep, within a bound."""
    bare = error_of(lambda: ARGUMENTS.model_validate({"order": "x"}))
    wrapped, lost = ValueError(SECRET), ValueError(SECRET)
    wrapped.__context__ = RuntimeError(SECRET)
    wrapped.__context__.__cause__ = bare
    lost.__context__ = lost

    assert unfit(TOOL, [wrapped]).detail == "`order` wants a whole number, got a string"
    assert unfit(TOOL, [lost]) is unfit(TOOL, []) is UNFIT


def test_last_that_says_something_counts() -> None:
    """Our own words say it themselves; of what is not guarded nothing is declared."""
    error = error_of(lambda: ARGUMENTS.model_validate({"order": "x"}))
    root = error_of(lambda: TypeAdapter(int).validate_python("x"))

    assert unfit(TOOL, [error, "ours", ValueError()]).detail == "ours"
    # A developer may raise one of these too, with a value in it.
    assert unfit(TOOL, [Refusal(Reason.PERMIT, SECRET)]) is UNFIT
    assert unfit(None, [error]) is UNFIT
    assert unfit(TOOL, [root]) is UNFIT


def test_arguments_that_cedar_would_read_as_more_are_told_without_their_names() -> None:
    """Which of the keys it was is the caller's."""
    with hearing() as heard:
        assert has_no_escapes({"order": 1}, Limits())
        assert not has_no_escapes({"order": {"__extn": SECRET}}, Limits())

    assert unfit(TOOL, heard).detail == "a key is no string, or is one that Cedar reserves"


def test_nobody_hears_where_nobody_listens() -> None:
    """What is heard belongs to one request, and the one inside it has its own."""
    first, second = ValueError(), ValueError()
    hear(first)

    with hearing() as outer:
        hear(first)
        with hearing() as inner:
            hear(second)

    assert (outer, inner) == ([first], [second])
