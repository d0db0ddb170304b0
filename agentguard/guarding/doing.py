"""What a running tool says of itself: that its run carries a label now, or has spent something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.errors import ConfigurationError
from agentguard.lifecycle.tally import Change, is_label
from agentguard.policy.conversion.values import decimal_units, is_total
from agentguard.policy.problem import did_you_mean
from agentguard.steps.running import running, totals_of_running

if TYPE_CHECKING:
    from decimal import Decimal

    from agentguard.enforce import Enforcer


class Doing:
    """The part of a guard that its tools speak to while they run."""

    _enforcer: Enforcer | None

    def label(self, label: str) -> None:
        """Have the run on whose behalf the running tool was called carry a label from now on.

        So do the runs that it stems from: they get its results. It may wait for the store.

        Args:
            label: Such as ``untrusted``; policies ask ``context.run.labels.contains("untrusted")``.

        Raises:
            LookupError: If no guarded tool is running here.
            ConfigurationError: If a run cannot carry it.
            Refusal: If it cannot be kept: the tool has failed then, whatever it makes of that.
        """
        if not is_label(label):
            # It may be a stranger's words, and the agent is told what a tool raises.
            message = "guard.label wants 1 to 64 of `A-Za-z0-9_.:/-`, got something else: name it like `untrusted`"
            raise ConfigurationError(message)
        self._add(Change(labels=frozenset((label,))))

    def spend(self, total: str, amount: Decimal | float) -> None:
        """Add to a total of the run on whose behalf the running tool was called, and of those that it stems from.

        What is known before the call is better declared with `Spend`: then the call itself is judged
        with it. This adds whatever the total comes to; the next call is judged by that. It may wait
        for the store.

        Args:
            total: One that a tool of this server declares; ``context.run.spent.payments`` to policies.
            amount: Exact in four decimal places, and not negative.

        Raises:
            LookupError: If no guarded tool is running here.
            ConfigurationError: If no tool declares the total, or the amount is none.
            Refusal: As for `label`; or if the total would be more than Cedar's decimal holds.
        """
        totals = () if self._enforcer is None else self._enforcer.in_force.policies.totals
        # The server may have another tool in its place by now.
        if total not in totals and total not in totals_of_running():
            known = did_you_mean(str(total), totals) if totals else "give the tool spends="
            message = f"no tool of this server spends {f'`{total}`' if is_total(total) else 'that'}: {known}"
            raise ConfigurationError(message)
        units = decimal_units(amount)
        if units is None or units < 0:
            message = f"what is spent on `{total}` has to be exact in four decimal places and not negative"
            raise ConfigurationError(message)
        self._add(Change(spent={total: units}))

    def _add(self, change: Change) -> None:
        doing = running()
        if self._enforcer is None:
            message = "no guarded tool is running here: this guard is not attached"
            raise LookupError(message)
        try:
            self._enforcer.tallying.add(doing.invocation, change)
        except Exception as error:
            # A tool that catches it has a result all the same.
            doing.unkept.append(error)
            raise
