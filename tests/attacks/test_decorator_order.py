"""`@guard.tool` above `@server.tool()` registers the bare function and would guard nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from agentguard import ConfigurationError
from tests.world import World, make_world, meta


def test_wrong_order_is_refused_at_start_up(tmp_path: Path) -> None:
    """The mistake is named at `attach`, with the fix."""

    def extend(world: World) -> None:
        @world.guard.tool
        @world.server.tool()
        async def delete_file(path: str) -> str:
            return path

    with pytest.raises(ConfigurationError, match=r"^tool `delete_file` is not guarded: put @guard.tool below @server"):
        make_world(tmp_path, extend=extend)


def test_decorator_between_is_refused_at_start_up(tmp_path: Path) -> None:
    """A decorator above ours would run before the decision, and `wraps` makes it look like ours."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    def extend(world: World) -> None:
        @world.server.tool()
        @logged
        @world.guard.tool
        async def delete_file(path: str) -> str:
            return path

    with pytest.raises(ConfigurationError, match=r"another decorator above @guard\.tool"):
        make_world(tmp_path, extend=extend)


async def test_unguarded_tool_is_denied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tool without the decorator does not run, and reads like one that does not exist."""

    def extend(world: World) -> None:
        @world.server.tool()
        async def naked() -> str:
            world.ran.append("naked")
            return "ran"

    world = make_world(tmp_path, extend=extend)

    async with Client(world.server) as client:
        naked = await client.call_tool("naked", {})
        absent = await client.call_tool("absent", {})

    assert world.ran == []
    assert "tool `naked` is not guarded" in caplog.text
    assert meta(naked) | {"id": ""} == meta(absent) | {"id": ""}
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["unguarded", "unguarded"]


async def test_tool_that_was_swapped_after_attach_is_denied(tmp_path: Path) -> None:
    """A name alone is fooled by removing a tool and adding another one under it."""
    world = make_world(tmp_path)
    world.server.remove_tool("export")

    @world.server.tool(name="export")
    async def other(max_rows: int = 10) -> str:
        world.ran.append("other")
        return "ran"

    async with Client(world.server) as client:
        result = await client.call_tool("export", {})

    assert world.ran == []
    assert meta(result)["reason"] == "denied"
    assert world.records()[-1]["agentguard.decision.reason"] == "unguarded"


def test_function_under_two_names_is_refused(tmp_path: Path) -> None:
    """A wrapper cannot tell by which of its names it was called."""

    def extend(world: World) -> None:
        @world.guard.tool
        async def one() -> str:
            return ""

        world.server.add_tool(one, name="a")
        world.server.add_tool(one, name="b")

    with pytest.raises(ConfigurationError, match="registered as `a` and as `b`"):
        make_world(tmp_path, extend=extend)
