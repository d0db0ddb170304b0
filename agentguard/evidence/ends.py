"""How a run ended, and why: whatever came first, by what a store knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentguard.errors import Refusal
from agentguard.evidence.vocabulary import RunEnd
from agentguard.lifecycle.ended import Kind, run_of
from agentguard.lifecycle.states import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.lifecycle.ended import Ended
    from agentguard.lifecycle.store import Store
    from agentguard.model import Invocation


class End(NamedTuple):
    """The end of a run.

    Attributes:
        at: When, unix seconds.
        how: Completed, revoked or expired.
        reason: Why, in the words of whoever ended it.
    """

    at: float
    how: RunEnd
    reason: str = ""


class Told(NamedTuple):
    """That something was ended.

    Attributes:
        ended: What.
        at: When that was heard of, unix seconds.
    """

    ended: Ended
    at: float


def over_at(invocation: Invocation) -> float:
    """Return when a run is over by time: at its absolute end, or with the leeway of its token where it has none."""
    return max(float(invocation.run_ends_at), invocation.ends_at)


def end_of(invocation: Invocation, told: Told | None, *, store: Store | None, given: str, now: float) -> End:
    """Return how a run ended that is over.

    Args:
        invocation: The run.
        told: What was ended; None if its time has passed and nobody was told of anything.
        store: Asked for the reasons.
        given: What whoever holds the run says, for the case that the store does not know.
        now: Unix seconds.

    Raises:
        Refusal: STORE_UNAVAILABLE, while the run could still last: the reason is worth
            waiting for.
    """
    last = over_at(invocation)
    causes: list[End] = []
    words = ""
    try:
        if store is not None and (told is not None or store.ended(invocation)):
            causes += _revocations(invocation, store)
            words = _words(told, store)
    except Refusal:
        if now < last:
            raise
    if told is not None and told.ended.kind is not Kind.RUN:
        causes.append(End(told.at, RunEnd.REVOKED, f"every run of its {told.ended.kind} was ended{words}"))
    elif told is not None and not causes:
        # The store could not keep it, or has forgotten it.
        causes.append(End(told.at, _how(given), given))
    if causes:
        first = min(causes, key=lambda end: end.at)
        # It was ended by the time that was told, whatever the clock of another process says.
        at = first.at if told is None else min(first.at, told.at)
        if at < last:
            return first._replace(at=at)
    # A run that had expired can be ended no more.
    return End(last, RunEnd.EXPIRED)


def _words(told: Told | None, store: Store) -> str:
    """Return what whoever ended many runs at once said of it."""
    if told is None or told.ended.kind is Kind.RUN:
        return ""
    revocation = store.revocation(issuer=told.ended.issuer, kind=told.ended.kind, name=told.ended.name)
    return f": {revocation.reason}" if revocation is not None and revocation.reason else ""


def _revocations(invocation: Invocation, store: Store) -> Iterator[End]:
    """Yield how the run, and those above it, were ended by themselves."""
    for link in reversed(invocation.chain):
        issuer, run_id = run_of(link)
        revocation = store.revocation(issuer=issuer, name=run_id)
        if revocation is None:
            continue
        reason = revocation.reason
        if link is invocation:
            yield End(revocation.at, _how(reason), reason)
        else:
            yield End(revocation.at, RunEnd.REVOKED, f"a run above it ended: {reason}")


def _how(reason: str) -> RunEnd:
    return RunEnd.COMPLETED if reason.partition(":")[0] == COMPLETED else RunEnd.REVOKED
