"""The first half of step 6 of a call: count it in what its run has done, before it is recorded.

What was decided holds for the tallies that it was decided by. If the store has others by now,
an allow is decided again on the same requests with those, until it is written in the very
instant in which it holds: no other call can have come between. A denial is not written onto
anything, but it too has to rest on what the store has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from agentguard.errors import Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from agentguard.model import AccessRequest, Decision
    from agentguard.steps.judging import Judged
    from agentguard.steps.tallying import Tallying

    Outcome = list[tuple[AccessRequest, Decision]]

MOST_TRIES: Final = 1_000
"""How often something else may come between: it would take hundreds of servers at once."""

MOST_SECONDS: Final = 5.0
"""For how long: a call of many resources takes a while to be judged, and others come more easily between."""

BUSY: Final = "what the run has done changes all the time"

_PATIENCE: Final = 3
_PAUSE_SECONDS: Final = 0.001


async def counted(
    tallying: Tallying, judged: Judged, outcome: Outcome, *, runs: bool, answered: bool
) -> Outcome | None:
    """Return what a call comes to by what its run has done up to now; an allow is counted.

    Args:
        tallying: Where that is kept.
        judged: How the call was judged.
        outcome: What it came to.
        runs: Whether it runs if it is allowed: else nothing is counted.
        answered: Whether a person was asked about it, whose answer is used up.

    Returns:
        The same, or what it comes to now; None if the call has to be judged as a whole again.

    Raises:
        Refusal: STORE_UNAVAILABLE.
    """
    tallied = judged.tallied
    invocation = tallied.invocation
    async with tallying.turn(invocation):
        read = await tallying.known(invocation)
        until = anyio.current_time() + MOST_SECONDS
        for tries in range(MOST_TRIES):
            if _is_allowed(outcome) and not tallied.rests_on(read):
                tallied, outcome = judged.by(read, outcome)
            if not _is_allowed(outcome):
                # What a person said is used up, so of that there is no second judgement.
                if answered:
                    return outcome
                # What was allowed at first may be a question to a person by now.
                return None if judged.allowed else judged.denied_by(await tallying.fresh(invocation), outcome)
            if not runs:
                return outcome if tallied.rests_on(await tallying.fresh(invocation)) else None
            if await tallying.write(tallied, judged.change):
                return outcome
            read = await tallying.fresh(invocation)
            if anyio.current_time() > until:
                break
            if tries > _PATIENCE:
                await anyio.sleep(_PAUSE_SECONDS)
    raise Refusal(Reason.STORE_UNAVAILABLE, BUSY)


def _is_allowed(outcome: Outcome) -> bool:
    return all(decision.allowed for _, decision in outcome)
