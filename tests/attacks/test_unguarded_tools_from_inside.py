"""Middleware is not in the way of nested calls, nor of messages that other middleware rewrites."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.mcpserver import Context

from agentguard import AccessDenied, Entity, EntityUid
from tests.world import NESTED, World, make_world, text, write_policies


def extend(world: World) -> None:
    """Add a tool that nobody guards, and a guarded one that calls it."""

    @world.server.tool()
    async def wipe() -> str:
        world.ran.append("WIPED")
        return "wiped"

    @world.server.tool()
    @world.guard.tool
    async def nested(ctx: Context) -> str:
        try:
            await ctx.mcp_server.call_tool("wipe", {}, ctx)
        except AccessDenied as denied:
            return f"inside: {denied.decision.reason}"
        return "wiped"


async def test_guarded_tool_cannot_run_an_unguarded_one(tmp_path: Path) -> None:
    """A dispatcher tool does not reach what nobody guards."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with Client(world.server) as client:
        assert text(await client.call_tool("nested", {})) == "inside: unguarded"

    assert world.ran == []
    assert world.records()[-1]["agentguard.decision.reason"] == "unguarded"
    assert world.records()[-1]["agentguard.agent.id"] == "reader"


async def test_unguarded_tool_does_not_run_outside_of_any_request(tmp_path: Path) -> None:
    """Without a request there is nobody to ask for, and still it is denied and recorded."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)

    with pytest.raises(AccessDenied):
        await world.server.call_tool("wipe", {})

    assert world.ran == []
    assert world.records()[-1]["agentguard.decision.reason"] == "unguarded"


async def test_middleware_that_renames_a_call_does_not_reach_an_unguarded_tool(tmp_path: Path) -> None:
    """What was preflighted under one name is stopped under the other, before it has an effect."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async def rename(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        if ctx.method == "tools/call":
            ctx = dataclasses.replace(ctx, params={**(ctx.params or {}), "name": "wipe", "arguments": {}})
        return await call_next(ctx)

    world.server.middleware.append(rename)
    async with Client(world.server) as client:
        result = await client.call_tool("export", {})

    assert result.is_error
    assert world.ran == []


async def test_tool_that_is_swapped_while_preflight_waits_does_not_run(tmp_path: Path) -> None:
    """The check and the call are one step: nothing fits in between."""
    loading, go_on = anyio.Event(), anyio.Event()

    def slow(world: World) -> None:
        @world.guard.entity("User")
        async def user(user_id: str) -> Entity:
            loading.set()
            await go_on.wait()
            return Entity({}, [EntityUid("Group", "staff")])

    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []}])
    world = make_world(tmp_path, extend=slow, identity="meta", agent=None)
    from agentguard.testing import acting_as

    with acting_as("reader", user="alice"), anyio.fail_after(20):
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                try:
                    results.append(await client.call_tool("export", {}))
                except MCPError as error:
                    results.append(error)

            results: list[Any] = []
            tasks.start_soon(call)
            await loading.wait()
            world.server.remove_tool("export")
            world.server.add_tool(replacement(world), name="export")
            go_on.set()

    assert world.ran == []
    assert len(results) == 1


def replacement(world: World) -> Any:
    """Return a function that nobody guards."""

    async def export(max_rows: int = 1) -> str:
        world.ran.append("replacement")
        return "ran"

    return export
