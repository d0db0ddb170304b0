"""Runs that were ended stay ended, and what may be used once is used once."""

from collections.abc import Callable
from threading import Barrier, Thread

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.store import MemoryStore, Store
from agentguard.model import VERIFIED, Grade, Invocation, Reason

ISSUER = "https://issuer.example"


def invocation(run_id: str, *ancestors: Invocation, issuer: str = ISSUER) -> Invocation:
    """Return an invocation of a run, built past verification."""
    return Invocation(
        run_id=run_id,
        issuer=issuer,
        agent="agent",
        grade=Grade.RUN,
        issued_at=0,
        ends_at=300.0,
        run_ends_at=300,
        ancestors=ancestors,
        seal=VERIFIED,
    )


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return unix seconds."""
        return self.now


def store_at(clock: Callable[[], float] | None = None) -> MemoryStore:
    """Return a store whose clock stands still."""
    return MemoryStore(clock=clock or Clock())


def test_a_run_that_nobody_ended_goes_on() -> None:
    """Neither an empty store nor another run's end ends it."""
    store = store_at()
    assert not store.ended(invocation("a"))

    store.revoke(issuer=ISSUER, run_id="b")

    assert not store.ended(invocation("a"))


def test_a_revoked_run_is_ended() -> None:
    """And stays so, with the reason that was given."""
    store = store_at()

    store.revoke(issuer=ISSUER, run_id="a", reason="laptop stolen")

    assert store.ended(invocation("a"))
    found = store.revocation(issuer=ISSUER, run_id="a")
    assert found is not None
    assert (found.reason, found.at) == ("laptop stolen", 100.0)


def test_the_end_of_a_run_ends_every_run_below_it() -> None:
    """The parent's end and the grandparent's; a child's end does not rise."""
    store = store_at()
    root = invocation("root")
    child = invocation("child", root)
    grandchild = invocation("grandchild", root, child)

    store.revoke(issuer=ISSUER, run_id="child")

    assert not store.ended(root)
    assert store.ended(child)
    assert store.ended(grandchild)


def test_two_issuers_runs_of_one_id_stay_two() -> None:
    """An issuer can end its own runs alone."""
    store = store_at()

    store.revoke(issuer="https://other.example", run_id="a")

    assert not store.ended(invocation("a"))
    assert store.ended(invocation("a", issuer="https://other.example"))


def test_whoever_subscribed_is_told_after_the_end_counts() -> None:
    """So that subscribing first and asking afterwards misses nothing."""
    store = store_at()
    seen: list[tuple[str, str, bool]] = []
    store.subscribe(lambda issuer, run_id: seen.append((issuer, run_id, store.ended(invocation(run_id)))))

    store.revoke(issuer=ISSUER, run_id="a")

    assert seen == [(ISSUER, "a", True)]


def test_a_second_end_tells_nobody_and_keeps_the_first_reason() -> None:
    """The end is final: there is nothing more to end."""
    store = store_at()
    seen: list[str] = []
    store.subscribe(lambda _issuer, run_id: seen.append(run_id))

    store.revoke(issuer=ISSUER, run_id="a", reason="first")
    store.revoke(issuer=ISSUER, run_id="a", reason="second")

    assert seen == ["a"]
    found = store.revocation(issuer=ISSUER, run_id="a")
    assert found is not None
    assert found.reason == "first"


def test_whoever_unsubscribed_is_not_told() -> None:
    """Unsubscribing twice is the same as once."""
    store = store_at()
    seen: list[str] = []
    unsubscribe = store.subscribe(lambda _issuer, run_id: seen.append(run_id))
    store.subscribe(lambda _issuer, run_id: seen.append(run_id + " too"))

    unsubscribe()
    unsubscribe()
    store.revoke(issuer=ISSUER, run_id="a")

    assert seen == ["a too"]


def test_one_subscriber_that_fails_keeps_the_end_from_nobody() -> None:
    """The others are told first, then the failure is loud."""
    store = store_at()
    seen: list[str] = []

    def fail(issuer: str, run_id: str) -> None:
        message = "no"
        raise RuntimeError(message)

    store.subscribe(fail)
    store.subscribe(lambda _issuer, run_id: seen.append(run_id))

    with pytest.raises(ExceptionGroup, match="a run was ended"):
        store.revoke(issuer=ISSUER, run_id="a")

    assert seen == ["a"]
    assert store.ended(invocation("a"))


def test_a_revocation_outlives_the_run_and_no_more() -> None:
    """When every token is over it may be forgotten, and is, when the next one comes."""
    clock = Clock()
    store = store_at(clock)
    store.revoke(issuer=ISSUER, run_id="a", until=300)

    clock.now = 299.0
    store.revoke(issuer=ISSUER, run_id="b")
    assert store.ended(invocation("a"))

    clock.now = 300.0
    store.revoke(issuer=ISSUER, run_id="c")
    assert not store.ended(invocation("a"))
    assert store.ended(invocation("b"))


@pytest.mark.parametrize(("later", "kept"), [(400.0, True), (None, True), (200.0, False), (300.0, False)])
def test_a_second_end_can_only_put_off_forgetting(later: float | None, kept: bool) -> None:
    """Whoever knows of a later token wins; an earlier end changes nothing."""
    clock = Clock()
    store = store_at(clock)
    store.revoke(issuer=ISSUER, run_id="a", until=300)
    store.revoke(issuer=ISSUER, run_id="a", until=later)

    clock.now = 250.0
    store.revoke(issuer=ISSUER, run_id="b")
    assert store.ended(invocation("a"))

    clock.now = 350.0
    store.revoke(issuer=ISSUER, run_id="c")
    assert store.ended(invocation("a")) is kept


def test_a_revocation_without_an_end_is_kept_for_ever() -> None:
    """Not even a second one with an end lets it go."""
    clock = Clock()
    store = store_at(clock)
    store.revoke(issuer=ISSUER, run_id="a")
    store.revoke(issuer=ISSUER, run_id="a", until=300)

    clock.now = 1e12
    store.revoke(issuer=ISSUER, run_id="b")

    assert store.ended(invocation("a"))


def test_a_key_is_spent_once() -> None:
    """The second use is refused, whatever end it names."""
    store = store_at()

    assert store.spend("approval-1", 200)
    assert not store.spend("approval-1", 200)
    assert not store.spend("approval-1", 900)
    assert store.spend("approval-2", 200)


@pytest.mark.parametrize("until", [100.0, 99.0, float("nan"), float("-inf")])
def test_a_key_past_its_end_cannot_be_spent(until: float) -> None:
    """It would be forgotten at once, and so be unused again."""
    assert not store_at().spend("approval-1", until)


def test_a_spent_key_cannot_be_spent_after_it_was_forgotten() -> None:
    """Its own end refuses it then."""
    clock = Clock()
    store = store_at(clock)
    assert store.spend("approval-1", 200)

    clock.now = 201.0

    assert store.spend("approval-2", 300)
    assert not store.spend("approval-1", 200)


def test_a_clock_that_is_set_back_gives_no_second_use() -> None:
    """The store's time never runs backwards."""
    clock = Clock()
    store = store_at(clock)
    assert store.spend("approval-1", 200)
    clock.now = 201.0
    assert store.spend("approval-2", 300)

    clock.now = 150.0

    assert not store.spend("approval-1", 200)


def test_a_full_store_refuses_rather_than_forgets() -> None:
    """A use that cannot be kept is no use; room comes with time."""
    clock = Clock()
    store = MemoryStore(clock=clock, spent_entries=1)
    assert store.spend("approval-1", 200)

    with pytest.raises(Refusal) as refused:
        store.spend("approval-2", 300)

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    clock.now = 200.0
    assert store.spend("approval-2", 300)


def test_a_store_without_room_is_refused() -> None:
    """A bound that admits nothing is a mistake."""
    with pytest.raises(ConfigurationError, match="`spent_entries` wants at least 1"):
        MemoryStore(clock=Clock(), spent_entries=0)


def test_of_many_threads_one_spends_the_key() -> None:
    """The check and the use are one step."""
    store = store_at()
    barrier = Barrier(8)
    spent: list[bool] = []

    def spend() -> None:
        barrier.wait()
        spent.append(store.spend("approval-1", 200))

    threads = [Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(spent) == [False] * 7 + [True]


def test_a_memory_store_is_a_store_and_always_healthy() -> None:
    """The protocol is what the guard asks for; memory is never behind itself."""
    store: Store = store_at()

    store.require_healthy()

    assert not store.ended(invocation("a"))
