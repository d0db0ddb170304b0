"""The trap: Cedar's JSON reads some keys as instructions.

In an attribute they make an unknown value, and a forbid that looks at it does not fire.
"""

from __future__ import annotations

import pytest

from agentguard.model import Reason
from tests.tokens import make_ancestor, make_token, refusal_of

UNKNOWN = {"fn": "unknown", "arg": "x"}


@pytest.mark.parametrize("key", ["__extn", "__entity", "__expr"])
def test_claim_with_a_key_that_cedar_reads_is_refused(key: str) -> None:
    """Claims become attributes, and no schema stands between."""
    assert refusal_of(make_token(ward={key: UNKNOWN})) is Reason.INVALID_TOKEN
    assert refusal_of(make_token(ward=[{"deep": {key: UNKNOWN}}])) is Reason.INVALID_TOKEN
    assert refusal_of(make_token(**{key: UNKNOWN})) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("key", ["__extn", "__entity", "__expr"])
def test_ancestors_claim_with_a_key_that_cedar_reads_is_refused(key: str) -> None:
    """An ancestor is a principal too."""
    parent = make_ancestor(claims={"ward": {key: UNKNOWN}})

    assert refusal_of(make_token(ancestors=[parent])) is Reason.INVALID_TOKEN
