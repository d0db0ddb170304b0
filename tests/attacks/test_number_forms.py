"""Python writes some numbers in a form that Cedar cannot read.

`str(Decimal("1E+2"))` is ``1E+2`` and `repr(1e16)` is ``1e+16``: Cedar refuses the
request, or reads another number. And ``1E+999999999``, written out, fills the memory.
"""

import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest

from agentguard.model import Reason
from tests.policy.judging import outcome


@pytest.mark.parametrize(
    ("value", "annotation", "written"),
    [
        (Decimal("1E+2"), Decimal, "100.0"),
        (Decimal("1.5E1"), Decimal, "15.0"),
        (Decimal("0E+5"), Decimal, "0.0"),
        (Decimal("5E-4"), Decimal, "0.0005"),
        (1e2, float, "100.0"),
        (1e-4, float, "0.0001"),
        (float("1e14"), float, "100000000000000.0"),
    ],
)
def test_every_form_of_a_number_is_the_same_number(
    tmp_path: Path, value: object, annotation: object, written: str
) -> None:
    """A rule for exactly this number fires."""
    forbid = f'context.input.a == decimal("{written}")'

    assert outcome(tmp_path, value, annotation, forbid=forbid) is Reason.POLICY


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Decimal("1E+9999999"), Decimal),
        (Decimal("1E-9999999"), Decimal),
        (Decimal("-1E+9999999"), Decimal),
        (1e300, float),
    ],
)
def test_a_number_of_a_million_digits_is_refused_unwritten(tmp_path: Path, value: object, annotation: object) -> None:
    """Before a digit of it takes memory."""
    tracemalloc.start()
    try:
        assert outcome(tmp_path, value, annotation, forbid="false") is Reason.INVALID_ARGUMENT
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000
