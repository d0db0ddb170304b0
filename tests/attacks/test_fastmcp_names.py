"""What is mounted is judged by the name that a caller of the outer server has for it, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastmcp import Context, FastMCP
from fastmcp.server import create_proxy
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from agentguard import AccessDenied
from tests.attacks.test_fastmcp_ways_around import bare, called, guarded
from tests.fast import ALL, Fast, make_fast, structured
from tests.world import meta


class Unlisted(Middleware):
    """Lists no resources, which can be read all the same."""

    async def on_list_resources(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """List none."""
        return []

    async def on_list_resource_templates(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """List none."""
        return []


def resources(fast: Fast, server: FastMCP[Any]) -> None:
    """Give a server a resource and a template."""

    @server.resource("data://one")
    async def one() -> str:
        fast.ran.append("one")
        return "one"

    @server.resource("data://rows/{name}")
    async def row(name: str) -> str:
        fast.ran.append(name)
        return name


def reader(fast: Fast) -> None:
    """Give the outer server a tool that reads what it is told to."""

    @fast.server.tool
    @fast.guard.tool
    async def read(uri: str) -> str:
        with pytest.raises(AccessDenied):
            await fast.server.read_resource(uri)
        return "denied"


def no(uri: str) -> str:
    """Return policies that forbid to read a URI."""
    return (
        ALL
        + f"""@id("no") forbid (principal, action == Action::"resources/read", resource)
        when {{ context.input.uri like "{uri}" }};"""
    )


async def test_resource_that_its_mounted_server_does_not_list(tmp_path: Path) -> None:
    """A policy on the outer URI holds for what nobody could learn of, read from inside too."""
    fast = make_fast(tmp_path, no("data://shop/deep/*"))
    child: FastMCP[Any] = FastMCP("child")
    grandchild: FastMCP[Any] = FastMCP("grandchild", middleware=[Unlisted()])
    resources(fast, grandchild)
    reader(fast)
    child.mount(grandchild, "deep")
    fast.server.mount(child, "shop")
    fast.attach()

    for uri in ("data://shop/deep/one", "data://shop/deep/rows/x"):
        assert structured(await called(fast, "read", uri=uri)) == "denied"
    assert fast.ran == []


async def test_unlisted_resource_that_is_read_from_inside_its_own_server(tmp_path: Path) -> None:
    """No caller has a name for it, so no policy could speak of it."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child", middleware=[Unlisted()])
    grandchild: FastMCP[Any] = FastMCP("grandchild")
    resources(fast, child)
    resources(fast, grandchild)
    child.mount(grandchild, "deep")

    @child.tool
    @fast.guard.tool
    async def read(uri: str, context: Context) -> str:
        with pytest.raises(AccessDenied):
            await context.fastmcp.read_resource(uri)
        return "denied"

    fast.server.mount(child, "shop")
    fast.attach()

    for uri in ("data://one", "data://rows/x", "data://deep/one"):
        assert structured(await called(fast, "shop_read", uri=uri)) == "denied"
    assert fast.ran == []
    assert ("resources/read", "unguarded") in fast.reasons()


async def test_server_that_is_mounted_twice(tmp_path: Path) -> None:
    """A policy on the second name holds, and is not judged by the first."""
    fast = make_fast(tmp_path, no("data://second/*"))
    child: FastMCP[Any] = FastMCP("child")
    resources(fast, child)
    reader(fast)
    for name in ("first", "second"):
        fast.server.mount(child, name)
    fast.attach()

    for uri in ("data://second/one", "data://second/rows/x"):
        assert structured(await called(fast, "read", uri=uri)) == "denied"
    assert fast.ran == []


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
async def test_tool_under_two_names_is_judged_by_each(proxied: bool, order: tuple[str, str], tmp_path: Path) -> None:
    """Whether the guard has its function, or another server runs it."""
    fast = make_fast(tmp_path, ALL + '@id("no") forbid (principal, action == Action::"second_naked", resource);')
    child: FastMCP[Any] = FastMCP("child")
    bare(fast, child, "naked")
    mounted = create_proxy(child) if proxied else child
    for name in order:
        fast.server.mount(mounted, name)
    fast.attach(unguarded="guard")

    assert meta(await called(fast, "second_naked"))["reason"] == "denied"
    assert fast.ran == []
    assert structured(await called(fast, "first_naked")) == "ran"
    assert fast.reasons() == [("second_naked", "policy"), ("first_naked", "permit")]


async def test_mounted_tool_that_calls_its_neighbour(tmp_path: Path) -> None:
    """It is known there by the outer name as well, and where it came from says nothing about it."""
    fast = make_fast(tmp_path, ALL + '@id("no") forbid (principal, action == Action::"shop_inner", resource);')
    child: FastMCP[Any] = FastMCP("child")
    guarded(fast, child, "inner")

    @child.tool
    @fast.guard.tool
    async def outer(context: Context) -> str:
        with pytest.raises(AccessDenied):
            await context.fastmcp.call_tool("inner")
        return "went on"

    fast.server.mount(child, "shop")
    fast.attach()

    assert structured(await called(fast, "shop_outer")) == "went on"
    assert fast.reasons() == [("shop_outer", "permit"), ("shop_inner", "policy")]
