"""Give credentials back: each once, many at the same time, and with patience.

One that cannot be given back is tried again until it ends by itself, and is on record
then: somebody has to know that it was good for longer than its run.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from agentguard.credentials.asked import FailedError, asked
from agentguard.credentials.held import Event
from agentguard.errors import raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.credentials.broker import CredentialBroker
    from agentguard.credentials.held import Lease
    from agentguard.credentials.worker import Worker

_LOG: Final = logging.getLogger("agentguard")

# How many are given back at the same time.
_AT_ONCE: Final = 16
# The waits between two tries; each is twice the one before.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_DOUBLINGS: Final = 6
# As often it is tried, although it should have ended by itself meanwhile.
_TRIES: Final = 3
# The wait while the process waits too.
_HURRIED_PAUSE: Final = 0.1


class Returns:
    """The leases that are being given back. Changed in the worker's thread.

    Args:
        broker: Takes them back.
        worker: Runs what asks it.
        record: Keeps a record of it.
        clock: Gives unix seconds.
        seconds: How long the broker may take.
    """

    def __init__(
        self,
        broker: CredentialBroker,
        *,
        worker: Worker,
        record: Callable[[Event, Lease], None],
        clock: Callable[[], float],
        seconds: float,
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._record = record
        self._clock = clock
        self._seconds = seconds
        self._owed: dict[Lease, bool] = {}
        self._at_once = anyio.Semaphore(_AT_ONCE)
        self._hurry = anyio.Event()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._owed)

    def add(self, lease: Lease) -> None:
        """Give one back."""
        self._owed[lease] = True
        self._worker.start(partial(self._give_back, lease))

    def hurry(self) -> None:
        """Try all of them again at once, and often from now on: the process waits."""
        self._hurry.set()

    def abandon(self) -> None:
        """Put on record that no more of them will be given back; from any thread."""
        owed = list(self._owed)
        if owed:
            _LOG.error("%d credentials are not released: the process ends", len(owed))
        for lease in owed:
            self._settle(lease, Event.RELEASE_FAILED)

    async def _give_back(self, lease: Lease) -> None:
        tries = 0
        while (failed := await self._tried(lease)) is not None:
            tries += 1
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(tries - 1, _DOUBLINGS))
            ends = not self._clock() + pause < lease.issued.expires_at
            if failed.retry is False or (tries >= _TRIES and ends):
                _LOG.error("credential `%s` is not released: %s", lease.name, failed.detail)
                self._settle(lease, Event.RELEASE_FAILED)
                return
            if tries == 1:
                _LOG.warning("credential `%s` is not released yet: %s", lease.name, failed.detail)
            if self._hurry.is_set():
                await anyio.sleep(_HURRIED_PAUSE)
            else:
                with anyio.move_on_after(pause):
                    await self._hurry.wait()
        self._settle(lease, Event.RELEASED)

    async def _tried(self, lease: Lease) -> FailedError | None:
        async with self._at_once:
            try:
                await asked(lambda: self._broker.release(lease.issued, lease.name), self._seconds)
            except FailedError as failed:
                return failed
        return None

    def _settle(self, lease: Lease, event: Event) -> None:
        # The process may have given it up meanwhile.
        if not self._owed.pop(lease, False):
            return
        try:
            self._record(event, lease)
        except Exception as error:  # noqa: BLE001  it cannot be taken back any more
            _LOG.error("that credential `%s` was %s could not be recorded: %s", lease.name, event, raised(error))
