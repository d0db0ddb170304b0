"""A store that the process takes with it when it ends."""

from __future__ import annotations

import heapq
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Final, Unpack

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.ended import Ended, Ending, Kind, Revocation, ending, run_of
from agentguard.lifecycle.mirror import Mirror
from agentguard.lifecycle.states import KEPT_SECONDS, ended_by, judged
from agentguard.lifecycle.tally import Tally, forgotten
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.lifecycle.ended import Link
    from agentguard.lifecycle.states import RunRecord
    from agentguard.lifecycle.tally import Exchange, Run
    from agentguard.model import Invocation


class MemoryStore:
    """A store that the process takes with it when it ends. Safe to share between threads.

    Args:
        clock: Gives unix seconds.
        spent_entries: How many used keys are kept at once; one more is refused.
        tally_entries: Of how many runs it is kept at once what they have done; one more is refused.
        limits: The leeway that a cutoff counts in.
    """

    waits: Final = False

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        spent_entries: int = 100_000,
        tally_entries: int = 100_000,
        limits: Limits | None = None,
    ) -> None:
        for name, entries in (("spent_entries", spent_entries), ("tally_entries", tally_entries)):
            if not entries >= 1:
                message = f"`{name}` wants at least 1, got `{entries}`: leave it out for 100000"
                raise ConfigurationError(message)
        self._clock = clock
        self._spent_entries = spent_entries
        self._tally_entries = tally_entries
        self._leeway = (limits or Limits()).leeway_seconds
        self._mirror = Mirror()
        self._revocations: dict[tuple[str, Kind, str], Revocation] = {}
        self._runs: dict[tuple[str, str], RunRecord] = {}
        self._over: list[tuple[float, str, str]] = []
        self._spent: set[str] = set()
        self._unspend: list[tuple[float, str]] = []
        self._unspent_until = float("-inf")
        self._tallies: dict[Run, tuple[Tally, float]] = {}
        self._untally: list[tuple[float, Run]] = []
        self._untallied_until = float("-inf")
        self._lock = Lock()

    def require_healthy(self) -> None:
        """Pass: this process's memory is never behind itself."""

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended."""
        return self._mirror.ended(invocation)

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good; ending it again tells nobody, and can only put off forgetting it.

        Raises:
            ExceptionGroup: Of what subscribers raised, after all of them were told.
        """
        self.revoke_all(issuer=issuer, kind=Kind.RUN, name=run_id, reason=reason, until=until)

    def revoke_all(self, **what: Unpack[Ending]) -> None:
        """End every run of an agent, a user, a task or an issuer for good; see `Store.revoke_all`.

        Raises:
            ConfigurationError: It names nothing.
            ExceptionGroup: Of what subscribers raised, after all of them were told.
        """
        ended, revocation = ending(**what, leeway=self._leeway, now=self._clock())
        with self._lock:
            self._forget(revocation.at)
            wider = self._mirror.add(ended, revocation.until)
            self._keep(ended, revocation)
        if wider:
            self._mirror.tell(ended)

    def _keep(self, ended: Ended, revocation: Revocation) -> None:
        known = self._revocations.get(ended.key)
        if known is None:
            self._revocations[ended.key] = revocation
        elif known.until is not None and (revocation.until is None or revocation.until > known.until):
            self._revocations[ended.key] = replace(known, until=revocation.until)
        self._settle(ended, revocation.reason, revocation.at)

    def _settle(self, ended: Ended, reason: str, now: float) -> None:
        run = (ended.issuer, ended.name)
        concerned = [run] if ended.kind is Kind.RUN else list(self._runs)
        for key in concerned:
            if key in self._runs:
                self._runs[key] = ended_by(self._runs[key], ended, reason=reason, now=now)

    def _forget(self, now: float) -> None:
        for key in self._mirror.forget(now):
            # Another thread may be about to keep it.
            self._revocations.pop(key, None)
        while self._over and self._over[0][0] <= now:
            _, issuer, run_id = heapq.heappop(self._over)
            del self._runs[issuer, run_id]

    def revocation(self, *, issuer: str, name: str, kind: Kind = Kind.RUN) -> Revocation | None:
        """Return how a run, or what *kind* says, was ended; see `Store.revocation`."""
        return self._revocations.get((issuer, kind, name))

    def require_mintable(self, *chain: Link) -> None:
        """Pass only if a token for this chain of runs would not be refused at once.

        Raises:
            Refusal: `REVOKED`.
        """
        self._mirror.require_mintable(*chain)

    def subscribe(self, callback: Callable[[Ended], None]) -> Callable[[], None]:
        """Call *callback* whenever something is ended, on the thread that ends it."""
        return self._mirror.subscribe(callback)

    def spend(self, key: str, until: float) -> bool:
        """Use *key*, and return whether this was its first use and in time.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if as many keys as may be are kept already.
        """
        with self._lock:
            now = self._clock()
            while self._unspend and self._unspend[0][0] <= now:
                self._unspent_until, forgotten = heapq.heappop(self._unspend)
                self._spent.discard(forgotten)
            # A key past its end was forgotten, so it must not count as unused; nor
            # after the clock was set back.
            if key in self._spent or not now < until or not self._unspent_until < until:
                return False
            if not len(self._spent) < self._spent_entries:
                raise Refusal(Reason.STORE_UNAVAILABLE, f"{self._spent_entries} spent keys are kept already")
            self._spent.add(key)
            heapq.heappush(self._unspend, (until, key))
            return True

    def tallies(self, *runs: Run) -> tuple[Tally, ...]:
        """Return what these runs have done so far; see `Store.tallies`."""
        with self._lock:
            return tuple(self._tallies[run][0] if run in self._tallies else Tally() for run in runs)

    def exchange(self, *exchanges: Exchange) -> bool:
        """Put tallies in the place of those that were read, all or none; see `Store.exchange`.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if those of as many runs as may be are kept already, or those of this one
                were forgotten.
        """
        with self._lock:
            known = [self._tallies.get(each.run) for each in exchanges]
            for each, found in zip(exchanges, known, strict=True):
                if each.before != (0 if found is None else found[0].version):
                    return False
            if new := {
                each.run: each.kept_until for each, found in zip(exchanges, known, strict=True) if found is None
            }:
                self._make_room(new)
            for each, found in zip(exchanges, known, strict=True):
                until = each.kept_until if found is None else max(each.kept_until, found[1])
                self._tallies[each.run] = (each.after, until)
            return True

    def _make_room(self, new: dict[Run, float]) -> None:
        now = self._clock()
        while self._untally and self._untally[0][0] <= now:
            _, run = heapq.heappop(self._untally)
            until = self._tallies[run][1]
            # A later end was named since.
            if now < until:
                heapq.heappush(self._untally, (until, run))
                continue
            self._untallied_until = max(self._untallied_until, until)
            del self._tallies[run]
        # What was let go of must not begin anew, not even after the clock was set back.
        if not all(self._untallied_until < until for until in new.values()):
            raise forgotten()
        if not len(self._tallies) + len(new) <= self._tally_entries:
            raise Refusal(Reason.STORE_UNAVAILABLE, f"what {self._tally_entries} runs have done is kept already")
        for run, until in new.items():
            heapq.heappush(self._untally, (until, run))

    def record_run(self, run: RunRecord) -> None:
        """Keep a run that is about to begin.

        Raises:
            Refusal: `REVOKED`, if it was ended before it began, or its id was used before.
        """
        with self._lock:
            self._forget(self._clock())
            self._mirror.require_mintable(run)
            if (run.issuer, run.run_id) in self._runs:
                raise Refusal(Reason.REVOKED, "a run of this id was recorded before")
            self._runs[run.issuer, run.run_id] = run
            heapq.heappush(self._over, (run.ends_at + KEPT_SECONDS, run.issuer, run.run_id))

    def used(self, invocation: Invocation) -> None:
        """Count a call of a run that is on record."""
        with self._lock:
            run = run_of(invocation)
            record = self._runs.get(run)
            if record is not None:
                used_at = self._clock() if record.used_at is None else record.used_at
                self._runs[run] = replace(record, used_at=used_at, calls=record.calls + 1)

    def runs(self) -> tuple[RunRecord, ...]:
        """Return every run on record, with its state, in the order in which they began."""
        with self._lock:
            return judged(self._runs.values, now=self._clock(), link_ended=self._mirror.link_ended)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
