"""Hold leases for as long as their runs last, and see to it that each is given back once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from agentguard.credentials.held import Held

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.credentials.held import Key, Lease
    from agentguard.credentials.known import Known
    from agentguard.credentials.returns import Returns
    from agentguard.credentials.worker import Worker
    from agentguard.lifecycle.ended import Ended


class Holding:
    """The leases that are held. Changed in the worker's thread, asked from any.

    Args:
        returns: Gives back what is over.
        worker: Runs what looks for that.
        clock: Gives unix seconds.
        monotonic: Gives seconds that never run backwards.
        pause: Seconds between two looks.
        skew: For how many seconds past its end a secret may still be good elsewhere.
        known: The secrets.

    Attributes:
        held: The leases.
        current: The one of each run and name that serves now; those that it came in place of are held too.
        returns: What is being given back.
    """

    def __init__(
        self,
        returns: Returns,
        *,
        worker: Worker,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        pause: float,
        skew: float,
        known: Known,
    ) -> None:
        self.held = Held()
        self.current: dict[Key, Lease] = {}
        self.returns = returns
        self._worker = worker
        self._clock = clock
        self._monotonic = monotonic
        self._pause = pause
        self._skew = skew
        self._known = known
        self._tending = False

    def add(self, lease: Lease) -> None:
        """Hold one more; it serves when it is put among the `current` ones.

        Raises:
            ValueError: Its secret cannot be told apart from ordinary text; it is held all the same.
        """
        self.held.add(lease)
        if not self._tending:
            self._tending = True
            self._worker.start(self._tend)
        issued = lease.issued
        until = issued.expires_at if issued.renewal is None else max(issued.expires_at, lease.until)
        self._known.add(lease, until + self._skew)

    def drop(self, lease: Lease) -> bool:
        """Hold one no more, and return whether it was held."""
        if self.current.get(lease.key) is lease:
            self.current.pop(lease.key, None)
        return self.held.remove(lease)

    def release(self, lease: Lease) -> None:
        """Give one back, unless that is done already, or there is nothing to give back."""
        lease.given_back = True
        if self.drop(lease) and not lease.is_spent(self._clock(), self._monotonic()):
            self.returns.add(lease)

    async def end(self, ended: Ended) -> None:
        """Give back what belongs to runs that were ended."""
        for lease in self.held.ended(ended):
            self.release(lease)

    def release_all(self) -> None:
        """Give everything back."""
        for lease in self.held:
            self.release(lease)

    async def _tend(self) -> None:
        """Give back what is over by time, for as long as there is anything."""
        while self.held or self._known:
            await anyio.sleep(self._pause)
            now, tick = self._clock(), self._monotonic()
            for lease in self.held:
                if lease.is_over(now, tick) or lease.is_spent(now, tick):
                    self.release(lease)
            self._known.forget(now, {text for lease in self.held for text in lease.secrets})
        self._tending = False
