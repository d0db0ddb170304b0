"""Addresses of receivers, and what speaks to them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.delivery.forwarded import ForwardedSpan
from agentguard.evidence.delivery.sender import UndeliveredError, open_sender, read_endpoint
from tests.evidence.receiver import PROTOBUF, Receiver, attributes_of, receiving, receiving_grpc

URL = "http://collector:4318/v1/traces"
SPAN = ForwardedSpan(
    trace_id="1" * 32,
    span_id="2" * 16,
    parent_span_id="3" * 16,
    name="agentguard.authorize \ud800",
    start=1,
    end=2,
    attributes={
        "agentguard.decision.id": "D1 \ud800",
        "agentguard.policy.ids": ("a", "b"),
        "agentguard.evidence.seq": 7,
        "agentguard.trace.caller_sampled": True,
        # Canonical JSON writes 300.0 as 300.
        "agentguard.authority.granted": 300,
        "agentguard.authority.remaining": 0.5,
    },
    failed=True,
    links=(("4" * 32, "5" * 16),),
)


@pytest.fixture(params=[receiving, receiving_grpc], ids=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> object:
    """Give a receiver of each protocol."""
    with request.param() as found:
        yield found


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("collector:4318", "an endpoint wants http://collector:4318/v1/traces or grpc://collector:4317"),
        ("ftp://collector/v1/traces", "got `ftp://collector/v1/traces`"),
        ("127.0.0.1:4318", "got `127.0.0.1:4318`"),
        ("ftp://me:secret@collector/v1?secret", "got `collector/v1`"),
        ("http://[collector/v1/traces", "an endpoint wants http://"),
        ("http://collector:port/v1/traces", "an endpoint wants http://"),
        ("http:///v1/traces", "an endpoint wants http://"),
        ("http://collector:4318", "mostly it is http://collector:4318/v1/traces"),
        ("https://collector/", "mostly it is https://collector/v1/traces"),
        ("grpc://collector", "such as grpc://collector:4317"),
        ("grpc://collector:4317/v1/traces", "such as grpc://collector:4317"),
        ("http://me:secret@collector/v1/traces", "got one for `http://collector/v1/traces`: pass what"),
        ("http://collector/v1/traces?key=secret", "got one for `http://collector/v1/traces`: pass what"),
    ],
)
def test_what_is_no_address_is_refused_with_the_fix(url: str, message: str) -> None:
    """And a secret in it is not repeated."""
    with pytest.raises(ConfigurationError) as refused:
        read_endpoint(url, environ={})

    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_headers_come_from_the_environment_and_from_whoever_calls() -> None:
    """The traces' own variable goes before the common one, and an argument before both."""
    common = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20t,x-a=1"}
    own = {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-b=2"}

    assert read_endpoint(URL, environ={}).headers == {}
    assert read_endpoint(URL, environ=common).headers == {"authorization": "Bearer t", "x-a": "1"}
    assert read_endpoint(URL, environ={**common, **own}).headers == {"x-b": "2"}
    assert read_endpoint(URL, environ=own, headers={"X-B": "3"}).headers == {"x-b": "3"}
    assert "Bearer" not in repr(read_endpoint(URL, environ=common))


def test_each_address_has_a_name_of_its_own() -> None:
    """How far one receiver got says nothing of another."""
    assert read_endpoint(URL, environ={}).name == read_endpoint(URL, environ={}).name
    assert read_endpoint(URL, environ={}).name != read_endpoint("grpc://collector:4317", environ={}).name


@pytest.mark.parametrize(
    ("url", "module", "library", "extra"),
    [
        (URL, "otlp_http", "opentelemetry.proto.trace.v1.trace_pb2", "otlp"),
        ("grpc://c:1", "otlp_grpc", "grpc", "otlp-grpc"),
    ],
)
def test_a_missing_extra_is_named(
    url: str, module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line that installs it."""
    for name in (f"agentguard.evidence.delivery.{module}", "agentguard.evidence.delivery.otlp_wire"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(ConfigurationError, match=rf"pip install 'agentguard\[{extra}\]', or from a clone pip"):
        open_sender(read_endpoint(url, environ={}), service="records")


@pytest.mark.parametrize("url", ["https://collector/v1/traces", "grpcs://collector:4317"])
def test_a_certificate_that_cannot_be_read_is_named(url: str, tmp_path: Path) -> None:
    """Before anything is sent to whoever answers."""
    endpoint = read_endpoint(url, environ={"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")})

    with pytest.raises(ConfigurationError, match=r"ca\.pem` cannot be read: No such file"):
        open_sender(endpoint, service="records")


def test_an_address_with_tls_can_be_spoken_to() -> None:
    """Trusting whom the system trusts."""
    open_sender(read_endpoint("grpcs://127.0.0.1:1", environ={}), service="records").close()
    open_sender(read_endpoint("https://127.0.0.1:1/v1/traces", environ={}), service="records").close()


def test_a_batch_leaves_no_line_in_the_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """There are many; what else the library tells is told."""
    caplog.set_level("INFO", "httpx2")
    sender = open_sender(read_endpoint(receiver.url, environ={}), service="records")

    sender.send([SPAN])
    logging.getLogger("httpx2").warning("to %s", receiver.url)
    logging.getLogger("httpx2").info("of others")
    sender.close()
    logging.getLogger("httpx2").info("to %s", receiver.url)

    assert caplog.messages == [f"to {receiver.url}", "of others", f"to {receiver.url}"]


def test_a_span_arrives_as_it_was_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, place, times, status, links and every attribute; what no exporter carries is replaced."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    sender = open_sender(read_endpoint(receiver.url, environ={}, headers={"x-key": "k"}), service="records")

    assert sender.send([SPAN]) == ""

    sender.close()
    (span,) = receiver.spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == ("1" * 32, "2" * 16, "3" * 16)
    assert (span.name, span.kind, span.status.code) == ("agentguard.authorize ?", 1, 2)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1, 2)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [("4" * 32, "5" * 16)]
    assert attributes_of(span) == {**SPAN.attributes, "agentguard.decision.id": "D1 ?"}
    assert isinstance(attributes_of(span)["agentguard.authority.granted"], float)
    assert receiver.headers[0]["x-key"] == "k"
    assert receiver.resources[0]["service.name"] == "records"
    assert receiver.resources[0]["deployment.environment.name"] == "test"


def test_the_environment_names_the_service(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere else in OpenTelemetry."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")
    sender = open_sender(read_endpoint(receiver.url, environ={}), service="records")
    sender.send([SPAN])
    sender.close()

    assert receiver.resources[0]["service.name"] == "billing"


def test_spans_that_were_rejected_are_told(receiver: Receiver) -> None:
    """The receiver took the others; the specification forbids to send these again."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTracePartialSuccess,
        ExportTraceServiceResponse,
    )

    for partial in (
        ExportTracePartialSuccess(rejected_spans=2, error_message="too\nold"),
        ExportTracePartialSuccess(error_message="be careful"),
    ):
        answer = ExportTraceServiceResponse(partial_success=partial)
        receiver.answers.append((200, PROTOBUF, answer.SerializeToString()))
    sender = open_sender(read_endpoint(receiver.url, environ={}), service="records")

    assert sender.send([SPAN]) == "2 spans were rejected: too\N{REPLACEMENT CHARACTER}old"
    assert sender.send([SPAN]) == "be careful"
    sender.close()


def refused(receiver: Receiver, status: int, kind: str = "text/plain", body: bytes = b"") -> UndeliveredError:
    """Return how a sender takes an answer."""
    receiver.answers.append((status, kind, body))
    sender = open_sender(read_endpoint(receiver.url, environ={}), service="records")
    try:
        with pytest.raises(UndeliveredError) as error:
            sender.send([SPAN])
    finally:
        sender.close()
    return error.value


@pytest.mark.parametrize(
    ("status", "lasting"),
    [(302, True), (400, True), (401, True), (404, True), (429, False), (500, False), (503, False)],
)
def test_over_http_nothing_but_success_is_success(status: int, lasting: bool) -> None:
    """A redirect is a page to log in at, and not a receiver that took anything."""
    with receiving() as receiver:
        error = refused(receiver, status)

    assert (error.what, error.lasting, error.too_large) == (f"HTTP status {status}", lasting, False)


def test_a_batch_that_is_too_large_is_told_apart() -> None:
    """A smaller one may be taken."""
    with receiving() as receiver:
        assert refused(receiver, 413).too_large


@pytest.mark.parametrize(
    ("kind", "body", "what"),
    [
        ("text/html; charset=utf-8", b"<p>log in", "a web page answered, not an OTLP receiver"),
        (PROTOBUF, b"\xff", "the answer is not one of OTLP"),
    ],
)
def test_who_answers_otherwise_is_no_receiver(kind: str, body: bytes, what: str) -> None:
    """Whatever its status is."""
    with receiving() as receiver:
        error = refused(receiver, 200, kind, body)

    assert (error.what, error.lasting) == (what, True)


def test_a_receiver_may_answer_nothing_at_all() -> None:
    """Some say no more than that they took it."""
    with receiving() as receiver:
        receiver.answers.append((200, "application/json", b"null"))
        sender = open_sender(read_endpoint(receiver.url, environ={}), service="records")

        assert sender.send([SPAN]) == ""
        sender.close()


@pytest.mark.parametrize(("status", "lasting", "name"), [(14, False, "UNAVAILABLE"), (16, True, "UNAUTHENTICATED")])
def test_over_grpc_a_status_says_whether_it_passes(status: int, lasting: bool, name: str) -> None:
    """As the specification of OTLP lists them."""
    with receiving_grpc() as receiver:
        error = refused(receiver, status, "no\nway")

    assert (error.what, error.lasting) == (f"gRPC status {name}: no\N{REPLACEMENT CHARACTER}way", lasting)


@pytest.mark.parametrize("listening", [receiving, receiving_grpc])
def test_where_nobody_listens_nothing_was_delivered(listening: object) -> None:
    """And it may pass."""
    with listening() as receiver:  # type: ignore[operator]
        url = receiver.url
    sender = open_sender(read_endpoint(url, environ={}, seconds=2), service="records")
    try:
        with pytest.raises(UndeliveredError) as error:
            sender.send([SPAN])
    finally:
        sender.close()

    assert not error.value.lasting
