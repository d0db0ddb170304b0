"""A dataclass hands an `InitVar` to `__post_init__` and forgets it.

The caller sends it, the tool acts on what `__post_init__` made of it, and no attribute
is left that a policy could have judged.
"""

import dataclasses
from dataclasses import InitVar, dataclass

import pydantic.dataclasses
import pytest

from agentguard.errors import UnmappableTypeError
from agentguard.policy.conversion.values import shape_of


@dataclass
class Transfer:
    """A transfer whose real amount nobody sees."""

    amount: int
    really: InitVar[int] = 0

    def __post_init__(self, really: int) -> None:
        object.__setattr__(self, "_amount", really or self.amount)


@dataclass
class Refund(Transfer):
    """One that inherits it."""


@dataclass
class Postponed:
    """One whose annotation is text."""

    amount: int
    really: "dataclasses.InitVar[int]" = 0


@dataclass
class Bare:
    """One whose type is left open."""

    amount: int
    really: InitVar = 0  # type: ignore[type-arg]


@pydantic.dataclasses.dataclass
class Validated:
    """Pydantic's own."""

    amount: int
    really: InitVar[int] = 0


@pydantic.dataclasses.dataclass
class Declared:
    """Pydantic's other way to say it."""

    amount: int
    really: int = pydantic.Field(default=0, init_var=True)


@pytest.mark.parametrize("kind", [Transfer, Refund, Postponed, Bare, Validated, Declared])
def test_a_field_that_is_gone_before_it_is_judged_is_refused_at_start_up(kind: type) -> None:
    """Wherever the argument stands."""
    with pytest.raises(UnmappableTypeError, match=r"`pay\.order\.really` .*: make it a field that stays"):
        shape_of(kind, where="pay.order")

    with pytest.raises(UnmappableTypeError, match=r"`pay\.orders\[\]\.really` "):
        shape_of(list[kind], where="pay.orders")  # type: ignore[valid-type]
