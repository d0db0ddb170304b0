"""A value nested 10,000 deep exhausts the stack of whoever walks it recursively."""

from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.model import Reason
from agentguard.policy.conversion.values import check_no_escapes, shape_of
from tests.policy.judging import outcome

DEPTH = 10_000


def nested(wrap: type[list[Any]] | type[dict[str, Any]]) -> object:
    """Return lists in lists, or dicts in dicts."""
    value: object = "bottom"
    for _ in range(DEPTH):
        value = [value] if wrap is list else {"a": value}
    return value


@pytest.mark.parametrize("wrap", [list, dict])
@pytest.mark.parametrize("annotation", [str, list[str], list[list[str]], dict[str, str], dict[str, dict[str, str]]])
def test_a_deep_value_is_refused_as_an_argument(tmp_path: Path, annotation: object, wrap: Any) -> None:
    """The walk follows the type, which has an end."""
    assert outcome(tmp_path, nested(wrap), annotation, forbid="false") is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("wrap", [list, dict])
def test_a_deep_value_is_refused_when_searched_for_escapes(wrap: Any) -> None:
    """Level by level, and no further than the limit."""
    with pytest.raises(Refusal):
        check_no_escapes(nested(wrap))


def test_a_deep_type_is_refused_at_start_up() -> None:
    """Generated code can have such a type."""
    annotation: Any = str
    for _ in range(DEPTH):
        annotation = list[annotation]

    with pytest.raises(UnmappableTypeError, match="nest types at most"):
        shape_of(annotation, where="t.a")
