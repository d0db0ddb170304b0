"""Spans: what would show a secret is replaced before it is on a span, whoever's span it is.

The guard's own spans never carry values, but a tool may write on whatever span is current,
and make its own. A processor is of no use at a span's end: by then exporters that were
added before it have it, and nothing on it may be changed. At its *start* every processor is
given the span itself, and what is put on it later goes through its public methods. The
span is therefore made one of a class, below its own, whose methods look at each value when
it is given: no exporter, added before or after, ever has another.

What a span is started with is on it already, and is written over; a key, and what is on a
link, by the private mapping, since no public method can.

Not seen are spans that are not the SDK's, providers that are set up after the guard was and
never named to it, and whatever changes a span by its private fields.
"""

from __future__ import annotations

import weakref
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import Status, StatusCode, get_tracer_provider

from agentguard.evidence.withheld import WITHHELD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext
    from opentelemetry.trace import TracerProvider as AnyProvider

    Stops = Callable[[object], bool]

_contained: Final[weakref.WeakSet[TracerProvider]] = weakref.WeakSet()
_lock: Final = Lock()


def contain_spans(provider: AnyProvider | None, stops: Stops) -> bool:
    """Look at everything that is put on the spans of a provider from now on.

    Args:
        provider: That of the guard; None for the process's own, whatever it is by now. More
            often than once does no harm, and costs nothing.
        stops: Returns whether a value would show a secret, and tells of it.

    Returns:
        Whether its spans can be looked at: those of the SDK can.
    """
    provider = get_tracer_provider() if provider is None else provider
    if not isinstance(provider, TracerProvider):
        return False
    with _lock:
        if provider not in _contained:
            provider.add_span_processor(SpanContainment(stops))
            _contained.add(provider)
    return True


class SpanContainment(SpanProcessor):
    """Lets no secret onto the spans of the provider that it is added to.

    Args:
        stops: Returns whether a value would show a secret, and tells of it.
    """

    def __init__(self, stops: Stops) -> None:
        self._clean = _Clean(stops)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Clean what it was started with, and look at all that follows."""
        self._clean.begun(span)
        span.__class__ = _watched(type(span), self._clean)


class _Clean:
    """Puts a constant in the place of what would show a secret."""

    def __init__(self, stops: Stops) -> None:
        self._stops = stops

    def value(self, value: Any) -> Any:
        return WITHHELD if self._stops(value) else value

    def mapping(self, attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        # Secrets are rare: one look for all.
        if not attributes or not self._stops(dict(attributes)):
            return attributes
        return {self.value(key): self.value(value) for key, value in attributes.items()}

    def status(self, status: Status | StatusCode) -> Status | StatusCode:
        if isinstance(status, Status) and self._stops(status.description):
            return Status(status.status_code, WITHHELD)
        return status

    def begun(self, span: Span) -> None:
        """Clean what a span was started with."""
        if self._stops(span.name):
            span.update_name(WITHHELD)
        attributes: Any = span.attributes
        clean: Any = self.mapping(attributes)
        if clean is not attributes:
            span._attributes.clear()  # type: ignore[union-attr]  # noqa: SLF001
            span.set_attributes(clean)
        for link in span.links:
            link._attributes = self.mapping(link.attributes)  # noqa: SLF001


@cache
def _watched(kind: type[Span], clean: _Clean) -> type[Span]:
    """Return the class of a span of one class that cleans what is put on it."""

    class Watched(kind):  # type: ignore[misc,valid-type]
        # For the guard's own, which were looked through for their record.
        _set_clean_attributes = kind.set_attributes

        def set_attribute(self, key: str, value: Any) -> None:
            super().set_attribute(clean.value(key), clean.value(value))

        def set_attributes(self, attributes: Mapping[str, Any]) -> None:
            super().set_attributes(clean.mapping(attributes))

        def add_event(
            self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
        ) -> None:
            super().add_event(clean.value(name), clean.mapping(attributes), timestamp)

        def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
            super().add_link(context, clean.mapping(attributes))

        def update_name(self, name: str) -> None:
            super().update_name(clean.value(name))

        def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
            super().set_status(clean.status(status), clean.value(description))

    Watched.__name__ = kind.__name__
    Watched.__qualname__ = kind.__qualname__
    return Watched
