"""The bounds around the mapping, and keys that Cedar reserves."""

from collections import UserDict

import pytest

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.values import Field, check_no_escapes, quoted, record_of, shape_of, to_cedar
from tests.policy.asking import LIMITS


def test_a_shape_nested_past_the_limit_is_refused() -> None:
    """The limit holds for the type's depth, which every value of it shares."""
    shape = shape_of(list[list[int]], where="t.a")

    assert to_cedar([[1]], shape, Limits(argument_nesting=2)) == [[1]]
    with pytest.raises(Refusal) as caught:
        to_cedar([[1]], shape, Limits(argument_nesting=1))
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_the_result_shares_nothing_with_the_value() -> None:
    """What is judged is a snapshot: changing the argument later changes nothing."""
    ids, pairs = ["a"], {"k": "v"}
    shape = record_of({"ids": Field(list[str]), "pairs": Field(dict[str, str])}, where="t")

    judged = to_cedar({"ids": ids, "pairs": pairs}, shape, LIMITS)
    ids.append("b")
    pairs["k"] = "w"

    assert judged == {"ids": ["a"], "pairs": [{"key": "k", "value": "v"}]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "__extn",
        ["__entity"],
        {"a": {"b": ("__expr", {"c": frozenset({"d"})}, {1})}},
        {"__extn_": 1},
    ],
)
def test_data_passes(value: object) -> None:
    """A reserved word is harmless as a value, or as part of a key."""
    check_no_escapes(value)


@pytest.mark.parametrize(
    "value",
    [
        {"__extn": {"fn": "unknown", "arg": "x"}},
        {"a": [{"__entity": {"type": "User", "id": "root"}}]},
        ({"a": {"__expr": "1"}},),
        UserDict({"__extn": 1}),
        {1: "a"},
    ],
)
def test_a_reserved_key_is_refused_at_any_depth(value: object) -> None:
    """Cedar would read it as an instruction."""
    with pytest.raises(Refusal) as caught:
        check_no_escapes(value)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_value_that_holds_itself_is_refused() -> None:
    """The search ends."""
    value: list[object] = []
    value.append(value)

    with pytest.raises(Refusal):
        check_no_escapes(value)


def test_a_value_with_too_many_parts_is_refused() -> None:
    """Lists that share one another are small to hold and long to walk."""
    value = [[0] * 1_000] * 1_000

    with pytest.raises(Refusal):
        check_no_escapes(value)


def test_a_value_at_the_limit_passes() -> None:
    """Nesting counts containers."""
    limits = Limits(argument_nesting=2)
    check_no_escapes([[1]], limits)

    with pytest.raises(Refusal):
        check_no_escapes([[[1]]], limits)


def test_quoted_text_has_no_way_out() -> None:
    """Quotes, backslashes and everything not printable in ASCII are escaped."""
    assert quoted('a"\\\n é') == '"a\\u{22}\\u{5c}\\u{a} \\u{e9}"'
