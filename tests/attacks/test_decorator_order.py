"""`@guard.tool` above `@server.tool()` registers the bare function and would guard nothing."""

from __future__ import annotations

import functools
import logging
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

    caplog.set_level(logging.INFO, "agentguard")
    world = make_world(tmp_path, extend=extend)

    async with Client(world.server) as client:
        naked = await client.call_tool("naked", {})
        absent = await client.call_tool("absent", {})

    assert world.ran == []
    assert "tool `naked` is not guarded" in caplog.text
    denied = [line.partition(", unguarded: ")[2] for line in caplog.messages if line.startswith("denied a call to ")]
    assert denied == [
        "tool `naked` is not guarded: put @guard.tool below @server.tool()",
        "nothing of this name is guarded",
    ]
    assert meta(naked) | {"id": ""} == meta(absent) | {"id": ""}
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["unguarded", "unguarded"]


async def test_tool_that_was_swapped_after_attach_is_denied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A name alone is fooled by removing a tool and adding another one under it."""
    world = make_world(tmp_path)
    caplog.set_level(logging.INFO, "agentguard")
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
    assert "tool `export` is not guarded, every call to it is denied: put @guard.tool below" in caplog.text


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


async def test_tool_that_claims_to_equal_the_guarded_one_is_denied(tmp_path: Path) -> None:
    """Functions are compared by identity: equality is for an object to say itself."""
    world = make_world(tmp_path)

    class Equal:
        """A function that equals every other one."""

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        async def __call__(self, max_rows: int = 10) -> str:
            world.ran.append("other")
            return "ran"

    tool = world.server._tool_manager.get_tool("export")
    assert tool is not None
    tool.fn = Equal()

    async with Client(world.server) as client:
        result = await client.call_tool("export", {})

    assert world.ran == []
    assert meta(result)["reason"] == "denied"


async def test_tool_that_was_removed_after_attach_reads_like_one_that_never_was(tmp_path: Path) -> None:
    """Nobody learns that there once was one."""
    world = make_world(tmp_path)
    world.server.remove_tool("export")

    async with Client(world.server) as client:
        removed = await client.call_tool("export", {})
        absent = await client.call_tool("absent", {})

    assert meta(removed) | {"id": ""} == meta(absent) | {"id": ""}
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["unguarded", "unguarded"]


def test_partial_around_a_guarded_function_is_refused_at_start_up(tmp_path: Path) -> None:
    """Arguments that a partial fills in would not be what the guard was told of."""

    def extend(world: World) -> None:
        @world.guard.tool
        async def delete_file(path: str, force: bool = False) -> str:
            return path

        forced = functools.partial(delete_file, force=True)
        forced.__name__ = "delete_file"  # type: ignore[attr-defined]
        world.server.add_tool(forced)

    with pytest.raises(ConfigurationError, match=r"another decorator above @guard\.tool"):
        make_world(tmp_path, extend=extend)
