"""The copy of raw arguments that is judged, and that the tool gets."""

from enum import StrEnum
from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.guarding.raw import snapshot
from agentguard.model import Reason


class Shown(str):
    """Text that could show itself otherwise to whoever looks second."""

    __slots__ = ()


class Colour(StrEnum):
    """Text with a name."""

    RED = "red"


def test_copy_shares_nothing_with_what_came() -> None:
    """Whoever holds the original can change it; the judged values stay."""
    original: dict[str, Any] = {"a": [1, 2.5, True, None, "x", {"b": []}], "c": {}}

    copy = snapshot(original)

    assert copy == original
    assert copy["a"] is not original["a"]
    assert copy["a"][5]["b"] is not original["a"][5]["b"]


def deep(depth: int) -> object:
    """Return lists in lists."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        [],
        "{}",
        {1: "a"},
        {Shown("a"): 1},
        {"a": {Shown("b"): 1}},
        {"a": Shown("x")},
        {"a": Colour.RED},
        {"a": (1, 2)},
        {"a": {1, 2}},
        {"a": b"x"},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": object()},
        {"a": deep(40)},
        {"a": LOOP},
        {"a": {"__extn": {"fn": "unknown"}}},
        {"__entity": {"type": "Agent", "id": "a"}},
        {"a": [1] * 300_000},
    ],
)
def test_anything_but_plain_json_is_refused(arguments: object) -> None:
    """A subclass could show one value to the policy and another to the tool."""
    with pytest.raises(Refusal) as caught:
        snapshot(arguments)

    assert caught.value.reason is Reason.INVALID_ARGUMENT
