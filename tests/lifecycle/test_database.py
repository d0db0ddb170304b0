"""The file of a store, where other processes come between."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError
from agentguard.lifecycle import database, tables
from agentguard.lifecycle.database import connect, identity, prepare
from tests.lifecycle.stores import record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file that was made and is still empty."""
    prepare(tmp_path / "store.db")
    return tmp_path / "store.db"


def test_a_file_that_is_exchanged_while_it_is_opened_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened it might write where nobody reads."""
    seen = iter([(1, 1), (1, 2)])
    # Other stores of this process may be followed meanwhile.
    monkeypatch.setattr(database, "identity", lambda asked: next(seen) if asked == path else identity(asked))

    with pytest.raises(sqlite3.OperationalError, match="exchanged"):
        connect(path, seconds=0)


class Between:
    """A connection before whose statement another process is faster, or the system says no."""

    def __init__(self, connection: sqlite3.Connection, statement: str, act: Callable[[], object]) -> None:
        self._connection = connection
        self._statement = statement
        self._act = act

    def execute(self, statement: str) -> object:
        """Act first, then execute."""
        if statement == self._statement:
            answer = self._act()
            if answer is not None:
                return answer
        return self._connection.execute(statement)


class Row:
    """An answer that consists of one row."""

    def fetchone(self) -> tuple[str]:
        """Return it."""
        return ("delete",)


def test_a_place_without_shared_memory_is_refused(path: Path) -> None:
    """There, two processes would not see each other's ends."""
    with closing(sqlite3.connect(path)) as connection:
        between = Between(connection, "PRAGMA journal_mode = WAL", Row)

        with pytest.raises(sqlite3.OperationalError, match="no shared memory"):
            database._recognise(between)  # type: ignore[arg-type]


def test_two_processes_that_make_a_store_at_once_make_one(path: Path) -> None:
    """The second finds the schema that the first wrote."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")

        def first() -> None:
            connect(path, seconds=1).connection.close()

        between = Between(connection, "BEGIN IMMEDIATE", first)

        database._write_schema(between)  # type: ignore[arg-type]

        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_file_that_another_process_makes_a_store_while_it_is_looked_at_is_one(path: Path) -> None:
    """Two guards that start at once would else refuse the file that one of them made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:

        def first() -> None:
            connect(path, seconds=1).connection.close()

        database._recognise(Between(connection, "SELECT count(*) FROM sqlite_schema", first))  # type: ignore[arg-type]

        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def runs_before_they_had_an_audience(path: Path) -> None:
    """Make a store as it was then, with one run."""
    connection = connect(path, seconds=1).connection
    with closing(connection):
        tables.add_run(connection, record("a"))
        connection.execute("ALTER TABLE runs DROP COLUMN audience")


def test_store_from_before_runs_had_an_audience_is_read(path: Path) -> None:
    """Its runs are for nobody knows what server, and later ones say which."""
    runs_before_they_had_an_audience(path)

    connection = connect(path, seconds=1).connection
    with closing(connection):
        tables.add_run(connection, record("b", audience="urn:x"))

        assert [(run.run_id, run.audience) for run in tables.read_runs(connection)] == [("a", ""), ("b", "urn:x")]


def test_two_processes_that_open_such_a_store_at_once_change_it_once(path: Path) -> None:
    """The second finds the column that the first made."""
    runs_before_they_had_an_audience(path)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:

        def first() -> None:
            connect(path, seconds=1).connection.close()

        database._complete(Between(connection, "BEGIN IMMEDIATE", first))  # type: ignore[arg-type]

        assert [run.run_id for run in tables.read_runs(connection)] == ["a"]


def test_an_opened_file_knows_whether_it_is_still_there(path: Path) -> None:
    """Another file of that name is not it."""
    opened = connect(path, seconds=1)
    with closing(opened.connection):
        assert opened.is_at(path)
        spare = path.with_name("spare.db")
        prepare(spare)
        spare.replace(path)

        assert not opened.is_at(path)
        assert identity(path) != opened.identity


def test_what_is_no_file_is_refused_before_its_mode_is(tmp_path: Path) -> None:
    """Whoever followed the advice for a mode would close a folder to themselves."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()

    for name in ("pipe", "folder"):
        with pytest.raises(ConfigurationError, match="wants a file, got something else: name another"):
            prepare(tmp_path / name)


@pytest.mark.parametrize(
    ("code", "seconds", "opens"),
    [
        (sqlite3.SQLITE_BUSY, 60, True),
        (sqlite3.SQLITE_BUSY_RECOVERY, 60, True),
        (sqlite3.SQLITE_BUSY, 0, False),
        (sqlite3.SQLITE_CANTOPEN, 60, False),
        (None, 60, False),
    ],
)
def test_a_file_that_another_one_is_busy_with_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, seconds: float, opens: bool
) -> None:
    """As long as was said, and nothing else: SQLite itself does not wait where a log is begun or recovered."""
    error = sqlite3.OperationalError("as it is")
    if code is not None:
        error.sqlite_errorcode = code
    waits = [error]
    recognise = database._recognise
    here = threading.get_ident()

    def recognised(connection: sqlite3.Connection) -> None:
        # A thread may still look at the store of an earlier test.
        if waits and threading.get_ident() == here:
            raise waits.pop()
        recognise(connection)

    monkeypatch.setattr(database, "_recognise", recognised)

    with nullcontext() if opens else pytest.raises(sqlite3.OperationalError, match="as it is"):
        connect(path, seconds=seconds).connection.close()
