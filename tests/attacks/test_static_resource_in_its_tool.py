"""A resource that stands in `cedarentities.json` is in the tool that acts on it, like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp import Client

from tests.world import World, make_world, write_policies

ALL = '@id("all") permit (principal, action, resource);'


@pytest.mark.parametrize(
    "forbid",
    [
        'forbid (principal, action, resource in Tool::"open_file");',
        'forbid (principal, action == Action::"open_file", resource) when { resource in Server::"records" };',
        # The policy asks about the file by name, so it is loaded for every call.
        'forbid (principal, action, resource in Tool::"open_file") when { File::"a" has level };',
    ],
)
async def test_forbid_on_the_tool_fires_for_a_static_resource(forbid: str, tmp_path: Path) -> None:
    """Cedar takes an entity that is not in the tool for one that the forbid does not mean."""
    write_policies(
        tmp_path,
        entities=[{"uid": {"type": "File", "id": "a"}, "attrs": {"level": 3}, "parents": []}],
    )

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="File::{name}")
        async def open_file(name: str) -> str:
            world.ran.append(name)
            return name

    (tmp_path / "types" / "files.cedarschema").write_text("entity File in [Tool] = { level?: Long };")
    for policies, ran in ((ALL, ["a"]), (ALL + f'@id("no") {forbid}', [])):
        world = make_world(tmp_path, policies=policies, extend=extend)
        async with Client(world.server) as client:
            await client.call_tool("open_file", {"name": "a"})
        assert world.ran == ran
