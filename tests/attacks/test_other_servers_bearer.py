"""`get_access_token()` gave server A's bearer inside server B of the same process."""

from __future__ import annotations

from pathlib import Path

from mcp import Client

from tests.world import NESTED, World, http_client, make_world, meta, served, text


async def test_identity_does_not_leak_into_another_server(tmp_path: Path) -> None:
    """A tool of A calls B in memory: B sees B's own source of identity, not the bearer that A was called with."""
    inner = make_world(tmp_path / "b", agent=None)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            async with Client(inner.server) as client:
                result = await client.call_tool("read", {"record_id": "r1"})
            return meta(result)["reason"]

    outer = make_world(tmp_path / "a", policies=NESTED, extend=extend)
    async with served(outer) as url, http_client(url, outer.token()) as client:
        result = await client.call_tool("nested", {})

    assert text(result) == "unauthenticated"
    assert inner.ran == []
    assert inner.records()[-1]["agentguard.decision.reason"] == "unauthenticated"


async def test_guarded_function_of_another_guard_finds_no_request(tmp_path: Path) -> None:
    """A request belongs to one guard: another guard's tool, called from inside, has none."""
    inner = make_world(tmp_path / "b", agent=None)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            await inner.server.call_tool("read", {"record_id": "r1"})
            return "read"

    outer = make_world(tmp_path / "a", policies=NESTED, extend=extend)
    async with Client(outer.server) as client:
        result = await client.call_tool("nested", {})

    assert result.is_error
    assert inner.ran == []
