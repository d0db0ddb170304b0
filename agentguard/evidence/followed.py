"""The runs that are followed: found by themselves, by what they stem from, and by when they are over."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.evidence.ends import over_at
from agentguard.lifecycle.ended import Kind, run_of

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from agentguard.lifecycle.ended import Ended
    from agentguard.model import Invocation

# How many decisions a run's span links to, the latest.
_LINKS: Final = 32


@dataclass(slots=True, eq=False)
class Life:
    """One run that is followed.

    Attributes:
        invocation: The run.
        since: When that began, unix seconds.
        calls: How many calls were let run.
        denied: How many were denied.
        decisions: The spans of the latest decisions.
        given: How whoever holds it says that it ends.
    """

    invocation: Invocation
    since: float
    calls: int = 0
    denied: int = 0
    decisions: deque[SpanContext] = field(default_factory=lambda: deque(maxlen=_LINKS))
    given: str = ""

    def link(self, decision: SpanContext, *, forwarded: bool = False) -> None:
        """Keep the span of a decision, if it is one that goes anywhere; each does that is *forwarded*."""
        if decision.is_valid and (forwarded or decision.trace_flags.sampled):
            self.decisions.append(decision)


class Followed:
    """The runs that are followed. What is not followed any more leaves nothing behind.

    Not safe to share between threads.
    """

    def __init__(self) -> None:
        self._lives: dict[tuple[str, str], Life] = {}
        # For each run: those that stem from it, itself among them.
        self._below: dict[tuple[str, str], dict[Life, None]] = {}
        self._due: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._lives)

    def get(self, invocation: Invocation) -> Life | None:
        """Return the run, if it is followed."""
        return self._lives.get(run_of(invocation))

    def add(self, life: Life) -> None:
        """Follow one more."""
        run = run_of(life.invocation)
        self._lives[run] = life
        for above in _chain(life):
            self._below.setdefault(above, {})[life] = None
        heapq.heappush(self._due, (over_at(life.invocation), run))

    def remove(self, life: Life) -> None:
        """Follow it no more."""
        del self._lives[run_of(life.invocation)]
        for above in _chain(life):
            del self._below[above][life]
            if not self._below[above]:
                del self._below[above]
        # Its place in the queue is left behind; when half of them are such, they go.
        if len(self._due) > 2 * len(self._lives):
            self._due = [(over_at(other.invocation), run) for run, other in self._lives.items()]
            heapq.heapify(self._due)

    def near(self, ended: Ended) -> list[Life]:
        """Return those that may be over because something was ended, from above or by itself."""
        if ended.kind is Kind.RUN:
            return list(self._below.get((ended.issuer, ended.name), ()))
        return list(self._lives.values())

    def due(self, now: float) -> Life | None:
        """Return one whose time is over, or None."""
        while self._due and self._due[0][0] <= now:
            life = self._lives.get(self._due[0][1])
            if life is not None and over_at(life.invocation) <= now:
                return life
            # It is followed no more, or got longer and has another place further down.
            heapq.heappop(self._due)
        return None

    def first(self) -> float | None:
        """Return no later than when the next one is over, unix seconds; None if there is none."""
        return self._due[0][0] if self._due else None


def _chain(life: Life) -> set[tuple[str, str]]:
    return {run_of(link) for link in life.invocation.chain}
