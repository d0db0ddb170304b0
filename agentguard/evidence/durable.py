"""The ledger that outlives the process: one chain of a folder's, in a file of its own.

The first process on a folder continues the first chain that nobody writes, the next one
takes or makes another. A fork's child starts anew: two writers never share a chain. What
cannot be kept is refused, and kept again as soon as it can be; a file that is not as
this process left it is never written to again.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, current_thread
from typing import TYPE_CHECKING, Final, Literal

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.chainfile import (
    SUFFIX,
    ChainWriter,
    NotAChain,
    chain_files,
    create,
    follow,
    read_chain,
)
from agentguard.evidence.claim import Claim, require_whole
from agentguard.evidence.disk import Disk, checkpoint
from agentguard.evidence.heads import BadSignature, Head, HeadKey, Occasion, head_record, put_beside
from agentguard.evidence.ledger import FIRST_PREV_HASH
from agentguard.evidence.record import record as as_record
from agentguard.evidence.tending import tend_from_now_on, what_of
from agentguard.evidence.vocabulary import RecordKind
from agentguard.host.private import private_folder
from agentguard.model import Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from threading import Thread

    from agentguard.evidence.ledger import Entry

Durability = Literal["process", "host"]

_LOG: Final = logging.getLogger("agentguard")

# Records in the log before it is moved into the file, and before the writers wait for that:
# it never begins anew beside those who write all the time.
_MOVE: Final = 2_000
_MOVE_NOW: Final = 40_000

# After these nothing was written for certain, and the connection is as good as before.
_SURE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

_UNAVAILABLE: Final = Reason.EVIDENCE_UNAVAILABLE
_CANNOT: Final = (sqlite3.Error, OSError, NotAChain, ConfigurationError)


class SQLiteLedger:
    """A ledger in a folder. Safe to share between threads, and to take through a fork.

    Iterating reads the chain that this process writes, oldest record first.

    Args:
        folder: Where the chains and the key of the heads are; made if it is not there.
        durability: ``"process"``: what was appended survives this process being killed.
            ``"host"``: `settled` waits until it survives a loss of power too.
        heads_every: How many records come before another signed head.
        heads_seconds: How long a record waits for one.
        clock: Gives unix seconds.
        monotonic: Gives seconds that never run backwards.
        wait: Seconds that one append may wait for somebody else who writes to the file.
        pause: Seconds between two looks of the ledger's own thread.

    Raises:
        ConfigurationError: The folder cannot be used; the message says what to do.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        heads_every: int = 1_000,
        heads_seconds: float = 60.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        wait: float = 0.1,
        pause: float = 0.25,
    ) -> None:
        if durability not in {"process", "host"}:
            message = f"`durability` wants `process` or `host`, got `{durability}`: choose one"
            raise ConfigurationError(message)
        if not heads_every >= 1:
            message = f"`heads_every` wants at least 1 record, got `{heads_every}`: leave it out for 1000"
            raise ConfigurationError(message)
        self.folder = Path(folder).absolute()
        self.durability: Durability = durability
        self._every = heads_every
        self._seconds = heads_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._wait = wait
        self._pause = pause
        private_folder(self.folder)
        self._key = HeadKey.of(self.folder)
        self._spoilt: set[Path] = set()
        self._disk = Disk()
        self._closed = self._failing = False
        self._reset()
        try:
            with self._lock:
                self._open()
        except _CANNOT as error:
            self.close()
            message = f"`{self.folder}` cannot keep evidence: {what_of(error)}: mend the folder, or name another"
            raise ConfigurationError(message) from error
        _LEDGERS.add(self)

    def _reset(self) -> None:
        """Begin without a chain, as the constructor does, and a fork's child."""
        self._lock = Lock()
        self._claim: Claim | None = None
        self._writer: ChainWriter | None = None
        # The record that the file ends with as far as this process knows; two, where it
        # could not be learnt whether the last one was written.
        self._path: Path | None = None
        self._tails: tuple[Entry, ...] = ()
        self._since = self._unmoved = 0
        self._signed_at = self._monotonic()
        self._over = Event()
        self._thread: Thread | None = None

    @property
    def path(self) -> Path | None:
        """The file that this process writes; None if it has none at the moment."""
        return self._path

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*: when this returns, it outlives the process.

        Raises:
            Refusal: `EVIDENCE_UNAVAILABLE`, if it could not be kept for any reason.
        """
        try:
            text = canonical_json(record)
        except (TypeError, ValueError, RecursionError) as error:
            raise Refusal(_UNAVAILABLE, f"no canonical JSON: {type(error).__name__}") from None
        with self._lock:
            if self._closed:
                raise Refusal(_UNAVAILABLE, "the ledger was closed")
            try:
                writer = self._writer or self._open()
                if self._since >= self._every:
                    self._sign(writer, Occasion.RUNNING)
                return self._add(writer, text)
            except _CANNOT as error:
                self._fail(error)
                raise Refusal(_UNAVAILABLE, what_of(error)) from error

    def _add(self, writer: ChainWriter, text: str) -> Entry:
        try:
            entry = writer.append(text)
        except sqlite3.Error:
            self._tails = (writer.tail, follow(writer.tail, writer.chain_id, text))
            raise
        self._tails = ()
        self._since += 1
        self._unmoved += 1
        if self._failing:
            self._failing = False
            _LOG.warning("evidence is kept again in `%s`", writer.path)
        return entry

    def _fail(self, error: Exception) -> None:
        """Let go of as much as the error makes doubtful."""
        if not self._failing:
            self._failing = True
            _LOG.error("evidence cannot be kept in `%s`, calls are refused: %s", self.folder, what_of(error))
        if isinstance(error, NotAChain):
            self._spoil()
        elif getattr(error, "sqlite_errorcode", 0) & 0xFF not in _SURE:
            self._let_go()

    def _spoil(self) -> None:
        """Never write to this chain again: it is not what this process wrote."""
        if self._path is not None:
            self._spoilt.add(self._path)
        self._let_go()
        claim, self._claim, self._path, self._tails = self._claim, None, None, ()
        if claim is not None:
            claim.release()

    def _let_go(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._tails = self._tails or (writer.tail,)
            with suppress(sqlite3.Error, OSError):
                writer.close()

    def _open(self) -> ChainWriter:
        """Return the writer of a chain that is this process's alone, or raise one of `_CANNOT`."""
        if self._path is not None:
            writer = self._writer = ChainWriter(self._path, wait=self._wait, monotonic=self._monotonic)
            if writer.tail not in self._tails:
                message = "the file does not end with the record that was written last"
                raise NotAChain(message)
            self._tails = ()
        else:
            writer = self._continue() or self._begin()
        if self._thread is None:
            name = f"evidence {self.folder}"
            self._thread = tend_from_now_on(weakref.WeakMethod(self.tend), self._over, self._pause, name=name)
        return writer

    def _continue(self) -> ChainWriter | None:
        """Return the first chain that nobody writes and that is as its last writer left it."""
        for path in chain_files(self.folder):
            if path in self._spoilt:
                continue
            claim = writer = None
            try:
                claim = Claim.take(path)
                if claim is None:
                    continue
                writer = ChainWriter(path, wait=self._wait, monotonic=self._monotonic)
                require_whole(writer, self._key.public)
                self._take(claim, writer)
                self._sign(writer, Occasion.CONTINUE)
            except (BadSignature, *_CANNOT) as error:
                _LOG.warning("the chain in `%s` is not continued, a new one begins: %s", path, what_of(error))
                self._path = self._writer = self._claim = None
                self._spoilt.add(path)
                if writer is not None:
                    writer.close()
                if claim is not None:
                    claim.release()
            else:
                return writer
        return None

    def _begin(self) -> ChainWriter:
        """Return a new chain, whose first record is a signed head that it follows nothing."""
        now = self._clock()
        chain_id = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"
        path = self.folder / f"{chain_id}{SUFFIX}"
        claim = Claim.take(path)
        if claim is None:
            message = "a new chain is another process's already"
            raise NotAChain(message)
        try:
            signed = self._signed(chain_id, 0, FIRST_PREV_HASH, Occasion.BEGIN, now)
            create(path, head_record(signed, now))
            put_beside(path, signed, first=True)
            writer = ChainWriter(path, wait=self._wait, monotonic=self._monotonic)
        except BaseException:
            claim.release()
            raise
        self._take(claim, writer)
        return writer

    def _take(self, claim: Claim, writer: ChainWriter) -> None:
        self._claim, self._writer, self._path, self._tails = claim, writer, writer.path, ()
        self._since, self._unmoved, self._signed_at = 0, 0, self._monotonic()

    def _sign(self, writer: ChainWriter, occasion: Occasion) -> None:
        """Append a head over everything up to now."""
        now, tail = self._clock(), writer.tail
        signed = self._signed(writer.chain_id, tail.seq, tail.hash, occasion, now)
        self._add(writer, head_record(signed, now))
        self._since, self._signed_at = 0, self._monotonic()
        put_beside(writer.path, signed)

    def _signed(self, chain_id: str, seq: int, digest: str, occasion: Occasion, now: float) -> str:
        at = round(now * 1_000_000) * 1_000
        return self._key.sign(
            Head(chain_id=chain_id, seq=seq, hash=digest, time_unix_nano=at, every=self._every, occasion=occasion)
        )

    async def settled(self, entry: Entry) -> None:
        """Return when *entry* survives a loss of power, if this ledger is for that.

        Whoever waits at the same time shares one write to the disk.

        Raises:
            Refusal: `EVIDENCE_UNAVAILABLE`, if that is not known.
        """
        if self.durability != "host":
            return
        while not self._disk.has(entry.chain_id, entry.seq):
            await self._disk.join(self.sync, entry.chain_id)

    def sync(self, chain_id: str | None = None) -> None:
        """Return when everything that was appended survives a loss of power; waits for the disk.

        Args:
            chain_id: Whose records are waited for; the chain that is written now if left out.

        Raises:
            Refusal: `EVIDENCE_UNAVAILABLE`.
        """
        with self._lock:
            writer = self._writer
            if writer is None or chain_id not in {None, writer.chain_id}:
                raise Refusal(_UNAVAILABLE, "the chain is not written any more")
            seq = writer.tail.seq
            try:
                log = writer.log()
            except OSError as error:
                raise Refusal(_UNAVAILABLE, what_of(error)) from error
        try:
            self._disk.write(writer.chain_id, seq, log)
        except OSError as error:
            with self._lock:
                self._fail(NotAChain(f"the disk failed: {error.strerror}"))
            raise Refusal(_UNAVAILABLE, what_of(error)) from error

    def tend(self) -> None:
        """Do what takes long, as the ledger's own thread does all the time: not on the way of a call."""
        writer = self._writer
        if writer is None:
            return
        if self.durability == "host" and not self._disk.has(writer.chain_id, writer.tail.seq):
            self.sync(writer.chain_id)
        if self._unmoved >= _MOVE:
            unmoved, moved = self._unmoved, checkpoint(writer.path)
            with self._lock:
                # The log begins anew only if all of it was moved when the next record comes.
                if unmoved >= _MOVE_NOW and (not moved or unmoved != self._unmoved):
                    checkpoint(writer.path)
                    self._unmoved = 0
                elif moved and unmoved == self._unmoved:
                    self._unmoved = 0
        with self._lock:
            if self._writer is not None and self._since and self._monotonic() - self._signed_at >= self._seconds:
                try:
                    self._sign(self._writer, Occasion.RUNNING)
                except _CANNOT as error:
                    self._fail(error)

    def close(self) -> None:
        """Keep that this was a clean stop, sign it, and let go of the chain; then nothing is kept any more."""
        self._over.set()
        # Bounded, since a signal may come while the very thread that it interrupts appends.
        if not self._lock.acquire(timeout=10 * self._wait):
            return
        try:
            self._closed = True
            if self._writer is not None:
                self._stop(self._writer)
            self._let_go()
            claim, self._claim, self._path = self._claim, None, None
            if claim is not None:
                claim.release()
        finally:
            self._lock.release()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(timeout=1)

    def _stop(self, writer: ChainWriter) -> None:
        try:
            if self._since >= self._every:
                self._sign(writer, Occasion.RUNNING)
            self._add(writer, canonical_json(as_record(RecordKind.STOP, {}, at=self._clock())))
            self._sign(writer, Occasion.STOP)
            if self.durability == "host":
                self._disk.write(writer.chain_id, writer.tail.seq, writer.log())
        except _CANNOT as error:
            _LOG.error("the end of the chain in `%s` could not be kept: %s", writer.path, what_of(error))

    def __iter__(self) -> Iterator[Entry]:
        path = self._path
        return iter(()) if path is None else read_chain(path)

    def forked(self) -> None:
        """Leave the chain to the parent; the next append begins or continues another."""
        claim, writer = self._claim, self._writer
        self._reset()
        if writer is not None:
            writer.abandon()
        if claim is not None:
            claim.release()


_LEDGERS: Final[weakref.WeakSet[SQLiteLedger]] = weakref.WeakSet()


def _after_fork() -> None:
    for ledger in tuple(_LEDGERS):
        ledger.forked()


os.register_at_fork(after_in_child=_after_fork)
