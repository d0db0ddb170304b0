"""A real OTLP receiver for tests: over HTTP with nothing but the standard library, and over gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF = "application/x-protobuf"
Answer = tuple[int, str, bytes]
TAKEN: Answer = (200, PROTOBUF, b"")


def plain(value: AnyValue) -> object:
    """Return an attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(plain(one) for one in value.array_value.values)
    return getattr(value, str(kind))


def attributes_of(span: Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return {pair.key: plain(pair.value) for pair in span.attributes}


def export_line(spans: Iterable[Span]) -> str:
    """Return a line as a collector's file exporter writes it: ids in hex, long numbers as text."""

    def value(found: AnyValue) -> dict[str, object]:
        kind = str(found.WhichOneof("value"))
        if kind == "array_value":
            return {"arrayValue": {"values": [value(one) for one in found.array_value.values]}}
        plainly = getattr(found, kind)
        return {f"{kind.removesuffix('_value')}Value": str(plainly) if kind == "int_value" else plainly}

    shown = [
        {
            "traceId": span.trace_id.hex(),
            "spanId": span.span_id.hex(),
            "parentSpanId": span.parent_span_id.hex(),
            "name": span.name,
            "startTimeUnixNano": str(span.start_time_unix_nano),
            "endTimeUnixNano": str(span.end_time_unix_nano),
            "attributes": [{"key": pair.key, "value": value(pair.value)} for pair in span.attributes],
        }
        for span in spans
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": shown}]}]}) + "\n"


@dataclass
class Receiver:
    """What was received.

    Attributes:
        url: Where it listens.
        spans: Every span that was taken, in order, those sent twice too.
        sizes: How many spans came at once, and their bytes.
        headers: Those of each request.
        answers: What is answered next; taken when there is nothing.
        resources: The attributes of each request's resource.
    """

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> Answer:
        """Answer one request."""
        with self.changed:
            answer = self.answers.pop(0) if self.answers else TAKEN
            spans = [span for rs in request.resource_spans for ss in rs.scope_spans for span in ss.spans]
            self.headers.append(headers)
            self.sizes.append((len(spans), request.ByteSize()))
            if answer[0] == 200:
                self.spans += spans
                self.resources += [
                    {pair.key: plain(pair.value) for pair in rs.resource.attributes} for rs in request.resource_spans
                ]
            self.changed.notify_all()
        return answer

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of what was received."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=20)

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen on a free port, over HTTP."""
    receiver = Receiver()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, kind, answer = receiver.take(ExportTraceServiceRequest.FromString(body), headers)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def receiving_grpc() -> Iterator[Receiver]:
    """Listen on a free port, over gRPC; an answer's status is that of gRPC, by number, with its text."""
    receiver = Receiver()

    class Servicer(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            headers = {pair.key: pair.value for pair in context.invocation_metadata()}
            status, text, body = receiver.take(request, headers)
            if status != 200:
                code = next(code for code in grpc.StatusCode if code.value[0] == status)
                context.abort(code, text)
            taken: ExportTraceServiceResponse = ExportTraceServiceResponse.FromString(body)
            return taken

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        receiver.url = f"grpc://127.0.0.1:{port}"
        server.start()
        try:
            yield receiver
        finally:
            server.stop(None).wait()
