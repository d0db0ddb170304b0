"""The file of a `SQLiteStore`: made, opened, and recognised when it was exchanged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from agentguard.errors import ConfigurationError
from agentguard.lifecycle.tables import ADDED, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

_PAUSE: Final = 0.01
_APPLICATION: Final = 0x41475354  # "AGST"
_VERSION: Final = 1

Identity = tuple[int, int]


def prepare(path: Path) -> None:
    """Make the folder and an empty file where there are none, for us alone.

    An existing file is never opened here: closing it would let go of the locks that
    SQLite holds on it in this process (see "How To Corrupt An SQLite Database", 2.2).

    Raises:
        ConfigurationError: Others could write to it, or it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        folder, file = path.parent.stat().st_mode, path.stat().st_mode
    except OSError as error:
        message = f"`{path}` cannot be made: {os.strerror(error.errno or 0)}: name a file in a folder that we may write"
        raise ConfigurationError(message) from error
    if not stat.S_ISREG(file):
        message = f"`{path}` wants a file, got something else: name another"
        raise ConfigurationError(message)
    if folder & 0o022:
        message = (
            f"`{path.parent}` wants a folder that nobody else can write to, got mode {folder & 0o777:o}: chmod 700"
        )
        raise ConfigurationError(message)
    if file & 0o077:
        message = f"`{path}` wants a file that nobody else can open, got mode {file & 0o777:o}: chmod 600"
        raise ConfigurationError(message)


def identity(path: Path) -> Identity:
    """Return which file lies at *path*: a connection to one that was exchanged reads the old one for ever."""
    found = path.stat()
    return (found.st_dev, found.st_ino)


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection, and which file it is to."""

    connection: sqlite3.Connection
    identity: Identity

    def is_at(self, path: Path) -> bool:
        """Return whether the file still lies there.

        Raises:
            OSError: No file does.
        """
        return identity(path) == self.identity


def connect(path: Path, *, seconds: float) -> Opened:
    """Open a file that exists, and write the schema if it is empty.

    Args:
        path: The file.
        seconds: How long to wait for another process's lock.

    Raises:
        sqlite3.Error: It is not a store, is locked or is damaged.
        OSError: It is not there.
    """
    before = identity(path)
    uri = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False)
    deadline = time.monotonic() + seconds
    try:
        # SQLite does not wait by itself where another process just begins, or recovers, the log.
        while not _recognised(connection, last=time.monotonic() >= deadline):
            time.sleep(_PAUSE)
        if identity(path) != before:
            message = "the file was exchanged while it was opened"
            raise sqlite3.OperationalError(message)
    except BaseException:
        connection.close()
        raise
    return Opened(connection, before)


def _recognised(connection: sqlite3.Connection, *, last: bool) -> bool:
    try:
        _recognise(connection)
    except sqlite3.OperationalError as error:
        # An extended code, such as that of a recovery, has the plain one in its lowest byte; ours has none.
        if last or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _recognise(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        # Another process may have made it a store in between: then both are there.
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION and (application or tables):
            message = "file is not a store of agentguard"
            raise sqlite3.DatabaseError(message)
    # A write-ahead log lets others read while one writes; FULL keeps what was
    # committed through a loss of power, since an end that is lost is an end undone.
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        message = "file system has no shared memory: a write-ahead log is not possible"
        raise sqlite3.OperationalError(message)
    connection.execute("PRAGMA synchronous = FULL")
    if application != _APPLICATION:
        _write_schema(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        message = f"file has version {version} of the schema, wanted {_VERSION}"
        raise sqlite3.DatabaseError(message)
    _complete(connection)


def _complete(connection: sqlite3.Connection) -> None:
    """Add what a store of ours does not have yet; a process that knows nothing of it goes on."""
    if not _lacking(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have been first.
    for statement in _lacking(connection):
        connection.execute(statement)
    connection.execute("COMMIT")


def _lacking(connection: sqlite3.Connection) -> list[str]:
    return [
        statement for has, statements in ADDED if connection.execute(has).fetchone() == (0,) for statement in statements
    ]


def _write_schema(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have been first.
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")
