"""How a server whose code one cannot touch is served: over stdio, or over HTTP behind bearer tokens.

FastMCP is an extra: a server of it can be here only if somebody else has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server

from agentguard.adapters.mcp import Adapter
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.adapters.bearer import HttpAuth

    App = Callable[..., Any]
    """An ASGI application."""


class Auth(Protocol):
    """What of a guard lets a server take bearer tokens."""

    def http_auth(self) -> HttpAuth:
        """Return the SDK's keyword arguments."""

    def auth(self) -> Any:
        """Return FastMCP's provider."""


class Served(Protocol):
    """One server, as it is served."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def middleware(self) -> list[Any]:
        """Where every message passes."""

    @property
    def has_auth(self) -> bool:
        """Whether it has an authentication over HTTP of its own."""

    @property
    def open_routes(self) -> list[str]:
        """The paths that its framework serves to anybody over HTTP."""

    def app(self, auth: Auth, *, path: str, host: str) -> App:
        """Return it as an application that demands bearer tokens at *path*."""

    async def speak(self) -> None:
        """Serve stdio until the other side is done."""


def served(server: object) -> Served | None:
    """Return how *server* is served; None if it is none that we know."""
    fastmcp = sys.modules.get("fastmcp")
    if fastmcp is not None and isinstance(server, fastmcp.FastMCP):
        return _FastMCP(server)
    if isinstance(server, MCPServer):
        return _MCPServer(server)
    return _LowLevel(server) if isinstance(server, Server) else None


def is_server(candidate: object) -> bool:
    """Return whether *candidate* can be served."""
    return served(candidate) is not None


def unguarded(server: object) -> Served:
    """Return how a server is served that no guard has been attached to.

    Raises:
        ConfigurationError: One has.
    """
    known = served(server)
    if known is None or any(isinstance(one, Adapter) for one in known.middleware):
        message = "the server has a guard of its own: start it as it is, or take the guard out of its code"
        raise ConfigurationError(message)
    return known


class _MCPServer:
    def __init__(self, server: MCPServer[Any]) -> None:
        self._server = server

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def middleware(self) -> list[Any]:
        return self._server.middleware

    @property
    def has_auth(self) -> bool:
        return self._server.settings.auth is not None

    @property
    def open_routes(self) -> list[str]:
        return [route.path for route in self._server._custom_starlette_routes]  # noqa: SLF001

    def app(self, auth: Auth, *, path: str, host: str) -> App:
        # The SDK takes them in the constructor alone, which is behind us.
        demanded = auth.http_auth()
        self._server.settings.auth = demanded["auth"]
        self._server._token_verifier = demanded["token_verifier"]  # noqa: SLF001
        return self._server.streamable_http_app(streamable_http_path=path, host=host)

    async def speak(self) -> None:
        await self._server.run_stdio_async()


class _LowLevel:
    has_auth = False

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self.open_routes: list[str] = []

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def middleware(self) -> list[Any]:
        return self._server.middleware

    def app(self, auth: Auth, *, path: str, host: str) -> App:
        demanded: Mapping[str, Any] = auth.http_auth()
        return self._server.streamable_http_app(streamable_http_path=path, host=host, **demanded)

    async def speak(self) -> None:
        async with stdio_server() as (reads, writes):
            await self._server.run(reads, writes, self._server.create_initialization_options())


class _FastMCP:
    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def name(self) -> str:
        return str(self._server.name)

    @property
    def middleware(self) -> list[Any]:
        return list(self._server._mcp_server.middleware)  # noqa: SLF001

    @property
    def has_auth(self) -> bool:
        return self._server.auth is not None

    @property
    def open_routes(self) -> list[str]:
        return [str(route.path) for route in self._server._get_additional_http_routes()]  # noqa: SLF001

    def app(self, auth: Auth, *, path: str, host: str) -> App:  # noqa: ARG002  it sees by itself where it is served
        self._server.auth = auth.auth()
        return self._server.http_app(path=path, host_origin_protection="auto")  # type: ignore[no-any-return]

    async def speak(self) -> None:
        await self._server.run_stdio_async(show_banner=False)
