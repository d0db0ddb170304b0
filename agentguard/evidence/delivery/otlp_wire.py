"""Spans as OTLP carries them: an ``ExportTraceServiceRequest``."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.resources import Resource as DetectedResource

from agentguard.evidence.kept import TYPES, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.evidence.delivery.forwarded import ForwardedSpan
    from agentguard.evidence.vocabulary import AttributeValue

# W3C's flag: whoever samples further on is told that these were chosen.
_SAMPLED: Final = 1
_UNKNOWN: Final = "unknown_service"


def resource_of(service: str) -> dict[str, AttributeValue]:
    """Return what is said of the process: what the environment says, and whose spans these are.

    Args:
        service: The name of the service, where OTEL_SERVICE_NAME does not say.
    """
    detected = DetectedResource.create().attributes
    found = {name: value for name, value in detected.items() if isinstance(value, str | bool | int | float)}
    if str(found.get("service.name", _UNKNOWN)).startswith(_UNKNOWN):
        found["service.name"] = service
    return dict(found)


def request_of(spans: Sequence[ForwardedSpan], resource: Mapping[str, AttributeValue]) -> ExportTraceServiceRequest:
    """Return the request that carries *spans*."""
    scope = ScopeSpans(
        scope=InstrumentationScope(name="agentguard", version=version("agentguard")),
        spans=[_span(span) for span in spans],
    )
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope])]
    )


def objection(response: ExportTraceServiceResponse) -> str:
    """Return what a receiver has against spans of a batch that it took otherwise; mostly nothing."""
    partial = response.partial_success
    if partial.rejected_spans:
        return f"{partial.rejected_spans} spans were rejected: {visible(partial.error_message)}"
    return visible(partial.error_message)


def _span(span: ForwardedSpan) -> Span:
    return Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_span_id),
        flags=_SAMPLED,
        name=_carried(span.name),
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_attributes(span.attributes),
        links=[
            Span.Link(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id), flags=_SAMPLED)
            for trace_id, span_id in span.links
        ],
        status=Status(code=Status.STATUS_CODE_ERROR) if span.failed else None,
    )


def _attributes(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value, TYPES.get(name))) for name, value in attributes.items()]


def _value(value: AttributeValue, wanted: str | None) -> AnyValue:
    # A bool is an int too, so it comes first.
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, float) or wanted == "double":
        return AnyValue(double_value=float(value))  # type: ignore[arg-type]
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=_carried(value))
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=_carried(one)) for one in value]))


def _carried(text: str) -> str:
    """Return text that protocol buffers carry: one lone surrogate would hold up all that follows."""
    return text.encode("utf-8", "replace").decode()
