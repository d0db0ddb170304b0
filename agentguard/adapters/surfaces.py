"""Which surface a server has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agentguard.adapters.lowlevel import LowLevelSurface, is_lowlevel
from agentguard.adapters.mcpserver import MCPServerSurface, is_mcpserver
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp.server.lowlevel import Server
    from mcp.server.mcpserver import MCPServer
    from mcp_types import Tool

    from agentguard.adapters.fastmcp import AnyFastMCP
    from agentguard.adapters.surface import Surface

    AnyServer = MCPServer[Any] | Server[Any] | AnyFastMCP


def surface_of(
    server: object, *, tools: Iterable[Tool] | None = None, wrappers: Callable[[], Iterable[Callable[..., Any]]] = tuple
) -> Surface:
    """Return the surface of a server, whichever framework made it.

    Args:
        server: The server.
        tools: What a low-level server lists.
        wrappers: Gives the decorated functions of tools, those that came since too.

    Raises:
        ConfigurationError: If no adapter can serve it, or the others do not fit it.
    """
    if is_lowlevel(server):
        if tools is None:
            message = (
                "a low-level server keeps no list of its tools: pass attach(tools=…), what its on_list_tools lists"
            )
            raise ConfigurationError(message)
        return LowLevelSurface(server, tools, wrappers())
    if tools is not None:
        message = f"tools= is for a low-level server, and `{type(server).__qualname__}` lists its own: leave it out"
        raise ConfigurationError(message)
    if is_mcpserver(server):
        return MCPServerSurface(server)
    # A server of FastMCP's can be here only if somebody has imported it.
    if "fastmcp" in sys.modules:
        from agentguard.adapters.fastmcp import FastMCPSurface, is_fastmcp  # noqa: PLC0415  an extra

        if is_fastmcp(server):
            return FastMCPSurface(server, wrappers)
    wanted = "an MCPServer, a low-level Server or a FastMCP"
    message = f"a guard wants {wanted}, got `{type(server).__qualname__}`: attach the server object"
    raise ConfigurationError(message)
