"""Where the SDK keeps from where a request comes, for every transport and version of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentguard.lifecycle.origin import origin_of

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext


def origin(ctx: ServerRequestContext[Any, Any]) -> str:
    """Return from where a request comes: see `agentguard.lifecycle.origin`."""
    # As the server sees it: behind a proxy that is the proxy's, unless the server is told to believe what that says.
    # None without HTTP, and on a Unix socket.
    peer = getattr(ctx.request, "client", None)
    address = "" if peer is None else str(peer.host)
    return origin_of("stdio" if ctx.request is None else "http", address=address, named=_named(ctx))


def _named(ctx: ServerRequestContext[Any, Any]) -> tuple[str, str] | None:
    """Return what the client calls itself: since 2026-07-28 in each request, before that as the session began."""
    declared = ctx.session.client_params
    if declared is not None:
        return declared.client_info.name, declared.client_info.version
    request = ctx.request
    # Stateless HTTP forgets what a client said as it began. All others could have said it.
    forgot = request is not None and "mcp-session-id" not in getattr(request, "headers", {})
    return None if forgot and ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS else ("", "")
