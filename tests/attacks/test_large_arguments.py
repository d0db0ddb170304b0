"""Ten megabytes of arguments hold the interpreter while a policy compares them."""

from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.policy.values import check_no_escapes
from tests.policy.judging import outcome

MEGABYTES = 10 * 1024 * 1024


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        pytest.param("a" * MEGABYTES, str, id="one string"),
        pytest.param("é" * (40 * 1024), str, id="one string, counted in bytes"),
        pytest.param(["a" * 1_024] * 10_240, list[str], id="many strings"),
        pytest.param([""] * MEGABYTES, list[str], id="empty strings"),
        pytest.param([1] * MEGABYTES, list[int], id="numbers"),
        pytest.param([True] * 20_000, list[bool], id="bools"),
        pytest.param([[]] * MEGABYTES, list[list[int]], id="empty lists"),
        pytest.param({str(n): True for n in range(20_000)}, dict[str, bool], id="pairs"),
    ],
)
def test_arguments_past_the_limit_are_refused(tmp_path: Path, value: Any, annotation: object) -> None:
    """Whatever they are made of."""
    assert outcome(tmp_path, value, annotation, forbid="false") is Reason.INVALID_ARGUMENT


def test_arguments_within_the_limit_are_judged(tmp_path: Path) -> None:
    """The limit is for what nobody needs."""
    value = ["a" * 1_024] * 200

    assert outcome(tmp_path, value, list[str], forbid="false") is Reason.PERMIT


def test_lists_that_share_one_another_have_too_many_parts() -> None:
    """A thousand references to one list of a thousand: small to hold, long to walk."""
    value = [["a"] * 1_000] * 1_000

    with pytest.raises(Refusal):
        check_no_escapes(value)
