"""What a FastMCP server hands out to the code around it asks the guard, however it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastmcp import Context, FastMCP

from agentguard import AccessDenied
from agentguard.testing import acting_as
from tests.attacks.test_fastmcp_ways_around import bare, called, guarded
from tests.fast import ALL, Fast, make_fast, structured

NO_SECRETS = (
    ALL
    + """@id("secret") forbid (principal, action == Action::"resources/read", resource)
    when { context.input.uri like "*secret*" };
    @id("no-prompts") forbid (principal, action == Action::"prompts/get", resource);"""
)


def everything(fast: Fast, server: FastMCP[Any]) -> None:
    """Give a server one of each, none of which has a decorator."""
    bare(fast, server, "naked")

    @server.resource("data://secret")
    async def secret() -> str:
        raise AssertionError

    @server.resource("data://rows/{name}")
    async def row(name: str) -> str:
        fast.ran.append(name)
        return name

    @server.prompt
    async def greet() -> str:
        raise AssertionError


@pytest.mark.parametrize("mounted", [False, True])
async def test_listed_component_that_is_run(mounted: bool, tmp_path: Path) -> None:
    """A tool that goes through a list and runs what is there reaches nothing that a look-up would not give it."""
    fast = make_fast(tmp_path, NO_SECRETS)
    child: FastMCP[Any] = FastMCP("child")
    everything(fast, child if mounted else fast.server)
    if mounted:
        fast.server.mount(child)
    owner = child if mounted else fast.server

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> str:
        tools = {tool.name: tool for tool in await owner.list_tools()}
        (resource,), (template,), (prompt,) = (
            await owner.list_resources(),
            await owner.list_resource_templates(),
            await owner.list_prompts(),
        )
        for run in (
            lambda: tools["naked"].run({}),
            lambda: tools["naked"].run(arguments={}),
            lambda: tools["naked"].model_copy()._run({}),
            resource.read,
            lambda: template.read({"name": "secret"}),
            lambda: template.read(arguments={"name": "secret"}),
            lambda: template.create_resource("data://rows/secret", {"name": "secret"}),
            prompt.render,
        ):
            with pytest.raises(AccessDenied):
                await run()
        await template.read({"name": "open"})
        return "went on"

    fast.attach()

    assert structured(await called(fast, "outer")) == "went on"
    assert fast.ran == ["open"]


async def test_template_that_was_found_by_another_uri(tmp_path: Path) -> None:
    """What is judged is what is read, and not what the template was asked for with."""
    fast = make_fast(tmp_path, NO_SECRETS)
    everything(fast, fast.server)

    @fast.server.tool
    @fast.guard.tool
    async def outer(context: Context) -> str:
        template = await context.fastmcp.get_resource_template("data://rows/open")
        assert template is not None
        with pytest.raises(AccessDenied):
            await template.read({"name": "secret"})
        resource = await template.create_resource("data://rows/open", {"name": "open"})
        return str(await resource.read())

    fast.attach()

    assert structured(await called(fast, "outer")) == "open"
    assert fast.ran == ["open"]


async def test_tool_that_was_listed_before_the_guard_came(tmp_path: Path) -> None:
    """Under the decorator it is the function that asks, whoever holds it."""
    fast = make_fast(tmp_path, ALL + '@id("no") forbid (principal, action == Action::"known", resource);')

    @fast.server.tool
    @fast.guard.tool
    async def known() -> str:
        raise AssertionError

    before = [*await fast.server.list_tools(), await fast.server.local_provider.get_tool("known")]

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> str:
        for tool in before:
            assert tool is not None
            for held in (tool, tool.model_copy(), tool.model_copy(update={"name": "other"})):
                with pytest.raises(AccessDenied):
                    await held.run({})
        return "went on"

    fast.attach()

    assert structured(await called(fast, "outer")) == "went on"


async def test_found_tool_that_is_run_outside_of_any_request(tmp_path: Path) -> None:
    """It has no identity there, but a test's own."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    fast.attach()
    tool = await fast.server.get_tool("known")
    assert tool is not None

    with pytest.raises(AccessDenied):
        await tool.run({})
    with acting_as(agent="reader"):
        await tool.run({"amount": 2})

    assert fast.ran == ["known 2"]


async def test_what_is_called_by_keywords(tmp_path: Path) -> None:
    """In any order: what is judged is what was named."""
    fast = make_fast(tmp_path, NO_SECRETS)
    everything(fast, fast.server)
    guarded(fast, fast.server, "known")

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> str:
        server = fast.server
        await server.call_tool(arguments={"amount": 2}, name="known")
        await server.read_resource(version=None, uri="data://rows/open")
        for call in (
            server.call_tool(arguments={}, name="naked"),
            server.read_resource(version=None, uri="data://secret"),
            server.render_prompt(arguments={}, name="greet"),
        ):
            with pytest.raises(AccessDenied):
                await call
        tool = await server.get_tool(version=None, name="known")
        assert tool is not None
        await tool.run(arguments={"amount": 3})
        return "went on"

    fast.attach()

    assert structured(await called(fast, "outer")) == "went on"
    assert fast.ran == ["known 2", "open", "known 3"]
