"""The attack: a tool goes and comes back under its name, and does something else by then.

What it says that it does decides which policies judge it. The name is the same, and even the
function may be, so neither tells the two apart.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from fastmcp import FastMCP
from fastmcp.server import create_proxy
from fastmcp.server.providers.proxy import ProxyClient, ProxyProvider
from fastmcp.server.transforms import Transform
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from mcp import MCPError
from mcp_types import CallToolResult, ToolAnnotations

from agentguard import Approval, ApprovalRequest
from tests.fast import Fast, in_memory, make_fast
from tests.world import World, connected, make_world, meta

READS = '@id("reads") permit (principal, action in Action::"read-only", resource);'
NOT_ALL = """
@id("all") permit (principal, action, resource);
@id("not-all") forbid (principal, action, resource)
when { context.input has every && context.input.every };
"""


def hints(*, deletes: bool) -> ToolAnnotations:
    """Return what a tool says of itself."""
    return ToolAnnotations(read_only_hint=not deletes, destructive_hint=deletes)


class Own(Tool):
    """A tool that has no function."""

    ran: Any

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Run."""
        self.ran.append(str(arguments))
        return ToolResult(content="ran")


def own(fast: Fast, *, name: str = "tidy", deletes: bool = False, schema: dict[str, Any] | None = None) -> Own:
    """Return one."""
    parameters = {"type": "object", "properties": schema or {}}
    return Own(name=name, parameters=parameters, annotations=hints(deletes=deletes), ran=fast.ran)


def proxied_from(far: FastMCP[Any]) -> ProxyProvider:
    """Return what asks another server each time what it has."""
    return ProxyProvider(lambda: ProxyClient(far), cache_ttl=0)


def told(result: CallToolResult) -> str:
    """Return how a call ended."""
    return meta(result)["reason"] if result.is_error else "ran"


async def test_tool_without_a_function_is_another(tmp_path: Path) -> None:
    """The guard knew it by its name alone."""
    fast = make_fast(tmp_path, READS)
    fast.server.add_tool(own(fast))
    fast.server.add_tool(own(fast, name="look"))
    fast.attach("guard")
    async with in_memory(fast) as client:
        before = await client.call_tool("tidy", {})
        fast.server.local_provider.remove_tool("tidy")
        fast.server.add_tool(own(fast, deletes=True))
        after = [await client.call_tool("tidy", {}) for _ in range(2)]

    assert [told(before), *map(told, after)] == ["ran", "denied", "denied"]
    assert fast.ran == ["{}"]


async def test_tool_without_a_function_takes_something_else(tmp_path: Path) -> None:
    """An argument that came since is one that policies see."""
    fast = make_fast(tmp_path, NOT_ALL)
    fast.server.add_tool(own(fast))
    fast.attach("guard")
    async with in_memory(fast) as client:
        fast.server.local_provider.remove_tool("tidy")
        fast.server.add_tool(own(fast, schema={"every": {"type": "boolean"}}))
        results = [await client.call_tool("tidy", {"every": every}) for every in (True, False)]

    assert [told(result) for result in results] == ["denied", "ran"]


@pytest.mark.parametrize("unguarded", ["deny", "guard"])
async def test_function_comes_back_with_other_hints(unguarded: Literal["deny", "guard"], tmp_path: Path) -> None:
    """It is the very same function, decorated or not."""
    fast = make_fast(tmp_path, READS)

    async def tidy() -> str:
        fast.ran.append("tidy")
        return "ran"

    function = fast.guard.tool(tidy) if unguarded == "deny" else tidy
    fast.server.tool(function, annotations=hints(deletes=False))
    fast.attach(unguarded)
    results = []
    async with in_memory(fast) as client:
        for deletes in (False, True, False):
            fast.server.local_provider.remove_tool("tidy")
            fast.server.tool(function, annotations=hints(deletes=deletes))
            results.append(await client.call_tool("tidy", {}))

    assert [told(result) for result in results] == ["ran", "denied", "ran"]
    assert fast.ran == ["tidy", "tidy"]


async def test_function_of_the_official_server_comes_back_with_other_hints(tmp_path: Path) -> None:
    """There too."""
    wrapper: list[Any] = []

    def extend(world: World) -> None:
        async def tidy() -> str:
            world.ran.append("tidy")
            return "ran"

        wrapper.append(world.guard.tool(tidy))
        world.server.add_tool(wrapper[0], annotations=hints(deletes=False))

    world = make_world(tmp_path, policies=READS, types=None, extend=extend)
    results = []
    async with connected(world, "memory", "2026-07-28") as client:
        for deletes in (False, True, False):
            world.server.remove_tool("tidy")
            world.server.add_tool(wrapper[0], annotations=hints(deletes=deletes))
            results.append(await client.call_tool("tidy", {}))

    assert [told(result) for result in results] == ["ran", "denied", "ran"]
    assert world.ran == ["tidy", "tidy"]


@pytest.mark.parametrize("listed", [True, False])
async def test_proxied_tool_changes(listed: bool, tmp_path: Path) -> None:
    """What its own server says of it now counts, as soon as anybody here has heard it."""
    fast = make_fast(tmp_path, READS)
    far: FastMCP[Any] = FastMCP("far")
    far.add_tool(own(fast))
    far.add_tool(own(fast, name="look"))
    fast.server.add_provider(proxied_from(far), namespace="far")
    fast.attach("guard")
    async with in_memory(fast) as client:
        before = await client.call_tool("far_tidy", {})
        far.local_provider.remove_tool("tidy")
        far.add_tool(own(fast, deletes=True))
        if listed:
            await client.list_tools(cache_mode="bypass")
        after = [await client.call_tool("far_tidy", {}) for _ in range(2)]

    assert [told(before), *map(told, after)] == ["ran", "denied", "denied"]
    assert fast.ran == ["{}"]


async def test_tool_changes_while_nothing_can_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that fails to list once is asked again, and the change is not forgotten."""
    fast = make_fast(tmp_path, READS)

    async def tidy() -> str:
        return "ran"

    async def fails() -> Any:
        raise RuntimeError

    fast.server.tool(tidy, annotations=hints(deletes=False))
    fast.server.add_tool(own(fast, name="look"))
    fast.attach("guard")
    async with in_memory(fast) as client:
        fast.server.local_provider.remove_tool("tidy")
        fast.server.tool(tidy, annotations=hints(deletes=True))
        with monkeypatch.context() as down:
            down.setattr(fast.server, "_list_tools", fails)
            with suppress(MCPError):
                await client.call_tool("look", {})
        result = await client.call_tool("tidy", {})

    assert told(result) == "denied"


async def test_proxied_server_that_was_away_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something was learned meanwhile, and its tools were not there. A list shows that they are again."""
    fast = make_fast(tmp_path)
    far: FastMCP[Any] = FastMCP("far")
    far.add_tool(own(fast))
    fast.server.mount(create_proxy(far), "far")
    fast.attach("guard")

    async def away() -> Any:
        raise RuntimeError

    results = []
    async with in_memory(fast) as client:
        with monkeypatch.context() as down:
            down.setattr(far, "list_tools", away)
            fast.server.add_tool(own(fast, name="look"))
            results.append(await client.call_tool("look", {}))
        await client.list_tools(cache_mode="bypass")
        results.append(await client.call_tool("far_tidy", {}))

    assert [told(result) for result in results] == ["ran", "ran"]


ASKS = """
@id("all") permit (principal, action, resource);
@id("ask") @obligation("approval") forbid (principal, action, resource) unless { context has approval };
"""


@pytest.mark.parametrize("becomes", ["the same", "another", "nothing"])
@pytest.mark.parametrize("proxied", [False, True])
async def test_tool_without_a_function_changes_while_a_person_thinks(
    proxied: bool, becomes: str, tmp_path: Path
) -> None:
    """They said yes to what it was, and nothing else runs by that."""

    async def person(_: ApprovalRequest) -> Approval:
        far.local_provider.remove_tool("tidy")
        if becomes != "nothing":
            far.add_tool(own(fast, deletes=becomes == "another"))
        return Approval()

    fast = make_fast(tmp_path, ASKS, approver=person)
    far: FastMCP[Any] = FastMCP("far") if proxied else fast.server
    far.add_tool(own(fast))
    far.add_tool(own(fast, name="look"))
    if proxied:
        fast.server.add_provider(proxied_from(far))
    fast.attach("guard")
    async with in_memory(fast) as client:
        result = await client.call_tool("tidy", {})

    assert fast.ran == ([] if becomes == "another" or (proxied and becomes == "nothing") else ["{}"])
    assert result.is_error is (fast.ran == [])


class Hints(Transform):
    """Shows the tools of a server with other hints."""

    async def list_tools(self, tools: Any) -> Any:
        """Say that each deletes."""
        return [tool.model_copy(update={"annotations": hints(deletes=tool.name == "tidy")}) for tool in tools]


async def test_tool_without_a_function_is_shown_with_other_hints(tmp_path: Path) -> None:
    """Those that the server shows count, whoever put them there."""
    fast = make_fast(tmp_path, READS)
    far: FastMCP[Any] = FastMCP("far")
    far.add_tool(own(fast))
    far.add_tool(own(fast, name="look"))
    fast.server.mount(far)
    fast.attach("guard")
    async with in_memory(fast) as client:
        fast.server.add_transform(Hints())
        results = [await client.call_tool(name, {}) for name in ("tidy", "look")]

    assert [told(result) for result in results] == ["denied", "ran"]
