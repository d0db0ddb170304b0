"""Before the function decorator, the arguments are raw: what is judged must be what the tool gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.world import make_world, meta


@pytest.mark.parametrize("raw", ["501", 501.0, "5_01", 501])
async def test_value_that_the_tool_would_get_is_judged(raw: Any, tmp_path: Path) -> None:
    """`"5_01"` and `501.0` are not greater than 500 as Cedar would see them raw; 501 is."""
    world = make_world(tmp_path)

    async with Client(world.server) as client:
        over = await client.call_tool("export", {"max_rows": raw})

    assert "At most 500 rows." in str(over.content)
    assert world.ran == []


async def test_missing_argument_is_judged_by_its_default(tmp_path: Path) -> None:
    """A default that no caller sent is what the tool gets, so it is judged."""
    world = make_world(
        tmp_path,
        policies=(
            '@id("all") permit (principal, action, resource);'
            '@id("ten") forbid (principal, action == Action::"export", resource) when { context.input.max_rows == 10 };'
        ),
    )

    async with Client(world.server) as client:
        denied = await client.call_tool("export", {})
        allowed = await client.call_tool("export", {"max_rows": 11})

    assert meta(denied)["reason"] == "denied"
    assert not allowed.is_error
    assert world.ran == ["export 11 csv"]
