"""Which surface a server has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.adapters.mcpserver import MCPServerSurface, is_mcpserver
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from agentguard.adapters.surface import Surface


def surface_of(server: object) -> Surface:
    """Return the surface of a server, whichever framework made it.

    Raises:
        ConfigurationError: If no adapter can serve it.
    """
    if is_mcpserver(server):
        return MCPServerSurface(server)
    message = f"a guard wants an MCPServer, got `{type(server).__qualname__}`: attach the server object"
    raise ConfigurationError(message)
