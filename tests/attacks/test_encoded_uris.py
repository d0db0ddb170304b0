"""The SDK decodes the parameters of a resource's URI: what is judged must be decoded too."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp import Client, MCPError

from agentguard import AccessDenied
from tests.world import World, make_world

POLICIES = """
@id("all") permit (principal, action, resource);
@id("hr") forbid (principal, action == Action::"resources/read", resource)
when { context.input.uri like "records://hr/*" };
@id("files") forbid (principal, action == Action::"resources/read/file", resource)
when { context.input.path like "hr/*" };
"""


def extend(world: World) -> None:
    """Add a resource with parameters, and one that calls a guarded tool."""

    @world.server.resource("records://{dept}/{doc}")
    def record(dept: str, doc: str) -> str:
        world.ran.append(f"{dept}/{doc}")
        return doc

    @world.server.resource("files://{+path}")
    @world.guard.resource
    def file(path: str) -> str:
        world.ran.append(path)
        return path

    @world.server.resource("calls://{record_id}")
    async def calls(record_id: str) -> str:
        try:
            await world.server.call_tool("read", {"record_id": record_id})
        except AccessDenied as denied:
            return f"inside: {denied.decision.reason}"
        return "read"


@pytest.mark.parametrize("uri", ["records://hr/salary", "records://%68r/salary", "records://h%72/s%61lary"])
async def test_encoding_does_not_get_past_a_policy(uri: str, tmp_path: Path) -> None:
    """However a URI is written, the policy sees what the function would get."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource(uri)
        await client.read_resource("records://sales/plan")

    assert world.ran == ["sales/plan"]


@pytest.mark.parametrize("uri", ["files://hr/salary", "files://%68r/salary", "files://hr%2Fsalary", "files://hr/a%2Fb"])
async def test_parameter_of_a_template_is_judged_as_the_function_gets_it(uri: str, tmp_path: Path) -> None:
    """The SDK's own matching gives it, and there is no second reading of the URI."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.read_resource(uri)
        await client.read_resource("files://sales%2Fplan")

    assert world.ran == ["sales/plan"]


@pytest.mark.parametrize("uri", ["files://%2E%2E/hr/x", "files://..%2Fhr", "files:///etc/passwd", "files://a%00b"])
async def test_parameter_that_the_sdk_refuses_is_that_of_no_resource(uri: str, tmp_path: Path) -> None:
    """It looks at no other template either."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource(uri)

    assert world.ran == []


async def test_denied_call_inside_a_resource_raises(tmp_path: Path) -> None:
    """A resource that calls a tool is told of a denial, and does not take it for data."""
    world = make_world(
        tmp_path,
        policies=POLICIES + '@id("r9") forbid (principal, action == Action::"read", resource == Record::"r9");',
        extend=extend,
    )

    async with Client(world.server) as client:
        denied = await client.read_resource("calls://r9")
        allowed = await client.read_resource("calls://r1")

    assert "inside: policy" in str(denied)
    assert "inside" not in str(allowed)
