"""Where the ledger is forwarded to: an address, and whoever carries spans there."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.evidence.delivery.forwarded import ForwardedSpan

# The module of ours that speaks the protocol, and the extra that it needs.
_PROTOCOLS: Final = {
    "http": ("otlp_http", "otlp"),
    "https": ("otlp_http", "otlp"),
    "grpc": ("otlp_grpc", "otlp-grpc"),
    "grpcs": ("otlp_grpc", "otlp-grpc"),
}
_HTTP: Final = frozenset(("http", "https"))
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_CERTIFICATE: Final = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
_SECONDS: Final = 10.0


class UndeliveredError(Exception):
    """A batch was not taken, or it is not known whether it was.

    Attributes:
        what: Why, for the log.
        lasting: Whether trying again soon is of no use: somebody has to change something.
        too_large: Whether a smaller batch may be taken.
    """

    def __init__(self, what: str, *, lasting: bool = False, too_large: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.lasting = lasting
        self.too_large = too_large


class Sender(Protocol):
    """Carries spans to one address."""

    def send(self, spans: Sequence[ForwardedSpan]) -> str:
        """Return when all of *spans* were taken; say what the receiver had against some of them.

        Raises:
            UndeliveredError: They were not, or that is not known.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An address.

    Attributes:
        scheme: How it is spoken to: ``http``, ``https``, ``grpc`` or ``grpcs``.
        url: The whole address.
        place: Host and port.
        headers: What is sent along, for those who ask who sends.
        certificate: The file of the authorities to trust; None for the system's.
        seconds: How long one batch may take.
    """

    scheme: str
    url: str
    place: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: str | None = None
    seconds: float = _SECONDS

    @property
    def name(self) -> str:
        """A file name for what is remembered of it."""
        return f"forward-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"


def _typed(url: str) -> str:
    """Return what somebody wrote as an address, without what may be a secret in it."""
    return re.split(r"[?#]", url)[0].rpartition("@")[2]


def read_endpoint(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
    seconds: float = _SECONDS,
) -> Endpoint:
    """Return the address that a URL is.

    Args:
        url: ``http://collector:4318/v1/traces``, or ``grpc://collector:4317``; with TLS
            ``https`` and ``grpcs``.
        headers: Sent along, over those that OTEL_EXPORTER_OTLP_HEADERS names.
        environ: The process's environment.
        seconds: How long one batch may take.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in _PROTOCOLS or not host:
        message = (
            f"an endpoint wants http://collector:4318/v1/traces or grpc://collector:4317, got `{_typed(url)}`: "
            "name the collector's OTLP receiver"
        )
        raise ConfigurationError(message)
    if "@" in parts.netloc or parts.query or parts.fragment:
        message = (
            f"an endpoint wants no user and no query, got one for `{shown}`: "
            "pass what the receiver wants to know in OTEL_EXPORTER_OTLP_HEADERS"
        )
        raise ConfigurationError(message)
    http = parts.scheme in _HTTP
    if http and parts.path in {"", "/"}:
        message = f"an endpoint over HTTP wants its path, got `{shown}`: mostly it is {parts.scheme}://{parts.netloc}/v1/traces"
        raise ConfigurationError(message)
    if not http and (port is None or parts.path not in {"", "/"}):
        message = f"an endpoint of gRPC wants a host and a port alone, got `{shown}`: such as grpc://collector:4317"
        raise ConfigurationError(message)
    named = parse_env_headers(_first(environ, _HEADERS), liberal=True)
    return Endpoint(
        scheme=parts.scheme,
        url=shown,
        place=parts.netloc,
        headers={**named, **{name.lower(): value for name, value in (headers or {}).items()}},
        certificate=_first(environ, _CERTIFICATE) or None,
        seconds=seconds,
    )


def _first(environ: Mapping[str, str], names: Sequence[str]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def open_sender(endpoint: Endpoint, *, service: str) -> Sender:
    """Return who carries spans to an address.

    Args:
        endpoint: The address.
        service: Whose spans they are, where OTEL_SERVICE_NAME does not say.

    Raises:
        ConfigurationError: The extra that speaks the protocol is not installed, or a file
            that it needs cannot be read.
    """
    module, extra = _PROTOCOLS[endpoint.scheme]
    try:
        protocol = import_module(f"agentguard.evidence.delivery.{module}")
    except ImportError:
        message = (
            f"forwarding to `{endpoint.url}` wants what speaks OTLP, got none: pip install 'agentguard[{extra}]', "
            f"or from a clone pip install -e 'path/to/agentguard[{extra}]'"
        )
        raise ConfigurationError(message) from None
    try:
        sender: Sender = protocol.open_sender(endpoint, service=service)
    except OSError as error:
        message = (
            f"certificate `{endpoint.certificate}` cannot be read: {error.strerror or type(error).__name__}: "
            "name a file of PEM in OTEL_EXPORTER_OTLP_CERTIFICATE"
        )
        raise ConfigurationError(message) from None
    return sender
