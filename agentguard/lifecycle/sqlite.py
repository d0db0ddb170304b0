"""A store in one SQLite file: for the processes of one host, and through their restarts.

What was ended is a row with a number; each process follows the numbers in a thread, and
`PRAGMA data_version` tells it cheaply whether there is any news. The file is the truth of
what was used up. Of what was ended, the file and the mirrors complete one another: what
any of them knows is ended, and a file that comes back without it is told.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Unpack

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import tables
from agentguard.lifecycle.database import connect, prepare
from agentguard.lifecycle.ended import Ended, Ending, Kind, Revocation, ending
from agentguard.lifecycle.follower import Follower
from agentguard.lifecycle.mirror import Mirror
from agentguard.lifecycle.states import judged
from agentguard.lifecycle.unwritten import Unwritten
from agentguard.lifecycle.writer import Writer, unavailable
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentguard.lifecycle.database import Opened
    from agentguard.lifecycle.ended import Link
    from agentguard.lifecycle.states import RunRecord
    from agentguard.lifecycle.tally import Exchange, Run, Tally
    from agentguard.model import Invocation

# Seconds between two writes of what guards counted or could not write, and between two
# looks at the file with fresh eyes.
_SELDOM: Final = 1.0


class SQLiteStore:
    """A store in a file, shared by the processes of one host. Safe to share between threads.

    Args:
        path: The file, not on a network; made with its folder if it is not there.
        clock: Gives unix seconds.
        monotonic: Gives seconds that never run backwards.
        limits: The leeway that a cutoff counts in, and how old an answer may be.
        pause: Seconds between two looks at the file.
        wait: Seconds to wait for another process that writes.

    Raises:
        ConfigurationError: The file cannot be used.
    """

    waits: Final = False

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        limits: Limits | None = None,
        pause: float = 0.01,
        wait: float = 2.0,
    ) -> None:
        limits = limits or Limits()
        self.path = Path(path).absolute()
        self._clock = clock
        self._monotonic = monotonic
        self._leeway = limits.leeway_seconds
        self._wait = wait
        self._mirror = Mirror(limit=limits.staleness_seconds, monotonic=monotonic)
        self._reader: Opened | None = None
        self._writer = Writer(self.path, wait=wait)
        # Each call of a run exchanges its tally: waiting for the disk would be dearer than all the rest of a call.
        self._tallier = Writer(self.path, wait=wait, synced=False)
        self._followed = False
        self._version: int | None = None
        self._seq = 0
        self._probed = self._written_late = monotonic()
        self._unwritten = Unwritten(clock)
        self._reading = Lock()
        self._closed = False
        self._follower: Follower | None = None
        prepare(self.path)
        try:
            self.sync()
            # The first may have read for so long that what it knows is old.
            self.sync()
        except Refusal as refusal:
            self.close()
            message = f"`{self.path}` wants a store's file, got `{refusal.detail}`: move it away, or name another"
            raise ConfigurationError(message) from refusal
        self._follower = Follower(self.sync, name=f"store {self.path}", pause=pause, retry=max(pause, 0.05))

    def sync(self) -> None:
        """Bring the mirror up to date now, as the store's own thread does all the time.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        began = self._monotonic()
        with self._reading:
            self._refuse_closed()
            try:
                news = self._read_news(began)
            except (sqlite3.Error, OSError, ValueError) as error:
                self._let_go_of_reader()
                raise unavailable(error) from error
            self._mirror.synced(began)
            self._mirror.forget(self._clock())
        if began - self._written_late >= _SELDOM:
            self._write_late(began)
        self._mirror.tell(*news)

    def _read_news(self, now: float) -> list[Ended]:
        if self._reader is not None and not self._reader.is_at(self.path):
            self._let_go_of_reader()
        if self._reader is None:
            self._reader = connect(self.path, seconds=self._wait)
            self._version, self._seq = None, 0
        elif now - self._probed >= _SELDOM:
            # Damage shows to whoever comes to the file anew, not to whoever has read it.
            self._probed = now
            connect(self.path, seconds=self._wait).connection.close()
        connection = self._reader.connection
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return []
        again = self._version is None and self._followed
        known: set[tuple[str, Kind, str]] = set()
        news: list[Ended] = []
        with _one_state_of(connection):
            for seq, entries in tables.read_ended(connection, self._seq):
                self._seq = seq
                wider = self._mirror.add_all(entries)
                # Nobody has asked yet when the file is read for the first time.
                if self._followed:
                    news += wider
                if again:
                    known.update(ended.key for ended, _ in entries)
            self._mirror.raise_horizon(tables.read_horizon(connection, "ended"))
        self._version = version
        self._followed = True
        if again:
            self._unwritten.remind(self._mirror, known)
        return news

    def _write_late(self, now: float) -> None:
        """Write what could not be written, and what guards counted, if nobody else is writing."""
        self._written_late = now
        with self._reading, suppress(sqlite3.Error):
            if self._reader is not None:
                # Has the disk keep what calls have done, so that none of them waits for it.
                self._reader.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with suppress(Refusal), self._unwritten.taken() as (ends, calls):
            if ends or calls:
                with self._transaction(seconds=0) as connection:
                    for ended, revocation in ends:
                        tables.add_ended(connection, ended, revocation)
                    tables.add_calls(connection, calls)

    @contextmanager
    def _transaction(self, *, seconds: float | None = None) -> Iterator[sqlite3.Connection]:
        """Write all of it, durably, or nothing."""
        with self._writer.transaction(seconds=seconds) as connection:
            tables.prune(connection, self._clock())
            yield connection

    def require_healthy(self) -> None:
        """Pass only if the file was read recently enough.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        self._mirror.require_fresh()

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended."""
        return self._mirror.ended(invocation)

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good; see `Store.revoke`."""
        self.revoke_all(issuer=issuer, kind=Kind.RUN, name=run_id, reason=reason, until=until)

    def revoke_all(self, **what: Unpack[Ending]) -> None:
        """End every run of an agent, a user, a task or an issuer for good; see `Store.revoke_all`."""
        ended, revocation = ending(**what, leeway=self._leeway, now=self._clock())
        self._mirror.forget(revocation.at)
        self._mirror.end(ended, revocation, self._keep)

    def _keep(self, ended: Ended, revocation: Revocation) -> None:
        try:
            with self._transaction() as connection:
                tables.add_ended(connection, ended, revocation)
        except Refusal:
            self._unwritten.ended(ended, revocation)
            raise

    def revocation(self, *, issuer: str, name: str, kind: Kind = Kind.RUN) -> Revocation | None:
        """Return how a run, or what *kind* says, was ended; see `Store.revocation`."""
        with self._query() as connection:
            return tables.read_revocation(connection, issuer, kind, name)

    def require_mintable(self, *chain: Link) -> None:
        """Pass only if a token for this chain of runs would not be refused at once.

        Raises:
            Refusal: `REVOKED`, or `STORE_UNAVAILABLE`.
        """
        self.sync()
        self._mirror.require_mintable(*chain)

    def subscribe(self, callback: Callable[[Ended], None]) -> Callable[[], None]:
        """Call *callback* whenever something is ended, on the thread that learns of it."""
        return self._mirror.subscribe(callback)

    def spend(self, key: str, until: float) -> bool:
        """Use *key*, and return whether this was its first use, in any process, and in time."""
        with self._transaction() as connection:
            return self._clock() < until and tables.spend(connection, key, until)

    def tallies(self, *runs: Run) -> tuple[Tally, ...]:
        """Return what these runs have done so far, from the file itself; see `Store.tallies`."""
        with self._tallier.reading() as connection:
            return tables.read_tallies(connection, runs)

    def exchange(self, *exchanges: Exchange) -> bool:
        """Put tallies in the place of those that were read, all or none; see `Store.exchange`.

        A loss of power may take what was exchanged in the last seconds.
        """
        with self._tallier.transaction() as connection:
            return tables.exchange_tallies(connection, exchanges, self._clock())

    def record_run(self, run: RunRecord) -> None:
        """Keep a run that is about to begin; see `Store.record_run`."""
        self.require_mintable(run)
        with self._transaction() as connection:
            new = tables.add_run(connection, run)
        if not new:
            raise Refusal(Reason.REVOKED, "a run of this id was recorded before")

    def used(self, invocation: Invocation) -> None:
        """Count a call of a run that is on record; the store's thread writes it."""
        self._unwritten.used(invocation)

    def runs(self) -> tuple[RunRecord, ...]:
        """Return every run on record, with its state, in the order in which they began."""
        with self._query() as connection:
            read = partial(tables.read_runs, connection)
            return judged(read, now=self._clock(), link_ended=self._mirror.link_ended)

    @contextmanager
    def _query(self) -> Iterator[sqlite3.Connection]:
        """Read once, for a person's question: not on the way of a call."""
        self._refuse_closed()
        try:
            connection = connect(self.path, seconds=self._wait).connection
            try:
                yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise unavailable(error) from error

    def close(self) -> None:
        """Write what is left, and let go of the file; afterwards the store is unavailable."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
            self._write_late(self._monotonic())
        with self._reading:
            self._closed = True
            self._mirror.close()
            self._let_go_of_reader()
        self._writer.close()
        self._tallier.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Refusal(Reason.STORE_UNAVAILABLE, "the store was closed")

    def _let_go_of_reader(self) -> None:
        if self._reader is not None:
            self._reader.connection.close()
        self._reader = None


@contextmanager
def _one_state_of(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
