"""`get_access_token()` gave server A's bearer inside server B of the same process."""

from __future__ import annotations

from pathlib import Path

from mcp import Client
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

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


async def test_bearer_that_the_sdk_remembers_from_elsewhere_does_not_count(tmp_path: Path) -> None:
    """The SDK's context variable may hold another server's user: only the request's own one is asked."""
    world = make_world(tmp_path)
    world.server.settings.auth = None
    world.server._token_verifier = None
    elsewhere = AuthenticatedUser(AccessToken(token=world.token(), client_id="reader", scopes=[]))

    remembered = auth_context_var.set(elsewhere)
    try:
        async with served(world) as url, http_client(url, None) as client:
            result = await client.call_tool("read", {"record_id": "r1"})
    finally:
        auth_context_var.reset(remembered)

    assert meta(result)["reason"] == "unauthenticated"
    assert world.ran == []
