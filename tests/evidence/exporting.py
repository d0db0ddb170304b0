"""Providers whose spans and metrics a test can read; none of them is ever made global."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def tracing() -> tuple[TracerProvider, InMemorySpanExporter]:
    """Return a provider and where its ended spans end up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def metering() -> tuple[MeterProvider, InMemoryMetricReader]:
    """Return a provider and the reader of what it measured."""
    reader = InMemoryMetricReader()
    return MeterProvider([reader], shutdown_on_exit=False), reader


def metrics_of(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Return the metrics of the one scope, by name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
