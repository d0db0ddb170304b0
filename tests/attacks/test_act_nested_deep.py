"""The trap: pyjwt carries an `act` of any depth, which whatever walks it later pays for."""

from __future__ import annotations

import pytest

from agentguard.model import Reason
from tests.tokens import make_token, refusal_of, verified


def actors(depth: int) -> dict[str, object]:
    """Return an `act` of so many actors, the outermost named `a-1`."""
    link: dict[str, object] = {"sub": f"a-{depth}"}
    for number in range(depth - 1, 0, -1):
        link = {"sub": f"a-{number}", "act": link}
    return link


@pytest.mark.parametrize("depth", [6, 7, 500])
def test_act_that_is_nested_deeper_than_five_is_refused(depth: int) -> None:
    """A history that long is no history of a delegation."""
    assert refusal_of(make_token(act=actors(depth))) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("depth", [1, 5])
def test_act_up_to_five_deep_is_accepted_and_its_outermost_is_the_agent(depth: int) -> None:
    """The outermost acts now; the rest is history."""
    assert verified(make_token(act=actors(depth))).agent == "a-1"
