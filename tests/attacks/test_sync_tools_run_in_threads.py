"""An async wrapper around a plain function moves its body onto the event loop, unless it uses a thread."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
from mcp import Client

from tests.world import World, make_world, text


async def test_plain_tool_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    """While a plain tool blocks, another call of the same server is answered."""
    blocked, release = threading.Event(), threading.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        def blocking() -> str:
            blocked.set()
            release.wait()
            return threading.current_thread().name

    world = make_world(tmp_path, policies='@id("all") permit (principal, action, resource);', extend=extend)
    answers: list[str] = []

    with anyio.fail_after(10):
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                answers.append(text(await client.call_tool("blocking", {})))

            tasks.start_soon(call)
            await anyio.to_thread.run_sync(blocked.wait)
            assert not (await client.call_tool("read", {"record_id": "r1"})).is_error
            release.set()

    assert answers != [threading.main_thread().name]
