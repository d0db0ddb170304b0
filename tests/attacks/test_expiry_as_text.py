"""The trap: pyjwt reads a time that is written as a string, which others read differently or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentguard.model import Reason
from tests.tokens import NOW, make_token, refusal_of


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "run_exp", "run_iat"])
@pytest.mark.parametrize("written", [str, float, lambda moment: f" {moment} "], ids=["text", "float", "blanks"])
def test_time_that_is_no_whole_number_is_refused(name: str, written: Callable[[int], object]) -> None:
    """RFC 7519 allows more; the profile wants integers."""
    moment = NOW + 300 if name.endswith("exp") else NOW

    assert refusal_of(make_token(**{name: written(moment)})) is Reason.INVALID_TOKEN
