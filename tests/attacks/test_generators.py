"""What a tool leaves to be run later would run after its outcome, and past the run's end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from agentguard import ConfigurationError
from tests.world import World, make_world, text

ALL = '@id("all") permit (principal, action, resource);'


def test_generator_is_refused_at_start_up(tmp_path: Path) -> None:
    """Its body would run in the conversion of the result."""

    def pages() -> Iterator[str]:
        yield "page"

    async def pages_later() -> AsyncIterator[str]:
        yield "page"

    world = make_world(tmp_path)
    for function in (pages, pages_later):
        with pytest.raises(ConfigurationError, match="is a generator, which would run after its outcome"):
            world.guard.tool(function)


async def test_iterator_is_no_result(tmp_path: Path) -> None:
    """A tool that returns one has failed: nothing of it runs."""

    def extend(world: World) -> None:
        def body() -> Iterator[str]:
            world.ran.append("late")
            yield "secret"

        def lazy() -> Any:
            return body()

        lazy.__annotations__["return"] = list[str]
        world.server.add_tool(world.guard.tool(lazy))

    world = make_world(tmp_path, policies=ALL, extend=extend)
    async with Client(world.server) as client:
        result = await client.call_tool("lazy", {})

    assert result.is_error
    assert world.ran == []
    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "failed"


async def test_coroutine_of_a_plain_function_runs_as_the_tool(tmp_path: Path) -> None:
    """A plain wrapper around an async function is awaited where the tool runs, not later."""

    def extend(world: World) -> None:
        async def body() -> str:
            return "done"

        def wrapper() -> Any:
            return body()

        wrapper.__annotations__["return"] = str
        world.server.add_tool(world.guard.tool(wrapper))

    world = make_world(tmp_path, policies=ALL, extend=extend)
    async with Client(world.server) as client:
        assert text(await client.call_tool("wrapper", {})) == "done"
