"""A guarded server that is called by its own client, many at a time, until enough calls ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
from mcp import Client

from agentguard import open_state
from tests.world import World, make_world

ALL = '@id("all") permit (principal, action, resource);'
AT_ONCE = 16


async def serve(folder: Path, url: str, log: Path, calls: int, done: int) -> None:
    """Call until *calls* calls ran, those *done* by the processes before this one too."""
    ran = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    # The one before may have been killed in the middle of a line.
    os.write(ran, b"\n")
    left = iter(range(calls - done))

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{key}")
        async def work(key: str) -> str:
            os.write(ran, f"{key};\n".encode())
            return key

    world = make_world(
        folder / "policies", policies=ALL, extend=extend, state=open_state(folder / "state"), forward=url
    )

    async def keep_calling(client: Client) -> None:
        for number in left:
            result = await client.call_tool("work", {"key": f"{os.getpid()}-{number}"})
            assert not result.is_error, result

    async with Client(world.server, mode="2026-07-28") as client, anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(keep_calling, client)


if __name__ == "__main__":
    folder, url, log, calls = sys.argv[1:]
    before = Path(log)
    done = before.read_bytes().count(b";") if before.exists() else 0
    anyio.run(serve, Path(folder), url, before, int(calls), done)
