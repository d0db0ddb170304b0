"""A model shows `model_dump` one value and the tool another.

An excluded field is left out, a serializer rewrites, a subclass has a field that the
declared type lacks, and what `extra` allows has no name that a policy could use.
"""

from pathlib import Path

import pydantic
import pytest

from agentguard.errors import UnmappableTypeError
from agentguard.model import Reason
from agentguard.policy.conversion.values import shape_of
from tests.policy.judging import outcome


class Payment(pydantic.BaseModel):
    """A payment whose dump is harmless."""

    amount: int
    urgent: bool = pydantic.Field(default=False, exclude=True)

    @pydantic.field_serializer("amount")
    def _small(self, amount: int) -> int:
        return min(amount, 1)


class Refund(Payment):
    """A payment and more."""

    approved: bool = True


class Anything(Payment):
    """A payment that keeps what else it is given."""

    model_config = pydantic.ConfigDict(extra="allow")


@pytest.mark.parametrize(
    ("value", "forbid"),
    [
        (Payment(amount=1_000), "context.input.a.amount > 100"),
        (Payment(amount=1, urgent=True), "context.input.a.urgent"),
    ],
)
def test_a_rule_sees_what_the_tool_gets(tmp_path: Path, value: Payment, forbid: str) -> None:
    """Attribute by attribute, not as it is dumped."""
    assert outcome(tmp_path, value, Payment, forbid=forbid) is Reason.POLICY


@pytest.mark.parametrize("value", [Refund(amount=1), Anything.model_validate({"amount": 1, "to": "x"})])
def test_a_subclass_does_not_pass_for_its_base(tmp_path: Path, value: Payment) -> None:
    """It can hold what no rule was written for."""
    assert outcome(tmp_path, value, Payment, forbid="false") is Reason.INVALID_ARGUMENT


def test_a_model_that_keeps_anything_is_refused_at_start_up() -> None:
    """What has no name cannot be judged."""
    with pytest.raises(UnmappableTypeError, match="extra"):
        shape_of(Anything, where="pay.a")
