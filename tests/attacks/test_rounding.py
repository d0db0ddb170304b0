"""A number a hair above a limit is rounded onto it.

Cedar's decimal has four places. A mapping that rounds shows the policy 100.0000 where
the tool gets 100.00001, and a rule for amounts above 100 does not fire.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest

from agentguard.model import Reason
from agentguard.policy.conversion.values import Scaled
from tests.policy.judging import outcome

ABOVE_100 = 'context.input.a.greaterThan(decimal("100.0"))'


@pytest.mark.parametrize(
    ("value", "annotation", "forbid"),
    [
        (Decimal("100.00001"), Decimal, ABOVE_100),
        (Decimal("100." + "0" * 60 + "1"), Decimal, ABOVE_100),
        (100.00001, float, ABOVE_100),
        # The shortest text of this float is 900000000000000.1, which is less than it.
        (900_000_000_000_000.125, float, 'context.input.a.greaterThan(decimal("900000000000000.11"))'),
        (100.0000001, Annotated[float, Scaled(6)], "context.input.a > 100000000"),
    ],
)
def test_a_number_above_a_limit_does_not_pass_by_rounding(
    tmp_path: Path, value: object, annotation: object, forbid: str
) -> None:
    """It is exact, and the rule fires, or the call is refused."""
    assert outcome(tmp_path, value, annotation, forbid=forbid) in {Reason.POLICY, Reason.INVALID_ARGUMENT}


def test_a_number_on_the_limit_passes(tmp_path: Path) -> None:
    """The rule is about amounts above it."""
    assert outcome(tmp_path, Decimal("100.0000"), Decimal, forbid=ABOVE_100) is Reason.PERMIT
