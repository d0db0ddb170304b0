"""What becomes of a call that is not let through, or not let out: a recorded denial."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from agentguard.errors import AccessDenied, Refusal, raised
from agentguard.evidence.vocabulary import Outcome
from agentguard.model import Decision, Effect, Reason
from agentguard.steps.call import Denial

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CancelScope

    from agentguard.evidence.runs import LiveRuns
    from agentguard.evidence.trail import Trace
    from agentguard.steps.running import Ran

_LOG: Final = logging.getLogger("agentguard")


class Denying:
    """Makes the denials of one guard, each recorded first."""

    def __init__(self, runs: LiveRuns) -> None:
        self._runs = runs

    def deny(self, trace: Trace, error: BaseException, recorded: Callable[[Decision], None] | None = None) -> Denial:
        """Return the recorded denial that *error* amounts to; *recorded* is told of it, before its span ends."""
        if trace.decision is not None:
            # It was allowed and recorded, and ended before the tool began.
            return self.end(trace, trace.decision, error, Outcome.CANCELLED)
        denial = error.decision if isinstance(error, Denial) else _decision_of(error)
        try:
            named = trace.decided(denial)
        except Exception as unrecorded:  # noqa: BLE001  a denial stands, recorded or not
            errors = _decision_of(unrecorded).errors
            named = trace.unrecorded(
                Decision(effect=Effect.DENY, reason=Reason.EVIDENCE_UNAVAILABLE, errors=(*denial.errors, *errors))
            )
        else:
            if recorded is not None:
                recorded(named)
        return self.denial(trace, named)

    def denial(self, trace: Trace, named: Decision) -> Denial:
        """Return the denial of what was decided, and count it for its run."""
        trace.close()
        self._runs.denied(trace.invocation, trace.span)
        return Denial(named)

    def let_out(self, trace: Trace, ran: Ran, scope: CancelScope, end: Exception | None) -> None:
        """Take steps 8 and 9: return if what the tool returned may be handed out.

        Args:
            trace: The call's evidence.
            ran: What came of the tool.
            scope: What it ran in.
            end: Why its run has no authority any more, if it has not.

        Raises:
            Denial: It is withheld.
            Exception: What the tool raised.
        """
        # A tool that swallows its cancellation, or runs in a thread, may have had its effect
        # all the same; the record says so.
        if scope.cancel_called or end is not None:
            outcome = Outcome.CANCELLED if scope.cancelled_caught else Outcome.WITHHELD
            error = end or Refusal(Reason.EXPIRED)
            # Without a decision, it ended while it was still being judged.
            raise self.deny(trace, error) if trace.decision is None else self.end(trace, trace.decision, error, outcome)
        decision, failure = cast("Decision", trace.decision), ran.failure
        if ran.leaks:
            raise self.end(trace, decision, Refusal(Reason.CREDENTIAL_LEAK), Outcome.WITHHELD)
        if isinstance(failure, Refusal):
            # Something of ours that the tool cannot be without, such as a credential or the store.
            _LOG.warning("what decision %s allowed could not go on: %s", decision.id, raised(failure))
            raise self.end(trace, decision, failure, Outcome.FAILED)
        if isinstance(failure, AccessDenied) and not ran.began:
            trace.ended(Outcome.CANCELLED, reason=failure.decision.reason)
            raise failure
        if failure is not None:
            trace.ended(Outcome.FAILED, error=failure)
            raise failure
        trace.ended(Outcome.COMPLETED)

    def end(self, trace: Trace, decision: Decision, error: BaseException, outcome: Outcome) -> Denial:
        """Return the denial of a call that was allowed, under the id of its decision."""
        end = _decision_of(error)
        trace.ended(outcome, reason=end.reason)
        return Denial(replace(end, id=decision.id, policy_version=decision.policy_version))


def _decision_of(error: BaseException) -> Decision:
    """Return the denial that *error* amounts to; what nobody expected is logged."""
    if isinstance(error, Refusal):
        return Decision(effect=Effect.DENY, reason=error.reason, errors=(error.detail,) if error.detail else ())
    what = raised(error)
    _LOG.error("a call is denied, because %s", what)
    return Decision(effect=Effect.DENY, reason=Reason.INTERNAL_ERROR, errors=(what,))
