"""OTLP over HTTP. Taken is what the receiver says that it took, and nothing else.

The exporter of OpenTelemetry 1.45.2 counts a redirect as success, and says nothing of
spans that were rejected; either would lose evidence in silence.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Final

import httpx2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from agentguard.evidence.delivery.otlp_wire import objection, request_of, resource_of
from agentguard.evidence.delivery.sender import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.evidence.delivery.forwarded import ForwardedSpan
    from agentguard.evidence.delivery.sender import Endpoint

_PROTOBUF: Final = "application/x-protobuf"
_TAKEN: Final = range(200, 300)
_FAILED: Final = range(500, 600)
_TOO_LARGE: Final = 413
# Of what a client is told to do otherwise, this passes by itself.
_PASSING: Final = frozenset((408, 425, 429))

_A_PAGE: Final = "a web page answered, not an OTLP receiver"
_NOT_OTLP: Final = "the answer is not one of OTLP"


class HTTPSender:
    """Carries spans over HTTP.

    Args:
        endpoint: Where to.
        service: Whose they are, where the environment does not say.

    Raises:
        OSError: The certificates cannot be read.
    """

    def __init__(self, endpoint: Endpoint, *, service: str) -> None:
        self._url = endpoint.url
        self._resource = resource_of(service)
        self._client = httpx2.Client(
            headers={**endpoint.headers, "content-type": _PROTOBUF},
            timeout=endpoint.seconds,
            verify=ssl.create_default_context(cafile=endpoint.certificate) if endpoint.certificate else True,
            follow_redirects=False,
        )
        # A line for each batch fills the log of whoever logs what others have to say. Of other
        # addresses the library goes on telling.
        self._log = logging.getLogger("httpx2")
        self._log.addFilter(self._is_news)

    def send(self, spans: Sequence[ForwardedSpan]) -> str:
        """Return when all of *spans* were taken.

        Raises:
            UndeliveredError: They were not, or that is not known.
        """
        body = request_of(spans, self._resource).SerializeToString()
        try:
            response = self._client.post(self._url, content=body)
        except httpx2.HTTPError as error:
            raise UndeliveredError(_what(error)) from None
        status = response.status_code
        if status not in _TAKEN:
            lasting = status not in _FAILED and status not in _PASSING
            raise UndeliveredError(_what(status), lasting=lasting, too_large=status == _TOO_LARGE)
        kind = response.headers.get("content-type", "")
        if kind.startswith("text/html"):
            raise UndeliveredError(_A_PAGE, lasting=True)
        if not kind.startswith(_PROTOBUF):
            return ""
        try:
            return objection(ExportTraceServiceResponse.FromString(response.content))
        except DecodeError:
            raise UndeliveredError(_NOT_OTLP, lasting=True) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
        self._log.removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or self._url not in record.getMessage().split()


def _what(found: httpx2.HTTPError | int) -> str:
    return f"HTTP status {found}" if isinstance(found, int) else f"{type(found).__name__}: {found}"


def open_sender(endpoint: Endpoint, *, service: str) -> HTTPSender:
    """Return who carries spans to *endpoint*."""
    return HTTPSender(endpoint, service=service)
