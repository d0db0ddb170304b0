"""What this process knows of what was ended: the answer to `ended`, without a file or a network.

A store that keeps its truth elsewhere brings its mirror up to date from there, and the
mirror refuses to answer as soon as that is too long ago. What was ended stays ended: a
mirror only ever learns of more, and forgets what can match nothing that is still valid.
"""

from __future__ import annotations

import heapq
import math
import sys
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal
from agentguard.lifecycle.ended import Ended, Kind, named
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agentguard.lifecycle.ended import Link, Revocation
    from agentguard.model import Invocation

_FOR_EVER: Final = math.inf

# What lies beyond has no date: the year 9999.
_LAST: Final = 253_402_300_000.0

# How much is forgotten at once: whoever ends a run meanwhile waits for it.
_AT_ONCE: Final = 1_000

_Wide = dict[Kind, dict[str, tuple[float, float]]]


class Mirror:
    """What was ended, by issuer. Safe to share between threads.

    Args:
        limit: How many seconds old an answer may be; None if it is never behind.
        monotonic: Gives seconds that never run backwards.
    """

    def __init__(self, *, limit: float | None = None, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._synced = -math.inf
        # For each issuer: run to the moment when it may be forgotten. Nested, since an
        # entry of its own would cost a pair for each of many runs.
        self._runs: dict[str, dict[str, float]] = {}
        # For each issuer: what else was ended, by kind, to the cutoff and that moment.
        self._wide: dict[str, _Wide] = {}
        self._due: list[tuple[float, str, Kind, str]] = []
        self._horizon = -math.inf
        self._callbacks: dict[object, Callable[[Ended], None]] = {}
        self._lock = Lock()

    def require_fresh(self) -> None:
        """Pass only if the mirror is recent enough to act on.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        if self._limit is None:
            return
        if not self._monotonic() - self._synced <= self._limit:
            raise Refusal(Reason.STORE_UNAVAILABLE, f"revocations have not been read for over {self._limit} seconds")

    def synced(self, at: float) -> None:
        """Note that everything that was ended before *at* is known here."""
        self._synced = max(self._synced, at)

    def close(self) -> None:
        """Answer no more."""
        self._limit, self._synced = 0.0, -math.inf

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if that may have changed since it was read.
        """
        self.require_fresh()
        # Read without the lock: one dictionary look-up is atomic.
        if self._runs or self._wide:
            if self.link_ended(invocation):
                return True
            for link in invocation.ancestors:
                if self.link_ended(link):
                    return True
        # Last, because forgetting moves it first. What was forgotten was over by then:
        # a clock that is set back must not bring it back.
        return not self._horizon < invocation.ends_at

    def link_ended(self, link: Link) -> bool:
        """Return whether *link* by itself was ended."""
        runs = self._runs.get(link.issuer)
        if runs is not None and link.run_id.removeprefix(link.prefix) in runs:
            return True
        wide = self._wide.get(link.issuer)
        return wide is not None and self._widely_ended(link, wide)

    @staticmethod
    def _widely_ended(link: Link, wide: _Wide) -> bool:
        # Every kind is there, ended or not: a dictionary that grew meanwhile would raise.
        for kind, ended in wide.items():
            if ended:
                name = "" if kind is Kind.ISSUER else named(link, kind)
                found = None if name is None else ended.get(name)
                if found is not None and link.issued_at < found[0]:
                    return True
        return False

    def require_mintable(self, *chain: Link) -> None:
        """Pass only if a token for this chain of runs would not be refused at once.

        Raises:
            Refusal: `REVOKED`, or `STORE_UNAVAILABLE`.
        """
        self.require_fresh()
        for link in chain:
            if self.link_ended(link):
                raise Refusal(Reason.REVOKED, self._why(link))
            if not self._horizon < link.ends_at:
                what = f"run `{_shown(link.run_id)}` ends before what is forgotten: look at the clocks"
                raise Refusal(Reason.REVOKED, what)

    def _why(self, link: Link) -> str:
        """Return by what *link* was ended, and until when, for whoever begins runs."""
        wide = self._wide.get(link.issuer, {})
        cutoffs = {kind: ended.get(named(link, kind) or "", (-math.inf, 0.0))[0] for kind, ended in wide.items()}
        # What lasts longest: after that another run may begin.
        kind = max(cutoffs, key=cutoffs.__getitem__, default=Kind.RUN)
        cutoff = cutoffs.get(kind, -math.inf)
        if not link.issued_at < cutoff:
            return f"run `{_shown(link.run_id)}` was ended"
        runs = "this issuer" if kind is Kind.ISSUER else f"{kind} `{_shown(str(named(link, kind)))}`"
        if not cutoff < _LAST:
            return f"every run of {runs} is ended, for good"
        until = datetime.fromtimestamp(math.ceil(cutoff), UTC)
        return f"runs of {runs} that begin before {until:%Y-%m-%d %H:%M:%S} UTC are ended: begin one after that"

    def end(self, ended: Ended, revocation: Revocation, keep: Callable[[Ended, Revocation], None]) -> None:
        """End something for good: here, where *keep* keeps it, and for everyone who is to be told.

        Here it is known first: so that it counts even if it cannot be kept, and is told of
        by this thread, not by the one that follows.

        Raises:
            Refusal: What *keep* raises, after everybody was told.
        """
        wider = self.add(ended, revocation.until)
        try:
            keep(ended, revocation)
        finally:
            if wider:
                self.tell(ended)

    def add(self, ended: Ended, until: float | None) -> bool:
        """Note that something was ended; what is known already can only grow.

        Returns:
            Whether runs are ended by it that were not before: then `tell` of it.
        """
        with self._lock:
            return self._add(ended, _FOR_EVER if until is None else until)

    def add_all(self, entries: Iterable[tuple[Ended, float | None]]) -> list[Ended]:
        """Note many, and return those to tell of."""
        with self._lock:
            return [ended for ended, until in entries if self._add(ended, _FOR_EVER if until is None else until)]

    def _add(self, ended: Ended, until: float) -> bool:
        # One text for each issuer, however many runs of it were ended.
        issuer = sys.intern(ended.issuer)
        if ended.kind is Kind.RUN:
            runs = self._runs.setdefault(issuer, {})
            known = runs.get(ended.name)
            if known is not None and until <= known:
                return False
            runs[ended.name] = until
            wider = known is None
        else:
            if issuer not in self._wide:
                self._wide[issuer] = {kind: {} for kind in Kind if kind is not Kind.RUN}
            wide = self._wide[issuer][ended.kind]
            cutoff = _FOR_EVER if ended.cutoff is None else ended.cutoff
            before, known = wide.get(ended.name, (-math.inf, -math.inf))
            wider = cutoff > before
            if not (wider or until > known):
                return False
            until = max(until, known)
            wide[ended.name] = (max(cutoff, before), until)
        if until < _FOR_EVER:
            heapq.heappush(self._due, (until, issuer, ended.kind, ended.name))
        return wider

    def forget(self, now: float) -> list[tuple[str, Kind, str]]:
        """Drop what can match nothing that is valid at *now*, some of it, and return what was dropped."""
        dropped: list[tuple[str, Kind, str]] = []
        # Without the lock for the common case: nothing is due.
        if not (self._due and self._due[0][0] <= now):
            return dropped
        with self._lock:
            while self._due and self._due[0][0] <= now and len(dropped) < _AT_ONCE:
                until, issuer, kind, name = heapq.heappop(self._due)
                # A later moment was given since: that one's own place in the heap counts.
                if self._until(issuer, kind, name) != until:
                    continue
                self._horizon = max(self._horizon, until)
                self._drop(issuer, kind, name)
                dropped.append((issuer, kind, name))
        return dropped

    def _until(self, issuer: str, kind: Kind, name: str) -> float | None:
        if kind is Kind.RUN:
            return self._runs.get(issuer, {}).get(name)
        found = self._wide[issuer][kind].get(name) if issuer in self._wide else None
        return None if found is None else found[1]

    def _drop(self, issuer: str, kind: Kind, name: str) -> None:
        if kind is Kind.RUN:
            del self._runs[issuer][name]
            if not self._runs[issuer]:
                del self._runs[issuer]
        else:
            del self._wide[issuer][kind][name]
            if not any(self._wide[issuer].values()):
                del self._wide[issuer]

    def raise_horizon(self, moment: float) -> None:
        """Note that another process forgot what ended up to *moment*."""
        with self._lock:
            self._horizon = max(self._horizon, moment)

    def entries(self) -> Iterator[tuple[Ended, float | None]]:
        """Yield everything that is known to be ended, and until when it is kept."""
        with self._lock:
            runs = [(issuer, list(of_issuer.items())) for issuer, of_issuer in self._runs.items()]
            wide = [
                (Ended(issuer=issuer, kind=kind, name=name, cutoff=_finite(cutoff)), _finite(until))
                for issuer, kinds in self._wide.items()
                for kind, others in kinds.items()
                for name, (cutoff, until) in others.items()
            ]
        for issuer, ended_runs in runs:
            for run_id, until in ended_runs:
                yield Ended(issuer=issuer, name=run_id), _finite(until)
        yield from wide

    def subscribe(self, callback: Callable[[Ended], None]) -> Callable[[], None]:
        """Call *callback* with whatever `tell` is given."""
        mark = object()
        with self._lock:
            self._callbacks[mark] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks.pop(mark, None)

        return unsubscribe

    def tell(self, *ended: Ended) -> None:
        """Tell everyone who subscribed.

        Raises:
            ExceptionGroup: Of what subscribers raised, after all of them were told.
        """
        with self._lock:
            callbacks = tuple(self._callbacks.values())
        errors: list[Exception] = []
        for each in ended:
            for callback in callbacks:
                try:
                    callback(each)
                except Exception as error:  # noqa: BLE001  one subscriber must not keep the end from the others
                    errors.append(error)
        if errors:
            message = "a run was ended, and some who were told of it failed"
            raise ExceptionGroup(message, errors)


def _shown(name: str) -> str:
    # A line break in it would begin another line of a log.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def _finite(moment: float) -> float | None:
    return moment if moment < _FOR_EVER else None
