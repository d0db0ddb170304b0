"""Whatever way a call takes through a FastMCP server, what runs in the end was decided on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from fastmcp import Context, FastMCP
from fastmcp.server import create_proxy
from fastmcp.server.auth import require_scopes
from fastmcp.server.extensions import ServerExtension
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.server.providers.fastmcp_provider import FastMCPProviderTool
from fastmcp.server.providers.local_provider import LocalProvider
from fastmcp.server.transforms import Namespace, ToolTransform
from fastmcp.server.transforms.visibility import Visibility
from fastmcp.tools import Tool
from fastmcp.tools.tool_transform import ArgTransform, ToolTransformConfig, forward
from fastmcp.utilities.tasks import TaskConfig
from fastmcp.utilities.versions import VersionSpec
from mcp import MCPError
from mcp_types import CallToolResult, RequestParamsMeta

from agentguard import AccessDenied
from agentguard.testing import acting_as
from tests.fast import ALL, Fast, in_memory, make_fast, served, structured
from tests.world import ERAS, Era, http_client, meta, text

SPEC: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "http://shop.example"}],
    "paths": {
        "/orders/{number}": {
            "post": {
                "operationId": "order",
                "parameters": [{"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "done"}},
            }
        }
    },
}


class Renaming(Middleware):
    """Calls another tool than the caller named."""

    def __init__(self, name: str, instead: str) -> None:
        self._name, self._instead = name, instead

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """Put the other name in."""
        if context.message.name == self._name:
            context = context.copy(message=context.message.model_copy(update={"name": self._instead}))
        return await call_next(context)


def guarded(fast: Fast, server: FastMCP[Any], name: str) -> None:
    """Give a server a tool under the guard."""

    async def tool(amount: int = 1) -> str:
        fast.ran.append(f"{name} {amount}")
        return "ran"

    tool.__name__ = name
    server.tool(fast.guard.tool(tool))


def bare(fast: Fast, server: FastMCP[Any] | LocalProvider, name: str, **options: Any) -> None:
    """Give a server a tool without a decorator."""

    async def tool(amount: int = 1) -> str:
        fast.ran.append(f"{name} {amount}")
        return "ran"

    tool.__name__ = name
    server.tool(tool, **options)


async def called(fast: Fast, name: str, era: Era = "2026-07-28", **arguments: Any) -> CallToolResult:
    """Call a tool as a client does."""
    async with in_memory(fast, era) as client:
        return await client.call_tool(name, arguments)


@pytest.mark.parametrize("era", ERAS)
async def test_middleware_that_puts_an_unguarded_name_in(era: Era, tmp_path: Path) -> None:
    """Only what runs in the end counts, and it had no decorator."""
    fast = make_fast(tmp_path, middleware=[Renaming("known", "naked")])
    guarded(fast, fast.server, "known")
    bare(fast, fast.server, "naked")
    fast.attach()

    result = await called(fast, "known", era)

    assert result.is_error
    assert "agentguard/decision" in (result.meta or {})
    assert fast.ran == []
    assert ("naked", "unguarded") in fast.reasons()


async def test_tool_that_middleware_injects(tmp_path: Path) -> None:
    """It never was with a provider, and no transform sees it."""
    fast = make_fast(tmp_path)

    async def injected() -> str:
        fast.ran.append("injected")
        return "ran"

    guarded(fast, fast.server, "known")
    fast.server.add_middleware(ToolInjectionMiddleware([Tool.from_function(injected)]))
    fast.server.add_middleware(Renaming("known", "injected"))
    fast.attach()

    for name in ("injected", "known"):
        assert (await called(fast, name)).is_error
    assert fast.ran == []


async def test_middleware_that_has_a_guarded_tools_answer_from_before(tmp_path: Path) -> None:
    """An answer that was kept for one caller is not handed to another: nobody decided on that."""
    fast = make_fast(tmp_path, middleware=[ResponseCachingMiddleware()])
    guarded(fast, fast.server, "known")
    fast.attach()

    async with in_memory(fast) as client:
        first = await client.call_tool("known", {"amount": 2})
        again = await client.call_tool("known", {"amount": 2})

    assert structured(first) == "ran"
    assert again.is_error
    assert "agentguard/decision" in (again.meta or {})
    assert fast.ran == ["known 2"]


async def test_middleware_that_answers_in_place_of_a_tool(tmp_path: Path) -> None:
    """A name that is guarded is answered by what is guarded, or not at all."""

    class Answering(Middleware):
        async def on_call_tool(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
            return await fast.server.call_tool("naked", run_middleware=False)

    fast = make_fast(tmp_path, middleware=[Answering()])
    guarded(fast, fast.server, "known")
    bare(fast, fast.server, "naked")
    fast.attach()

    assert meta(await called(fast, "known"))["effect"] == "deny"
    assert fast.ran == []


async def test_nested_call_of_an_unguarded_tool(tmp_path: Path) -> None:
    """A tool reaches no tool that nobody guards, and is told so by an exception that it can catch."""
    fast = make_fast(tmp_path, mask_error_details=True)
    bare(fast, fast.server, "naked")
    caught: list[BaseException] = []

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> str:
        try:
            await fast.server.call_tool("naked", {})
        except AccessDenied as denied:
            caught.append(denied)
        return "went on"

    fast.attach()

    assert structured(await called(fast, "outer")) == "went on"
    assert len(caught) == 1
    assert fast.ran == []


@pytest.mark.parametrize("mask", [True, False])
async def test_nested_denial_comes_through_as_a_denial(mask: bool, tmp_path: Path) -> None:
    """Neither masking nor FastMCP's own handling of errors swallows it."""
    fast = make_fast(
        tmp_path,
        ALL + '@id("inner") forbid (principal, action == Action::"inner", resource);',
        mask_error_details=mask,
    )
    guarded(fast, fast.server, "inner")

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> dict[str, str]:
        await fast.server.call_tool("inner", {})
        raise AssertionError

    fast.attach()

    result = await called(fast, "outer")

    assert meta(result)["reason"] == "denied"
    assert text(result).startswith("Denied by policy. ")
    assert fast.ran == []


@pytest.mark.parametrize("namespace", ["shop", None])
@pytest.mark.parametrize("era", ERAS)
async def test_unguarded_tool_of_a_mounted_server(era: Era, namespace: str | None, tmp_path: Path) -> None:
    """The guard of the outer server stands before it too."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")
    bare(fast, child, "naked")
    guarded(fast, child, "known")
    fast.server.mount(child, namespace)
    fast.attach()
    prefix = f"{namespace}_" if namespace else ""

    assert meta(await called(fast, f"{prefix}naked", era))["reason"] == "denied"
    assert structured(await called(fast, f"{prefix}known", era)) == "ran"
    assert fast.ran == ["known 1"]


async def test_mounted_server_whose_middleware_puts_another_name_in(tmp_path: Path) -> None:
    """The outer guard saw a guarded name; the inner server runs another."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child", middleware=[Renaming("known", "naked")])
    bare(fast, child, "naked")
    guarded(fast, child, "known")
    fast.server.mount(child, "shop")
    fast.attach()

    assert (await called(fast, "shop_known")).is_error
    assert fast.ran == []


async def test_server_that_is_mounted_later_and_deeper(tmp_path: Path) -> None:
    """What is mounted after the guard was attached is behind it, and what is mounted in that as well."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    fast.attach()
    child: FastMCP[Any] = FastMCP("child")
    grandchild: FastMCP[Any] = FastMCP("grandchild", middleware=[Renaming("fine", "naked")])
    guarded(fast, grandchild, "fine")
    bare(fast, grandchild, "naked")
    child.mount(grandchild, "deep")
    fast.server.mount(child, "shop")

    assert (await called(fast, "shop_deep_naked")).is_error
    assert (await called(fast, "shop_deep_fine")).is_error
    assert fast.ran == []


async def test_mounted_function_that_has_the_name_of_a_guarded_one(tmp_path: Path) -> None:
    """A name of the outer server's says nothing about a function of the inner one's."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child", middleware=[Renaming("other", "known")])
    guarded(fast, fast.server, "known")
    guarded(fast, child, "other")
    bare(fast, child, "known")
    fast.server.mount(child, "shop")
    fast.attach()

    assert (await called(fast, "shop_other")).is_error
    assert fast.ran == []


async def test_resource_of_a_mounted_server_that_reads_another_of_its_template(tmp_path: Path) -> None:
    """That the request was for one of them is no decision on the others."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("secret") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "*secret*" };""",
    )
    child: FastMCP[Any] = FastMCP("child")

    @child.resource("data://rows/{name}")
    async def row(name: str, context: Context) -> str:
        fast.ran.append(name)
        if name == "open":
            with pytest.raises(AccessDenied):
                await context.fastmcp.read_resource("data://rows/secret")
        return name

    fast.server.mount(child, "shop")
    fast.attach()

    async with in_memory(fast) as client:
        await client.read_resource("data://shop/rows/open")

    assert fast.ran == ["open"]


async def test_middleware_that_puts_another_uri_in(tmp_path: Path) -> None:
    """On the server itself, and on a mounted one."""

    class Elsewhere(Middleware):
        async def on_read_resource(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
            uri = str(context.message.uri).replace("open", "secret")
            return await call_next(context.copy(message=context.message.model_copy(update={"uri": uri})))

    fast = make_fast(
        tmp_path,
        ALL
        + """@id("secret") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "*secret*" };""",
    )
    child: FastMCP[Any] = FastMCP("child")
    for server, middleware in ((fast.server, Elsewhere()), (child, Elsewhere())):

        @server.resource("data://rows/{name}")
        async def row(name: str) -> str:
            raise AssertionError(name)

        server.add_middleware(middleware)
    fast.server.mount(child, "shop")
    fast.attach()

    async with in_memory(fast) as client:
        for uri in ("data://rows/open", "data://shop/rows/open"):
            with pytest.raises(MCPError):
                await client.read_resource(uri)


async def test_tool_of_another_program_that_is_not_known_yet(tmp_path: Path) -> None:
    """It is not taken for the one of the same name that the outer server proxies."""
    fast = make_fast(tmp_path)
    ours: FastMCP[Any] = FastMCP("ours")
    theirs: FastMCP[Any] = FastMCP("theirs")
    bare(fast, ours, "tool")
    bare(fast, theirs, "known")
    child: FastMCP[Any] = FastMCP("child", middleware=[Renaming("known", "tool")])
    proxy = create_proxy(theirs)
    proxy.providers[-1]._cache_ttl = 0.0  # type: ignore[attr-defined]
    child.mount(proxy)
    fast.server.mount(create_proxy(ours))
    fast.server.mount(child, "shop")
    fast.attach(unguarded="guard")
    bare(fast, theirs, "tool")

    assert (await called(fast, "shop_known")).is_error
    assert fast.ran == []


async def test_tool_that_was_put_in_place_of_a_guarded_one(tmp_path: Path) -> None:
    """A name alone is fooled by removing and adding."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    fast.attach()
    fast.server.local_provider.remove_tool("known")
    bare(fast, fast.server, "known")

    assert meta(await called(fast, "known"))["reason"] == "denied"
    assert fast.ran == []


async def test_function_that_was_put_into_a_guarded_tool(tmp_path: Path) -> None:
    """Not even what no list shows gets around: the gate looks at the function that is about to run."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    fast.attach()

    async def other(amount: int = 1) -> str:
        fast.ran.append("other")
        return "ran"

    tool: Any = await fast.server.local_provider.get_tool("known")
    tool.fn = other

    assert (await called(fast, "known")).is_error
    assert fast.ran == []


async def test_another_version_of_a_guarded_tool(tmp_path: Path) -> None:
    """Each version needs a decorator of its own, whichever the caller asks for."""
    fast = make_fast(tmp_path)
    bare(fast, fast.server, "known", version="1.0")

    @fast.server.tool(version="2.0")
    @fast.guard.tool
    async def known() -> str:
        fast.ran.append("2.0")
        return "ran"

    fast.attach()
    old: Any = {"fastmcp": {"version": "1.0"}}

    async with in_memory(fast) as client:
        denied = await client.call_tool("known", {}, meta=_as_meta(old))
        allowed = await client.call_tool("known", {})
    with pytest.raises(AccessDenied):
        await fast.server.call_tool("known", version=VersionSpec(eq="1.0"))

    assert meta(denied)["effect"] == "deny"
    assert structured(allowed) == "ran"
    assert fast.ran == ["2.0"]


async def test_version_of_the_message_is_not_that_of_a_nested_call(tmp_path: Path) -> None:
    """An old version with a rule lends it to no newer one without."""
    fast = make_fast(tmp_path)

    @fast.server.tool(version="1.0")
    @fast.guard.tool
    async def inner() -> str:
        fast.ran.append("inner 1.0")
        return "ran"

    async def newer() -> str:
        fast.ran.append("inner 2.0")
        return "ran"

    fast.server.tool(newer, name="inner", version="2.0")

    async def outer_old() -> str:
        await fast.server.call_tool("inner")
        return "ran"

    async def outer_new() -> str:
        return "ran"

    fast.server.tool(fast.guard.tool(outer_old), name="outer", version="1.0")
    fast.server.tool(fast.guard.tool(outer_new), name="outer", version="2.0")
    fast.attach()

    async with in_memory(fast) as client:
        denied = await client.call_tool("outer", {}, meta=_as_meta({"fastmcp": {"version": "1.0"}}))

    assert meta(denied)["effect"] == "deny"
    assert fast.ran == []


async def test_each_version_is_judged_as_itself(tmp_path: Path) -> None:
    """The newest has the bare name; another has its version behind it, in policies too."""
    fast = make_fast(tmp_path, ALL + '@id("old") forbid (principal, action == Action::"known@1.0", resource);')

    async def old() -> None: ...

    async def new() -> str:
        return "ran"

    fast.server.tool(fast.guard.tool(old), name="known", version="1.0")
    fast.server.tool(fast.guard.tool(new), name="known", version="2.0")
    fast.attach()

    async with in_memory(fast) as client:
        denied = await client.call_tool("known", {}, meta=_as_meta({"fastmcp": {"version": "1.0"}}))
        allowed = await client.call_tool("known", {}, meta=_as_meta({"fastmcp": {"version": "2.0"}}))

    assert meta(denied)["reason"] == "denied"
    assert structured(allowed) == "ran"


async def test_version_that_fastmcp_chooses_for_a_caller_is_the_one_that_is_judged(tmp_path: Path) -> None:
    """Who may not use the newest gets an older one, and is judged for that."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("old") forbid (principal, action == Action::"known@1.0", resource)
        unless { principal.scopes.contains("old") };""",
    )

    async def old() -> str:
        return "1.0"

    async def new() -> str:
        return "2.0"

    fast.server.tool(fast.guard.tool(old), name="known", version="1.0")
    fast.server.tool(fast.guard.tool(new), name="known", version="2.0", auth=require_scopes("new"))
    fast.attach()

    answers = {}
    async with served(fast.server) as url:
        for scope in ("new", "old", "none"):
            async with http_client(url, fast.token(scopes=[scope])) as client:
                answers[scope] = await client.call_tool("known", {})

    assert structured(answers["new"]) == "2.0"
    assert structured(answers["old"]) == "1.0"
    assert meta(answers["none"])["reason"] == "denied"


async def test_newest_version_that_is_switched_off_has_not_the_bare_name(tmp_path: Path) -> None:
    """The bare name is that of the version which FastMCP runs for it."""
    fast = make_fast(tmp_path, ALL + '@id("new") forbid (principal, action == Action::"known@2.0", resource);')

    async def old() -> str:
        return "1.0"

    async def new() -> None: ...

    fast.server.tool(fast.guard.tool(old), name="known", version="1.0")
    fast.server.tool(fast.guard.tool(new), name="known", version="2.0")
    fast.server.disable(keys={"tool:known@2.0"})
    fast.attach()

    assert structured(await called(fast, "known")) == "1.0"


async def test_transformed_tool_of_a_guarded_one_is_guarded_by_it(tmp_path: Path) -> None:
    """Renamed arguments are judged under the function's own names, as it gets them."""
    fast = make_fast(
        tmp_path,
        ALL
        + '@id("much") forbid (principal, action == Action::"renamed", resource) when { context.input.amount > 5 };',
    )
    guarded(fast, fast.server, "known")
    fast.server.add_transform(
        ToolTransform({"known": ToolTransformConfig(name="renamed", arguments={"amount": {"name": "how_many"}})})  # type: ignore[dict-item]
    )
    fast.attach()

    assert meta(await called(fast, "renamed", how_many=6))["reason"] == "denied"
    assert structured(await called(fast, "renamed", how_many=5)) == "ran"
    assert fast.ran == ["known 5"]


async def test_function_of_a_transformed_tool_runs_after_no_decision(tmp_path: Path) -> None:
    """It would run before the tool that it forwards to is decided on, so it needs a decorator itself."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")

    async def early(amount: int) -> Any:
        fast.ran.append("early")
        return await forward(amount=amount)

    known = await fast.server.local_provider.get_tool("known")
    assert known is not None
    fast.server.add_tool(Tool.from_tool(known, name="early", transform_fn=early))
    fast.attach()

    assert meta(await called(fast, "early", amount=1))["reason"] == "denied"
    assert fast.ran == []


async def test_tool_that_another_server_runs(tmp_path: Path) -> None:
    """A proxied tool has no decorator, so nothing reaches the other server."""
    fast = make_fast(tmp_path)
    elsewhere: FastMCP[Any] = FastMCP("elsewhere")
    bare(fast, elsewhere, "naked")
    fast.server.mount(create_proxy(elsewhere), "far")
    guarded(fast, fast.server, "known")
    fast.server.add_middleware(Renaming("known", "far_naked"))
    fast.attach()

    for name in ("far_naked", "known"):
        assert (await called(fast, name)).is_error
    assert fast.ran == []


async def test_tool_that_is_a_request_to_somebodys_api(tmp_path: Path) -> None:
    """A tool out of an OpenAPI description has no decorator, so no request is sent."""
    sent: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(str(request.url))
        return httpx2.Response(200, json={"ok": True})

    fast = make_fast(tmp_path)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://shop.example") as http:
        fast.server.mount(FastMCP.from_openapi(SPEC, http), "shop")
        fast.attach()
        denied = await called(fast, "shop_order", number=7)

    assert meta(denied)["reason"] == "denied"
    assert sent == []


async def test_tool_that_is_switched_off(tmp_path: Path) -> None:
    """It has a rule, and does not run all the same."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    fast.server.disable(names={"known"})
    fast.attach()

    assert meta(await called(fast, "known"))["effect"] == "deny"
    assert fast.ran == []


async def test_one_function_without_a_decorator_under_several_names(tmp_path: Path) -> None:
    """Each name is judged as itself: that of the tool, of another one of the same function, and of one made of it."""
    fast = make_fast(
        tmp_path,
        "".join(f'@id("{name}") permit (principal, action == Action::"{name}", resource);' for name in ("a", "c")),
    )

    async def naked(amount: int) -> str:
        fast.ran.append(f"{amount}")
        return "ran"

    fast.server.tool(naked, name="a")
    fast.server.tool(naked, name="b")
    first = await fast.server.local_provider.get_tool("a")
    assert first is not None
    for name in ("c", "d"):
        renamed = {"amount": ArgTransform(name="how_many")}
        fast.server.add_tool(Tool.from_tool(first, name=name, transform_args=renamed))
    fast.attach(unguarded="guard")

    assert structured(await called(fast, "a", amount=1)) == "ran"
    assert structured(await called(fast, "c", how_many=3)) == "ran"
    assert meta(await called(fast, "b", amount=2))["reason"] == "denied"
    assert meta(await called(fast, "d", how_many=4))["reason"] == "denied"
    assert fast.ran == ["1", "3"]


async def test_one_provider_behind_two_guards(tmp_path: Path) -> None:
    """Each guards the function for its own server, and leaves it to the other as it was."""
    first, second = make_fast(tmp_path / "first"), make_fast(tmp_path / "second")
    shared = LocalProvider()
    bare(first, shared, "naked")
    for fast in (first, second):
        fast.server.add_provider(shared)
        fast.attach(unguarded="guard")

    assert structured(await called(first, "naked")) == "ran"
    assert len(first.reasons()) == 1
    assert second.reasons() == []


async def test_first_of_two_tools_of_one_name_is_the_one_that_is_judged(tmp_path: Path) -> None:
    """FastMCP runs the one of the provider that was added first."""
    fast = make_fast(tmp_path)
    other = LocalProvider()
    guarded(fast, fast.server, "known")
    bare(fast, other, "known")
    fast.server.add_provider(other)
    fast.attach()

    assert structured(await called(fast, "known")) == "ran"
    assert fast.ran == ["known 1"]


async def test_tool_of_a_mounted_server_that_has_it_no_more(tmp_path: Path) -> None:
    """What leads nowhere has no function, and so no rule."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")

    async def gone() -> None: ...

    fast.server.add_tool(FastMCPProviderTool.wrap(child, Tool.from_function(fast.guard.tool(gone))))
    fast.attach()

    assert meta(await called(fast, "gone"))["reason"] == "denied"


async def test_function_that_is_handed_out_in_a_copy_of_its_tool(tmp_path: Path) -> None:
    """A namespace copies a tool at each look-up: what is guarded is the function."""
    fast = make_fast(
        tmp_path,
        ALL
        + '@id("much") forbid (principal, action == Action::"shop_naked", resource) when { context.input.amount > 5 };',
    )
    bare(fast, fast.server, "naked")
    fast.server.add_transform(Namespace("shop"))
    fast.server.add_transform(Visibility(True, names={"shop_naked"}))
    fast.attach(unguarded="guard")

    assert structured(await called(fast, "shop_naked", amount=5)) == "ran"
    assert meta(await called(fast, "shop_naked", amount=6))["reason"] == "denied"
    assert fast.ran == ["naked 5"]


async def test_own_kind_of_tool_is_not_taken_for_a_function(tmp_path: Path) -> None:
    """A class of the developer's may run anything, whatever function it carries."""
    fast = make_fast(tmp_path)

    async def plain() -> None: ...

    wrapper = fast.guard.tool(plain)

    class Careless(type(Tool.from_function(plain, name="x"))):  # type: ignore[misc]
        async def run(self, arguments: dict[str, Any]) -> Any:
            fast.ran.append("careless")
            return await super().run(arguments)

    fast.server.add_tool(Careless.from_function(wrapper))
    fast.attach()

    assert meta(await called(fast, "plain"))["reason"] == "denied"
    assert fast.ran == []


async def test_guarded_tool_never_runs_in_the_background(tmp_path: Path) -> None:
    """An extension that would hand it to a worker finds that it may not be."""
    fast = make_fast(tmp_path)
    modes: list[str] = []

    class Workers(ServerExtension):
        identifier = "io.modelcontextprotocol/tasks"

        async def intercept_tool_call(self, params: Any, context: Any, call_next: Any) -> Any:
            tool = await context.fastmcp.get_tool(params.name)
            modes.append(tool.task_config.mode)
            return await call_next()

    @fast.server.tool(task=TaskConfig(mode="optional"))
    @fast.guard.tool
    async def known() -> str:
        return "ran"

    fast.server.add_extension(Workers())
    fast.attach()

    assert structured(await called(fast, "known")) == "ran"
    assert modes == ["forbidden"]


async def test_task_that_outlives_its_request_has_no_identity(tmp_path: Path) -> None:
    """It still holds the context of the request, and that is closed."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "inner")
    answered, denied = anyio.Event(), anyio.Event()

    async def later() -> None:
        await answered.wait()
        with pytest.raises(AccessDenied):
            await fast.server.call_tool("inner")
        denied.set()

    async with anyio.create_task_group() as tasks:

        @fast.server.tool
        @fast.guard.tool
        async def outer() -> str:
            tasks.start_soon(later)
            return "ran"

        fast.attach()
        await called(fast, "outer")
        answered.set()
        await denied.wait()

    assert fast.ran == []


async def test_call_from_nowhere_is_denied(tmp_path: Path) -> None:
    """In process and outside of any request there is no identity, but a test's own."""
    fast = make_fast(tmp_path)
    guarded(fast, fast.server, "known")
    bare(fast, fast.server, "naked")
    fast.attach()

    with pytest.raises(AccessDenied):
        await fast.server.call_tool("known")
    with acting_as(agent="reader"):
        assert structured(_answer(await fast.server.call_tool("known"))) == "ran"
        with pytest.raises(AccessDenied):
            await fast.server.call_tool("naked")
    assert fast.ran == ["known 1"]


async def test_hashed_name_of_an_apps_tool(tmp_path: Path) -> None:
    """The address that a user interface calls a tool by leads through the gate as well."""
    fast = make_fast(tmp_path)
    bare(
        fast,
        fast.server,
        "save",
        meta={"fastmcp": {"app": "editor", "tool_hash": "0123456789ab"}, "ui": {"visibility": ["app"]}},
    )
    guarded(fast, fast.server, "known")
    fast.server.add_middleware(Renaming("known", "__0123456789ab_save"))
    fast.attach()

    for name in ("__0123456789ab_save", "known"):
        assert (await called(fast, name)).is_error
    assert fast.ran == []


@pytest.mark.parametrize("era", ERAS)
async def test_mounted_server_with_a_guard_of_its_own(era: Era, tmp_path: Path) -> None:
    """Both guards have to allow: the outer one by its rule, the inner one by its own policies, for the same token."""
    fast = make_fast(tmp_path / "outer")
    inner = make_fast(
        tmp_path / "inner",
        ALL + '@id("much") forbid (principal, action == Action::"known", resource) when { context.input.amount > 5 };',
        issuer=fast.issuer,
    )
    guarded(inner, inner.server, "known")
    inner.attach()
    fast.server.mount(inner.server, "shop")
    fast.attach(unguarded="guard")

    async with served(fast.server) as url, http_client(url, fast.token(), era) as client:
        allowed = await client.call_tool("shop_known", {"amount": 5})
        denied = await client.call_tool("shop_known", {"amount": 6})

    assert structured(allowed) == "ran"
    assert meta(denied)["reason"] == "denied"
    assert inner.ran == ["known 5"]
    assert fast.reasons() == [("shop_known", "permit"), ("shop_known", "permit")]
    assert inner.reasons() == [("known", "permit"), ("known", "policy")]


async def test_guarded_server_in_one_without_a_guard(tmp_path: Path) -> None:
    """Nobody knows there whether a request is still a request, so nothing has an identity."""
    inner = make_fast(tmp_path)
    guarded(inner, inner.server, "known")
    inner.attach()
    outer: FastMCP[Any] = FastMCP("outer", auth=inner.guard.auth())
    outer.mount(inner.server, "shop")

    async with served(outer) as url, http_client(url, inner.token()) as client:
        denied = await client.call_tool("shop_known", {})

    assert denied.is_error
    assert inner.ran == []


async def test_guarded_server_is_no_way_around_the_outer_guard(tmp_path: Path) -> None:
    """That somebody else guards a function is no decision of this guard."""
    fast = make_fast(tmp_path / "outer")
    inner = make_fast(tmp_path / "inner", issuer=fast.issuer)
    guarded(inner, inner.server, "known")
    inner.attach()
    fast.server.mount(inner.server, "shop")
    fast.attach()

    assert meta(await called(fast, "shop_known"))["reason"] == "denied"
    assert inner.ran == []


async def test_two_guards_and_a_nested_call(tmp_path: Path) -> None:
    """What the inner guard would allow, the outer one still decides on."""
    fast = make_fast(
        tmp_path / "outer", ALL + '@id("no") forbid (principal, action == Action::"shop_known", resource);'
    )
    inner = make_fast(tmp_path / "inner", issuer=fast.issuer)
    guarded(inner, inner.server, "known")
    inner.attach()

    @fast.server.tool
    @fast.guard.tool
    async def outer() -> str:
        with pytest.raises(AccessDenied):
            await fast.server.call_tool("shop_known", {"amount": 1})
        return "went on"

    fast.server.mount(inner.server, "shop")
    fast.attach(unguarded="guard")

    async with served(fast.server) as url, http_client(url, fast.token()) as client:
        result = await client.call_tool("outer", {})

    assert structured(result) == "went on"
    assert inner.ran == []


async def test_tool_of_the_outer_guard_behind_an_inner_one(tmp_path: Path) -> None:
    """Each guard knows its own functions, and neither lets one of the other's through."""
    fast = make_fast(tmp_path / "outer")
    inner = make_fast(tmp_path / "inner", issuer=fast.issuer)
    guarded(fast, inner.server, "theirs")
    inner.attach()
    fast.server.mount(inner.server, "shop")
    fast.attach()

    async with served(fast.server) as url, http_client(url, fast.token()) as client:
        result = await client.call_tool("shop_theirs", {"amount": 1})

    assert result.is_error
    assert fast.ran == []
    assert ("theirs", "unguarded") in inner.reasons()


async def test_arguments_of_a_tool_without_a_function_are_a_copy(tmp_path: Path) -> None:
    """What is judged is what the other server gets."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("much") forbid (principal, action == Action::"far_naked", resource)
        when { context.input has amount && context.input.amount > 5 };""",
    )
    elsewhere: FastMCP[Any] = FastMCP("elsewhere")
    bare(fast, elsewhere, "naked")
    fast.server.mount(create_proxy(elsewhere), "far")
    fast.attach(unguarded="guard")

    assert meta(await called(fast, "far_naked", amount=6))["reason"] == "denied"
    assert meta(await called(fast, "far_naked", amount="6"))["reason"] == "invalid_argument"
    assert structured(await called(fast, "far_naked", amount=5)) == "ran"
    assert fast.ran == ["naked 5"]


def _as_meta(value: dict[str, Any]) -> RequestParamsMeta:
    return value  # type: ignore[return-value]


def _answer(result: Any) -> CallToolResult:
    answer = result.to_mcp_result()
    return (
        answer
        if isinstance(answer, CallToolResult)
        else CallToolResult(content=answer[0], structured_content=answer[1])
    )
