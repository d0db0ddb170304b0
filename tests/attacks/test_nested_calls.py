"""A nested `call_tool` goes around middleware and interceptors, and not around the function."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.server.mcpserver import Context

from agentguard import AccessDenied
from agentguard.testing import acting_as
from tests.world import NESTED, World, make_world, served, text


def extend(world: World) -> None:
    """Add a tool that calls other tools."""

    @world.server.tool()
    @world.guard.tool
    async def nested(record_id: str, ctx: Context) -> str:
        try:
            await ctx.mcp_server.call_tool("read", {"record_id": record_id}, ctx)
        except AccessDenied as denied:
            return f"nested: {denied}, {denied.decision.reason}"
        return "read"


async def test_nested_call_is_judged_for_itself(tmp_path: Path) -> None:
    """A tool that may run cannot lend its allow to another one; it is told with AccessDenied."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with Client(world.server) as client:
        denied = await client.call_tool("nested", {"record_id": "r9"})
        allowed = await client.call_tool("nested", {"record_id": "r1"})

    assert text(denied) == "nested: access denied, policy"
    assert text(allowed) == "read"
    assert world.ran == ["read r1"]


async def test_task_that_outlives_its_request_is_denied(tmp_path: Path) -> None:
    """What a tool leaves running in the background has lost its identity."""
    outcome: list[object] = []
    late = anyio.Event()
    done = anyio.Event()

    async with anyio.create_task_group() as background:

        def extend(world: World) -> None:
            async def later() -> None:
                await late.wait()
                try:
                    outcome.append(await world.server.call_tool("read", {"record_id": "r1"}))
                except Exception as error:  # noqa: BLE001
                    outcome.append(error)
                done.set()

            @world.server.tool()
            @world.guard.tool
            async def nested() -> str:
                background.start_soon(later)
                return "started"

        world = make_world(tmp_path, policies=NESTED, extend=extend)
        async with Client(world.server) as client:
            assert text(await client.call_tool("nested", {})) == "started"
        late.set()
        await done.wait()

    assert isinstance(outcome[0], AccessDenied)
    assert world.ran == []


async def test_guarded_function_outside_of_any_request_is_denied(tmp_path: Path) -> None:
    """Without a request there is no identity, so nothing runs."""
    world = make_world(tmp_path)

    with pytest.raises(AccessDenied):
        await world.server._tool_manager.list_tools()[0].fn(record_id="r1")

    assert world.ran == []


async def test_guard_that_was_never_attached_denies_every_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Forgetting `attach` closes, and says so in the log."""
    world = make_world(tmp_path, attach=False)

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})
    with acting_as("reader"), pytest.raises(AccessDenied):
        await world.server._tool_manager.list_tools()[0].fn(record_id="r1")

    async with served(world) as url, httpx2.AsyncClient() as http:
        refused = await http.post(url, headers={"Authorization": "Bearer none"})

    assert refused.status_code == 401
    assert result.is_error
    assert world.ran == []
    assert "never attached: call guard.attach(server)" in caplog.text
    assert text(result) == "Error executing tool read: access denied"
    assert not any(record.exc_info for record in caplog.records)


async def test_denial_deep_inside_reaches_a_direct_caller(tmp_path: Path) -> None:
    """Through every level the denial stays AccessDenied, with the inner decision."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def middle() -> object:
            return await world.server.call_tool("read", {"record_id": "r9"})

        @world.server.tool()
        @world.guard.tool
        async def nested() -> object:
            return await middle()

    policies = NESTED + '@id("middle") permit (principal, action == Action::"middle", resource);'
    world = make_world(tmp_path, policies=policies, extend=extend)

    with acting_as("reader"), pytest.raises(AccessDenied) as denied:
        await world.server._tool_manager.list_tools()[-1].fn()

    assert denied.value.decision.policy_ids == ("restricted",)
    assert world.ran == []
