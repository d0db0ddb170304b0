"""A chain that shows whoever touched it, and a ledger that refuses what it cannot keep."""

from collections.abc import Callable
from threading import Thread

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.ledger import (
    FIRST_PREV_HASH,
    Entry,
    Ledger,
    MemoryLedger,
    entry_hash,
    evidence_attributes,
    verify_chain,
)
from agentguard.evidence.vocabulary import ATTRIBUTES
from agentguard.model import Reason


def chain_of(count: int) -> list[Entry]:
    """Return a whole chain of *count* entries."""
    ledger = MemoryLedger(chain_id="records-1")
    return [ledger.append({"n": n}) for n in range(count)]


def test_a_chain_begins_at_one_and_follows_nothing() -> None:
    """The first entry is told from one whose forerunners were dropped."""
    (entry,) = chain_of(1)

    assert entry.seq == 1
    assert entry.prev_hash == FIRST_PREV_HASH
    assert entry.chain_id == "records-1"
    assert entry.record == {"n": 0}


def test_each_entry_follows_the_one_before() -> None:
    """Numbers without gaps, and each hash in the next entry."""
    first, second, third = chain_of(3)

    assert [first.seq, second.seq, third.seq] == [1, 2, 3]
    assert (second.prev_hash, third.prev_hash) == (first.hash, second.hash)


def test_a_whole_chain_verifies() -> None:
    """Nothing wrong is an empty list."""
    assert verify_chain(chain_of(3)) == ()


def test_the_rest_of_a_chain_verifies() -> None:
    """A ledger that lets go of old entries still proves what it kept."""
    assert verify_chain(chain_of(5)[2:]) == ()


def test_no_entries_prove_nothing() -> None:
    """An emptied ledger must not read as a whole one."""
    assert verify_chain([]) == ("no entries: nothing is proved",)


@pytest.mark.parametrize(
    ("touch", "problem"),
    [
        (lambda e: [e[0], e[1]._replace(text='{"n":9}'), e[2]], "seq 2: the record is not what was hashed"),
        (lambda e: [e[0], e[2]], "seq 3: wanted seq 2"),
        (lambda e: [e[1], e[0]], "seq 1: wanted seq 3"),
        (lambda e: [e[0], e[1]._replace(prev_hash="f" * 64)], "seq 2: does not follow the entry before it"),
        (lambda e: [e[0], e[1]._replace(chain_id="b")], "seq 2: chain `records-1` goes on as `b`"),
        (
            lambda e: [e[0]._replace(prev_hash=e[2].hash)],
            f"seq 1: a chain's first entry follows nothing, got prev_hash `{chain_of(3)[2].hash}`",
        ),
    ],
    ids=["edited", "dropped", "reordered", "cut", "moved to another chain", "put before the first"],
)
def test_a_chain_that_was_touched_does_not_verify(touch: Callable[[list[Entry]], list[Entry]], problem: str) -> None:
    """Each way to touch it is named with its place."""
    assert problem in verify_chain(touch(chain_of(3)))


def test_an_entry_hashed_anew_breaks_the_next() -> None:
    """Who edits one record has to rewrite all that follow."""
    first, second, third = chain_of(3)
    text = '{"n":9}'
    forged = second._replace(text=text, hash=entry_hash(prev_hash=first.hash, chain_id="records-1", seq=2, text=text))

    assert verify_chain([first, forged, third]) == ("seq 3: does not follow the entry before it",)


@pytest.mark.parametrize(
    "unkeepable", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"], ids=lambda value: type(value).__name__
)
def test_a_record_without_canonical_json_is_refused(unkeepable: object) -> None:
    """A record that would read differently later is no evidence."""
    ledger = MemoryLedger()

    with pytest.raises(Refusal) as refused:
        ledger.append({"value": unkeepable})

    assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE
    assert len(ledger) == 0


def test_a_record_nested_without_end_is_refused() -> None:
    """What would exhaust the stack is a refusal like any other."""
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(Refusal) as refused:
        MemoryLedger().append({"value": nested})

    assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE


def test_a_refused_record_leaves_no_gap() -> None:
    """The chain goes on as if it had never been offered."""
    ledger = MemoryLedger()
    ledger.append({"n": 1})
    with pytest.raises(Refusal):
        ledger.append({"n": float("nan")})
    ledger.append({"n": 2})

    assert verify_chain(ledger) == ()
    assert [entry.seq for entry in ledger] == [1, 2]


def test_a_lone_surrogate_is_kept_as_it_is() -> None:
    """Canonical JSON is ASCII alone, so half a character cannot stop the evidence."""
    assert MemoryLedger().append({"tool": "\ud800"}).record == {"tool": "\ud800"}


def test_a_ledger_lets_go_of_the_oldest() -> None:
    """The bound holds, and the first kept number shows how many are gone."""
    ledger = MemoryLedger(keep=2)
    for n in range(5):
        ledger.append({"n": n})

    assert [entry.seq for entry in ledger] == [4, 5]
    assert len(ledger) == 2
    assert verify_chain(ledger) == ()


def test_appending_while_iterating_disturbs_neither() -> None:
    """Iteration walks over what was there when it began."""
    ledger = MemoryLedger()
    ledger.append({"n": 1})

    for entry in ledger:
        ledger.append({"after": entry.seq})

    assert len(ledger) == 2


def test_many_threads_write_one_whole_chain() -> None:
    """No two records share a place."""
    ledger = MemoryLedger()
    threads = [Thread(target=lambda: [ledger.append({"n": n}) for n in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ledger) == 800
    assert verify_chain(ledger) == ()


def test_two_ledgers_never_write_one_chain() -> None:
    """Two processes that both begin at 1 must not look like one chain."""
    assert MemoryLedger().chain_id != MemoryLedger().chain_id


@pytest.mark.parametrize("chain_id", ["", "a\nb", "a" * 65, "a/b", "é"])
def test_a_chain_id_that_could_pass_for_more_is_refused(chain_id: str) -> None:
    """The id stands in what is hashed, between line breaks."""
    with pytest.raises(ConfigurationError, match="`chain_id` wants"):
        MemoryLedger(chain_id=chain_id)


def test_a_ledger_that_keeps_nothing_is_refused() -> None:
    """No evidence is not a size."""
    with pytest.raises(ConfigurationError, match="`keep` wants at least 1"):
        MemoryLedger(keep=0)


def test_a_memory_ledger_is_a_ledger() -> None:
    """The protocol is what the guard asks for."""
    ledger: Ledger = MemoryLedger()

    assert ledger.append({}).seq == 1


def test_a_span_shows_where_its_record_stands() -> None:
    """The four attributes of the evidence, each with a row in the table."""
    (entry,) = chain_of(1)
    shown = evidence_attributes(entry)

    assert shown == {
        "agentguard.evidence.chain_id": "records-1",
        "agentguard.evidence.seq": 1,
        "agentguard.evidence.hash": entry.hash,
        "agentguard.evidence.prev_hash": FIRST_PREV_HASH,
    }
    assert set(shown) <= {attribute.name for attribute in ATTRIBUTES if "decision" in attribute.on}
