"""The spans: views of what the ledger keeps, never the record itself.

A decision span is ended before the tool runs, so no line of the tool can change it. The
execution span stays current while the tool runs and a tool may write over anything on
it; what is ours is therefore written once more, last, when it ends.

No global provider is ever configured here. Without one, the API's own no-op spans are
used and cost next to nothing.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import context as otel_context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_tracer, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

    from agentguard.evidence.vocabulary import AttributeValue

_GUARDRAIL: Final = {"openinference.span.kind": "GUARDRAIL"}
_TOOL: Final = {"openinference.span.kind": "TOOL", "gen_ai.operation.name": "execute_tool"}
_AGENT: Final = {"openinference.span.kind": "AGENT"}


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

    __slots__ = ("_kind", "_span", "_token")

    _token: Token[Context]

    def __init__(self, span: Span, kind: Mapping[str, AttributeValue]) -> None:
        self._span = span
        self._kind = kind

    @property
    def trace_ids(self) -> tuple[str, str] | None:
        """The trace and span ids, hex, for the record beside it."""
        return trace_ids(self._span.get_span_context())

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
            attributes: From the table; they win over whatever was written meanwhile.
            failed: Whether the tool failed, for the status. A denial never is a failure.
            at: When it ended, unix seconds; None for now.
        """
        self._span.set_attributes({**self._kind, **attributes})
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(None if at is None else _nanoseconds(at))


class Spans:
    """Makes the three kinds of spans of the guard.

    Args:
        tracer_provider: Where they go; None for the process's own, whatever it is by then.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer: Tracer = get_tracer("agentguard", version("agentguard"), tracer_provider)

    def authorize(self, tool: str | None) -> OpenSpan:
        """Return the span of one decision.

        Args:
            tool: The tool's name; None for a name that the server does not have, which
                would let a caller make span names without end.
        """
        return self._open("agentguard.authorize", tool, _GUARDRAIL)

    def execute(self, tool: str | None) -> OpenSpan:
        """Return the span of one execution, under which the tool's own spans stand."""
        return self._open("agentguard.execute", tool, _TOOL)

    def _open(self, name: str, tool: str | None, kind: Mapping[str, AttributeValue]) -> OpenSpan:
        span = self._tracer.start_span(
            name if tool is None else f"{name} {tool}",
            kind=SpanKind.INTERNAL,
            record_exception=False,
            set_status_on_exception=False,
        )
        return OpenSpan(span, kind)

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
        span = self._tracer.start_span(
            f"agentguard.run {agent}",
            # A trace of its own: a run is not a part of the call that happened to end it.
            context=otel_context.Context(),
            kind=SpanKind.INTERNAL,
            attributes={**attributes, **_AGENT},
            links=[Link(decision) for decision in decisions],
            start_time=_nanoseconds(started_at),
        )
        return OpenSpan(span, _AGENT)


def _nanoseconds(unix_seconds: float) -> int:
    return round(unix_seconds * 1_000_000) * 1_000
