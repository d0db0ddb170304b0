"""The decorator must change neither schemas nor results: `wraps` with signature and annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, InputRequiredResult, TextContent
from pydantic import BaseModel, Field

from tests.world import ERAS, Era, World, _mode, make_world


class Colour(Enum):
    """A choice."""

    RED = "red"


class Inner(BaseModel):
    """A nested argument."""

    amount: Decimal
    at: datetime | None = None


@dataclass
class Point:
    """A structured result."""

    x: int
    y: float


class Methods:
    """A tool that is a method."""

    async def method(self, number: int) -> dict[str, int]:
        """Return a mapping."""
        return {"number": number}


async def structured(x: Annotated[int, Field(ge=0, description="how far")], inner: Inner, colour: Colour) -> Point:
    """Return a dataclass."""
    return Point(x, float(inner.amount))


def plain(words: list[str], flag: bool = False, ctx: Context | None = None) -> list[str]:
    """Return a list, from a thread."""
    assert ctx is not None
    return [*words, str(flag)]


async def raw(number: int) -> CallToolResult:
    """Return a result as the protocol has it."""
    return CallToolResult(content=[TextContent(type="text", text=str(number))], structured_content={"n": number})


async def rounds(number: int, ctx: Context) -> str | InputRequiredResult:
    """Ask once more, in the newer protocol."""
    if ctx.request_state is None and ctx.protocol_version == "2026-07-28":
        return InputRequiredResult(request_state=f"state {number}")
    return f"{number} {ctx.request_state}"


FUNCTIONS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (structured, {"x": 1, "inner": {"amount": "1.50"}, "colour": "red"}),
    (plain, {"words": ["a", "b"]}),
    (raw, {"number": 7}),
    (rounds, {"number": 7}),
]


def listed(tools: Any) -> list[dict[str, Any]]:
    """Return tools as data."""
    return [tool.model_dump(mode="json") for tool in tools.tools]


@pytest.mark.parametrize("era", ERAS)
async def test_schemas_and_results_are_those_of_the_bare_tool(era: Era, tmp_path: Path) -> None:
    """Input schema, output schema and results are identical with and without the guard."""
    bare = MCPServer("records")
    for function, _ in FUNCTIONS:
        bare.add_tool(function)
    bare.add_tool(Methods().method)

    def extend(world: World) -> None:
        for name in ("read", "export"):
            world.server.remove_tool(name)
        for function, _ in FUNCTIONS:
            world.server.add_tool(world.guard.tool(function))

        class Guarded(Methods):
            method = world.guard.tool(Methods.method)

        world.server.add_tool(Guarded().method)

    world = make_world(tmp_path, policies='@id("all") permit (principal, action, resource);', extend=extend)
    async with Client(bare, mode=_mode(era)) as one, Client(world.server, mode=_mode(era)) as two:
        assert listed(await two.list_tools()) == listed(await one.list_tools())
        for function, arguments in [*FUNCTIONS, (Methods.method, {"number": 3})]:
            expected = await one.call_tool(function.__name__, arguments)
            result = await two.call_tool(function.__name__, arguments)
            assert not expected.is_error
            assert result == expected
