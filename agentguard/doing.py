"""What a running tool says of itself: that its run carries a label now, or has spent something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentguard.errors import ConfigurationError
from agentguard.lifecycle.tally import Change
from agentguard.policy.problem import did_you_mean
from agentguard.policy.values import decimal_units

if TYPE_CHECKING:
    from decimal import Decimal

    from agentguard.inforce import InForce
    from agentguard.model import Invocation
    from agentguard.tallying import Tallying


@dataclass(frozen=True, slots=True)
class Doing:
    """A tool that is running.

    Attributes:
        invocation: For whom.
        tallying: Where what its run does is kept.
        in_force: Which policies judge by it.
    """

    invocation: Invocation
    tallying: Tallying
    in_force: InForce

    def label(self, label: str) -> None:
        """Have the run carry *label*.

        Raises:
            Refusal: STORE_UNAVAILABLE; or INVALID_ARGUMENT, if it carries too many.
        """
        self.tallying.add(self.invocation, Change(labels=frozenset((label,))))

    def spend(self, total: str, amount: Decimal | float) -> None:
        """Add *amount* to *total*.

        Raises:
            ConfigurationError: If no tool declares the total, or the amount is none.
            Refusal: STORE_UNAVAILABLE; or INVALID_ARGUMENT, if the total would be too much.
        """
        totals = self.in_force.policies.totals
        if total not in totals:
            known = did_you_mean(str(total), totals) if totals else "give the tool spends="
            message = f"no tool of this server spends `{total}`: {known}"
            raise ConfigurationError(message)
        units = decimal_units(amount)
        if units is None or units < 0:
            message = f"what is spent on `{total}` has to be exact in four decimal places and not negative"
            raise ConfigurationError(message)
        self.tallying.add(self.invocation, Change(spent={total: units}))
