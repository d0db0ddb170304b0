"""The spans: views of what the ledger keeps, never the record itself.

A decision span is ended before the tool runs, so no line of the tool can change it. The
execution span stays current while the tool runs and a tool may write over anything on
it; what is ours is therefore written once more, last, when it ends.

No global provider is ever configured here. Without one, the API's own no-op spans are
used and cost next to nothing. Where the ledger is forwarded, the spans come from its
records alone: those made here are never exported, but have ids, and what a tool traces
has its place under them.
"""

from __future__ import annotations

import secrets
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import context as otel_context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    get_tracer,
    get_tracer_provider,
    set_span_in_context,
)

from agentguard.evidence.record import SpanOf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from agentguard.evidence.vocabulary import AttributeValue

GUARDRAIL: Final = {"openinference.span.kind": "GUARDRAIL"}
TOOL: Final = {"openinference.span.kind": "TOOL", "gen_ai.operation.name": "execute_tool"}
AGENT: Final = {"openinference.span.kind": "AGENT"}


def trace_ids(context: SpanContext) -> tuple[str, str] | None:
    """Return a span's trace and span ids, hex, for the record beside it; None if it has none."""
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


class OpenSpan:
    """A span that is current inside its ``with`` block, and lives until `end`.

    An exception that passes through is neither recorded nor turned into a status: its
    text may hold what a caller must not read back in a trace.
    """

    __slots__ = ("_kind", "_links", "_name", "_parent", "_span", "_token")

    _token: Token[Context]

    def __init__(
        self,
        span: Span,
        kind: Mapping[str, AttributeValue],
        *,
        name: str,
        parent: SpanContext = INVALID_SPAN_CONTEXT,
        links: Iterable[SpanContext] = (),
    ) -> None:
        self._span = span
        self._kind = kind
        self._name = name
        self._parent = parent
        self._links = tuple(f"{link.trace_id:032x}-{link.span_id:016x}" for link in links)

    @property
    def trace_ids(self) -> tuple[str, str] | None:
        """The trace and span ids, hex, for the record beside it."""
        return trace_ids(self._span.get_span_context())

    def kept(self, *, started_at: float | None = None) -> SpanOf | tuple[str, str] | None:
        """Return what a record has to keep, so that the span can be built from it.

        Args:
            started_at: When it began, unix seconds; None where the record tells that too.

        Returns:
            The ids alone where they are the parent's own, as the API's no-op spans have them.
        """
        own, parent = self.context, self._parent
        ids = trace_ids(own)
        if ids is None or own.span_id == parent.span_id:
            return ids
        return SpanOf(
            trace_id=ids[0],
            span_id=ids[1],
            parent_span_id=f"{parent.span_id:016x}" if parent.is_valid else "",
            span_name=self._name,
            start_time_unix_nano=None if started_at is None else _nanoseconds(started_at),
            links=self._links,
        )

    @property
    def context(self) -> SpanContext:
        """What another span links to."""
        return self._span.get_span_context()

    def __enter__(self) -> Self:
        self._token = otel_context.attach(set_span_in_context(self._span))
        return self

    def __exit__(self, *exception: object) -> None:
        otel_context.detach(self._token)

    def end(self, attributes: Mapping[str, AttributeValue], *, failed: bool = False, at: float | None = None) -> None:
        """Write what the span shows, last, and end it.

        Args:
            attributes: From the table, as a record keeps them: those were looked through for
                secrets. They win over whatever was written meanwhile.
            failed: Whether the tool failed, for the status. A denial never is a failure.
            at: When it ended, unix seconds; None for now.
        """
        write = getattr(self._span, "_set_clean_attributes", self._span.set_attributes)
        write({**self._kind, **attributes})
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(None if at is None else _nanoseconds(at))


class Spans:
    """Makes the three kinds of spans of the guard.

    Args:
        tracer_provider: Where they go; None for the process's own, whatever it is by then.
        forwarded: Whether the ledger is forwarded: then they go nowhere from here, since
            nothing is to be sent twice.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, forwarded: bool = False) -> None:
        self._provider = tracer_provider
        self._tracer: Tracer = get_tracer("agentguard", version("agentguard"), tracer_provider)
        self.forwarded = forwarded
        self._looked_through: TracerProvider | None = None

    def look_through(self, stops: Callable[[object], bool]) -> None:
        """Have everything looked through that is put on these spans, and on a tool's own, from now on.

        Args:
            stops: Returns whether a value may not be shown.
        """
        # A tool's own go to the process's provider, which may have come since the last call.
        process = get_tracer_provider()
        if process is self._looked_through or "opentelemetry.sdk.trace" not in sys.modules:
            return
        # Where nobody has the SDK there is nothing to look through, and it stays out.
        from agentguard.evidence.contain import contain_spans  # noqa: PLC0415

        for known in (self._provider, process):
            contain_spans(known, stops)
        self._looked_through = process

    def authorize(self, tool: str | None, *, beside: SpanContext = INVALID_SPAN_CONTEXT) -> OpenSpan:
        """Return the span of one decision.

        Args:
            tool: The tool's name; None for a name that the server does not have, which
                would let a caller make span names without end.
            beside: The span before it in the same call.
        """
        return self._open("agentguard.authorize", tool, GUARDRAIL, beside)

    def execute(self, tool: str | None, *, beside: SpanContext = INVALID_SPAN_CONTEXT) -> OpenSpan:
        """Return the span of one execution, under which the tool's own spans stand."""
        return self._open("agentguard.execute", tool, TOOL, beside)

    def _open(self, prefix: str, tool: str | None, kind: Mapping[str, AttributeValue], beside: SpanContext) -> OpenSpan:
        name = prefix if tool is None else f"{prefix} {tool}"
        parent = get_current_span().get_span_context()
        span = (
            _span_within(parent if parent.is_valid else beside)
            if self.forwarded
            else self._tracer.start_span(
                name, kind=SpanKind.INTERNAL, record_exception=False, set_status_on_exception=False
            )
        )
        return OpenSpan(span, kind, name=name, parent=parent)

    def run(
        self,
        agent: str,
        attributes: Mapping[str, AttributeValue],
        *,
        started_at: float,
        decisions: Iterable[SpanContext] = (),
    ) -> OpenSpan:
        """Return the span of a whole run, at its end; whoever has its record ends it.

        Args:
            agent: The agent whose run it was.
            attributes: From `run_attributes`.
            started_at: When it was first used, unix seconds.
            decisions: The spans of its decisions, as links: they stand in other traces.
        """
        name, linked = f"agentguard.run {agent}", tuple(decisions)
        # A trace of its own: a run is not a part of the call that happened to end it.
        span = (
            _span_within(INVALID_SPAN_CONTEXT)
            if self.forwarded
            else self._tracer.start_span(
                name,
                context=otel_context.Context(),
                kind=SpanKind.INTERNAL,
                attributes={**attributes, **AGENT},
                links=[Link(decision) for decision in linked],
                start_time=_nanoseconds(started_at),
            )
        )
        return OpenSpan(span, AGENT, name=name, links=linked)


def _span_within(other: SpanContext) -> Span:
    """Return a span that records nothing, with an id of its own in the trace of *other*, or in a new one."""
    if other.is_valid:
        trace_id, flags, state = other.trace_id, other.trace_flags, other.trace_state
    else:
        trace_id, flags, state = 1 + secrets.randbelow(2**128 - 1), TraceFlags(TraceFlags.SAMPLED), None
    span_id = 1 + secrets.randbelow(2**64 - 1)
    return NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags, trace_state=state))


def _nanoseconds(unix_seconds: float) -> int:
    return round(unix_seconds * 1_000_000) * 1_000
