"""What outlives a call: which runs were ended, and what may be used only once.

A store is asked on every call, so its reads answer from this process's own memory. One
that keeps its truth elsewhere mirrors it here, and refuses as soon as the mirror is
older than the limit on staleness.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.model import Invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A run that was ended before its time.

    Attributes:
        reason: Why, in the words of whoever ended it.
        at: When, unix seconds.
        until: When it may be forgotten, because the run is over by then anyway.
    """

    reason: str
    at: float
    until: float | None = None


class Store(Protocol):
    """Where the ends of runs and the uses of one-time keys are kept.

    A run is named by its issuer and its id, as they stand on an `Invocation`.
    """

    def require_healthy(self) -> None:
        """Pass only if what `ended` would answer is recent enough to act on.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        ...

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended."""
        ...

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good, and with it every run that stems from it.

        Args:
            issuer: The issuer of the run.
            run_id: The run.
            reason: Why, for the evidence.
            until: When every token of the run is over, leeway included; it may be
                forgotten then. None keeps it for ever.
        """
        ...

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call *callback* with the issuer and the run id whenever a run is ended.

        `ended` is true by then, so whoever subscribes first and asks afterwards misses
        nothing. The callback may come from any thread.

        Returns:
            What ends the subscription.
        """
        ...

    def spend(self, key: str, until: float) -> bool:
        """Use *key*, and return whether this was its first use and in time.

        Args:
            key: What may be used once.
            until: The end of its validity, unix seconds; it is forgotten afterwards.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if its use could not be kept.
        """
        ...


class MemoryStore:
    """A store that the process takes with it when it ends. Safe to share between threads.

    Args:
        clock: Gives unix seconds.
        spent_entries: How many used keys are kept at once; one more is refused.
    """

    def __init__(self, *, clock: Callable[[], float], spent_entries: int = 100_000) -> None:
        if not spent_entries >= 1:
            message = f"`spent_entries` wants at least 1, got `{spent_entries}`: leave it out for 100000"
            raise ConfigurationError(message)
        self._clock = clock
        self._spent_entries = spent_entries
        self._revoked: dict[tuple[str, str], Revocation] = {}
        self._forget: list[tuple[float, tuple[str, str]]] = []
        self._spent: set[str] = set()
        self._unspend: list[tuple[float, str]] = []
        self._callbacks: dict[object, Callable[[str, str], None]] = {}
        self._latest = float("-inf")
        self._lock = Lock()

    def require_healthy(self) -> None:
        """Pass: this process's memory is never behind itself."""

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended."""
        revoked = self._revoked
        # Read without the lock: one dictionary look-up is atomic.
        if not revoked:
            return False
        if (invocation.issuer, invocation.run_id) in revoked:
            return True
        return any((link.issuer, link.run_id) in revoked for link in invocation.ancestors)

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good; ending it again tells nobody, and can only put off forgetting it.

        Raises:
            ExceptionGroup: Of what subscribers raised, after all of them were told.
        """
        run = (issuer, run_id)
        with self._lock:
            now = self._now()
            self._forget_revocations(now)
            known = self._revoked.get(run)
            if known is None:
                self._revoked[run] = Revocation(reason=reason, at=now, until=until)
            elif known.until is None or (until is not None and until <= known.until):
                return
            else:
                self._revoked[run] = replace(known, until=until)
            if until is not None:
                heapq.heappush(self._forget, (until, run))
            if known is not None:
                return
            callbacks = tuple(self._callbacks.values())
        errors: list[Exception] = []
        for callback in callbacks:
            try:
                callback(issuer, run_id)
            except Exception as error:  # noqa: BLE001  one subscriber must not keep the end from the others
                errors.append(error)
        if errors:
            message = "a run was ended, and some who were told of it failed"
            raise ExceptionGroup(message, errors)

    def _forget_revocations(self, now: float) -> None:
        while self._forget and self._forget[0][0] <= now:
            until, run = heapq.heappop(self._forget)
            # A later end was given since: that one's own place in the heap counts.
            if self._revoked[run].until == until:
                del self._revoked[run]

    def _now(self) -> float:
        # A clock that is set back must not bring back what was forgotten as over.
        self._latest = max(self._latest, self._clock())
        return self._latest

    def revocation(self, *, issuer: str, run_id: str) -> Revocation | None:
        """Return how a run was ended, if it was."""
        return self._revoked.get((issuer, run_id))

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call *callback* whenever a run is ended, on the thread that ends it."""
        mark = object()
        with self._lock:
            self._callbacks[mark] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks.pop(mark, None)

        return unsubscribe

    def spend(self, key: str, until: float) -> bool:
        """Use *key*, and return whether this was its first use and in time.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if as many keys as may be are kept already.
        """
        with self._lock:
            now = self._now()
            while self._unspend and self._unspend[0][0] <= now:
                self._spent.discard(heapq.heappop(self._unspend)[1])
            # A key past its end was forgotten, so it must not count as unused.
            if key in self._spent or not now < until:
                return False
            if not len(self._spent) < self._spent_entries:
                raise Refusal(Reason.STORE_UNAVAILABLE, f"{self._spent_entries} spent keys are kept already")
            self._spent.add(key)
            heapq.heappush(self._unspend, (until, key))
            return True
