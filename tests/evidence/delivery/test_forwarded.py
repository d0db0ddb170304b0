"""What a record looks like as a span: always the same, whole, and never another record's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentguard.evidence.chainfile import follow
from agentguard.evidence.delivery.forwarded import ForwardedSpan, span_of
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.record import SpanOf, record
from agentguard.evidence.vocabulary import ATTRIBUTES, RecordKind
from agentguard.model import canonical_json

TRACE, SPAN, PARENT = "1" * 32, "2" * 16, "3" * 16
OWN = SpanOf(TRACE, SPAN, PARENT, "agentguard.authorize read", 1_799_999_999_000_000_000)
NOW = 1_800_000_000_000_000_000


def entry_of(kept: dict[str, Any]) -> Entry:
    """Return a record as a ledger has it."""
    return MemoryLedger(chain_id="c").append(kept)


def entry(kind: RecordKind, attributes: dict[str, Any], trace: SpanOf | tuple[str, str] | None = None) -> Entry:
    """Return a record of ours."""
    return entry_of(record(kind, attributes, at=1_800_000_000.0, trace=trace))


def place(of: Entry) -> dict[str, Any]:
    """Return what a span says of where its record stands."""
    return {
        "agentguard.evidence.chain_id": "c",
        "agentguard.evidence.seq": 1,
        "agentguard.evidence.hash": of.hash,
        "agentguard.evidence.prev_hash": of.prev_hash,
    }


def test_a_decision_is_the_span_that_its_record_names() -> None:
    """With its ids, its place, its begin, and everything that the record has."""
    one = entry(RecordKind.DECISION, {"agentguard.decision.effect": "deny", "agentguard.policy.ids": ("a", "b")}, OWN)

    assert span_of(one) == ForwardedSpan(
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id=PARENT,
        name="agentguard.authorize read",
        start=1_799_999_999_000_000_000,
        end=NOW,
        attributes={
            "agentguard.decision.effect": "deny",
            "agentguard.policy.ids": ("a", "b"),
            "openinference.span.kind": "GUARDRAIL",
            **place(one),
        },
    )
    assert span_of(one) == span_of(one)


@pytest.mark.parametrize(("outcome", "failed"), [("completed", False), ("failed", True), ("withheld", False)])
def test_an_execution_began_as_long_ago_as_it_took(outcome: str, failed: bool) -> None:
    """Its record says how long; a failure of the tool is one of the span, and nothing else is."""
    one = entry(
        RecordKind.OUTCOME,
        {"agentguard.execution.outcome": outcome, "agentguard.execution.duration": 0.25},
        SpanOf(TRACE, SPAN, "", "agentguard.execute read"),
    )
    span = span_of(one)

    assert (span.start, span.end, span.failed, span.parent_span_id) == (NOW - 250_000_000, NOW, failed, "")
    assert span.attributes["gen_ai.operation.name"] == "execute_tool"
    assert span.attributes["openinference.span.kind"] == "TOOL"


def test_the_end_of_a_run_is_its_span() -> None:
    """From its first use on, linked to its decisions; and it says under its own name how it ended."""
    shows = SpanOf(TRACE, SPAN, "", "agentguard.run mailer", 1, (f"{'a' * 32}-{'b' * 16}",))
    span = span_of(entry(RecordKind.RUN, {"agentguard.run.state": "revoked"}, shows))

    assert (span.name, span.start, span.links) == ("agentguard.run mailer", 1, (("a" * 32, "b" * 16),))
    assert span.attributes["agentguard.run.end"] == "revoked"
    assert span.attributes["openinference.span.kind"] == "AGENT"


@pytest.mark.parametrize("kind", [kind for kind in RecordKind if kind is not RecordKind.DECISION])
def test_a_record_without_a_span_gets_one_from_its_hash(kind: RecordKind) -> None:
    """It lasts no time, and is named after its kind."""
    one = entry(kind, {})
    span = span_of(one)

    assert (span.trace_id, span.span_id, span.parent_span_id) == (one.hash[:32], one.hash[32:48], "")
    assert span.name == f"agentguard.evidence {kind}"
    assert (span.start, span.end) == (NOW, NOW)
    assert "agentguard.run.end" not in span.attributes
    assert place(one).items() <= span.attributes.items()


def test_what_became_of_a_call_that_never_ran_stands_below_its_decision() -> None:
    """Its record has the decision's ids; two spans of one id would be one to a backend."""
    one = entry(RecordKind.OUTCOME, {"agentguard.execution.outcome": "cancelled"}, (TRACE, SPAN))
    span = span_of(one)

    assert (span.name, span.trace_id, span.parent_span_id) == ("agentguard.evidence outcome", TRACE, SPAN)
    assert span.span_id == one.hash[32:48]


def test_the_same_record_elsewhere_in_a_chain_is_another_span() -> None:
    """The hash covers the place."""
    first = follow(None, "c", canonical_json(record(RecordKind.START, {}, at=1.0)))
    second = follow(first, "c", first.text)

    assert span_of(first).span_id != span_of(second).span_id


def test_an_attribute_that_is_not_in_the_table_is_not_sent() -> None:
    """Neither the named inputs nor what a later version may add."""
    kept = {**record(RecordKind.DECISION, {"agentguard.decision.id": "D1"}, at=1.0), "inputs": {"n": 1}}
    kept["attributes"] = {"agentguard.decision.id": "D1", "agentguard.of.tomorrow": "x", "http.url": "y"}
    span = span_of(entry_of(kept))

    assert set(span.attributes) <= {row.name for row in ATTRIBUTES}
    assert span.attributes["agentguard.decision.id"] == "D1"


@pytest.mark.parametrize(
    "kept",
    [
        {"kind": 1},
        {"kind": "decision", "time_unix_nano": "soon", "attributes": {}},
        {"kind": "decision", "time_unix_nano": 1, "attributes": {"agentguard.decision.id": 7}},
        {"kind": "What\u202e is this?", "time_unix_nano": 1, "attributes": {}},
    ],
)
def test_what_is_no_record_of_ours_is_sent_too(kept: dict[str, Any]) -> None:
    """That it stands in the chain is evidence; what it says is not repeated."""
    one = entry_of(kept)
    span = span_of(one)

    assert span.name == "agentguard.evidence unfit"
    assert span.span_id == one.hash[32:48]
    assert dict(span.attributes) == place(one)


@pytest.mark.parametrize(
    "changed",
    [
        {"span_name": "somebody else's"},
        {"span_name": "agentguard.evidence stop"},
        {"span_name": 7},
        {"trace_id": "0" * 32},
        {"span_id": "0" * 16},
        {"span_id": "x"},
    ],
)
def test_a_name_or_an_id_that_is_none_of_ours_is_not_used(changed: dict[str, Any]) -> None:
    """The record is sent all the same, under an id of its own."""
    one = entry_of({**record(RecordKind.DECISION, {}, at=1_800_000_000.0, trace=OWN), **changed})

    assert span_of(one).name == "agentguard.evidence decision"
    assert span_of(one).span_id == one.hash[32:48]


def test_a_span_never_ends_before_it_began() -> None:
    """Whatever was written as its begin, parent or links."""
    wrong = {"start_time_unix_nano": NOW + 1, "parent_span_id": 7, "links": ["x", 7]}
    span = span_of(entry_of({**record(RecordKind.DECISION, {}, at=1_800_000_000.0, trace=OWN), **wrong}))
    early = span_of(entry_of({**record(RecordKind.DECISION, {}, at=1.0, trace=OWN), "start_time_unix_nano": -1}))

    assert span.start == span.end == NOW
    assert replace(span, start=0).links == ()
    assert span.parent_span_id == ""
    assert early.start == 0
