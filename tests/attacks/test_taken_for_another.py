"""What goes by two names, or two things by one: neither may pass by what the other one is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.mcpserver.resources import FunctionResource
from mcp_types import Completion, ResourceTemplateReference

from tests.fast import make_fast
from tests.world import ERAS, Era, World, connected, make_world, text

READS = '@id("reads") permit (principal, action in Action::"resources/read", resource);'
DOCS = '@id("docs") permit (principal, action == Action::"resources/read/doc", resource);'
TOOLS = '@id("tools") permit (principal, action in Action::"tools/call", resource);'


async def told(answer: Any) -> str:
    """Return what is answered, or the error."""
    try:
        return str(await answer)
    except MCPError as error:
        return error.message


@pytest.mark.parametrize("era", ERAS)
async def test_text_of_a_template_is_not_taken_for_a_uri_of_an_earlier_one(era: Era, tmp_path: Path) -> None:
    """Completion names a template by its text, and `records://{kind}/{name}` matches the other's text too."""

    def extend(world: World) -> None:
        @world.server.resource("records://{kind}/{name}", name="doc")
        @world.guard.resource
        async def doc(kind: str, name: str) -> str:
            raise AssertionError(kind + name)

        @world.server.resource("records://hr/{+path}", name="hr")
        @world.guard.resource
        async def hr(path: str) -> str:
            raise AssertionError(path)

        async def complete(ref: Any, argument: Any, context: Any) -> Completion:
            world.ran.append(ref.uri)
            return Completion(values=[])

        world.server.completion()(complete)  # type: ignore[no-untyped-call]

    world = make_world(tmp_path, policies=DOCS, extend=extend)

    async with connected(world, "memory", era) as client:
        argument = {"name": "path", "value": "s"}
        await client.complete(ResourceTemplateReference(uri="records://{kind}/{name}"), argument)
        hidden = await told(client.complete(ResourceTemplateReference(uri="records://hr/{+path}"), argument))

    assert "Denied by policy" in hidden
    assert world.ran == ["records://{kind}/{name}"]


async def test_template_is_not_taken_for_a_resource_whose_uri_is_its_text(tmp_path: Path) -> None:
    """A tool that reads it would run it undecided."""

    def extend(world: World) -> None:
        @world.guard.resource
        async def static() -> str:
            return "static"

        world.server.add_resource(FunctionResource.from_function(fn=static, uri="notes://{name}", name="static"))

        @world.server.tool()
        @world.guard.tool
        async def reads(uri: str) -> str:
            return str(await world.server.read_resource(uri))

    policies = TOOLS + READS.replace("resource);", 'resource == Resource::"static");')
    world = make_world(tmp_path, policies=policies, extend=extend)

    @world.server.resource("notes://{name}", name="note")
    async def note(name: str) -> str:
        world.ran.append(name)
        return name

    async with connected(world, "memory", "2026-07-28") as client:
        inside = text(await client.call_tool("reads", {"uri": "notes://x"}))

    assert "Denied by policy" in inside
    assert world.ran == []


async def test_resource_of_the_name_of_another_is_not_judged_in_its_place(tmp_path: Path) -> None:
    """One that comes later is refused, as the log says; its function must not run by the other's rule."""

    def extend(world: World) -> None:
        @world.server.resource("a://one", name="one")
        @world.guard.resource
        async def one() -> str:
            return "one"

    world = make_world(tmp_path, policies=READS, extend=extend)

    async with connected(world, "memory", "2026-07-28") as client:

        @world.server.resource("b://two", name="one")
        @world.guard.resource
        async def two() -> str:
            world.ran.append("two")
            return "two"

        later = await told(client.read_resource("b://two"))
        first = await told(client.read_resource("a://one"))

    assert "'one'" in first
    assert "'two'" not in later
    assert world.ran == []


async def test_version_that_a_message_asks_for_shows_no_other(tmp_path: Path) -> None:
    """A list has the newest version alone, so an older one says nothing of whether that may be seen."""
    fast = make_fast(
        tmp_path,
        '@id("old") permit (principal, action in [Action::"t@1", Action::"prompts/get/p@1"], resource);',
    )
    for version in ("1", "2"):

        async def t(version: str = version) -> str:
            raise AssertionError(version)

        async def p(version: str = version) -> str:
            raise AssertionError(version)

        fast.server.tool(version=version)(fast.guard.tool(t))
        fast.server.prompt(version=version)(fast.guard.prompt(p))
    fast.attach()

    async with Client(fast.server._mcp_server) as client:
        asked: Any = {"fastmcp": {"version": "1"}}
        tools = await client.list_tools(meta=asked, cache_mode="bypass")
        prompts = await client.list_prompts(meta=asked, cache_mode="bypass")

    assert (tools.tools, prompts.prompts) == ([], [])
