"""The SQLite file of one chain: made whole, opened by one writer, read by anybody.

The hash over each record says which place it has in which chain. The file adds what a
kill needs: what was committed is in the operating system's hands, so it outlives this
process. Nothing here decides who may write; see `evidence.claim`.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import stat
import time
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from agentguard.evidence.ledger import FIRST_PREV_HASH, Entry, entry_hash
from agentguard.host.private import sync_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER: Final = "evidence"
SUFFIX: Final = ".db"

_APPLICATION: Final = 0x41474556  # "AGEV"
_VERSION: Final = 1
_PAGE: Final = 8192

# The triggers stop nobody who means it, and everybody who does not.
_TABLES: Final = 3
_SCHEMA: Final = (
    "CREATE TABLE chain (id TEXT NOT NULL) STRICT",
    """CREATE TABLE entries (
        seq INTEGER PRIMARY KEY, hash TEXT NOT NULL, prev_hash TEXT NOT NULL, text TEXT NOT NULL) STRICT""",
    # Signed: after which record the chain begins, where older ones were pruned.
    "CREATE TABLE stub (seq INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",
    """CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END""",
    """CREATE TRIGGER entries_go_as_a_prefix BEFORE DELETE ON entries
        WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM stub)
        BEGIN SELECT RAISE(ABORT, 'evidence is never removed'); END""",
)
_READ: Final = "SELECT seq, hash, prev_hash, text FROM entries WHERE seq > ? ORDER BY seq LIMIT 500"
_TAIL: Final = "SELECT seq, hash, prev_hash, text FROM entries ORDER BY seq DESC LIMIT 1"
_WAL: Final = "PRAGMA journal_mode = WAL"
_INSERT: Final = "INSERT INTO entries VALUES (?, ?, ?, ?)"

# A record is far smaller; another's file may be anything.
_LONGEST: Final = 64 * 1024 * 1024
_STEP: Final = 0.001  # Seconds between two tries for the lock.

# Seconds between two looks whether the file is in its place: who removes it takes all of it along.
_LOOK: Final = 0.01

_NONE: Final = -1  # No descriptor.


class NotAChain(ValueError):  # noqa: N818  what the file is, not what went wrong
    """A file is not the chain that it should be."""


def chain_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of every chain in a folder, the oldest first."""
    return tuple(sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")))


Identity = tuple[int, int]


def create(path: Path, first: str) -> None:
    """Make the file of a new chain, with its first record: it appears whole or not at all.

    Raises:
        sqlite3.Error: It cannot be written.
        OSError: The same.
    """
    chain_id = path.stem
    new = path.with_name(f".{uuid.uuid4().hex}")
    try:
        write_whole(new, b"", sync=False)
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO chain VALUES (?)", (chain_id,))
            connection.execute(_INSERT, _row(follow(None, chain_id, first)))
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(path.parent)


def follow(tail: Entry | None, chain_id: str, text: str) -> Entry:
    """Return the entry that *text* is after *tail*."""
    seq, prev_hash = (1, FIRST_PREV_HASH) if tail is None else (tail.seq + 1, tail.hash)
    digest = entry_hash(prev_hash=prev_hash, chain_id=chain_id, seq=seq, text=text)
    return Entry(chain_id, seq, digest, prev_hash, text)


def _row(entry: Entry) -> tuple[int, str, str, str]:
    return entry.seq, entry.hash, entry.prev_hash, entry.text


def _connect_to_read(path: Path) -> sqlite3.Connection:
    connection = connect(path, "mode=ro", seconds=2)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # On a read-only mount there is no place for the log's index, and without a log no
        # need for one.
        return connect(path, "mode=ro&immutable=1", seconds=2)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = f"the file is damaged or locked: {type(error).__name__}: {error}"
        raise NotAChain(message) from error


def connect(path: Path, options: str, *, seconds: float) -> sqlite3.Connection:
    """Return a connection to a file that is there, which waits so long for others."""
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    opened = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False)
    opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    return opened


def _recognise(connection: sqlite3.Connection, *, to_write: bool) -> str:
    """Return the id of the chain in a file.

    Args:
        connection: The file.
        to_write: Whether it must have nothing else either.

    Raises:
        NotAChain: It is something else.
        sqlite3.Error: It cannot be read.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        message = "the file is not a chain of agentguard"
        raise NotAChain(message)
    if version != _VERSION:
        message = f"the file has version {version} of the schema, wanted {_VERSION}"
        raise NotAChain(message)
    schema = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema")}
    # A view would show what nobody keeps, and another trigger take away what is put in.
    if not schema.issuperset(_SCHEMA[:_TABLES]) or (to_write and not schema.issubset(_SCHEMA)):
        message = "the file has other tables or triggers than a chain"
        raise NotAChain(message)
    (chain_id,) = connection.execute("SELECT max(id) FROM chain").fetchone()
    return str(chain_id)


class ChainReader:
    """A chain's file, opened to read; a writer may go on beside it.

    Attributes:
        chain_id: The chain's id, as the file has it.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            NotAChain: It is something else, or is damaged.
            OSError: It cannot be read.
        """
        # Asked first, since SQLite says the same of everything that it cannot open. The file
        # itself is not opened here: closing it would let go of the locks that a writer in
        # this process holds (see "How To Corrupt An SQLite Database", 2.2).
        if not stat.S_ISREG(path.stat().st_mode):
            message = "it is not a file"
            raise NotAChain(message)
        with _reading():
            self._connection = _connect_to_read(path)
            try:
                self.chain_id = _recognise(self._connection, to_write=False)
            except BaseException:
                self.close()
                raise

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        """Yield the kept records behind *after*, by their place.

        Raises:
            NotAChain: The file is damaged.
        """
        while True:
            # In portions: a long read would keep the writer's log from being used again.
            with _reading():
                rows = self._connection.execute(_READ, (after,)).fetchall()
            for seq, digest, prev_hash, text in rows:
                after = seq
                yield Entry(self.chain_id, seq, str(digest), str(prev_hash), str(text))
            if not rows:
                return

    def stub(self) -> str | None:
        """Return the signed stub, if older records were pruned.

        Raises:
            NotAChain: The file is damaged.
        """
        with _reading():
            row = self._connection.execute("SELECT text FROM stub ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def read_chain(path: Path, *, after: int = 0) -> Iterator[Entry]:
    """Yield the records of a chain's file behind *after*, also while somebody writes it.

    Raises:
        NotAChain: The file is something else, or is damaged.
        OSError: It cannot be read.
    """
    with closing(ChainReader(path)) as reader:
        yield from reader.entries(after=after)


class ChainWriter:
    """A chain's file, opened by the one who writes it. Whoever uses it takes turns.

    Attributes:
        path: The file.
        chain_id: Its chain.
        tail: The last record.
    """

    def __init__(self, path: Path, *, wait: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open it.

        Args:
            path: The file.
            wait: Seconds to wait for somebody else who writes, which an auditor's tool may do.
            monotonic: Gives seconds that never run backwards.

        Raises:
            NotAChain: It is something else, or another chain.
            sqlite3.Error: It cannot be written.
            OSError: The same.
        """
        self.path = path
        self.chain_id = path.stem
        self._wait = wait
        self._monotonic = monotonic
        self._patient = True
        self._looked = monotonic()
        self._log = _NONE
        # As text: a path object costs as much again as the question, and it is asked each time.
        self._name = str(path)
        self._identity = _identity(self._name)
        self._connection = connect(path, "mode=rw", seconds=0)
        try:
            self.tail = self._begin()
            self.require_in_place()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> Entry:
        connection = self._connection
        chain_id = _recognise(connection, to_write=True)
        if chain_id != self.chain_id:
            message = f"the file has chain `{chain_id}`"
            raise NotAChain(message)
        (mode,) = connection.execute(_WAL).fetchone()
        if mode != "wal":
            message = "file system has no shared memory: a write-ahead log is not possible"
            raise sqlite3.OperationalError(message)
        # What is committed is with the operating system: it outlives this process. NORMAL
        # costs nothing more than OFF here, and a loss of power takes the end of the chain
        # along but leaves no damaged file.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Done on another thread: it waits for the disk.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        row = connection.execute(_TAIL).fetchone()
        if row is None:
            message = "the file has no records"
            raise NotAChain(message)
        # The log stays open for as long as the connection, and is what `sync` waits for.
        log = self.path.with_name(f"{self.path.name}-wal")
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        return Entry(self.chain_id, *row)

    def require_in_place(self) -> None:
        """Pass only if what is written here is found where it is looked for.

        Raises:
            NotAChain: Another file lies there now, or none.
        """
        if _identity(self._name) != self._identity or not os.fstat(self._log).st_nlink:
            message = "the file was exchanged or removed"
            raise NotAChain(message)

    def append(self, text: str) -> Entry:
        """Keep one more record: when this returns, it outlives the process.

        Raises:
            NotAChain: The file is no longer in its place.
            sqlite3.Error: It cannot be written; then it is not known whether it was.
            OSError: The same.
        """
        now = self._monotonic()
        if now - self._looked >= _LOOK:
            self.require_in_place()
            self._looked = now
        entry = follow(self.tail, self.chain_id, text)
        try:
            self._insert(entry)
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            self._insert_in_turn(entry)
        self._patient = True
        self.tail = entry
        return entry

    def _insert(self, entry: Entry) -> None:
        if self._connection.execute(_INSERT, _row(entry)).rowcount != 1:
            message = "a trigger of somebody else's takes no records"
            raise NotAChain(message)

    def _insert_in_turn(self, entry: Entry) -> None:
        # Waited for once: while somebody holds the lock for good, every call waiting for it
        # would hold up the event loop for all.
        until = self._monotonic() + (self._wait if self._patient else 0)
        self._patient = False
        while True:
            try:
                self._insert(entry)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or not self._monotonic() < until:
                    raise
            else:
                return
            time.sleep(_STEP)

    def log(self) -> int:
        """Return a descriptor of the log, the caller's to close: `os.fdatasync` makes it last.

        Raises:
            OSError: There are no more descriptors.
        """
        return os.dup(self._log)

    def close(self) -> None:
        """Let go of the file."""
        self._let_go_of_log()
        self._connection.close()

    def abandon(self) -> None:
        """Let go of what a fork took along, without touching the file: it is another process's."""
        self._let_go_of_log()
        # Never closed, and never collected: SQLite would take the parent's log for its own
        # (see "How To Corrupt An SQLite Database", 2.6).
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    def _let_go_of_log(self) -> None:
        log, self._log = self._log, _NONE
        if log != _NONE:
            os.close(log)


def _identity(name: str) -> Identity:
    try:
        found = os.stat(name)  # noqa: PTH116  see where it is asked each time
    except FileNotFoundError as error:
        message = "the file was removed"
        raise NotAChain(message) from error
    return (found.st_dev, found.st_ino)


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
