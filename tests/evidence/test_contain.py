"""No exporter gets a secret, whenever it was added and however the secret got onto a span."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, NoOpTracerProvider, Span, SpanContext, Status, StatusCode, Tracer

from agentguard.credentials.containment import stops
from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live, Place
from agentguard.evidence.contain import SpanContainment, contain_spans
from agentguard.evidence.spans import Spans
from agentguard.evidence.withheld import WITHHELD

SECRET: Final = secrets.token_urlsafe(32)
HEX: Final = SECRET.encode().hex()
ELSEWHERE: Final = SpanContext(1, 2, is_remote=True)


class Tags(SpanProcessor):
    """Puts something on each span when it starts, as tracing libraries do."""

    def on_start(self, span: SdkSpan, parent_context: Any = None) -> None:
        """Do so."""
        span.set_attribute("tag", f"Bearer {SECRET}")


@dataclass
class World:
    """A provider with exporters of both kinds, two of them added before it is looked at and two after."""

    provider: TracerProvider = field(default_factory=TracerProvider)
    exporters: list[InMemorySpanExporter] = field(default_factory=list)
    told: list[tuple[Place, str]] = field(default_factory=list)
    live: Live = field(default_factory=Live)

    def __post_init__(self) -> None:
        """Set it up."""
        self.secret = Secret("crm", SECRET)
        self.live.add(self.secret, told=lambda place, name: self.told.append((place, name)))
        self._export()
        contain_spans(self.provider, partial(stops, place=Place.SPAN, live=self.live))
        self._export()

    def _export(self) -> None:
        for processor in (SimpleSpanProcessor, BatchSpanProcessor):
            exporter = InMemorySpanExporter()
            self.exporters.append(exporter)
            self.provider.add_span_processor(processor(exporter))

    @property
    def tracer(self) -> Tracer:
        """What a tool gets."""
        return self.provider.get_tracer("tool")

    def spans(self) -> list[ReadableSpan]:
        """Return what was exported: the same, by each exporter."""
        self.provider.force_flush()
        texts = [[span.to_json() for span in exporter.get_finished_spans()] for exporter in self.exporters]
        assert all(each == texts[0] for each in texts)
        return list(self.exporters[0].get_finished_spans())


@pytest.fixture
def world() -> Iterator[World]:
    """Return a world, and shut it down."""
    world = World()
    yield world
    world.provider.shutdown()


def raising(span: Span) -> None:
    """Record an exception whose cause has the secret."""
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise LookupError from error
    except LookupError as error:
        span.record_exception(error)


WAYS: Final[dict[str, Callable[[Span], object]]] = {
    "attribute": lambda span: span.set_attribute("token", f"Bearer {SECRET}"),
    "encoded": lambda span: span.set_attribute("token", HEX),
    "several": lambda span: span.set_attributes({"a": 1, "token": SECRET, "b": "x"}),
    "list": lambda span: span.set_attribute("tokens", ["x", SECRET]),
    "bytes": lambda span: span.set_attribute("token", SECRET.encode()),
    "key": lambda span: span.set_attribute(SECRET, "x"),
    "key of several": lambda span: span.set_attributes({SECRET: "x"}),
    "event": lambda span: span.add_event("called", {"url": f"https://crm.example/?token={SECRET}"}),
    "event's name": lambda span: span.add_event(SECRET),
    "link": lambda span: span.add_link(ELSEWHERE, {"token": SECRET}),
    "name": lambda span: span.update_name(f"GET /{SECRET}"),
    "status": lambda span: span.set_status(StatusCode.ERROR, SECRET),
    "status object": lambda span: span.set_status(Status(StatusCode.ERROR, SECRET)),
    "exception": lambda span: span.record_exception(ValueError(SECRET)),
    "cause": raising,
}


def shown(span: ReadableSpan) -> str:
    """Return all that an exporter has of a span."""
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    links = [dict(link.attributes or {}) for link in span.links]
    return repr((span.to_json(), dict(span.attributes or {}), events, links, span.status.description))


def assert_clean(world: World) -> None:
    """Pass if the secret is on no span, and it was told of."""
    spans = world.spans()
    assert spans
    for span in spans:
        assert SECRET not in shown(span)
        assert HEX not in shown(span)
    assert any(WITHHELD in shown(span) for span in spans)
    assert world.told == [(Place.SPAN, "crm")]


@pytest.mark.parametrize("way", WAYS)
def test_secret_that_is_put_on_a_span_is_replaced(world: World, way: str) -> None:
    """Before any exporter has it."""
    with world.tracer.start_as_current_span("work"):
        WAYS[way](trace.get_current_span())

    assert_clean(world)


@pytest.mark.parametrize("way", WAYS)
def test_secret_that_is_put_on_the_guards_own_span_is_replaced(world: World, way: str) -> None:
    """The execution span is current while a tool runs; what is ours on it stays."""
    with Spans(world.provider).execute("read") as execution:
        WAYS[way](trace.get_current_span())
    execution.end({"agentguard.decision.id": "d1"})

    assert_clean(world)
    (span,) = world.spans()
    assert (span.attributes or {})["agentguard.decision.id"] == "d1"


def test_what_was_looked_through_for_a_record_is_not_looked_through_again() -> None:
    """Of the guard's own span, the name is; what a tool puts on it meanwhile is."""
    looked: list[object] = []

    def looks(value: object) -> bool:
        looked.append(value)
        return False

    provider = TracerProvider()
    contain_spans(provider, looks)

    with Spans(provider).execute("read") as execution:
        trace.get_current_span().set_attribute("rows", 3)
    execution.end({"agentguard.decision.id": "d1"})

    assert looked == ["agentguard.execute read", "rows", 3]
    provider.shutdown()


def test_process_own_provider_is_looked_through_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool's own spans go there, and each call asks anew."""
    own, first, second = TracerProvider(), TracerProvider(), TracerProvider()
    spans = Spans(own)
    for current in (first, first, second):
        monkeypatch.setattr("agentguard.evidence.spans.get_tracer_provider", lambda current=current: current)
        spans.look_through(lambda _: False)

    for provider in (own, first, second):
        processors = provider._active_span_processor._span_processors
        assert [type(one) for one in processors] == [SpanContainment]
        provider.shutdown()


def test_secret_that_passes_through_a_span_as_an_exception_is_replaced(world: World) -> None:
    """In the event and in the status."""
    with pytest.raises(ValueError, match=SECRET), world.tracer.start_as_current_span("work"):
        raise ValueError(SECRET)
    with pytest.raises(ValueError, match=SECRET), world.tracer.start_span("more"):
        raise ValueError(SECRET)

    assert_clean(world)


@pytest.mark.parametrize(
    "given",
    [
        {"attributes": {"token": SECRET, "a": 1}},
        {"attributes": {SECRET: "x"}},
        {"links": [Link(ELSEWHERE, {"token": SECRET}), Link(ELSEWHERE, {"a": 1}), Link(ELSEWHERE)]},
        {"name": f"GET /{SECRET}"},
    ],
    ids=["attribute", "key", "link", "name"],
)
def test_secret_that_a_span_is_started_with_is_replaced(world: World, given: dict[str, Any]) -> None:
    """By whoever makes spans of a client's requests."""
    world.tracer.start_span(**{"name": "work", **given}).end()

    assert_clean(world)


@pytest.mark.parametrize("first", [True, False])
def test_secret_that_another_processor_puts_on_a_span_is_replaced(*, first: bool) -> None:
    """Whether it comes before ours or after."""
    provider = TracerProvider()
    if first:
        provider.add_span_processor(Tags())
    world = World(provider)
    if not first:
        provider.add_span_processor(Tags())
    world.tracer.start_span("work").end()

    assert_clean(world)
    assert dict(world.spans()[0].attributes or {}) == {"tag": WITHHELD}
    provider.shutdown()


def test_everything_else_on_a_span_is_what_it_would_be(world: World) -> None:
    """And its class is called what it was."""
    bare = TracerProvider()
    exporter = InMemorySpanExporter()
    bare.add_span_processor(SimpleSpanProcessor(exporter))
    for tracer in (world.tracer, bare.get_tracer("tool")):
        span = tracer.start_span("work", attributes={"a": 1}, links=[Link(ELSEWHERE, {"b": "x"})], start_time=1)
        assert isinstance(span, SdkSpan)
        assert (type(span).__name__, type(span).__qualname__) == ("_Span", "_Span")
        span.set_attribute("c", ["x", "y"])
        span.set_attributes({"d": 1.5, "e": True})
        span.add_event("f", {"g": "h"}, timestamp=2)
        span.add_event("i", timestamp=2)
        span.add_link(ELSEWHERE)
        span.update_name("play")
        span.set_status(Status(StatusCode.ERROR, "j"))
        span.set_status(StatusCode.ERROR, "k")
        span.end(3)

    def fields(spans: list[ReadableSpan]) -> dict[str, Any]:
        (span,) = spans
        text: dict[str, Any] = json.loads(span.to_json())
        return {name: value for name, value in text.items() if name != "context"}

    assert fields(world.spans()) == fields(list(exporter.get_finished_spans()))
    assert world.told == []


def test_provider_is_looked_at_once(world: World) -> None:
    """Guards share one, and each asks for it."""
    looked: list[object] = []

    def looks(value: object) -> bool:
        looked.append(value)
        return False

    assert contain_spans(world.provider, looks)
    world.tracer.start_span("work").end()
    assert looked == []


def test_spans_of_others_than_the_sdk_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told so; the process's own provider may come later."""
    assert not contain_spans(NoOpTracerProvider(), bool)
    own = TracerProvider()
    monkeypatch.setattr("agentguard.evidence.contain.get_tracer_provider", lambda: own)
    assert contain_spans(None, bool)
    assert any(isinstance(one, SpanContainment) for one in own._active_span_processor._span_processors)
    own.shutdown()


def test_span_that_is_not_recorded_is_left_alone() -> None:
    """There is nothing on it."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    contain_spans(provider, lambda _: True)
    span = provider.get_tracer("tool").start_span("work")
    span.set_attribute("a", SECRET)
    assert not span.is_recording()
    provider.shutdown()
