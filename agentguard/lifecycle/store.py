"""What outlives a call: which runs were ended, and what may be used only once.

Whether a run was ended is asked on every call, so that answer comes from this process's
own memory. A store that keeps its truth elsewhere mirrors it here, and refuses as soon as
the mirror is older than the limit on staleness. What a run has done is read and written
where it is kept; that, and all other writes, may wait for a disk or a network: an event
loop that must not wait makes them in a thread. One whose `tallies` and `exchange` wait for
no network says so: ``waits = False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agentguard.lifecycle.ended import Ended, Kind, Revocation
from agentguard.lifecycle.memory import MemoryStore
from agentguard.lifecycle.states import RunRecord, RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.lifecycle.ended import Link
    from agentguard.lifecycle.tally import Exchange, Run, Tally
    from agentguard.model import Invocation

__all__ = ["Ended", "Kind", "MemoryStore", "Revocation", "RunRecord", "RunState", "Store"]


class Store(Protocol):
    """Where the ends of runs and the uses of one-time keys are kept.

    A run is named by its issuer and its id, as the issuer knows it. What was ended stays
    ended: nothing here takes it back.
    """

    def require_healthy(self) -> None:
        """Pass only if what `ended` would answer is recent enough to act on.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        ...

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if what is known is not recent enough.
        """
        ...

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good, and with it every run that stems from it.

        Args:
            issuer: The issuer of the run.
            run_id: The run.
            reason: Why, for the evidence; ``completed`` for a run that came to its own
                end. Its first 256 characters are kept.
            until: When every token of the run is over, leeway included; it may be
                forgotten then. None keeps it for ever.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if it could not be kept. The run has ended in
                this process all the same, and the store goes on trying to keep it.
        """
        ...

    def revoke_all(
        self,
        *,
        issuer: str,
        kind: Kind,
        name: str = "",
        issued_before: float | None = None,
        reason: str = "",
        until: float | None = None,
    ) -> None:
        """End every run of an agent, a user, a task or an issuer for good.

        It ends, too, what stems from such a run, and no token is minted for one any more.

        Args:
            issuer: The issuer of the runs.
            kind: What *name* names.
            name: The agent, user or task; empty for all runs of the issuer.
            issued_before: End the runs that began before this alone, unix seconds. The
                leeway is added: a clock that is ahead must not save a run. None ends
                runs that are yet to begin as well.
            reason: As for `revoke`.
            until: When none of these runs can have a valid token any more.

        Raises:
            ConfigurationError: It names nothing.
            Refusal: As for `revoke`.
        """
        ...

    def revocation(self, *, issuer: str, name: str, kind: Kind = Kind.RUN) -> Revocation | None:
        """Return how a run was ended, or all runs of an agent, a user, a task or an issuer, if a revocation named it.

        Args:
            issuer: The issuer of the runs.
            name: The run, or what *kind* says; empty for all runs of the issuer.
            kind: What *name* names.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        ...

    def require_mintable(self, *chain: Link) -> None:
        """Pass only if a token for this chain of runs would not be refused at once.

        Args:
            chain: The run, and the runs that it stems from.

        Raises:
            Refusal: `REVOKED`, or `STORE_UNAVAILABLE`.
        """
        ...

    def subscribe(self, callback: Callable[[Ended], None]) -> Callable[[], None]:
        """Call *callback* with what was ended, whenever something is.

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

    def tallies(self, *runs: Run) -> tuple[Tally, ...]:
        """Return what these runs have done so far, as it is now: one for each, version 0 where nothing is kept.

        All of them are of one moment.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        ...

    def exchange(self, *exchanges: Exchange) -> bool:
        """Put tallies in the place of those that were read, all of them or none.

        What was exchanged outlasts this process, in a store that outlasts it at all, and the next
        `tallies` of any process has it. It is kept until an hour after the run's end.

        Returns:
            Whether each still had the version that was read; else nothing was changed.

        Raises:
            Refusal: `STORE_UNAVAILABLE`; it may have been done all the same.
        """
        ...

    def record_run(self, run: RunRecord) -> None:
        """Keep a run that is about to begin, before anybody has a token of it.

        Raises:
            Refusal: `REVOKED`, if it was ended before it began, or its id was used
                before; `STORE_UNAVAILABLE`.
        """
        ...

    def used(self, invocation: Invocation) -> None:
        """Count a call of a run that is on record: from the first on, it is active.

        Never waits. What is counted reaches other processes after a while.
        """
        ...

    def runs(self) -> tuple[RunRecord, ...]:
        """Return every run on record, with its state: those that live, and those of the last hour.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        ...

    def close(self) -> None:
        """Let go of files, connections and threads; afterwards the store is unavailable."""
        ...
