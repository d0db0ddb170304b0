"""What a store could not write yet: ends, and how often guards saw a run."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from agentguard.lifecycle.ended import Ended, Kind, Revocation, run_of
from agentguard.lifecycle.states import COUNTED_RUNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentguard.lifecycle.mirror import Mirror
    from agentguard.model import Invocation

Ends = list[tuple[Ended, Revocation]]
Calls = dict[tuple[str, str], tuple[float, int]]
"""For a run, when it was first used, and how many calls there were."""


class Unwritten:
    """What is to be written when it can be. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: Ends = []
        self._calls: Calls = {}
        self._lock = Lock()

    def used(self, invocation: Invocation) -> None:
        """Count a call; one more run than can be counted is left out."""
        run = run_of(invocation)
        with self._lock:
            if run in self._calls or len(self._calls) < COUNTED_RUNS:
                used_at, count = self._calls.get(run) or (self._clock(), 0)
                self._calls[run] = (used_at, count + 1)

    def ended(self, ended: Ended, revocation: Revocation) -> None:
        """Keep what was ended here, for whoever does not know it."""
        with self._lock:
            self._ends.append((ended, revocation))

    def remind(self, mirror: Mirror, known: set[tuple[str, Kind, str]]) -> None:
        """See to it that a truth that came back learns what this process knows.

        Args:
            mirror: What this process knows.
            known: What the truth does.
        """
        now = self._clock()
        with self._lock:
            known = known | {ended.key for ended, _ in self._ends}
            self._ends += [
                (ended, Revocation(reason="", at=now, until=until))
                for ended, until in mirror.entries()
                if ended.key not in known
            ]

    @contextmanager
    def taken(self) -> Iterator[tuple[Ends, Calls]]:
        """Hand out all of it, and take back what is still there when writing it fails."""
        with self._lock:
            ends, self._ends = self._ends, []
            calls, self._calls = self._calls, {}
        try:
            yield ends, calls
        except BaseException:
            with self._lock:
                self._ends = ends + self._ends
                for run, (used_at, count) in calls.items():
                    _, more = self._calls.get(run, (used_at, 0))
                    self._calls[run] = (used_at, count + more)
            raise
