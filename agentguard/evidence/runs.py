"""Runs that live, followed to their end, and the evidence of how they came to it.

A guard follows a run from the first call that it lets run, an issuer from its beginning.
Either keeps a record when that is, before anything else can happen, and one when the run
is over: completed, revoked or expired. A store tells of what was ended; a thread does the
rest, since a store and a ledger may wait for a disk or a network.

Nothing is invented: a run that lives when the process ends has no end on record here. An
end that cannot be recorded is owed, and tried again until it can be.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final, Protocol

from agentguard.errors import Refusal
from agentguard.evidence.ends import End, Told, end_of, over_at
from agentguard.evidence.followed import Followed, Life
from agentguard.evidence.record import record, run_attributes
from agentguard.evidence.vocabulary import RecordKind
from agentguard.lifecycle.ended import Ended, run_of
from agentguard.lifecycle.states import RunState
from agentguard.model import Grade, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.trace import SpanContext

    from agentguard.evidence.ledger import Entry, Ledger
    from agentguard.evidence.record import SpanOf
    from agentguard.evidence.spans import Spans
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits
    from agentguard.model import Invocation

_LOG: Final = logging.getLogger("agentguard")

# A clock may be set forwards meanwhile, so no wait is longer than this.
_LOOK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


class Keep(Protocol):
    """Who keeps a record of a run."""

    def __call__(
        self, attributes: Mapping[str, AttributeValue], *, at: float, trace: SpanOf | tuple[str, str] | None = None
    ) -> object:
        """Keep it.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """


@dataclass(slots=True, eq=False)
class _Owed:
    """An end that is not on record yet: what was told, if it was, and what came of it so far."""

    life: Life
    told: Told | None
    end: End | None = None


class LiveRuns:
    """The runs that one guard or one issuer follows. Safe to share between threads.

    Past `Limits.followed_runs` no further run is followed until one of them is over: a
    guard goes on with its decisions on record, an issuer begins no run.

    Args:
        store: Tells of what was ended; None if nobody does.
        keep: Keeps a record.
        clock: Gives unix seconds.
        limits: How many are followed.
        spans: Where a run's span goes at its end; None for none.
    """

    def __init__(
        self, *, store: Store | None, keep: Keep, clock: Callable[[], float], limits: Limits, spans: Spans | None = None
    ) -> None:
        self._store = store
        self._keep = keep
        self._clock = clock
        self._most = limits.followed_runs
        self._spans = spans
        self._forwarded = spans is not None and spans.forwarded
        self._followed = Followed()
        self._told: deque[Told] = deque()
        self._owed: deque[_Owed] = deque()
        self._horizon = float("-inf")
        self._full = self._failing = False
        self._lock, self._settling = Lock(), Lock()
        self._wake = Event()
        self._thread: Thread | None = None
        if store is not None:
            store.subscribe(self._tell)

    def __len__(self) -> int:
        """Return how many runs are followed, or owed their end."""
        return len(self._followed) + len(self._owed)

    def begin(self, invocation: Invocation, state: RunState) -> None:
        """Keep that a run came into *state*, and follow it.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE, if it cannot be kept, or its end could not be; or
                STORE_UNAVAILABLE, if the store cannot tell whether it was ended meanwhile.
        """
        with self._lock:
            if not self._has_room(invocation):
                raise Refusal(Reason.EVIDENCE_UNAVAILABLE, f"{len(self)} runs are followed: no end of a further one is")
            self._record(invocation, state)
            self._follow(invocation)

    def follow(self, invocation: Invocation) -> None:
        """Follow a run that was begun elsewhere, if it still lives, and its end is not on record.

        Raises:
            Refusal: STORE_UNAVAILABLE, if the store cannot tell.
        """
        with self._lock:
            # The clock may have been set back since runs that end no later were recorded as expired.
            lives = max(self._clock(), self._horizon) < over_at(invocation) and not self._ended(invocation)
            if lives and self._has_room(invocation):
                self._follow(invocation)

    def used(self, invocation: Invocation, decision: SpanContext) -> None:
        """Count a call that is about to run; the first makes its run active.

        Identities that cannot be told apart have no run to follow.

        Args:
            invocation: Who calls.
            decision: The span of the decision that allows it.

        Raises:
            Refusal: EXPIRED, if its end is on record and the clock was set back; otherwise
                as for `begin`.
        """
        if invocation.grade is Grade.SHARED:
            return
        with self._lock:
            life = self._followed.get(invocation)
            if life is None:
                if not self._horizon < over_at(invocation):
                    raise Refusal(Reason.EXPIRED, "runs that ended no earlier are on record as expired")
                if not self._has_room(invocation):
                    return
                self._record(invocation, RunState.ACTIVE)
                life = self._follow(invocation)
            elif over_at(life.invocation) < over_at(invocation):
                # Where the issuer says of no run how long it lasts, another token makes it longer.
                self._follow(invocation)
            life.calls += 1
            life.link(decision, forwarded=self._forwarded)

    def denied(self, invocation: Invocation | None, decision: SpanContext) -> None:
        """Count a call that was denied, if its run is followed."""
        if invocation is None:
            return
        with self._lock:
            life = self._followed.get(invocation)
            if life is not None:
                life.denied += 1
                life.link(decision, forwarded=self._forwarded)

    @contextmanager
    def ending(self, invocation: Invocation, reason: str) -> Iterator[None]:
        """End a run in the store inside the ``with`` block; its end is on record after it.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE, if it is not; it is owed then.
        """
        issuer, run_id = run_of(invocation)
        with self._lock:
            life = self._followed.get(invocation)
            if life is not None:
                life.given = reason
        try:
            yield
        finally:
            self._tell(Ended(issuer=issuer, name=run_id))
            self.settle()
        if any(run_of(owed.life.invocation) == (issuer, run_id) for owed in tuple(self._owed)):
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, f"the end of run `{run_id}` could not be recorded")

    def settle(self) -> None:
        """Keep the ends of all runs that are over by now, and of those that are owed theirs."""
        with self._settling:
            self._collect()
            while self._owed and self._write(self._owed[0]):
                self._owed.popleft()
            # Last in line now: one that can never be recorded must not keep the others back.
            self._owed.rotate(-1)
            if not self._owed and self._failing:
                self._failing = False
                _LOG.warning("ends of runs are recorded again")
            with self._lock:
                if self._owed:
                    self._start()

    def _tell(self, ended: Ended) -> None:
        # May be called from an event loop: no lock, and nothing that waits. A run that
        # comes a moment later asks the store itself.
        if self._followed:
            self._told.append(Told(ended, self._clock()))
            self._wake.set()

    def _ended(self, invocation: Invocation) -> bool:
        return self._store is not None and self._store.ended(invocation)

    def _has_room(self, invocation: Invocation) -> bool:
        if self._followed.get(invocation) is not None or len(self) < self._most:
            self._full = False
            return True
        if not self._full:
            self._full = True
            _LOG.warning("%d runs are followed: the lives of further ones are not recorded, their calls are", len(self))
        return False

    def _record(self, invocation: Invocation, state: RunState) -> None:
        attributes = run_attributes(invocation)
        attributes["agentguard.run.state"] = state.value
        try:
            self._keep(attributes, at=self._clock())
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, _what(error)) from error

    def _follow(self, invocation: Invocation) -> Life:
        life = self._followed.get(invocation)
        if life is None:
            life = Life(invocation, self._clock())
        elif over_at(life.invocation) < over_at(invocation):
            self._followed.remove(life)
            life.invocation = invocation
        else:
            return life
        self._followed.add(life)
        self._start()
        self._wake.set()
        # Asked after it is followed, since it may be ended in between.
        if self._ended(invocation):
            issuer, run_id = run_of(invocation)
            self._tell(Ended(issuer=issuer, name=run_id))
        return life

    def _collect(self) -> None:
        """Take out what is over: what was told first, so that the clock alone does not decide."""
        while self._told:
            told = self._told.popleft()
            with self._lock:
                near = self._followed.near(told.ended)
            # There may be many: no call waits while they are compared.
            for life in near:
                if told.ended.matches(life.invocation):
                    with self._lock:
                        self._followed.remove(life)
                    self._owed.append(_Owed(life, told))
        now = self._clock()
        while (over := self._take_due(now)) is not None:
            self._owed.append(_Owed(over, None))

    def _take_due(self, now: float) -> Life | None:
        with self._lock:
            life = self._followed.due(now)
            if life is not None:
                self._horizon = max(self._horizon, over_at(life.invocation))
                self._followed.remove(life)
            return life

    def _write(self, owed: _Owed) -> bool:
        """Return whether the end is on record now."""
        life = owed.life
        # Another one with each try: what failed may be kept all the same, and no two records have one span.
        span = None
        try:
            if owed.end is None:
                owed.end = end_of(life.invocation, owed.told, store=self._store, given=life.given, now=self._clock())
            end = owed.end
            # A clock elsewhere may be behind this one.
            at = max(end.at, life.since)
            attributes = run_attributes(life.invocation, ended_at=at, reason=end.reason)
            if self._spans is not None:
                attributes["agentguard.run.calls"] = life.calls
                attributes["agentguard.run.denied"] = life.denied
                shown = {**attributes, "agentguard.run.end": end.how.value}
                span = self._spans.run(life.invocation.agent, shown, started_at=life.since, decisions=life.decisions)
            state: dict[str, AttributeValue] = {"agentguard.run.state": end.how.value}
            shows = None if span is None else span.kept(started_at=life.since)
            self._keep({**attributes, **state}, at=at, trace=shows)
        except Exception as error:  # noqa: BLE001  whatever it is, the others and later tries must not suffer
            if not self._failing:
                self._failing = True
                _LOG.error("ends of runs cannot be recorded, and are owed until they can: %s", _what(error))
            return False
        if span is not None:
            span.end({}, at=at)
        return True

    def _start(self) -> None:
        if self._thread is None:
            self._thread = Thread(
                target=_follow_to_the_end, args=(weakref.ref(self), self._wake), name="agentguard runs", daemon=True
            )
            self._thread.start()

    def step(self) -> float | None:
        """Settle, and return how long to wait before the next time; None if there is nothing to wait for."""
        try:
            self.settle()
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever goes wrong
            _LOG.error("runs cannot be followed to their end: %s", _what(error))
            return _RETRY_SECONDS
        with self._lock:
            if self._owed:
                return _RETRY_SECONDS
            first = self._followed.first()
            if first is None:
                self._thread = None
                return None
            return min(_LOOK_SECONDS, max(0.0, first - self._clock()))


def runs_of_issuer(ledger: Ledger, store: Store | None, clock: Callable[[], float], limits: Limits) -> LiveRuns:
    """Return what follows the runs that an issuer begins."""

    def keep(
        attributes: Mapping[str, AttributeValue], *, at: float, trace: SpanOf | tuple[str, str] | None = None
    ) -> Entry:
        return ledger.append(record(RecordKind.RUN, attributes, at=at, trace=trace))

    return LiveRuns(store=store, keep=keep, clock=clock, limits=limits)


def _follow_to_the_end(of: weakref.ref[LiveRuns], wake: Event) -> None:
    """Follow runs for as long as there are any, and somebody has use for it."""
    seconds: float | None = 0.0
    while seconds is not None:
        wake.wait(seconds)
        wake.clear()
        runs = of()
        seconds = None if runs is None else runs.step()
        # Whoever waits must not keep alive what it waits for.
        del runs


def _what(error: Exception) -> str:
    """Return what is said of an error in the log: never its text."""
    return (error.detail if isinstance(error, Refusal) else "") or type(error).__qualname__
