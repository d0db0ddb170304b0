"""NaN is neither above a limit nor below it, so a rule about limits does not fire."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest

from agentguard.errors import Refusal
from agentguard.model import Reason
from agentguard.policy.conversion.values import Scaled, datetime_json, duration_json
from tests.policy.judging import outcome


@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", [float, Decimal])
def test_what_is_not_a_number_is_refused(tmp_path: Path, kind: type, text: str) -> None:
    """As are the infinities, also where a number is scaled."""
    for annotation in (kind, Annotated[kind, Scaled(2)]):
        assert outcome(tmp_path, kind(text), annotation, forbid="false") is Reason.INVALID_ARGUMENT


def test_a_signalling_nan_is_refused(tmp_path: Path) -> None:
    """It raises when it is compared."""
    assert outcome(tmp_path, Decimal("sNaN"), Decimal, forbid="false") is Reason.INVALID_ARGUMENT


def test_a_clock_that_is_not_a_number_is_refused() -> None:
    """Bounds that are written as `not low <= now` would let it pass."""
    for convert in (datetime_json, duration_json):
        with pytest.raises(Refusal):
            convert(float("nan"))
