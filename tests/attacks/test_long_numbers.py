"""An integer that Cedar's 64 bits cannot hold, or a bool that passes for one."""

from pathlib import Path
from typing import Literal

import pytest

from agentguard.errors import Refusal
from agentguard.model import Reason
from tests.policy.asking import mapped
from tests.policy.judging import outcome


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64 + 1, pytest.param(10**5_000, id="5,000 digits")])
def test_an_integer_of_more_than_64_bits_is_refused(value: int) -> None:
    """Cut to 64 bits, 2**64 + 1 would be 1, and no rule about large numbers would fire."""
    with pytest.raises(Refusal):
        mapped(value, int)


def test_the_largest_integer_is_judged(tmp_path: Path) -> None:
    """All 64 bits are in use."""
    assert outcome(tmp_path, 2**63 - 1, int, forbid="context.input.a > 100") is Reason.POLICY


@pytest.mark.parametrize("annotation", [int, Literal[1, 2]])
def test_a_bool_is_not_a_number(annotation: object) -> None:
    """True equals 1 in Python and not in Cedar, where the rule would err or be quiet."""
    with pytest.raises(Refusal):
        mapped(True, annotation)
