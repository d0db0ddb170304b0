"""What a FastMCP server offers changes while it runs, and one caller's view of it is not everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from fastmcp import Context, FastMCP
from fastmcp.server.providers.local_provider import LocalProvider
from fastmcp.server.transforms import PromptsAsTools, ResourcesAsTools
from fastmcp.server.transforms.search import RegexSearchTransform
from fastmcp.tools import Tool
from fastmcp.tools.tool_transform import ArgTransform

from tests.attacks.test_fastmcp_ways_around import bare, called, guarded
from tests.fast import ALL, in_memory, make_fast, served, structured
from tests.world import http_client, meta


@pytest.mark.parametrize("unguarded", ["deny", "guard"])
async def test_session_that_hides_a_tool_from_itself(unguarded: Literal["deny", "guard"], tmp_path: Path) -> None:
    """What is learned in the middle of its request is what there is for everybody."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")
    if unguarded == "deny":
        guarded(fast, child, "known")
    else:
        bare(fast, child, "known")

    @child.tool
    @fast.guard.tool
    async def hide(context: Context) -> str:
        await context.disable_components(names={"known"})
        bare(fast, fast.server, "later")
        return "hidden"

    fast.server.mount(child, "shop")
    fast.attach(unguarded)

    async with (
        served(fast.server) as url,
        http_client(url, fast.token(), "2025-11-25") as hiding,
        http_client(url, fast.token(), "2025-11-25") as other,
    ):
        await hiding.call_tool("shop_hide", {})
        assert (await hiding.call_tool("shop_known", {})).is_error
        assert structured(await other.call_tool("shop_known", {})) == "ran"


@pytest.mark.parametrize("namespace", ["", "far"])
@pytest.mark.parametrize("late", [False, True])
async def test_tool_that_comes_to_a_provider(namespace: str, late: bool, tmp_path: Path) -> None:
    """It is learned, in a namespace and in a provider that came after the guard too."""
    fast = make_fast(tmp_path)
    provider = LocalProvider()
    for attached in (False, True):
        if attached:
            fast.attach()
        if attached is late:
            fast.server.add_provider(provider, namespace=namespace)
    await called(fast, "none")

    async def known() -> str:
        return "ran"

    provider.tool(fast.guard.tool(known))

    assert structured(await called(fast, f"{namespace}_known" if namespace else "known")) == "ran"


async def test_transformed_tool_of_a_guarded_one_that_came_late(tmp_path: Path) -> None:
    """A decorated function is one whenever it was decorated, and as a method too."""
    fast = make_fast(tmp_path)

    class Shop:
        @fast.guard.tool
        async def early(self, amount: int) -> int:
            return amount

    renamed = {"amount": ArgTransform(name="how_many")}
    fast.server.add_tool(Tool.from_tool(Tool.from_function(Shop().early), transform_args=renamed))
    fast.attach()

    @fast.guard.tool
    async def late(amount: int) -> int:
        return amount

    fast.server.add_tool(Tool.from_tool(Tool.from_function(late), transform_args=renamed))

    for name in ("early", "late"):
        assert structured(await called(fast, name, how_many=2)) == 2


async def test_tools_that_are_made_anew_for_each_call(tmp_path: Path) -> None:
    """Nobody could decorate them. They are judged on what arrives, and what they reach is judged itself."""
    fast = make_fast(
        tmp_path,
        ALL
        + """
        @id("inner") forbid (principal, action == Action::"secret", resource);
        @id("found") forbid (principal, action == Action::"search_tools", resource)
        when { context.input.pattern like "*secret*" };
        @id("read") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "*secret*" };
        """,
    )
    for name in ("known", "secret"):
        guarded(fast, fast.server, name)
    for name in ("open", "secret"):
        fast.server.resource(f"data://{name}", name=name)(lambda: "text")
    fast.server.add_transform(ResourcesAsTools(fast.server))
    fast.server.add_transform(PromptsAsTools(fast.server))
    fast.server.add_transform(RegexSearchTransform(always_visible=["read_resource", "list_prompts"]))
    fast.attach("guard")

    async with in_memory(fast) as client:
        for name, arguments, allowed in (
            ("search_tools", {"pattern": "known"}, True),
            ("search_tools", {"pattern": "secret"}, False),
            ("call_tool", {"name": "known", "arguments": {}}, True),
            ("call_tool", {"name": "secret", "arguments": {}}, False),
            ("read_resource", {"uri": "data://open"}, True),
            ("read_resource", {"uri": "data://secret"}, False),
            ("list_prompts", {}, True),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error is not allowed, name
            assert allowed or meta(result)["reason"] == "denied"

    assert fast.ran == ["known 1"]


async def test_function_that_is_made_anew_is_none_that_is_decorated(tmp_path: Path) -> None:
    """Where every tool needs a decorator, one that nobody could decorate is denied."""
    fast = make_fast(tmp_path)
    fast.server.add_transform(ResourcesAsTools(fast.server))
    fast.attach()

    assert meta(await called(fast, "list_resources"))["reason"] == "denied"
