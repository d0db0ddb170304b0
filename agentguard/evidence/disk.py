"""Waiting for the disk: what is known to be on it, and how many calls in flight share one write."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import RunVar

from agentguard.evidence.chainfile import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Disk:
    """Knows how far each chain is on the disk, and lets those who wait share the work.

    One of them does it, in a thread, and wakes the others. Each event loop has rounds of
    its own.
    """

    def __init__(self) -> None:
        self._synced: dict[str, int] = {}
        self._round: RunVar[anyio.Event | None] = RunVar("agentguard_round", default=None)

    def has(self, chain_id: str, seq: int) -> bool:
        """Return whether a record is known to survive a loss of power."""
        return self._synced.get(chain_id, 0) >= seq

    def write(self, chain_id: str, seq: int, log: int) -> None:
        """Wait until the disk has a chain's log, which goes up to *seq*, and close it.

        Raises:
            OSError: The disk failed. Asked again, the system would say yes, and have lost
                what it could not write.
        """
        try:
            os.fdatasync(log)
        finally:
            os.close(log)
        self._synced[chain_id] = max(seq, self._synced.get(chain_id, 0))

    async def join(self, work: Callable[[str], None], name: str) -> None:
        """Return after a round: this one's own, or the one that is under way.

        One that is under way may have begun too early for what the caller waits for, so
        the caller looks, and joins again.

        Raises:
            Exception: Whatever *work* raises, to whoever does it.
        """
        waiting = self._round.get()
        if waiting is not None:
            await waiting.wait()
            return
        over = anyio.Event()
        self._round.set(over)
        try:
            # Not one of the threads that tools run in: those may all be taken.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(work, name, limiter=anyio.CapacityLimiter(1))
        finally:
            self._round.set(None)
            over.set()


def checkpoint(path: Path) -> bool:
    """Move what the log holds into the file, beside whoever writes; return whether all of it was.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    with closing(connect(path, "mode=rw", seconds=0)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        _, logged, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(logged == moved)
