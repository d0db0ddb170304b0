"""Of each run that is followed: one record when it becomes active, one when it is over, and one span."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags

from agentguard.errors import Refusal
from agentguard.evidence.followed import Life
from agentguard.evidence.runs import LiveRuns, runs_of_issuer
from agentguard.evidence.spans import Spans
from agentguard.evidence.vocabulary import ATTRIBUTES
from agentguard.lifecycle.store import Kind, MemoryStore, RunState
from agentguard.limits import Limits
from agentguard.model import Grade, Invocation, Reason
from agentguard.testing import unsafe_invocation
from tests.evidence.exporting import tracing
from tests.evidence.following import Following, StillThread, run, still
from tests.tokens import ISSUER, NOW, Clock


@pytest.fixture
def following(monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    """Return runs that are followed as a guard does, which the test settles itself."""
    with still(monkeypatch):
        yield Following()


def revoke(following: Following, run_id: str, reason: str = "") -> None:
    """End a run in the store."""
    following.store.revoke(issuer=ISSUER, run_id=run_id, reason=reason)


def test_first_call_makes_a_run_active_and_no_other_does(following: Following) -> None:
    """Once, at the time of the first; the record says whose authority it is and how much."""
    one = run("1", user="alice", purpose="monthly close")
    following.clock.now += 10
    following.use(one)
    following.clock.now += 10
    following.use(one)

    (active,) = following.records()
    assert active["kind"] == "run"
    assert active["time_unix_nano"] == (NOW + 10) * 10**9
    assert active["attributes"] == {
        "agentguard.run.id": "1",
        "agentguard.run.state": "active",
        "agentguard.run.ends_at": NOW + 300,
        "agentguard.agent.id": "reader",
        "agentguard.user.id": "alice",
        "agentguard.purpose": "monthly close",
        "agentguard.authority.granted": 300.0,
        "agentguard.invocation.grade": "run",
        "agentguard.invocation.issuer": ISSUER,
        "agentguard.delegation.depth": 0,
    }


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("completed", "completed"),
        ("completed: ValueError", "completed"),
        ("stolen laptop", "revoked"),
        ("completely wrong", "revoked"),
        ("", "revoked"),
    ],
)
def test_run_that_was_ended_has_its_state_its_reason_and_how_long_it_lasted(
    reason: str, state: str, following: Following
) -> None:
    """In the record and in the one span, which the record names."""
    following.use(run("1"))
    following.clock.now += 85.5
    revoke(following, "1", reason)
    revoke(following, "1", "again")

    assert following.settled() == [("1", "active", ""), ("1", state, reason)]
    _, ended = following.records()
    (span,) = following.exporter.get_finished_spans()
    assert ended["attributes"]["agentguard.authority.lasted"] == 85.5
    assert ended["time_unix_nano"] == (NOW + 85.5) * 10**9
    assert span.name == "agentguard.run reader"
    assert (span.start_time, span.end_time) == (NOW * 10**9, (NOW + 85.5) * 10**9)
    assert span.context is not None
    assert ended["span_id"] == f"{span.context.span_id:016x}"
    shown = dict(span.attributes or {})
    assert shown.pop("openinference.span.kind") == "AGENT"
    assert shown.pop("agentguard.run.end") == ended["attributes"].pop("agentguard.run.state") == state
    assert shown == ended["attributes"]
    assert len(following.runs) == 0


def test_end_of_a_run_shows_every_row_of_the_table(following: Following) -> None:
    """The table has no attribute of a run's span that nothing fills."""
    above = run("0")
    following.use(run("1", above, user="alice", task="invoice-42", purpose="close"))
    revoke(following, "1", "stolen")
    following.runs.settle()

    (span,) = following.exporter.get_finished_spans()
    rows = {row.name for row in ATTRIBUTES if "run" in row.on and ".evidence." not in row.name}
    assert rows == set(span.attributes or {})
    assert set(following.records()[1]["attributes"]) <= {row.name for row in ATTRIBUTES if "record" in row.on}


def test_run_whose_time_is_over_is_expired(following: Following) -> None:
    """At its absolute end, however late that is noticed."""
    following.use(run("1", seconds=120))
    following.clock.now += 119.9
    assert following.settled() == [("1", "active", "")]
    following.clock.now += 60

    assert following.settled() == [("1", "active", ""), ("1", "expired", "")]
    assert following.records()[1]["attributes"]["agentguard.authority.lasted"] == 120.0
    assert following.records()[1]["time_unix_nano"] == (NOW + 120) * 10**9


def test_token_that_is_a_run_of_its_own_is_over_with_its_leeway(following: Following) -> None:
    """Its authority lasts that long."""
    following.use(run("jti", seconds=120, ends_at=NOW + 150.0, grade=Grade.TOKEN))
    following.clock.now += 149
    assert len(following.settled()) == 1
    following.clock.now += 1
    assert following.settled()[1] == ("jti", "expired", "")


def test_calls_are_counted_and_their_decisions_linked(following: Following) -> None:
    """The denied ones from the first that ran on; of the links the latest are kept."""
    provider, _ = tracing()
    spans = Spans(provider)
    contexts = [spans.authorize("read").context for _ in range(40)]
    one = run("1")

    following.runs.denied(one, contexts[0])
    following.runs.denied(None, contexts[0])
    for context in contexts[:-1]:
        following.use(one, context)
    following.runs.denied(one, contexts[-1])
    following.runs.denied(run("2"), contexts[0])
    following.use(one, INVALID_SPAN_CONTEXT)
    revoke(following, "1")
    following.runs.settle()

    attributes = following.records()[1]["attributes"]
    assert (attributes["agentguard.run.calls"], attributes["agentguard.run.denied"]) == (40, 1)
    (span,) = following.exporter.get_finished_spans()
    assert [link.context for link in span.links] == contexts[-32:]


def test_end_of_a_run_ends_those_that_were_seen_below_it(following: Following) -> None:
    """They are revoked, with what is known of the reason; nobody else's are."""
    root = run("0")
    child = run("1", root)
    following.use(run("2", root, child))
    following.use(child)
    following.use(run("other"))
    revoke(following, "0", "completed")

    assert sorted(following.settled()[3:]) == [
        ("1", "revoked", "a run above it ended: completed"),
        ("2", "revoked", "a run above it ended: completed"),
    ]
    assert len(following.runs) == 1


def test_child_that_ended_before_its_parent_keeps_its_own_end(following: Following) -> None:
    """Though both were told before anybody looked; likewise a child that ends itself too late."""
    root = run("0")
    following.use(run("1", root))
    following.use(run("2", root))
    revoke(following, "1", "completed")
    following.clock.now += 1
    revoke(following, "0", "stolen")
    following.clock.now += 1
    revoke(following, "2", "completed")

    assert sorted(following.settled()[2:]) == [
        ("1", "completed", "completed"),
        ("2", "revoked", "a run above it ended: stolen"),
    ]


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.AGENT, "reader"), (Kind.USER, "alice"), (Kind.TASK, "t"), (Kind.ISSUER, "")]
)
def test_wide_end_ends_every_run_that_it_covers(kind: Kind, name: str, following: Following) -> None:
    """By any link of its chain; and no other."""
    one = run("1", user="alice", task="t")
    following.use(one)
    following.use(run("2", one, agent="helper"))
    following.use(run("3", agent="other", issuer=ISSUER if kind is not Kind.ISSUER else "https://other.example"))
    following.store.revoke_all(issuer=ISSUER, kind=kind, name=name, reason="left the company")
    following.clock.now += 1
    revoke(following, "1", "completed: Refusal")

    why = f"every run of its {kind} was ended: left the company"
    assert sorted(following.settled()[3:]) == [("1", "revoked", why), ("2", "revoked", why)]


def test_ids_that_have_an_alias_are_found_by_what_the_issuer_calls_them(following: Following) -> None:
    """The record has the name that policies and other records have."""
    following.use(run("corp|1", prefix="corp|"))
    revoke(following, "1", "stolen")

    assert following.settled()[1] == ("corp|1", "revoked", "stolen")


def test_run_that_ends_and_expires_at_the_same_moment_has_one_end(following: Following) -> None:
    """It had expired by then, whoever comes first."""
    following.use(run("1"))
    following.use(run("2"))
    following.clock.now = NOW + 300
    revoke(following, "1", "stolen")
    assert following.settled()[2:] == [("1", "expired", ""), ("2", "expired", "")]
    revoke(following, "2", "stolen")

    assert len(following.settled()) == 4
    assert len(following.exporter.get_finished_spans()) == 2


def test_run_that_was_ended_shortly_before_its_time_is_not_expired(following: Following) -> None:
    """Though its time is over when somebody looks, and though nobody was told."""
    following.use(run("1"))
    following.use(run("2"))
    following.clock.now = NOW + 299
    revoke(following, "1", "stolen")
    revoke(following, "2", "stolen too")
    following.runs._told.pop()
    following.clock.now = NOW + 301

    assert following.settled()[2:] == [("1", "revoked", "stolen"), ("2", "revoked", "stolen too")]


def test_clock_that_steps_back_revives_no_run(following: Following) -> None:
    """What is on record as expired does not act again; what lasts longer does."""
    one, longer = run("1"), run("2", seconds=301)
    following.use(one)
    following.clock.now += 300
    following.runs.settle()
    following.clock.now -= 200

    with pytest.raises(Refusal) as refused:
        following.use(one)
    following.use(longer)

    assert refused.value.reason is Reason.EXPIRED
    assert following.settled() == [("1", "active", ""), ("1", "expired", ""), ("2", "active", "")]


def test_clock_that_steps_back_makes_no_span_end_before_it_began(following: Following) -> None:
    """Nor does the clock of whoever ended the run, if it is behind."""
    following.clock.now += 50
    following.use(run("1"))
    following.clock.now -= 20
    revoke(following, "1")
    following.runs.settle()

    (span,) = following.exporter.get_finished_spans()
    assert span.start_time == span.end_time == (NOW + 50) * 10**9


def test_clock_of_the_store_does_not_decide_whether_a_run_had_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was ended by the time that was told."""
    with still(monkeypatch):
        following = Following(store=MemoryStore(clock=lambda: NOW + 10_000.0))
        following.use(run("1"))
        revoke(following, "1", "stolen")

        assert following.settled()[1] == ("1", "revoked", "stolen")


def test_run_that_gets_longer_is_over_later(following: Following) -> None:
    """Where its issuer says only how long a token lasts; a shorter token takes nothing away."""
    following.use(run("1"))
    following.use(run("1", seconds=900))
    following.use(run("1", seconds=600))
    following.clock.now += 899
    assert len(following.settled()) == 1
    following.clock.now += 1

    assert following.settled()[1] == ("1", "expired", "")
    assert following.records()[1]["attributes"]["agentguard.run.calls"] == 3
    assert following.runs._followed.first() is None


def test_identity_that_is_shared_is_no_run(following: Following) -> None:
    """There is nothing to tell its runs apart by, and no end."""
    following.use(run("shared:x", grade=Grade.SHARED))

    assert following.settled() == []


def test_run_that_was_ended_while_it_became_active_has_its_end(following: Following) -> None:
    """It was told of before there was anybody to tell."""
    revoke(following, "1", "stolen")
    following.use(run("1"))

    assert following.settled() == [("1", "active", ""), ("1", "revoked", "stolen")]


@pytest.mark.parametrize("error", [Refusal(Reason.EVIDENCE_UNAVAILABLE, "full"), OSError("secret")])
def test_run_that_cannot_become_active_on_record_does_not(error: Exception, following: Following) -> None:
    """Whoever calls is told so, and may try again."""
    following.disk.full, following.disk.error = True, error
    with pytest.raises(Refusal) as refused:
        following.use(run("1"))
    following.disk.full = False

    assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE
    assert "secret" not in refused.value.detail
    assert len(following.runs) == 0
    following.use(run("1"))
    assert following.settled() == [("1", "active", "")]


@pytest.mark.parametrize("error", [Refusal(Reason.EVIDENCE_UNAVAILABLE, "full"), OSError("secret")])
def test_end_that_cannot_be_recorded_is_owed_and_said_once(
    error: Exception, following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the ledger is back; the record has the time of the end, and the span waits for it."""
    following.use(run("1"))
    following.use(run("2"))
    following.disk.full, following.disk.error = True, error
    revoke(following, "1", "stolen")
    revoke(following, "2", "stolen")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            following.clock.now += 1
            following.runs.settle()
            assert following.exporter.get_finished_spans() == ()
            assert following.runs.step() == 1.0
        said = [record.getMessage() for record in caplog.records]
        following.disk.full = False
        assert sorted(following.settled()[2:]) == [("1", "revoked", "stolen"), ("2", "revoked", "stolen")]

    assert len(said) == 1
    assert said[0].startswith("ends of runs cannot be recorded, and are owed until they can: ")
    assert "secret" not in said[0]
    assert caplog.records[-1].getMessage() == "ends of runs are recorded again"
    assert [record["time_unix_nano"] for record in following.records()[2:]] == [NOW * 10**9] * 2
    assert len(following.exporter.get_finished_spans()) == 2
    assert len(following.runs) == 0


def test_end_that_can_never_be_recorded_does_not_keep_the_others_back(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again after them."""
    append = following.disk.append

    def picky(record: Any) -> Any:
        attributes = record["attributes"]
        if (attributes["agentguard.run.id"], attributes["agentguard.run.state"]) == ("1", "revoked"):
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE)
        return append(record)

    monkeypatch.setattr(following.disk, "append", picky)
    for name in "123":
        following.use(run(name))
        revoke(following, name)
    following.runs.settle()

    assert sorted(following.settled()[3:]) == [("2", "revoked", ""), ("3", "revoked", "")]
    assert len(following.runs) == 1


def test_reason_is_waited_for_while_the_run_could_last(following: Following) -> None:
    """A store that is down has it, and comes back; a run that is over by time waits no longer."""
    following.use(run("1"))
    following.use(run("2"))
    following.use(run("3", seconds=100))
    for name in "12":
        revoke(following, name, "completed")
    following.store.down = True  # type: ignore[attr-defined]
    assert len(following.settled()) == 3
    following.clock.now += 100
    # The one whose time is over, though it was ended in time: nobody can tell by whom.
    following.store.down = False  # type: ignore[attr-defined]
    assert sorted(following.settled()[3:]) == [
        ("1", "completed", "completed"),
        ("2", "completed", "completed"),
        ("3", "expired", ""),
    ]


def test_reason_that_stays_away_past_the_end_of_the_run_is_left_out(following: Following) -> None:
    """That it was ended before its time is known all the same."""
    following.use(run("1"))
    revoke(following, "1", "completed")
    following.store.down = True  # type: ignore[attr-defined]
    following.runs.settle()
    following.clock.now += 300

    assert following.settled()[1] == ("1", "revoked", "")
    assert following.records()[1]["time_unix_nano"] == NOW * 10**9


def test_store_that_is_down_when_the_time_is_over_does_not_matter(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is over, whatever it would say."""

    def down(_: Invocation) -> bool:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    following.use(run("1"))
    monkeypatch.setattr(following.store, "ended", down)
    following.clock.now += 300

    assert following.settled()[1] == ("1", "expired", "")


def test_further_runs_are_not_followed_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their calls are let run, which their decisions' records prove; it is said once, until there is room again."""
    with still(monkeypatch):
        following = Following(most=2)
        for name in ("1", "2", "3", "4", "1"):
            following.use(run(name))
        assert [record[0] for record in following.settled()] == ["1", "2"]
        assert [record.getMessage() for record in caplog.records] == [
            "2 runs are followed: the lives of further ones are not recorded, their calls are"
        ]
        revoke(following, "1")
        following.runs.settle()
        following.use(run("3"))
        following.use(run("4"))

        assert [record[:2] for record in following.settled()] == [
            ("1", "active"),
            ("2", "active"),
            ("1", "revoked"),
            ("3", "active"),
        ]
        assert len(caplog.records) == 2


def test_issuer_begins_no_run_whose_end_it_could_not_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever began many runs would blind it to the ends of the others; spans and counts are the guards'."""
    with still(monkeypatch):
        following = Following(most=1, spans=False)
        following.runs.begin(run("1"), RunState.ISSUED)
        with pytest.raises(Refusal) as refused:
            following.runs.begin(run("2"), RunState.ISSUED)
        following.runs.begin(run("1", seconds=10), RunState.ISSUED)
        following.runs.follow(run("3"))
        following.clock.now += 300

        assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE
        assert following.settled() == [("1", "issued", ""), ("1", "issued", ""), ("1", "expired", "")]
        assert "agentguard.run.calls" not in following.records()[-1]["attributes"]
        assert "trace_id" not in following.records()[-1]
        assert following.exporter.get_finished_spans() == ()


def test_run_that_was_begun_elsewhere_is_followed_if_it_lives(following: Following) -> None:
    """One that is over has its end on record where it was followed."""
    revoke(following, "2")
    following.runs.follow(run("1"))
    following.runs.follow(run("2"))
    following.runs.follow(run("3", seconds=0))
    revoke(following, "1", "completed")

    assert following.settled() == [("1", "completed", "completed")]


def test_clock_that_steps_back_has_no_expired_run_followed_again(following: Following) -> None:
    """Taken up again by its token, it would end a second time."""
    following.runs.follow(run("1"))
    following.clock.now += 300
    following.runs.settle()
    following.clock.now -= 200
    following.runs.follow(run("1"))
    following.runs.follow(run("2", seconds=301))
    following.clock.now += 300

    assert following.settled() == [("1", "expired", ""), ("2", "expired", "")]


def test_end_is_on_record_when_whoever_holds_the_run_has_ended_it(following: Following) -> None:
    """In the words of whoever was first."""
    one, two = run("1"), run("2")
    following.use(one)
    following.use(two)
    with following.runs.ending(one, "completed: ValueError"):
        revoke(following, "1", "stolen")
    with following.runs.ending(two, "completed"):
        pass
    with following.runs.ending(run("3"), "completed"):
        revoke(following, "3", "completed")

    assert [entry["attributes"].get("agentguard.run.reason") for entry in following.records()[2:]] == [
        "stolen",
        "completed",
    ]
    assert [entry["attributes"]["agentguard.run.state"] for entry in following.records()[2:]] == [
        "revoked",
        "completed",
    ]


def test_end_that_the_store_cannot_keep_is_recorded_in_the_words_of_its_holder(following: Following) -> None:
    """The store's refusal goes on to whoever ends it."""
    one = run("1")
    following.use(one)

    with pytest.raises(Refusal) as refused, following.runs.ending(one, "completed"):
        raise Refusal(Reason.STORE_UNAVAILABLE)

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert following.settled()[1] == ("1", "completed", "completed")


def test_end_that_is_owed_is_told_to_whoever_ends_the_run(following: Following) -> None:
    """And to nobody else; ending it again tries again."""
    one, two = run("1"), run("2")
    following.use(one)
    following.use(two)
    following.disk.full = True
    for _ in range(2):
        with pytest.raises(Refusal) as refused, following.runs.ending(one, "completed"):
            pass
        assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE
    with following.runs.ending(run("3"), "completed"):
        pass
    following.disk.full = False

    with following.runs.ending(one, "completed"):
        pass
    assert following.settled()[2:] == [("1", "completed", "completed")]


def test_without_a_store_time_alone_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that only mints has none."""
    clock = Clock()
    following = Following()
    with still(monkeypatch):
        runs = runs_of_issuer(following.disk, None, clock, Limits())
        runs.begin(run("1"), RunState.ISSUED)
        clock.now += 300
        runs.settle()

    assert following.settled() == [("1", "issued", ""), ("1", "expired", "")]


def test_thousand_short_runs_leave_nothing(following: Following) -> None:
    """However they ended: told, over by time, from above, and beside one that goes on."""
    root = run("root", seconds=10_000)
    following.use(root)
    for number in range(1_000):
        child = run(str(number), root, seconds=number + 10 + number % 7)
        following.use(child)
        if number % 2:
            revoke(following, child.run_id, "completed")
        following.clock.now += 1
        following.runs.settle()
    following.clock.now += 20
    following.runs.settle()

    followed = following.runs._followed
    assert (len(following.runs), len(followed._lives), len(followed._due)) == (1, 1, 1)
    assert list(followed._below) == [(ISSUER, "root")]
    assert not following.runs._told
    assert len(following.disk) == 2_001
    assert len(following.exporter.get_finished_spans()) == 1_000
    revoke(following, "root")
    following.runs.settle()
    assert [len(kept) for kept in (followed._lives, followed._below, followed._due)] == [0, 0, 0]


def test_thread_waits_for_the_earliest_end_or_for_news(following: Following) -> None:
    """Never long, since a clock may be set; and it goes when there is nothing to wait for."""
    StillThread.started = 0
    following.use(run("1", seconds=60))
    following.use(run("2", seconds=2))
    assert following.runs.step() == 2.0
    following.clock.now += 30
    assert following.runs.step() == 5.0
    following.clock.now += 28
    assert following.runs.step() == 2.0
    revoke(following, "1")
    assert following.runs.step() is None
    assert StillThread.started == 1
    following.use(run("3"))
    assert StillThread.started == 2


def test_thread_survives_what_nobody_expected(following: Following, caplog: pytest.LogCaptureFixture) -> None:
    """It says so without its text, and tries again."""
    following.use(run("1"))

    def broken() -> float:
        message = "secret"
        raise OSError(message)

    following.runs._clock = broken
    assert following.runs.step() == 1.0
    assert caplog.messages == ["runs cannot be followed to their end: OSError"]


def test_thread_records_what_is_told_and_what_is_over() -> None:
    """Without anybody who settles."""
    written, ended, threads = threading.Semaphore(0), [], set()

    def keep(attributes: Any, *, at: float, trace: object = None) -> None:
        ended.append((attributes["agentguard.run.id"], attributes["agentguard.run.state"]))
        threads.add(threading.current_thread())
        written.release()

    clock = Clock()
    store = MemoryStore(clock=clock)
    runs = LiveRuns(store=store, keep=keep, clock=clock, limits=Limits())
    runs.begin(run("1"), RunState.ISSUED)
    runs.begin(run("2"), RunState.ISSUED)
    store.revoke(issuer=ISSUER, run_id="1", reason="completed")
    assert all(written.acquire(timeout=10) for _ in range(3))
    clock.now += 300
    # A run that comes wakes it: nothing here waits for seconds to pass.
    runs.begin(run("3", seconds=400), RunState.ISSUED)
    assert all(written.acquire(timeout=10) for _ in range(2))

    assert ended[2] == ("1", "completed")
    assert sorted(ended[3:]) == [("2", "expired"), ("3", "issued")]
    assert threading.current_thread() in threads
    assert {thread.daemon for thread in threads - {threading.current_thread()}} == {True}


def test_thread_does_not_keep_alive_what_it_follows() -> None:
    """Who has no more use for a guard lets go of its thread."""
    following = Following()
    following.use(run("1", seconds=10**6))
    thread, gone, wake = following.runs._thread, weakref.ref(following.runs), following.runs._wake
    assert thread is not None
    del following
    # It may be in the middle of a look.
    while gone() is not None:
        gc.collect()
    wake.set()
    thread.join(10)

    assert not thread.is_alive()


def test_a_run_is_linked_to_the_decisions_that_arrive_somewhere() -> None:
    """A sampler drops those that a caller wants unseen; what is forwarded passes it by."""
    unsampled = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(0))
    life = Life(unsafe_invocation("reader"), 0.0)
    for decision in (unsampled, INVALID_SPAN_CONTEXT):
        life.link(decision)
        life.link(decision, forwarded=True)

    assert list(life.decisions) == [unsampled]
