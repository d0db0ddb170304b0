"""One call's evidence: the record, the spans and the metrics, in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from agentguard import Decision, Effect, EntityUid, Reason, Refusal
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.metrics import Metrics
from agentguard.evidence.spans import Spans
from agentguard.evidence.trail import Trail, decision_id
from agentguard.evidence.vocabulary import Outcome
from agentguard.evidence.withheld import WITHHELD
from agentguard.model import not_there
from agentguard.testing import unsafe_invocation

ALLOW = Decision(effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=("p",), policy_version="sha256:1")
DENY = Decision(effect=Effect.DENY, reason=Reason.INTERNAL_ERROR)


class Policies:
    """A policy set, as far as evidence looks at it."""

    version = "sha256:1"
    label = "spring"
    activated_at = 7


class BrokenLedger(MemoryLedger):
    """A ledger on a full disk."""

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep nothing."""
        raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "no space left")


class World:
    """A trail and all that comes out of it."""

    def __init__(self, ledger: MemoryLedger | None = None, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.ledger = MemoryLedger() if ledger is None else ledger
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.trail = Trail(
            ledger=self.ledger,
            spans=Spans(provider),
            metrics=Metrics(MeterProvider([self.reader])),
            key=bytes(32),
            private=frozenset({"Patient"}),
            clock=lambda: self.now,
            entropy=bytes,
        )

    def kept(self) -> list[dict[str, object]]:
        """Return every record, without its time and place."""
        return [{"kind": entry.record["kind"], **entry.record["attributes"]} for entry in self.ledger]


def test_decision_ids_sort_by_time_and_can_be_read_aloud() -> None:
    """A later decision has a greater id, of 26 characters without I, L, O and U."""
    early, late = decision_id(1_800_000_000.0, b"\xff" * 10), decision_id(1_800_000_000.001, bytes(10))

    assert early < late
    assert len(early) == len(late) == 26
    assert not set("ILOU") & set(early + late)
    assert decision_id(0, bytes(10)) == "0" * 26


def test_span_shows_what_the_record_holds() -> None:
    """Every attribute of the record is on the decision span, with the record's own place in the chain."""
    world = World()
    trace = world.trail.begin("read", {"mcp.method.name": "tools/call"})
    trace.invocation, trace.policies, trace.input = unsafe_invocation("reader"), Policies(), {"x": 1}

    trace.resource = EntityUid("Record", "r1")
    named = trace.decided(ALLOW)
    trace.close()
    trace.close()

    (span,) = world.exporter.get_finished_spans()
    (entry,) = world.ledger
    attributes = dict(span.attributes or {})
    assert span.name == "agentguard.authorize read"
    assert (
        entry.record["attributes"].items()
        <= {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}.items()
        or entry.record["attributes"].keys() <= attributes.keys()
    )
    assert attributes["agentguard.evidence.hash"] == entry.hash
    assert attributes["agentguard.decision.id"] == named.id
    assert attributes["agentguard.policy.label"] == "spring"
    assert attributes["agentguard.policy.activated_at"] == 7
    assert entry.record["span_id"] == f"{span.context.span_id:016x}"


def test_id_of_a_private_type_is_a_digest_in_every_place() -> None:
    """Neither span nor record names a patient."""
    world = World()
    trace = world.trail.begin("read", {})

    trace.resource = EntityUid("Patient", "alice")
    trace.decided(ALLOW)
    trace.close()

    (span,) = world.exporter.get_finished_spans()
    assert "alice" not in str(span.to_json()) + next(iter(world.ledger)).text
    assert world.kept()[0]["agentguard.resource.type"] == "Patient"


def test_outcome_is_recorded_under_its_decision() -> None:
    """The outcome names the decision, the class of the error, and nothing that the error says."""
    world = World()
    trace = world.trail.begin("read", {})
    trace.invocation = unsafe_invocation("reader")
    named = trace.decided(ALLOW)
    trace.close()

    with trace.execution():
        pass
    trace.ended(Outcome.FAILED, error=ValueError("secret"))

    _, outcome = world.kept()
    assert outcome["kind"] == "outcome"
    assert outcome["agentguard.decision.id"] == named.id
    assert outcome["agentguard.execution.outcome"] == "failed"
    assert outcome["error.type"] == "ValueError"
    execute = world.exporter.get_finished_spans()[1]
    assert execute.name == "agentguard.execute read"
    assert not execute.status.is_ok
    assert "secret" not in execute.to_json() + str(world.kept())


def test_outcome_keeps_no_secret_that_the_caller_put_into_its_request() -> None:
    """A request's id is the caller's own text: neither record shows it, nor either span."""
    world = World()
    trail = replace(world.trail, stops=lambda value: "secret" in str(value))
    trace = trail.begin("read", {"jsonrpc.request.id": "secret"})
    trace.invocation = unsafe_invocation("reader")
    trace.decided(ALLOW)
    trace.close()

    with trace.execution():
        pass
    trace.ended(Outcome.COMPLETED)

    assert [kept["jsonrpc.request.id"] for kept in world.kept()] == [WITHHELD] * 2
    shown = [(span.attributes or {})["jsonrpc.request.id"] for span in world.exporter.get_finished_spans()]
    assert shown == [WITHHELD] * 2


def test_execution_that_is_withheld_says_so_in_both_places() -> None:
    """The span does not say completed where the record says withheld, and both say why."""
    world = World()
    trace = world.trail.begin("read", {})
    trace.invocation = unsafe_invocation("reader")
    trace.decided(ALLOW)
    trace.close()

    with trace.execution():
        pass
    trace.ended(Outcome.WITHHELD, reason=Reason.REVOKED)

    shown = world.exporter.get_finished_spans()[1].attributes or {}
    kept = world.kept()[1]
    for where in (shown, kept):
        assert where["agentguard.execution.outcome"] == "withheld"
        assert where["agentguard.execution.reason"] == "revoked"


def test_outcome_of_what_was_never_decided_is_not_recorded() -> None:
    """A request that was cancelled before its decision leaves a span and no record."""
    world = World()
    trace = world.trail.begin("read", {})

    trace.ended(Outcome.CANCELLED)

    assert world.kept() == []
    assert len(world.exporter.get_finished_spans()) == 1


def test_decision_that_cannot_be_recorded_is_refused() -> None:
    """Without a record there is no decision; the denial that follows still has an id and a span."""
    world = World(BrokenLedger())
    trace = world.trail.begin("read", {})
    trace.policies = Policies()

    with pytest.raises(Refusal) as refused:
        trace.decided(ALLOW)
    assert trace.decision is None
    named = trace.unrecorded(Decision(effect=Effect.DENY, reason=refused.value.reason))
    trace.close()

    (span,) = world.exporter.get_finished_spans()
    assert (span.attributes or {})["agentguard.decision.id"] == named.id
    assert (span.attributes or {})["agentguard.decision.reason"] == "evidence_unavailable"
    assert named.policy_version == "sha256:1"
    assert world.trail.begin("read", {}).unrecorded(DENY).policy_version == ""


def test_outcome_that_cannot_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The tool's effect cannot be taken back, so this is said loudly and not raised."""
    world = World()
    trace = world.trail.begin("read", {})
    trace.invocation = unsafe_invocation("reader")
    named = trace.decided(ALLOW)
    object.__setattr__(world.trail, "ledger", BrokenLedger())

    trace.ended(Outcome.COMPLETED)

    assert f"the outcome `completed` of decision {named.id} could not be recorded" in caplog.text
    assert "no space left" not in caplog.text


def test_flood_of_refused_tokens_becomes_counts() -> None:
    """Each token is counted, and one second has at most one record for each reason."""
    world = World()

    for _ in range(1000):
        world.trail.refused_token(Reason.INVALID_TOKEN)
    world.now += 1
    world.trail.refused_token(Reason.EXPIRED)

    assert [(r["agentguard.decision.reason"], r["agentguard.tokens.refused"]) for r in world.kept()] == [
        ("invalid_token", 1),
        ("invalid_token", 999),
        ("expired", 1),
    ]


def test_refused_token_that_cannot_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk must not turn a refused token into an error of the server's."""
    World(BrokenLedger()).trail.refused_token(Reason.INVALID_TOKEN)

    assert "1 refused tokens could not be recorded" in caplog.text


def test_name_that_a_caller_made_up_makes_no_span_name_and_no_series() -> None:
    """Span names and time series come from the server's tools alone."""
    world = World()
    trace = world.trail.begin("made up", {}, known=False)
    trace.decided(DENY)
    trace.close()

    (span,) = world.exporter.get_finished_spans()
    assert span.name == "agentguard.authorize"
    assert "made up" not in str(world.reader.get_metrics_data())
    assert world.kept()[0]["agentguard.action.id"] == "made up"


def test_decision_span_is_closed_once_and_is_current_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    """What the tool starts does not stand under it, and closing it again does nothing."""
    outside = get_current_span()
    trace = World().trail.begin("read", {})
    inside = get_current_span()
    trace.decided(ALLOW)

    trace.close()
    trace.close()

    assert inside is not outside
    assert get_current_span() is outside
    assert caplog.text == ""


def test_refused_tokens_are_not_forgotten_while_the_ledger_is_broken() -> None:
    """Whatever the ledger raises, the count waits for the next record."""

    class Raising(MemoryLedger):
        def append(self, record: Mapping[str, object]) -> Entry:
            raise OSError

    world = World(Raising())
    world.trail.refused_token(Reason.INVALID_TOKEN)
    mended = MemoryLedger()
    object.__setattr__(world.trail, "ledger", mended)
    world.now += 1
    world.trail.refused_token(Reason.INVALID_TOKEN)

    (entry,) = mended
    assert entry.record["attributes"]["agentguard.tokens.refused"] == 2


def test_each_decision_of_a_call_has_a_span_of_its_own() -> None:
    """One that names several resources has a record for each, and no two records share a span."""
    world = World()
    trace = world.trail.begin("read", {})
    for number, name in enumerate(("r1", "r2")):
        world.now += number
        trace.resource = EntityUid("Record", name)
        trace.decided(ALLOW)
    world.now += 1
    trace.close()

    first, second = world.exporter.get_finished_spans()
    records = [entry.record for entry in world.ledger]
    assert [record["span_id"] for record in records] == [f"{s.context.span_id:016x}" for s in (first, second)]
    assert [(s.attributes or {})["agentguard.resource.id"] for s in (first, second)] == ["r1", "r2"]
    assert {record["span_name"] for record in records} == {"agentguard.authorize read"}
    assert [record["start_time_unix_nano"] for record in records] == [
        1_800_000_000_000_000_000,
        1_800_000_001_000_000_000,
    ]


def test_a_decision_that_may_be_recorded_or_not_leaves_its_span_to_no_other() -> None:
    """A disk may have kept what it reported as failed."""
    world = World()
    kept = world.ledger.append

    def keep_and_fail(record: Mapping[str, object]) -> Entry:
        kept(record)
        raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "input/output error")

    before = get_current_span()
    trace = world.trail.begin("read", {})
    world.ledger.append = keep_and_fail  # type: ignore[method-assign]
    with pytest.raises(Refusal):
        trace.decided(ALLOW)
    world.ledger.append = kept  # type: ignore[method-assign]
    trace.decided(DENY)
    trace.close()

    (shown,) = world.exporter.get_finished_spans()
    first, second = (entry.record["span_id"] for entry in world.ledger)
    assert first != second == f"{shown.context.span_id:016x}"
    assert get_current_span() is before


def test_a_clock_that_was_set_back_begins_no_span_after_its_end() -> None:
    """The record says when it was decided; the begin gives way."""
    world = World()
    trace = world.trail.begin("read", {})
    world.now -= 10
    trace.decided(DENY)
    trace.close()

    (entry,) = world.ledger
    assert entry.record["start_time_unix_nano"] == entry.record["time_unix_nano"]


def test_what_became_of_a_call_that_never_ran_has_no_span_of_its_own() -> None:
    """Its record has the decision's ids, and no name."""
    world = World()
    trace = world.trail.begin("read", {})
    trace.invocation = unsafe_invocation("reader")
    trace.decided(ALLOW)
    trace.ended(Outcome.CANCELLED, reason=Reason.REVOKED)

    decision, outcome = (entry.record for entry in world.ledger)
    assert (outcome["trace_id"], outcome["span_id"]) == (decision["trace_id"], decision["span_id"])
    assert "span_name" not in outcome


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (EntityUid("User", "zoe"), True),
        (EntityUid("Agent", "a"), True),
        (EntityUid("User", "ann"), False),
        (EntityUid("Patient", "zoe"), False),
    ],
)
def test_missing_entity_is_named_where_the_record_has_it_anyway(missing: EntityUid, named: bool) -> None:
    """Of any other only the type is told: what loaders refer to is nobody's to read here."""
    world = World()
    denial = Decision(effect=Effect.DENY, reason=Reason.MISSING_ENTITY, errors=(not_there(missing),), missing=missing)
    trace = world.trail.begin("read", {})
    trace.invocation = unsafe_invocation("a", user="zoe")

    decided = trace.decided(denial)

    (entry,) = world.ledger
    assert f"an entity of type `{missing.type}`" in entry.text or named
    assert (f"{missing.type}::" in entry.text) is named
    assert decided.missing is not None
    assert (decided.missing == missing) is (missing.type != "Patient")
