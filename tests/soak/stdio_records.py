"""A guarded server over stdio, as a host starts it with `agentguard run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer

from agentguard import Guard, UnsafeLocalIssuer
from agentguard.identity.sources import stdio_audience

NAME = "records"
ALL = '@id("all") permit (principal, action, resource);'


def build(policies: Path) -> tuple[Guard, MCPServer]:
    """Return the server, not yet attached to its guard."""
    state = policies.with_name("state")
    guard = Guard(policies, issuer=UnsafeLocalIssuer(), audience=stdio_audience(NAME), state=state)
    server = MCPServer(NAME)

    @server.tool()
    @guard.tool
    async def whoami() -> str:
        """Return the ids of this process and of the one that started it."""
        return f"{os.getpid()} {os.getppid()}"

    return guard, server


if __name__ == "__main__":
    guard, server = build(Path(sys.argv[1]))
    guard.attach(server)
    server.run("stdio")
