"""The three kinds of spans: their names, their place, their status and what they never say."""

import sys

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags

from agentguard.evidence.record import SpanOf, run_attributes
from agentguard.evidence.spans import Spans, trace_ids
from agentguard.evidence.vocabulary import ATTRIBUTES
from tests.evidence.exporting import tracing
from tests.evidence.invocations import complete


def test_a_denial_leaves_the_status_unset() -> None:
    """A denial is an answer, not a fault."""
    provider, exporter = tracing()

    Spans(provider).authorize("read_record").end({"agentguard.decision.effect": "deny"})

    (ended,) = exporter.get_finished_spans()
    assert ended.name == "agentguard.authorize read_record"
    assert ended.kind is SpanKind.INTERNAL
    assert ended.status.status_code is StatusCode.UNSET
    assert dict(ended.attributes or {}) == {
        "agentguard.decision.effect": "deny",
        "openinference.span.kind": "GUARDRAIL",
    }


def test_a_failed_execution_has_an_error_status_without_text() -> None:
    """The tool's own words may hold what a trace must not."""
    provider, exporter = tracing()

    Spans(provider).execute("read_record").end({"error.type": "ValueError"}, failed=True)

    (ended,) = exporter.get_finished_spans()
    assert ended.name == "agentguard.execute read_record"
    assert ended.status.status_code is StatusCode.ERROR
    assert ended.status.description is None
    assert (ended.attributes or {})["openinference.span.kind"] == "TOOL"
    assert (ended.attributes or {})["gen_ai.operation.name"] == "execute_tool"


def test_an_exception_is_not_recorded() -> None:
    """Neither an event nor a status repeats the exception."""
    provider, exporter = tracing()
    span = Spans(provider).execute("read_record")

    def fail() -> None:
        with span:
            message = "token eyJ"
            raise ValueError(message)

    with pytest.raises(ValueError, match="eyJ"):
        fail()
    span.end({}, failed=True)

    (ended,) = exporter.get_finished_spans()
    assert ended.events == ()
    assert "eyJ" not in ended.to_json()


def test_a_name_that_the_server_does_not_have_is_no_span_name() -> None:
    """Else a caller could make span names without end."""
    provider, exporter = tracing()

    Spans(provider).authorize(None).end({})

    assert [span.name for span in exporter.get_finished_spans()] == ["agentguard.authorize"]


def test_the_decision_stands_beside_the_execution_under_the_call() -> None:
    """Both are children of what was current, and what was current is so again."""
    provider, exporter = tracing()
    spans = Spans(provider)

    with provider.get_tracer("sdk").start_as_current_span("tools/call read_record") as call:
        with spans.authorize("read_record") as authorized:
            pass
        authorized.end({})
        with spans.execute("read_record") as executed, provider.get_tracer("tool").start_as_current_span("query"):
            pass
        executed.end({})
        assert trace.get_current_span() is call

    authorize, query, execute, _ = exporter.get_finished_spans()
    assert authorize.parent == execute.parent == call.get_span_context()
    assert query.parent == execute.context


def test_the_record_can_name_its_span() -> None:
    """The ids are hex, as every backend shows them."""
    provider, exporter = tracing()

    span = Spans(provider).authorize("read_record")
    ids = span.trace_ids
    span.end({})

    (ended,) = exporter.get_finished_spans()
    assert ids == (f"{ended.context.trace_id:032x}", f"{ended.context.span_id:016x}")
    assert span.context == ended.context


def test_without_a_provider_there_is_no_span_to_name() -> None:
    """The API's own no-op spans cost nothing and have no ids."""
    nothing = otel_context.attach(otel_context.Context())
    try:
        with Spans().authorize("read_record") as span:
            pass
        span.end({"agentguard.decision.effect": "allow"})
    finally:
        otel_context.detach(nothing)

    assert span.trace_ids is None
    assert span.kept() is None


def test_a_record_keeps_what_its_span_can_be_built_from() -> None:
    """Its ids, its name, what it stands under and links to, and when it began."""
    provider, _ = tracing()
    spans = Spans(provider)
    with provider.get_tracer("sdk").start_as_current_span("tools/call read_record") as call:
        decision = spans.authorize("read_record")
    run = spans.run("mailer", {}, started_at=1, decisions=[decision.context])

    parent = call.get_span_context()
    assert decision.kept(started_at=1.5) == SpanOf(
        trace_id=f"{parent.trace_id:032x}",
        span_id=f"{decision.context.span_id:016x}",
        parent_span_id=f"{parent.span_id:016x}",
        span_name="agentguard.authorize read_record",
        start_time_unix_nano=1_500_000_000,
    )
    kept = run.kept()
    assert isinstance(kept, SpanOf)
    assert (kept.parent_span_id, kept.start_time_unix_nano) == ("", None)
    assert kept.links == (f"{decision.context.trace_id:032x}-{decision.context.span_id:016x}",)


def test_a_span_with_the_ids_of_the_one_above_is_no_span_of_its_own() -> None:
    """The API's no-op tracer hands on what the caller sent: only the trace is known then."""
    remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    above = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    try:
        span = Spans().authorize("read_record")
    finally:
        otel_context.detach(above)

    assert span.kept() == (f"{7:032x}", f"{8:016x}")


@pytest.mark.parametrize("flags", [0, 1])
def test_where_the_ledger_is_forwarded_spans_have_ids_and_go_nowhere(flags: int) -> None:
    """They stand in the caller's trace, and whether the tool is traced is for the caller to say."""
    provider, exporter = tracing()
    spans = Spans(provider, forwarded=True)
    remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(flags))
    above = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    try:
        with spans.authorize("read_record") as decision:
            pass
        with spans.execute("read_record") as execution:
            assert trace.get_current_span().get_span_context() == execution.context
    finally:
        otel_context.detach(above)
    for span in (decision, execution):
        span.end({"agentguard.decision.effect": "allow"})

    assert exporter.get_finished_spans() == ()
    assert {span.context.trace_id for span in (decision, execution)} == {7}
    assert len({8, decision.context.span_id, execution.context.span_id}) == 3
    assert {span.context.trace_flags for span in (decision, execution)} == {flags}
    kept = execution.kept()
    assert isinstance(kept, SpanOf)
    assert kept.parent_span_id == f"{8:016x}"


def test_where_nobody_traces_the_forwarded_spans_of_a_call_share_a_trace() -> None:
    """And those of another call have another one."""
    spans = Spans(forwarded=True)
    nothing = otel_context.attach(otel_context.Context())
    try:
        decision = spans.authorize("read_record")
        execution = spans.execute("read_record", beside=decision.context)
        other, run = spans.authorize(None), spans.run("mailer", {}, started_at=1)
    finally:
        otel_context.detach(nothing)

    assert decision.context.trace_id == execution.context.trace_id
    assert len({one.context.trace_id for one in (decision, other, run)}) == 3
    assert all(one.context.is_valid and one.context.trace_flags.sampled for one in (decision, execution, other, run))


def test_an_invalid_context_has_no_ids() -> None:
    """Zeros are no trace."""
    assert trace_ids(trace.INVALID_SPAN_CONTEXT) is None


def test_a_run_is_one_span_from_its_begin_to_its_end() -> None:
    """It stands alone, and links to the decisions that were made in it."""
    provider, exporter = tracing()
    spans = Spans(provider)
    with spans.authorize("read_record") as decision:
        shown = run_attributes(complete(), ended_at=1_085.25, reason="stolen")
        run_span = spans.run(
            "mailer", {**shown, "agentguard.run.end": "revoked"}, started_at=1_000, decisions=[decision.context]
        )
        ids = run_span.trace_ids
        run_span.end({}, at=1_085.25)
    decision.end({})

    run, _ = exporter.get_finished_spans()
    assert run.name == "agentguard.run mailer"
    assert run.parent is None
    assert (run.start_time, run.end_time) == (1_000_000_000_000, 1_085_250_000_000)
    assert [link.context for link in run.links] == [decision.context]
    assert (run.attributes or {})["agentguard.run.end"] == "revoked"
    assert run.context is not None
    assert ids == trace_ids(run.context)
    assert set(run.attributes or {}) <= {row.name for row in ATTRIBUTES if "run" in row.on}


def test_without_the_sdk_there_is_nothing_to_look_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays out of the process."""
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk.trace")

    Spans().look_through(lambda _: True)

    assert "opentelemetry.sdk.trace" not in sys.modules
