"""An MCP transport that carries a run: a fresh bearer on every request, to one server."""

from __future__ import annotations

import ipaddress
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INVALID_REQUEST, ErrorData, JSONRPCError

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import peek
from agentguard.identity.sources import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, EnvironmentSource
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, MutableMapping

    from mcp.client._transport import TransportStreams

__all__ = ["InheritedRun", "Transport", "carry", "inherited_run"]

# A server may hold a response's stream open for as long as the tool runs.
_TIMEOUT: Final = httpx2.Timeout(30, read=300)
_UNAUTHORIZED: Final = 401
_OVER: Final = frozenset({Reason.EXPIRED, Reason.REVOKED})


def carry(url: str, token: Callable[[], str]) -> Transport:
    """Return a transport for `mcp.Client` that acts as a run.

    Once the run is over, requests are answered with an error here and are not sent.
    Proxies that the environment names are not used.

    Args:
        url: The server's streamable HTTP endpoint. The token goes to its origin alone.
        token: Gives the run's token of now; raises `Refusal` once the run is over.

    Raises:
        ConfigurationError: The URL would show the token to the network.
    """
    try:
        parsed = httpx2.URL(url)
        host = parsed.host
    except httpx2.InvalidURL:
        parsed, host = httpx2.URL(), ""
    if not host or not (parsed.scheme == "https" or (parsed.scheme == "http" and _is_loopback(host))):
        message = f"a run's token goes to https, or to http on loopback, got `{url}`: give the server's https URL"
        raise ConfigurationError(message)
    return _opened(parsed, token)


class InheritedRun:
    """The run that this process was started to act as. It ends where it was begun.

    Made by `inherited_run`.
    """

    __slots__ = ("_clock", "_file", "_limits", "_source")

    def __init__(self, environ: MutableMapping[str, str], *, clock: Callable[[], float], limits: Limits) -> None:
        self._file = environ.get(TOKEN_FILE_VARIABLE)
        self._source = EnvironmentSource.take(environ, limits=limits)
        self._clock = clock
        self._limits = limits

    def token(self) -> str:
        """Return the run's token of now; do not keep it.

        Raises:
            Refusal: `REVOKED` or `EXPIRED`, once the run is over; `UNAUTHENTICATED`, if its
                token cannot be had, or was not renewed.
        """
        now = self._clock()
        try:
            text = self._source.token(now)
        except Refusal as refusal:
            # Whoever keeps the file takes it away when the run ends.
            if self._file and not os.path.lexists(self._file):
                raise Refusal(Reason.REVOKED, "the token's file was taken away") from refusal
            raise
        if not now < peek(text, self._limits).expires_at:
            reason = Reason.UNAUTHENTICATED if self._file else Reason.EXPIRED
            raise Refusal(reason, "the token's time is over, and there is no new one")
        return text

    def http(self, url: str) -> Transport:
        """Return a transport for `mcp.Client` that acts as this run, with its token of each moment.

        Args:
            url: The server's streamable HTTP endpoint, https or on loopback.

        Raises:
            ConfigurationError: The URL would show the token to the network.
        """
        return carry(url, self.token)


def inherited_run(
    environ: MutableMapping[str, str] | None = None,
    *,
    clock: Callable[[], float] = time.time,
    limits: Limits | None = None,
) -> InheritedRun:
    """Take the run that this process was started with out of its environment.

    For an agent that `agentguard run` started, or a program that passed
    `Run.environment()` on. What the agent starts in turn does not inherit it, so call
    this once, and keep what it returns.

    Args:
        environ: The environment; this process's own if left out.
        clock: Gives unix seconds.
        limits: The bounds.

    Raises:
        ConfigurationError: There is none, or it was taken out before.
    """
    environ = os.environ if environ is None else environ
    if not (environ.get(TOKEN_FILE_VARIABLE) or environ.get(TOKEN_VARIABLE)):
        message = (
            f"the environment holds no run: wants {TOKEN_FILE_VARIABLE} or {TOKEN_VARIABLE}, got neither: "
            "start this program with `agentguard run`, and take the run out once"
        )
        raise ConfigurationError(message)
    return InheritedRun(environ, clock=clock, limits=limits or Limits())


@asynccontextmanager
async def _opened(url: httpx2.URL, token: Callable[[], str]) -> AsyncGenerator[TransportStreams, None]:
    transport = _Bearer(url, token, httpx2.AsyncHTTPTransport())
    async with (
        httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT, trust_env=False) as http,
        streamable_http_client(str(url), http_client=http) as streams,
    ):
        yield streams


class _Bearer(httpx2.AsyncBaseTransport):
    """Puts the token of now on each request on its way out."""

    def __init__(self, url: httpx2.URL, token: Callable[[], str], network: httpx2.AsyncBaseTransport) -> None:
        self._origin = _origin(url)
        self._token = token
        self._network = network

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # The SDK follows redirects within the origin, and from http to https; the token
        # goes nowhere but where the caller said.
        if _origin(request.url) == self._origin:
            try:
                request.headers["Authorization"] = f"Bearer {self._token()}"
            except Refusal as refusal:
                return _refused(request, refusal.reason)
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


def _refused(request: httpx2.Request, reason: Reason) -> httpx2.Response:
    # An answer and not an exception, which would take the whole session down with it.
    text = "the run is over" if reason in _OVER else "the run's token cannot be renewed now"
    error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=text))
    return httpx2.Response(_UNAUTHORIZED, request=request, json=error.model_dump(by_alias=True, mode="json"))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
