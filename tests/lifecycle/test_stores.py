"""Runs that were ended stay ended, and what may be used once is used once: in every store."""

from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.ended import Link
from agentguard.lifecycle.states import ended_by, judged
from agentguard.lifecycle.store import Ended, Kind, RunState, Store
from agentguard.model import Reason
from tests.lifecycle.stores import ISSUER, KINDS, Kept, invocation, kept, record, told

OTHER = "https://other.example"


@pytest.fixture(params=KINDS)
def truth(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Give one truth of each kind of store."""
    with kept(request.param, tmp_path, lambda: request.getfixturevalue("server")) as made:
        yield made


@pytest.fixture
def store(truth: Kept) -> Store:
    """Give a store of each kind."""
    return truth.open()


def test_a_run_that_nobody_ended_goes_on(store: Store) -> None:
    """Neither an empty store nor another run's end ends it."""
    store.require_healthy()
    assert not store.ended(invocation("a"))

    store.revoke(issuer=ISSUER, run_id="b")

    assert not store.ended(invocation("a"))
    assert store.revocation(issuer=ISSUER, name="a") is None


def test_a_revoked_run_is_ended(store: Store) -> None:
    """And stays so, with the reason that was given."""
    store.revoke(issuer=ISSUER, run_id="a", reason="laptop stolen", until=330)

    assert store.ended(invocation("a"))
    found = store.revocation(issuer=ISSUER, name="a")
    assert found is not None
    assert (found.reason, found.at, found.until) == ("laptop stolen", 100.0, 330.0)


def test_the_end_of_a_run_ends_every_run_below_it(store: Store) -> None:
    """The parent's end and the grandparent's; a child's end does not rise."""
    root = invocation("root")
    child = invocation("child", root)
    grandchild = invocation("grandchild", root, child)

    store.revoke(issuer=ISSUER, run_id="child")

    assert not store.ended(root)
    assert store.ended(child)
    assert store.ended(grandchild)


def test_two_issuers_runs_of_one_id_stay_two(store: Store) -> None:
    """An issuer can end its own runs alone, however it names them."""
    store.revoke(issuer=OTHER, run_id="a")
    store.revoke_all(issuer=OTHER, kind=Kind.AGENT, name="agent")
    store.revoke_all(issuer=OTHER, kind=Kind.ISSUER)

    assert not store.ended(invocation("a"))
    assert store.ended(invocation("a", issuer=OTHER))


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.AGENT, "billing"), (Kind.USER, "alice"), (Kind.TASK, "t-1"), (Kind.ISSUER, "")]
)
def test_all_runs_of_an_agent_a_user_a_task_or_an_issuer_are_ended_at_once(kind: Kind, name: str, store: Store) -> None:
    """Those that stem from one of them too, and no others."""
    concerned = invocation("a", agent="billing", user="alice", task="t-1")
    nobody = invocation("b", agent="alice", issuer=OTHER)
    child = invocation("c", concerned, agent="reader")

    store.revoke_all(issuer=ISSUER, kind=kind, name=name, reason="gone")

    found = store.revocation(issuer=ISSUER, kind=kind, name=name)
    assert found is not None
    assert found.reason == "gone"

    assert store.ended(concerned)
    assert store.ended(child)
    assert not store.ended(nobody)
    assert store.ended(invocation("d", agent="other")) is (kind is Kind.ISSUER)
    assert store.ended(invocation("e", agent="alice", user="billing")) is (kind is Kind.ISSUER)


@pytest.mark.parametrize(("began", "over"), [(999, True), (1000, True), (1029, True), (1030, False), (1031, False)])
def test_a_cutoff_ends_what_began_before_it_with_leeway(began: int, over: bool, store: Store) -> None:
    """An issuer whose clock is ahead stamps its tokens late; they must not slip through."""
    run = invocation("a", agent="billing", issued_at=began, run_ends_at=5000)

    store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=1000)

    assert store.ended(run) is over


def test_a_later_cutoff_widens_an_earlier_one_and_never_the_other_way(truth: Kept) -> None:
    """What was ended stays ended, for whoever comes later too."""
    store = truth.open()
    run = invocation("a", issued_at=1500, run_ends_at=5000)
    store.revoke_all(issuer=ISSUER, kind=Kind.ISSUER, issued_before=1000, until=6000)
    assert not store.ended(run)

    store.revoke_all(issuer=ISSUER, kind=Kind.ISSUER, issued_before=2000, until=6000)
    store.revoke_all(issuer=ISSUER, kind=Kind.ISSUER, issued_before=500, until=7000)

    for opened in (store, truth.open()):
        assert opened.ended(run)
        assert not opened.ended(invocation("b", issued_at=2030, run_ends_at=5000))


def test_without_a_cutoff_later_runs_are_ended_too(store: Store) -> None:
    """An agent that must not act any more gets no new start."""
    store.revoke_all(issuer=ISSUER, kind=Kind.USER, name="alice")

    assert store.ended(invocation("a", user="alice", issued_at=10**9, run_ends_at=2 * 10**9))


def test_no_token_is_minted_for_what_was_ended(store: Store) -> None:
    """Neither for the run, nor under a run that was ended, nor before a cutoff is past."""
    store.revoke(issuer=ISSUER, run_id="a")
    store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=1000)

    store.require_mintable(record("b"), record("c"))
    store.require_mintable(record("b", agent="billing", issued_at=1030))
    for chain in (
        [record("a")],
        [record("b"), record("a")],
        [record("b", agent="billing")],
        [record("b", agent="billing", issued_at=1029)],
    ):
        with pytest.raises(Refusal) as refused:
            store.require_mintable(*chain)
        assert refused.value.reason is Reason.REVOKED


@pytest.mark.parametrize("kind", [Kind.RUN, Kind.AGENT, Kind.USER, Kind.TASK])
def test_ending_nothing_in_particular_is_refused(kind: Kind, store: Store) -> None:
    """A name that was left out must not end everything."""
    with pytest.raises(ConfigurationError, match=f"`name`: name the {kind}"):
        store.revoke_all(issuer=ISSUER, kind=kind, name="")


def test_ending_an_issuer_by_a_name_is_refused(store: Store) -> None:
    """The issuer is named already; whoever names something else means something else."""
    with pytest.raises(ConfigurationError, match="no `name`: leave it out"):
        store.revoke_all(issuer=ISSUER, kind=Kind.ISSUER, name="billing")


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), float("-inf")])
def test_a_cutoff_that_is_no_moment_is_refused(moment: float, store: Store) -> None:
    """It would compare as false, and end nothing."""
    with pytest.raises(ConfigurationError, match="`issued_before` wants unix seconds"):
        store.revoke_all(issuer=ISSUER, kind=Kind.ISSUER, issued_before=moment)


@pytest.mark.parametrize("issuer", [ISSUER, "\ud800"])
def test_an_id_that_no_token_can_carry_is_refused(issuer: str, store: Store) -> None:
    """Half a surrogate pair cannot be stored either."""
    with pytest.raises(ConfigurationError, match="no token can carry it"):
        store.revoke(issuer=issuer, run_id="a\ud800")


def test_a_reason_never_keeps_a_run_alive(store: Store) -> None:
    """However it is worded, the run is ended."""
    store.revoke(issuer=ISSUER, run_id="a", reason="\ud800" + "x" * 1000)

    assert store.ended(invocation("a"))
    found = store.revocation(issuer=ISSUER, name="a")
    assert found is not None
    assert found.reason == "?" + "x" * 255


def test_whoever_subscribed_is_told_after_the_end_counts(store: Store) -> None:
    """So that subscribing first and asking afterwards misses nothing."""
    seen: list[tuple[Ended, bool]] = []
    store.subscribe(lambda ended: seen.append((ended, store.ended(invocation("a")))))

    store.revoke(issuer=ISSUER, run_id="a")

    assert seen == [(Ended(issuer=ISSUER, name="a"), True)]


def test_a_second_end_tells_nobody_and_keeps_the_first_reason(store: Store) -> None:
    """The end is final: there is nothing more to end."""
    seen: list[Ended] = []
    store.subscribe(seen.append)

    store.revoke(issuer=ISSUER, run_id="a", reason="first")
    store.revoke(issuer=ISSUER, run_id="a", reason="second")

    assert [ended.name for ended in seen] == ["a"]
    found = store.revocation(issuer=ISSUER, name="a")
    assert found is not None
    assert found.reason == "first"


def test_whoever_unsubscribed_is_not_told(store: Store) -> None:
    """Unsubscribing twice is the same as once."""
    seen: list[str] = []
    unsubscribe = store.subscribe(lambda ended: seen.append(ended.name))
    store.subscribe(lambda ended: seen.append(ended.name + " too"))

    unsubscribe()
    unsubscribe()
    store.revoke(issuer=ISSUER, run_id="a")

    assert seen == ["a too"]


def test_one_subscriber_that_fails_keeps_the_end_from_nobody(store: Store) -> None:
    """The others are told first, then the failure is loud."""
    seen: list[Ended] = []

    def fail(_: Ended) -> None:
        message = "no"
        raise RuntimeError(message)

    store.subscribe(fail)
    store.subscribe(seen.append)

    with pytest.raises(ExceptionGroup, match="a run was ended"):
        store.revoke(issuer=ISSUER, run_id="a")

    assert len(seen) == 1
    assert store.ended(invocation("a"))


def test_what_one_store_ends_every_other_learns_of(truth: Kept) -> None:
    """As from another process, with what cancels calls in flight."""
    here, there = truth.open(), truth.open()

    with told(there, 2) as seen:
        here.revoke(issuer=ISSUER, run_id="a")
        here.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=1000)

    assert there.ended(invocation("a"))
    assert seen[0].matches(invocation("b", invocation("a")))
    assert seen[1].matches(invocation("b", agent="billing", issued_at=1029))
    assert not seen[1].matches(invocation("b", agent="billing", issued_at=1030))


def test_a_store_that_is_opened_later_knows_what_was_ended(truth: Kept) -> None:
    """Nothing of it was seen live."""
    truth.open().revoke(issuer=ISSUER, run_id="a", until=330)
    truth.open().revoke_all(issuer=ISSUER, kind=Kind.TASK, name="t-1")

    late = truth.open()

    assert late.ended(invocation("a"))
    assert late.ended(invocation("b", task="t-1"))
    assert not late.ended(invocation("b"))


def test_what_can_be_valid_no_more_is_forgotten(truth: Kept) -> None:
    """And yet counts as ended, should a clock be set back: it was over."""
    store = truth.open()
    store.revoke(issuer=ISSUER, run_id="a", until=300)
    store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", issued_before=50, until=300)

    truth.clock.now = 100_000.0
    store.revoke(issuer=ISSUER, run_id="b")

    assert store.revocation(issuer=ISSUER, name="a") is None
    assert not store.ended(invocation("d", agent="billing", run_ends_at=10**6))
    truth.clock.now = 100.0
    for opened in (store, truth.open()):
        assert opened.ended(invocation("a"))
        assert opened.ended(invocation("c", agent="billing"))
        assert opened.ended(invocation("b", run_ends_at=10**6))
        assert not opened.ended(invocation("c", run_ends_at=301))
        with pytest.raises(Refusal):
            opened.require_mintable(record("c"))


@pytest.mark.parametrize(("later", "kept"), [(900.0, True), (None, True), (float("nan"), True), (200.0, False)])
def test_a_second_end_can_only_put_off_forgetting(later: float | None, kept: bool, truth: Kept) -> None:
    """Whoever knows of a later token wins; an earlier end changes nothing."""
    store = truth.open()
    late = invocation("a", run_ends_at=900)
    store.revoke(issuer=ISSUER, run_id="a", until=300)
    store.revoke(issuer=ISSUER, run_id="a", until=later)
    store.revoke_all(issuer=ISSUER, kind=Kind.TASK, name="t-1", until=300)
    store.revoke_all(issuer=ISSUER, kind=Kind.TASK, name="t-1", until=later)

    truth.clock.now = 800.0
    store.revoke(issuer=ISSUER, run_id="b")

    for opened in (store, truth.open()):
        assert opened.ended(late) is kept
        assert opened.ended(invocation("c", task="t-1", run_ends_at=900)) is kept


def test_a_revocation_without_an_end_is_kept_for_ever(truth: Kept) -> None:
    """Not even a second one with an end lets it go."""
    store = truth.open()
    store.revoke(issuer=ISSUER, run_id="a")
    store.revoke(issuer=ISSUER, run_id="a", until=300)

    truth.clock.now = 1e12
    store.revoke(issuer=ISSUER, run_id="b")

    for opened in (store, truth.open()):
        assert opened.ended(invocation("a", run_ends_at=2 * 10**12))


def test_a_key_is_spent_once(truth: Kept) -> None:
    """The second use is refused, whatever end it names and in whichever process."""
    here, there = truth.open(), truth.open()

    assert here.spend("approval-1", 200)
    assert not there.spend("approval-1", 200)
    assert not here.spend("approval-1", 900)
    assert there.spend("approval-2", 200)


@pytest.mark.parametrize("until", [100.0, 99.0, float("nan"), float("-inf")])
def test_a_key_past_its_end_cannot_be_spent(until: float, store: Store) -> None:
    """It would be forgotten at once, and so be unused again."""
    assert not store.spend("approval-1", until)


def test_a_spent_key_cannot_be_spent_after_it_was_forgotten(truth: Kept) -> None:
    """Its own end refuses it then, and does so when the clock is set back."""
    store = truth.open()
    assert store.spend("approval-1", 200)

    truth.clock.now = 100_000.0
    assert store.spend("approval-2", 200_000)
    assert not store.spend("approval-1", 200)

    truth.clock.now = 150.0
    for opened in (store, truth.open()):
        assert not opened.spend("approval-1", 200)


def test_of_many_threads_one_spends_the_key(truth: Kept) -> None:
    """The check and the use are one step."""
    stores = [truth.open(), truth.open()]
    barrier = Barrier(8)
    spent: list[bool] = []

    def spend(store: Store) -> None:
        barrier.wait()
        spent.append(store.spend("approval-1", 200))

    threads = [Thread(target=spend, args=(stores[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(spent) == [False] * 7 + [True]


def states(store: Store) -> dict[str, RunState]:
    """Return the state of each run on record."""
    return {run.run_id: run.state for run in store.runs()}


def test_a_run_is_issued_then_active_then_completed(truth: Kept) -> None:
    """And says who it was for, and why it ended."""
    store = truth.open()
    run = record("a", user="alice", task="t-1", purpose="close", ancestors=("x", "y"), audience="urn:x")
    store.record_run(run)
    assert store.runs() == (run,)

    truth.clock.now = 150.0
    store.used(invocation("corp|a", prefix="corp|"))
    store.used(invocation("a"))
    store.used(invocation("nobody"))
    truth.clock.now = 160.0
    store.close()

    (seen,) = truth.open().runs()
    assert (seen.state, seen.used_at, seen.calls) == (RunState.ACTIVE, 150.0, 2)
    assert seen.state.live
    truth.open().revoke(issuer=ISSUER, run_id="a", reason="completed: ValueError")
    (seen,) = truth.open().runs()
    assert (seen.state, seen.reason) == (RunState.COMPLETED, "completed: ValueError")
    assert not seen.state.live


def test_a_run_is_expired_or_revoked_and_that_is_final(truth: Kept) -> None:
    """What ends it later, or is forgotten of it, changes nothing."""
    store = truth.open()
    store.record_run(record("expires"))
    store.record_run(record("expires too", ancestors=("parent",)))
    store.record_run(record("parent", ends_at=900.0))
    store.record_run(record("revoked", ends_at=900.0))
    store.record_run(record("agent", ends_at=900.0, agent="billing"))
    store.record_run(record("child", ends_at=900.0, ancestors=("revoked",)))
    store.record_run(record("orphan", ends_at=900.0, ancestors=("long gone",)))
    store.record_run(record("other", ends_at=900.0, ancestors=("orphan",)))
    store.revoke(issuer=ISSUER, run_id="revoked", reason="stolen", until=330)
    store.revoke(issuer=ISSUER, run_id="revoked", reason="completed", until=400)
    store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="billing", reason="completed", until=330)

    truth.clock.now = 800.0
    store.revoke(issuer=ISSUER, run_id="expires", reason="completed", until=330)
    store.revoke(issuer=ISSUER, run_id="parent", reason="completed", until=930)

    assert states(truth.open()) == {
        "expires": RunState.EXPIRED,
        "expires too": RunState.EXPIRED,
        "parent": RunState.COMPLETED,
        "revoked": RunState.REVOKED,
        "agent": RunState.REVOKED,
        "child": RunState.REVOKED,
        "orphan": RunState.ISSUED,
        "other": RunState.ISSUED,
    }
    truth.clock.now = 300.0 + 3600
    store.record_run(record("new", ends_at=10_000.0))
    assert set(states(truth.open())) == {"parent", "revoked", "agent", "child", "orphan", "other", "new"}


def test_a_run_that_ends_while_it_is_looked_at_is_live_or_as_it_ended(truth: Kept) -> None:
    """Guards know that a run is over before a record that was read says how."""
    ending, looking = truth.open(), truth.open()
    for number in range(15):
        run_id = f"run {number}"
        ending.record_run(record(run_id, issued_at=number))
        thread = Thread(target=ending.revoke, kwargs={"issuer": ISSUER, "run_id": run_id, "reason": "completed"})
        thread.start()
        while (seen := looking.runs()[-1]).state.live:
            pass
        thread.join()
        assert (seen.run_id, seen.state, seen.reason) == (run_id, RunState.COMPLETED, "completed")


def test_what_guards_learned_after_a_record_was_read_is_read_again() -> None:
    """Else a run that completed would be shown as one that somebody ended."""
    before = record("a")
    after = ended_by(before, Ended(issuer=ISSUER, name="a"), reason="completed", now=9.0)
    reads = iter([[before], [after]])
    assert judged(lambda: next(reads), now=10.0, link_ended=lambda link: link.run_id == "a") == (after,)


def test_what_guards_learn_after_they_were_asked_is_seen_the_next_time() -> None:
    """The record that was read before may not say how the run ended."""
    ended: set[str] = set()

    def link_ended(link: Link) -> bool:
        if link.run_id in ended:
            return True
        ended.add(link.run_id)
        return False

    seen = judged(lambda: [record("a"), record("b", ancestors=("a",))], now=10.0, link_ended=link_ended)
    assert [run.state for run in seen] == [RunState.ISSUED, RunState.ISSUED]


def test_an_end_that_only_guards_know_of_counts() -> None:
    """As where the file was put back to an older one."""
    (seen,) = judged(lambda: [record("a")], now=10.0, link_ended=lambda link: link.run_id == "a")
    assert (seen.state, seen.ended_at, seen.reason) == (RunState.REVOKED, None, "")


def test_a_run_that_was_ended_before_it_began_is_not_recorded(store: Store) -> None:
    """Nor one whose id was used before."""
    store.revoke(issuer=ISSUER, run_id="a")
    store.record_run(record("b"))

    for run_id in ("a", "b"):
        with pytest.raises(Refusal) as refused:
            store.record_run(record(run_id))
        assert refused.value.reason is Reason.REVOKED

    assert states(store) == {"b": RunState.ISSUED}
