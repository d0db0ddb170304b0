"""A connection that writes to the file of a `SQLiteStore`, opened once it is needed."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal
from agentguard.lifecycle.database import connect
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentguard.lifecycle.database import Opened

# Seconds between two tries for a lock.
_STEP: Final = 0.001

# How far the log grows before a commit that does not wait for the disk has to after all: 16 MiB.
_PAGES: Final = 4_000


class Writer:
    """A connection that writes to a store's file, to the one that lies there now. Safe to share between threads.

    Args:
        path: The file.
        wait: Seconds to wait for another process that writes.
        synced: Whether a commit waits for the disk, so that it outlasts a loss of power. One that does not outlasts
            the process, whatever ends that; until the next checkpoint, or commit that waits, the power may take it
            along: what was committed last, never something before it.
    """

    def __init__(self, path: Path, *, wait: float, synced: bool = True) -> None:
        self._path = path
        self._wait = wait
        self._synced = synced
        self._closed = False
        self._lock = Lock()
        self.opened: Opened | None = None

    @contextmanager
    def transaction(self, *, seconds: float | None = None) -> Iterator[sqlite3.Connection]:
        """Write all of it, or nothing.

        Args:
            seconds: How long to wait for another process that writes, if not as long as ever.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        wait = self._wait if seconds is None else seconds
        with self._connected(wait) as connection:
            _patiently(connection, "BEGIN IMMEDIATE", seconds=wait)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read the file as it is now, all of one moment.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        with self._connected(self._wait) as connection:
            connection.execute("BEGIN")
            # It is the first statement that fixes the moment, and that may have to wait.
            _patiently(connection, "SELECT 1 FROM sqlite_schema LIMIT 1", seconds=self._wait)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self, wait: float) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise Refusal(Reason.STORE_UNAVAILABLE, "the store was closed")
            done = False
            try:
                # A connection to a file that was exchanged would write where nobody reads.
                if self.opened is not None and not self.opened.is_at(self._path):
                    self._let_go()
                if self.opened is None:
                    self.opened = connect(self._path, seconds=wait)
                    if not self._synced:
                        self.opened.connection.execute("PRAGMA synchronous = NORMAL")
                        self.opened.connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")
                yield self.opened.connection
                done = True
            except (sqlite3.Error, OSError, ValueError) as error:
                raise unavailable(error) from error
            finally:
                # Closing rolls back, whatever state the connection is in.
                if not done:
                    self._let_go()

    def close(self) -> None:
        """Let go of the file; afterwards nothing can be written."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self.opened is not None:
            self.opened.connection.close()
        self.opened = None


def _patiently(connection: sqlite3.Connection, statement: str, *, seconds: float) -> None:
    """Run a statement that may have to wait for a lock, and try for it in small steps.

    SQLite's own steps grow to a tenth of a second: beside a process that writes one
    thing after the other, it was refused after two seconds.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    until = time.monotonic() + seconds
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not time.monotonic() < until:
                raise
        else:
            return
        time.sleep(_STEP)


def unavailable(error: Exception) -> Refusal:
    """Return the refusal that an error of the file makes."""
    return Refusal(Reason.STORE_UNAVAILABLE, f"{type(error).__name__}: {error}")
