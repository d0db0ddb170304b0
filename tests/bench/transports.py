"""A bare tool against a guarded one, through real clients on real transports."""

from __future__ import annotations

import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer

from tests.bench.timing import Way, medians, table
from tests.world import Transport, connected, http_client, make_world, served

ROUNDS = 9
CALLS: dict[Transport, int] = {"memory": 100, "stdio": 100, "http": 30}


async def export(max_rows: int = 10, fmt: str = "csv") -> str:
    """Do what the world's own tool does, without a guard."""
    return f"{max_rows} rows"


def bare_server() -> MCPServer[Any]:
    """Return a server with that tool alone."""
    server = MCPServer("records")
    server.add_tool(export)
    return server


async def measure() -> None:
    """Print medians and ratios for each transport."""
    for transport, calls in CALLS.items():
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            world = make_world(Path(folder))
            guarded = await stack.enter_async_context(connected(world, transport, "2025-11-25"))
            if transport == "http":
                plain = make_world(Path(folder) / "plain", attach=False)
                plain.server = bare_server()
                url = await stack.enter_async_context(served(plain))
                bare = await stack.enter_async_context(http_client(url, None, "2025-11-25"))
            elif transport == "stdio":
                parameters = StdioServerParameters(
                    command=sys.executable, args=["-m", "tests.bench.transports"], cwd=Path(__file__).parents[2]
                )
                bare = await stack.enter_async_context(Client(parameters, mode="legacy"))
            else:
                bare = await stack.enter_async_context(Client(bare_server(), mode="legacy"))

            def calling(client: Client) -> Way:
                async def call() -> object:
                    result = await client.call_tool("export", {"max_rows": 7})
                    assert not result.is_error
                    return result

                return call

            taken = await medians(
                {"bare tool": calling(bare), "guarded tool": calling(guarded)}, rounds=ROUNDS, calls=calls
            )
            ratio = taken["guarded tool"] / taken["bare tool"]
            adds = taken["guarded tool"] - taken["bare tool"]
            table(f"over {transport}", taken, {"guarded tool": f"{ratio:.2f} x bare, {adds:+.0f} µs"})


if __name__ == "__main__":
    bare_server().run("stdio")
