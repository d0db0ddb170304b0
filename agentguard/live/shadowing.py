"""What other policies would have decided: judged beside each decision, recorded where it differs.

It is asked when the decision is made and recorded, on the very request that was decided,
and no loader is asked again. Whatever goes wrong here changes nothing but a log line. Cedar
cannot be interrupted, so policies that take too long are left out for a hundred times as
long: they slow the server down by a hundredth at most. What counts is the time that this
thread works: for what the rest of a busy machine takes meanwhile, no policy can be blamed.
"""

from __future__ import annotations

import logging
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Final

from agentguard.errors import raised
from agentguard.model import Effect, Reason
from agentguard.policy.deciding.engine import decide, never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentguard.evidence.trail import Trace
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import AccessRequest, Decision, Invocation
    from agentguard.policy.deciding.engine import PolicySet

_LOG: Final = logging.getLogger("agentguard")

_SLOW_SECONDS: Final = 0.05
_RESTS: Final = 100
# The engine has nobody to ask, so it says of each of these that no approval could be had.
_LIFTABLE: Final = frozenset(
    (
        Reason.APPROVAL_REQUIRED,
        Reason.APPROVAL_DECLINED,
        Reason.APPROVAL_UNAVAILABLE,
    )
)
POSSIBLE: Final = "possible"
"""What is said of a call that was denied before its arguments were looked at, and might be allowed."""


class Shadowing:
    """Judges in the shadow of a guard's own policies.

    Args:
        timer: Gives seconds.
        worked: Gives those that the thread which asks has worked.

    Attributes:
        policies: What is judged by; None for nothing.
    """

    def __init__(self, timer: Callable[[], float] = perf_counter, worked: Callable[[], float] = thread_time) -> None:
        self.policies: PolicySet | None = None
        self._timer = timer
        self._worked = worked
        self._rests_until = float("-inf")
        self._failed: PolicySet | None = None

    def shade(self, policies: PolicySet | None) -> None:
        """Judge by *policies* from the next decision on."""
        self.policies = policies

    def judged(self, trace: Trace, request: AccessRequest, decision: Decision) -> None:
        """Compare a decision, which is recorded, with what *request* would have come to.

        Args:
            trace: The call's evidence.
            request: What was decided.
            decision: How.
        """
        # No policy denies so: the request holds a yes to another question than there would be by now.
        if decision.reason is Reason.APPROVAL_INVALID:
            return

        def compare(policies: PolicySet) -> Mapping[str, AttributeValue] | None:
            other = decide(request, policies)
            return None if _is_same(decision, other) else _found(other, policies)

        self._compare(trace, compare)

    def refused(
        self,
        trace: Trace,
        invocation: Invocation,
        action: str,
        entities: Sequence[Mapping[str, object]],
        decision: Decision,
    ) -> None:
        """Compare a denial of every such call, which is recorded, with what there would have been.

        Args:
            trace: The call's evidence.
            invocation: Who called.
            action: What was called.
            entities: What loaders know of the caller.
            decision: The denial.
        """

        def compare(policies: PolicySet) -> Mapping[str, AttributeValue] | None:
            other = never(invocation, action, policies, entities)
            if other is None:
                return {"agentguard.shadow.effect": POSSIBLE, "agentguard.shadow.policy.version": policies.version}
            return None if _is_same(decision, other) else _found(other, policies)

        self._compare(trace, compare)

    def _compare(self, trace: Trace, compare: Callable[[PolicySet], Mapping[str, AttributeValue] | None]) -> None:
        policies = self.policies
        began = self._timer()
        if policies is None or began < self._rests_until:
            return
        worked = self._worked()
        try:
            if (found := compare(policies)) is not None:
                trace.shadowed(found)
        except Exception as error:  # noqa: BLE001  the decision stands, whatever became of this
            if self._failed is not policies:
                self._failed = policies
                _LOG.error("a call could not be judged in the shadow, because %s", raised(error))
        took = self._worked() - worked
        if took > _SLOW_SECONDS:
            self._rests_until = began + took * _RESTS
            _LOG.warning(
                "judging in the shadow took %.0f ms, and rests for %.0f s: look for what is slow in its policies",
                took * 1_000,
                took * _RESTS,
            )


def _is_same(decision: Decision, other: Decision) -> bool:
    """Return whether both come to the same for whoever called."""
    if decision.reason in _LIFTABLE and other.reason in _LIFTABLE:
        return True
    return decision.effect is other.effect and decision.reason is other.reason


def _found(other: Decision, policies: PolicySet) -> dict[str, AttributeValue]:
    reason = Reason.APPROVAL_REQUIRED if other.reason in _LIFTABLE else other.reason
    found: dict[str, AttributeValue] = {
        "agentguard.shadow.effect": (Effect.ALLOW if other.allowed else Effect.DENY).value,
        "agentguard.shadow.reason": reason.value,
        "agentguard.shadow.policy.version": policies.version,
    }
    if other.policy_ids:
        found["agentguard.shadow.policy.ids"] = other.policy_ids
    return found
