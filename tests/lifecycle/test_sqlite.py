"""A store in a file: several processes, restarts, damage, and files that come and go."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import unwritten
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import Ended, Kind, RunState
from agentguard.model import Reason
from tests.lifecycle.processes import Other, other
from tests.lifecycle.stores import ISSUER, Clock, invocation, record, told
from tests.lifecycle.writers import revoke_once, write_for_ever

NEVER = 10**6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a store that is not there yet."""
    return tmp_path / "state" / "store.db"


class Ticking:
    """The clocks of a store that looks at its file only when it is told to."""

    def __init__(self) -> None:
        self.wall = Clock()
        self.monotonic = Clock()

    @contextmanager
    def open(self, path: Path, **options: Any) -> Iterator[SQLiteStore]:
        """Give a store whose thread never looks."""
        store = SQLiteStore(path, clock=self.wall, monotonic=self.monotonic, pause=NEVER, wait=0.05, **options)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def refused(detail: str = "") -> Iterator[None]:
    """Expect that the store is unavailable."""
    with pytest.raises(Refusal) as refusal:
        yield
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE
    assert detail in refusal.value.detail


def test_folder_and_files_are_ours_alone(path: Path) -> None:
    """What a reader could learn, and what a writer could change, stays with the owner."""
    with closing(SQLiteStore(path, clock=Clock())) as store:
        store.revoke(issuer=ISSUER, run_id="a")

        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert store._writer.opened is not None
        # What was committed outlives a loss of power too.
        assert store._writer.opened.connection.execute("PRAGMA synchronous").fetchone() == (2,)
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


@pytest.mark.parametrize(("which", "mode", "fix"), [("folder", 0o770, "chmod 700"), ("file", 0o640, "chmod 600")])
def test_a_place_that_others_can_change_is_refused(which: str, mode: int, fix: str, path: Path) -> None:
    """Whoever can write there can bring ended runs back."""
    SQLiteStore(path, clock=Clock()).close()
    (path.parent if which == "folder" else path).chmod(mode)

    with pytest.raises(ConfigurationError, match=f"got mode {mode:o}: {fix}"):
        SQLiteStore(path, clock=Clock())


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """With what is in the way."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be made: "):
        SQLiteStore(tmp_path / "file" / "store.db", clock=Clock())


def someone_elses(path: Path) -> None:
    """Write another program's database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letters (text)")


def newer(path: Path) -> None:
    """Write a store of a later version."""
    SQLiteStore(path, clock=Clock()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def garbage(path: Path) -> None:
    """Write what is no database."""
    path.write_bytes(b"garbage" * 1000)


@pytest.mark.parametrize(
    ("write", "got"),
    [(someone_elses, "not a store of agentguard"), (newer, "version 99"), (garbage, "file is not a database")],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(write: Callable[[Path], None], got: str, path: Path) -> None:
    """Nothing is written to what belongs to somebody else."""
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    write(path)
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=f"wants a store's file, got .*{got}"):
        SQLiteStore(path, clock=Clock())

    assert path.read_bytes() == before


def test_a_store_outlives_its_process(path: Path) -> None:
    """What was ended, used up and recorded is there again."""
    ticking = Ticking()
    with ticking.open(path) as store:
        store.record_run(record("a"))
        store.record_run(record("b"))
        store.revoke(issuer=ISSUER, run_id="a", reason="completed", until=330)
        store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=50)
        assert store.spend("key", 330)

    with ticking.open(path) as store:
        assert store.ended(invocation("a"))
        assert store.ended(invocation("c", agent="billing", issued_at=79))
        assert not store.ended(invocation("c", agent="billing", issued_at=80))
        assert not store.ended(invocation("b"))
        assert not store.spend("key", 330)
        assert {run.run_id: run.state for run in store.runs()} == {"a": RunState.COMPLETED, "b": RunState.ISSUED}


def test_a_process_that_did_not_look_for_too_long_denies_until_it_does(path: Path) -> None:
    """Five seconds, by a clock that nobody sets."""
    ticking = Ticking()
    with ticking.open(path) as store:
        ticking.monotonic.now += 5
        store.require_healthy()
        assert not store.ended(invocation("a"))

        ticking.monotonic.now += 0.1

        for ask in (store.require_healthy, lambda: store.ended(invocation("a"))):
            with refused("have not been read for over 5 seconds"):
                ask()
        store.sync()
        assert not store.ended(invocation("a"))


def test_a_closed_store_is_unavailable(path: Path) -> None:
    """Closing it twice is the same as once."""
    with Ticking().open(path) as store:
        store.close()

        for ask in (
            store.require_healthy,
            store.sync,
            store.runs,
            lambda: store.ended(invocation("a")),
            lambda: store.spend("key", 330),
            lambda: store.revoke(issuer=ISSUER, run_id="a"),
        ):
            with refused():
                ask()


def test_the_thread_finds_what_another_process_ended(path: Path) -> None:
    """With nobody asking, so that calls in flight can be cancelled."""
    with closing(SQLiteStore(path)) as store:
        with told(store) as seen, other(revoke_once, path, "a") as process:
            process.hear()

        assert seen == [Ended(issuer=ISSUER, name="a")]
        assert store.ended(invocation("a"))
        found = store.revocation(issuer=ISSUER, name="a")
        assert found is not None
        assert found.reason == "from afar"


def test_a_file_that_is_gone_denies_and_one_that_comes_back_serves(path: Path) -> None:
    """What was ended meanwhile, in this process, is written to it then."""
    ticking = Ticking()
    with ticking.open(path) as store:
        store.revoke(issuer=ISSUER, run_id="before", until=330)
        store.sync()
        away = path.parent.with_name("away")
        path.parent.rename(away)
        with refused():
            store.sync()
        with refused("No such file"):
            store.revoke(issuer=ISSUER, run_id="meanwhile", reason="stolen", until=330)
        assert store.ended(invocation("meanwhile"))
        with refused():
            store.spend("key", 330)
        with refused():
            store.revocation(issuer=ISSUER, name="before")
        ticking.monotonic.now += 6
        with refused():
            store.ended(invocation("a"))

        away.rename(path.parent)
        store.sync()

        assert not store.ended(invocation("a"))
        assert store.spend("key", 330)
        found = store.revocation(issuer=ISSUER, name="meanwhile")
        assert found is not None
        assert found.reason == "stolen"
        with ticking.open(path) as beside:
            assert beside.ended(invocation("before"))
            assert beside.ended(invocation("meanwhile"))


@pytest.mark.parametrize("replacement", ["an empty store", "an older copy"])
def test_a_file_that_was_exchanged_learns_what_was_ended(replacement: str, path: Path) -> None:
    """A copy that is brought back brings no run back."""
    ticking = Ticking()
    spare = path.parent / "spare.db"
    with ticking.open(path if replacement == "an older copy" else spare) as store:
        store.revoke(issuer=ISSUER, run_id="old", until=330)
    if replacement == "an older copy":
        shutil.copyfile(path, spare)
        spare.chmod(0o600)
    with ticking.open(path) as store:
        store.revoke(issuer=ISSUER, run_id="a", until=330)
        store.revoke_all(issuer=ISSUER, kind=Kind.USER, name="alice", issued_before=50)
        for file in path.parent.glob("store.db-*"):
            file.unlink()
        spare.replace(path)
        ticking.monotonic.now += 1

        store.sync()
        ticking.monotonic.now += 1
        store.sync()

        assert store.ended(invocation("old"))
        store.revoke(issuer=ISSUER, run_id="b", until=330)
        with ticking.open(path) as beside:
            for run_id in ("old", "a", "b"):
                assert beside.ended(invocation(run_id))
            assert beside.ended(invocation("c", user="alice", issued_at=79))
            assert not beside.ended(invocation("c", user="alice", issued_at=80))


def test_damage_denies_and_a_mended_file_serves(path: Path) -> None:
    """It shows within a second, although this process has read the file before."""
    ticking = Ticking()
    with ticking.open(path) as store:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.sync()
        good = path.read_bytes()
        with path.open("r+b") as file:
            file.write(b"x" * 100)
        ticking.monotonic.now += 6

        with refused("DatabaseError"):
            store.sync()
        with refused():
            store.ended(invocation("a"))
        with refused():
            store.revoke(issuer=ISSUER, run_id="a", until=330)

        with path.open("r+b") as file:
            file.write(good)
        ticking.monotonic.now += 1
        store.sync()
        assert store.ended(invocation("a"))
        with ticking.open(path) as beside:
            assert beside.ended(invocation("a"))


def test_a_lock_that_is_held_too_long_denies_what_must_be_written(path: Path) -> None:
    """Reading goes on, and so do the calls of runs that live."""
    ticking = Ticking()
    with ticking.open(path) as store:
        store.record_run(record("a"))
        store.record_run(record("b"))
        with closing(sqlite3.connect(path, isolation_level=None)) as beside:
            beside.execute("BEGIN EXCLUSIVE")
            with refused("locked"):
                store.spend("key", 330)
            with refused("locked"):
                store.revoke(issuer=ISSUER, run_id="b", reason="stolen", until=330)
            assert {run.run_id: run.state for run in store.runs()} == {"a": RunState.ISSUED, "b": RunState.REVOKED}
            store.used(invocation("a"))
            ticking.monotonic.now += 1
            store.sync()
            assert not store.ended(invocation("a"))
            store.used(invocation("a"))
            beside.execute("ROLLBACK")

        ticking.monotonic.now += 1
        store.sync()

        assert [run.calls for run in store.runs()] == [2, 0]
        with ticking.open(path) as late:
            assert late.ended(invocation("b"))


@pytest.mark.parametrize(
    ("limit", "detail"), [("PRAGMA max_page_count = 1", "full"), ("PRAGMA query_only = 1", "readonly")]
)
def test_a_full_disk_or_a_read_only_file_denies_what_must_be_written(limit: str, detail: str, path: Path) -> None:
    """And the run is ended here all the same."""
    ticking = Ticking()
    with ticking.open(path) as store:
        store.spend("first", 330)
        assert store._writer.opened is not None
        store._writer.opened.connection.execute(limit)
        with refused(detail):
            for number in range(10_000):
                store.spend(f"{number}" * 100, 330)
        assert store.spend("key", 330)
        store._writer.opened.connection.execute(limit)

        with refused(detail):
            for number in range(10_000):
                store.revoke(issuer=ISSUER, run_id=f"{number}" * 100, until=330)

        assert store.ended(invocation(f"{number}" * 100))
        assert not store.spend("key", 330)
        with ticking.open(path) as beside:
            assert not beside.ended(invocation(f"{number}" * 100))
            ticking.monotonic.now += 1
            store.sync()
            beside.sync()
            assert beside.ended(invocation(f"{number}" * 100))


def test_a_process_that_is_killed_at_any_moment_loses_nothing_that_it_said(path: Path) -> None:
    """Two processes write; each is killed with SIGKILL; a third reads."""
    moments = random.Random(7)  # noqa: S311  which moments does not matter, that they vary does
    said: list[str] = []
    for turn in range(5):
        writers = [Other(write_for_ever, path, f"{turn}-{name}") for name in "xy"]
        for writer in writers:
            said += writer.hear(moments.randrange(1, 10))
            said += writer.kill()

    with closing(SQLiteStore(path, clock=Clock())) as store, closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {run.run_id: run.state for run in store.runs()}
        assert len(said) >= 10
        for run_id in said:
            over = int(run_id.rpartition("-")[2]) % 2 == 1
            assert store.ended(invocation(run_id)) is over, run_id
            assert found[run_id] is (RunState.COMPLETED if over else RunState.ISSUED)
            assert not store.spend(run_id, 330)


def test_the_file_gets_no_larger_than_what_is_still_valid(path: Path) -> None:
    """Rows go some minutes after the mirror forgot them."""
    ticking = Ticking()
    with ticking.open(path) as store:
        for number in range(5):
            store.record_run(record(str(number)))
            store.revoke(issuer=ISSUER, run_id=str(number), until=330)
            store.spend(str(number), 330)
        ticking.wall.now = 330.0 + 300 - 1
        store.spend("last", 10**6)
        assert rows(path) == {"ended": 5, "spent": 6, "runs": 5}

        ticking.wall.now = 330.0 + 3600
        store.spend("last but one", 10**6)

        assert rows(path) == {"ended": 0, "spent": 2, "runs": 0}


def rows(path: Path) -> dict[str, int]:
    """Return how many rows each table has."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608  our own names
            for name in ("ended", "spent", "runs")
        }


def test_a_missing_folder_is_made_where_a_relative_path_points(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And stays there when the process changes its folder."""
    monkeypatch.chdir(tmp_path)
    with closing(SQLiteStore("here/store.db", clock=Clock())) as store:
        os.chdir("/")
        store.revoke(issuer=ISSUER, run_id="a")

    assert (tmp_path / "here" / "store.db").is_file()


def test_calls_of_more_runs_than_can_be_kept_are_not_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for people must not take the memory of a guard."""
    monkeypatch.setattr(unwritten, "COUNTED_RUNS", 1)
    ticking = Ticking()
    with ticking.open(path) as store:
        for run_id in ("a", "b"):
            store.record_run(record(run_id))
        for run_id in ("a", "b", "a"):
            store.used(invocation(run_id))
        ticking.monotonic.now += 1
        store.sync()

        assert {run.run_id: run.calls for run in store.runs()} == {"a": 2, "b": 0}
