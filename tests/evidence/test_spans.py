"""The three kinds of spans: their names, their place, their status and what they never say."""

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from agentguard.evidence.record import run_attributes
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
    with Spans().authorize("read_record") as span:
        pass
    span.end({"agentguard.decision.effect": "allow"})

    assert span.trace_ids is None


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
