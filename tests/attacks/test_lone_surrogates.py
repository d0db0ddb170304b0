r"""JSON can spell half of a UTF-16 pair, which is text in Python and nowhere else.

``"\ud800"`` cannot be encoded, so whoever writes it down next raises or replaces it.
"""

import enum
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.request import ResourceTemplate, principal_entities
from agentguard.testing import unsafe_invocation
from tests.policy.judging import outcome

HALF = "admin\ud800"


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (HALF, str),
        ([HALF], list[str]),
        ({HALF: "a"}, dict[str, str]),
        ({"a": HALF}, dict[str, str]),
        (Path(HALF), Path),
    ],
)
def test_text_with_a_lone_surrogate_is_refused(tmp_path: Path, value: object, annotation: object) -> None:
    """Wherever it hides."""
    assert outcome(tmp_path, value, annotation, forbid="false") is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("facts", [{"claims": {"dept": HALF}}, {"scopes": frozenset({HALF})}])
def test_a_claim_with_a_lone_surrogate_is_refused(facts: Any) -> None:
    """A verified token can hold one."""
    with pytest.raises(Refusal):
        principal_entities(unsafe_invocation("agent", **facts))


def test_an_id_with_a_lone_surrogate_is_refused() -> None:
    """Also as the value of an enum."""
    odd = enum.Enum("odd", {"A": HALF})

    for value in (HALF, odd.A):
        with pytest.raises(Refusal):
            ResourceTemplate.parse("Record::{a}").uids({"a": value})
