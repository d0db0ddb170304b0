"""OTLP over gRPC. Taken is what the receiver says that it took, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from agentguard.evidence.delivery.otlp_wire import objection, request_of, resource_of
from agentguard.evidence.delivery.sender import UndeliveredError
from agentguard.evidence.kept import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.evidence.delivery.forwarded import ForwardedSpan
    from agentguard.evidence.delivery.sender import Endpoint

# The pace is the forwarder's: a channel that waits longer would not see a receiver come back.
_OPTIONS: Final = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000))
# What passes by itself, says the specification of OTLP.
_PASSING: Final = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)


class GRPCSender:
    """Carries spans over gRPC.

    Args:
        endpoint: Where to.
        service: Whose they are, where the environment does not say.

    Raises:
        OSError: The certificates cannot be read.
    """

    def __init__(self, endpoint: Endpoint, *, service: str) -> None:
        self._resource = resource_of(service)
        self._headers = tuple(endpoint.headers.items())
        self._seconds = endpoint.seconds
        if endpoint.scheme == "grpcs":
            trusted = Path(endpoint.certificate).read_bytes() if endpoint.certificate else None
            credentials = grpc.ssl_channel_credentials(trusted)
            self._channel = grpc.secure_channel(endpoint.place, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(endpoint.place, options=_OPTIONS)
        self._stub = TraceServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def send(self, spans: Sequence[ForwardedSpan]) -> str:
        """Return when all of *spans* were taken.

        Raises:
            UndeliveredError: They were not, or that is not known.
        """
        request = request_of(spans, self._resource)
        try:
            response = self._stub.Export(request, timeout=self._seconds, metadata=self._headers)
        except grpc.RpcError as error:
            code = error.code()
            what = f"gRPC status {code.name}: {visible(error.details() or '-')}"
            raise UndeliveredError(what, lasting=code not in _PASSING) from None
        return objection(response)

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()


def open_sender(endpoint: Endpoint, *, service: str) -> GRPCSender:
    """Return who carries spans to *endpoint*."""
    return GRPCSender(endpoint, service=service)
