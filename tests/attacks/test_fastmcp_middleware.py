"""FastMCP middleware answers calls from inside the process too, and turns errors into others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastmcp import Context, FastMCP
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.middleware.error_handling import ErrorHandlingMiddleware
from mcp import Client
from mcp_types import CallToolResult, RequestParamsMeta

from agentguard import AccessDenied
from agentguard.identity.sources import META_KEY, stdio_audience
from tests.attacks.test_fastmcp_ways_around import called, guarded
from tests.fast import ALL, Fast, in_memory, make_fast, structured
from tests.world import meta

BOSS = 'unless { principal.scopes.contains("boss") };'


async def as_run(fast: Fast, client: Client, scope: str, name: str, **arguments: Any) -> CallToolResult:
    """Call a tool as a run of its own, over the same connection as others."""
    token: Any = {META_KEY: fast.token(audience=stdio_audience(fast.server.name), scopes=[scope])}
    sent: RequestParamsMeta = token
    return await client.call_tool(name, arguments, meta=sent)


@pytest.mark.parametrize("mounted", [False, True])
async def test_nested_call_that_a_cache_answers(mounted: bool, tmp_path: Path) -> None:
    """What one run was allowed to get, another is not given by way of a tool that calls for it."""
    prefix = "shop_" if mounted else ""
    fast = make_fast(
        tmp_path,
        ALL
        + f"""
        @id("tool") forbid (principal, action == Action::"{prefix}known", resource) {BOSS}
        @id("read") forbid (principal, action in Action::"resources/read", resource) {BOSS}
        @id("prompt") forbid (principal, action in Action::"prompts/get", resource) {BOSS}
        """,
    )
    child: FastMCP[Any] = FastMCP("child")
    owner = child if mounted else fast.server
    owner.add_middleware(ResponseCachingMiddleware())
    guarded(fast, owner, "known")

    @owner.resource("data://plain")
    async def plain() -> str:
        fast.ran.append("plain")
        return "secret"

    @owner.resource("data://decorated")
    @fast.guard.resource
    async def decorated() -> str:
        fast.ran.append("decorated")
        return "secret"

    @owner.prompt
    async def greet() -> str:
        fast.ran.append("greet")
        return "secret"

    async def all_of(context: Context, attempt: int) -> list[str]:
        server, got = context.fastmcp, []
        for name, operation in (
            ("known", lambda: server.call_tool("known")),
            ("plain", lambda: server.read_resource("data://plain")),
            ("decorated", lambda: server.read_resource("data://decorated")),
            ("greet", lambda: server.render_prompt("greet")),
        ):
            try:
                await operation()
            except AccessDenied:
                continue
            got.append(name)
        return got

    owner.tool(fast.guard.tool(all_of))
    fast.server.mount(child, "shop")
    fast.guard.attach(fast.server, identity="meta")

    async with in_memory(fast) as client:
        first = await as_run(fast, client, "boss", f"{prefix}all_of", attempt=1)
        second = await as_run(fast, client, "none", f"{prefix}all_of", attempt=2)

    assert structured(first) == ["known", "plain", "decorated", "greet"]
    assert structured(second) == []
    assert fast.ran == ["known 1", "plain", "decorated", "greet"]


async def test_resource_that_nobody_guards_may_be_kept(tmp_path: Path) -> None:
    """It is judged by its URI each time, by the message or where it is read: so a cache may have it."""
    fast = make_fast(tmp_path, middleware=[ResponseCachingMiddleware()])

    @fast.server.resource("data://plain")
    async def plain() -> str:
        fast.ran.append("plain")
        return "text"

    async def read(attempt: int) -> str:
        await fast.server.read_resource("data://plain")
        return "read"

    fast.server.tool(fast.guard.tool(read))
    fast.attach()

    async with in_memory(fast) as client:
        for _ in range(2):
            await client.read_resource("data://plain")
        assert structured(await client.call_tool("read", {"attempt": 1})) == "read"

    assert fast.ran == ["plain"]
    assert [action for action, _ in fast.reasons()].count("resources/read") == 3


async def test_nested_denial_comes_through_middleware_that_turns_errors_into_others(tmp_path: Path) -> None:
    """It is still a denial, which the tool can catch, and the caller is told so if it does not."""
    fast = make_fast(
        tmp_path,
        ALL + '@id("no") forbid (principal, action == Action::"inner", resource);',
        middleware=[ErrorHandlingMiddleware()],
    )
    guarded(fast, fast.server, "inner")

    @fast.server.tool
    @fast.guard.tool
    async def outer(catch: bool) -> str:
        try:
            await fast.server.call_tool("inner")
        except AccessDenied:
            if not catch:
                raise
        return "went on"

    fast.attach()

    assert structured(await called(fast, "outer", catch=True)) == "went on"
    assert meta(await called(fast, "outer", catch=False))["reason"] == "denied"
