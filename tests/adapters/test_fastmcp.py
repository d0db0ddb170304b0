"""A guarded FastMCP server: what it offers, what is mounted in it, and how it is served."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from fastmcp import Context, FastMCP
from fastmcp.prompts import Message
from fastmcp.server import create_proxy
from fastmcp.server.auth import require_scopes
from fastmcp.server.providers.base import Provider
from fastmcp.server.providers.local_provider import LocalProvider
from fastmcp.server.transforms import Transform
from fastmcp.tools import Tool
from mcp import MCPError
from mcp_types import EmptyResult, SubscribeRequest, SubscribeRequestParams, TextResourceContents

from agentguard import ConfigurationError, Guard, PolicyError, UnsafeMemoryState
from agentguard.adapters import fastmcp as adapter
from agentguard.adapters.fastmcp_answers import FastMCPDenial
from agentguard.adapters.surface import Offer
from agentguard.adapters.surfaces import surface_of
from tests.fast import (
    ALL,
    NOTHING,
    READS,
    RESTRICTED,
    TYPES,
    connected,
    in_memory,
    make_fast,
    records,
    served,
    structured,
)
from tests.world import AUDIENCE, ERAS, ISSUER, Era, Transport, http_client, meta, text, write_policies

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


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_guarded_tool_on_real_transports(transport: Transport, era: Era, tmp_path: Path) -> None:
    """The same decisions in the same words, over stdio too, where FastMCP's own checks are skipped."""
    fast = make_fast(tmp_path, RESTRICTED, types=TYPES)
    records(fast)
    fast.attach()

    async with connected(fast, transport, era) as client:
        allowed = await client.call_tool("read", {"record_id": "r1"})
        denied = await client.call_tool("read", {"record_id": "r9"})
        unfit = await client.call_tool("read", {})
        unknown = await client.call_tool("unknown", {})

    assert structured(allowed) == {"id": "r1"}
    assert text(denied).startswith("Denied by policy: This record is restricted.")
    assert meta(denied)["reason"] == "denied"
    assert denied.structured_content is None
    assert meta(unfit)["reason"] == "invalid_argument"
    assert meta(unknown)["reason"] == "denied"
    if transport != "stdio":
        assert fast.ran == ["read r1"]


def test_schemas_stay_as_they_were(tmp_path: Path) -> None:
    """The decorator changes neither the arguments nor the output that FastMCP shows."""
    fast = make_fast(tmp_path)

    def tool(record_id: str, limit: int = 3) -> list[str]:
        """Read some."""
        return [record_id] * limit

    bare, wrapped = Tool.from_function(tool), Tool.from_function(fast.guard.tool(tool))

    assert wrapped.to_mcp_tool() == bare.to_mcp_tool()


async def test_plain_function_runs_in_a_thread(tmp_path: Path) -> None:
    """Whatever FastMCP was told: the event loop serves other calls meanwhile, and can withhold the result."""
    fast = make_fast(tmp_path)
    threads: list[int] = []

    def plain() -> None:
        threads.append(threading.get_ident())

    fast.server.tool(fast.guard.tool(plain), run_in_thread=False)
    fast.attach()

    async with in_memory(fast) as client:
        await client.call_tool("plain", {})

    assert threads != [threading.get_ident()]


async def test_denied_call_is_no_failure_of_the_output_schema(tmp_path: Path) -> None:
    """A client that checks structured content against the schema takes a denial for one."""
    fast = make_fast(tmp_path, NOTHING)

    @fast.server.tool
    @fast.guard.tool
    async def count() -> None: ...

    fast.attach()

    async with in_memory(fast) as client:
        await client.list_tools()
        assert meta(await client.call_tool("count", {}))["reason"] == "denied"


@pytest.mark.parametrize("era", ERAS)
async def test_resources_and_prompts_are_judged_by_their_functions(
    era: Era, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under their names, on what FastMCP read out of the URI and the arguments."""
    fast = make_fast(
        tmp_path,
        ALL
        + """
        @id("high") forbid (principal, action == Action::"resources/read/row", resource)
        when { context.input.number > 9 };
        @id("secret") forbid (principal, action == Action::"resources/read/secret", resource);
        @id("loud") forbid (principal, action == Action::"prompts/get/greet", resource)
        when { context.input.volume > 3 };
        """,
    )

    @fast.server.resource("data://rows/{number}")
    @fast.guard.resource
    def row(number: int) -> str:
        return f"row {number}"

    @fast.server.resource("data://secret")
    @fast.guard.resource
    async def secret() -> str:
        raise AssertionError

    @fast.server.resource("data://plain")
    async def plain() -> str:
        return "plain"

    @fast.server.prompt
    @fast.guard.prompt
    async def greet(volume: int) -> list[Message]:
        return [Message("hello" * volume)]

    fast.attach()

    async with in_memory(fast, era) as client:
        (content,) = (await client.read_resource("data://rows/7")).contents
        assert isinstance(content, TextResourceContents)
        assert content.text == "row 7"
        (content,) = (await client.read_resource("data://plain")).contents
        assert isinstance(content, TextResourceContents)
        assert content.text == "plain"
        (message,) = (await client.get_prompt("greet", {"volume": "2"})).messages
        assert getattr(message.content, "text", "") == "hellohello"
        for uri in ("data://rows/10", "data://secret"):
            # What could never be read is as if it were not there.
            with pytest.raises(MCPError, match=r"Denied by policy|not found"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.get_prompt("greet", {"volume": "4"})
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("kind", ["resource", "prompt"])
async def test_what_may_never_be_used_is_as_if_it_were_not_there(kind: str, tmp_path: Path) -> None:
    """Who has no permit gets FastMCP's own answer for what it does not have."""
    fast = make_fast(
        tmp_path,
        """@id("other")
        permit (principal, action in [Action::"resources/read", Action::"prompts/get"], resource is Server);""",
    )

    @fast.server.resource("data://secret")
    @fast.guard.resource
    async def secret() -> None: ...

    @fast.server.prompt
    @fast.guard.prompt
    async def hidden() -> None: ...

    fast.attach()

    async with in_memory(fast) as client:
        answers = []
        for name in ("secret", "absent") if kind == "resource" else ("hidden", "absent"):
            with pytest.raises(MCPError) as answer:
                await (client.read_resource(f"data://{name}") if kind == "resource" else client.get_prompt(name))
            answers.append(str(answer.value).replace(name, "…"))

    assert answers[0] == answers[1]


async def test_tool_reads_and_gets_from_inside_what_policies_allow(tmp_path: Path) -> None:
    """A nested read or prompt is judged like one over the wire, and a denial can be caught."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("no") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "data://secret*" };""",
    )

    @fast.server.resource("data://secret/{name}")
    async def secret(name: str) -> str:
        raise AssertionError

    @fast.server.resource("data://plain")
    async def plain() -> str:
        return "plain"

    @fast.server.prompt
    async def greet() -> str:
        return "hello"

    @fast.server.tool
    @fast.guard.tool
    async def reader(context: Context) -> str:
        (content,) = (await context.fastmcp.read_resource("data://plain")).contents
        prompt = await context.fastmcp.render_prompt("greet")
        with pytest.raises(FastMCPDenial):
            await context.fastmcp.read_resource("data://secret/1")
        return f"{content.content!r} {len(prompt.messages)}"

    fast.attach()

    async with in_memory(fast) as client:
        assert structured(await client.call_tool("reader", {})) == "'plain' 1"


@pytest.mark.parametrize("era", ERAS)
async def test_mounted_server_is_judged_under_the_names_of_the_outer_one(era: Era, tmp_path: Path) -> None:
    """Tools, resources, templates and prompts, by their functions and by the URIs that callers see."""
    fast = make_fast(
        tmp_path,
        ALL
        + """
        @id("tool") forbid (principal, action == Action::"shop_order", resource) when { context.input.number > 9 };
        @id("row") forbid (principal, action == Action::"resources/read/row", resource)
        when { context.input.number > 9 };
        @id("plain") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "data://shop/closed/*" };
        @id("prompt") forbid (principal, action == Action::"prompts/get/shop_greet", resource);
        """,
    )
    child: FastMCP[Any] = FastMCP("child")

    @child.tool
    @fast.guard.tool
    async def order(number: int) -> str:
        return f"order {number}"

    @child.resource("data://rows/{number}")
    @fast.guard.resource
    async def row(number: int) -> str:
        return f"row {number}"

    @child.resource("data://open/{name}")
    async def opened(name: str) -> str:
        return name

    @child.resource("data://closed/{name}")
    async def closed(name: str) -> str:
        raise AssertionError

    @child.resource("data://fixed")
    @fast.guard.resource
    async def fixed() -> str:
        return "fixed"

    @child.prompt
    @fast.guard.prompt
    async def greet() -> str:
        raise AssertionError

    fast.server.mount(child, "shop")
    fast.attach()

    async with in_memory(fast, era) as client:
        assert structured(await client.call_tool("shop_order", {"number": 9})) == "order 9"
        assert meta(await client.call_tool("shop_order", {"number": 10}))["reason"] == "denied"
        for uri, said in (
            ("data://shop/rows/7", "row 7"),
            ("data://shop/open/a%20b", "a b"),
            ("data://shop/fixed", "fixed"),
        ):
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, TextResourceContents)
            assert content.text == said
        for uri in ("data://shop/rows/10", "data://shop/closed/a"):
            with pytest.raises(MCPError, match="Denied by policy"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match="Unknown prompt"):
            await client.get_prompt("shop_greet")
    # Each once, at whichever server it is decided on; what is not there is one denial more.
    assert [action for action, _ in fast.reasons()] == [
        *["shop_order"] * 2,
        "resources/read/row",
        "resources/read",
        "resources/read/fixed",
        "resources/read/row",
        "resources/read",
        "prompts/get/shop_greet",
        "prompts/get",
    ]


async def test_tool_of_a_mounted_server_reads_there_under_the_outer_names(tmp_path: Path) -> None:
    """What a nested read of the inner server is, policies name as the outer one's callers do."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("no") forbid (principal, action == Action::"resources/read", resource)
        when { context.input.uri like "data://shop/closed/*" };""",
    )
    child: FastMCP[Any] = FastMCP("child")

    @child.resource("data://closed/{name}")
    async def closed(name: str) -> str:
        raise AssertionError

    @child.tool
    @fast.guard.tool
    async def reader(context: Context) -> str:
        with pytest.raises(FastMCPDenial):
            await context.fastmcp.read_resource("data://closed/1")
        return context.fastmcp.name

    fast.server.mount(child, "shop")
    fast.attach()

    async with in_memory(fast) as client:
        assert structured(await client.call_tool("shop_reader", {})) == "child"


async def test_servers_of_others_are_guarded_whole(tmp_path: Path) -> None:
    """With ``unguarded="guard"`` what has no decorator is judged, by its function or by its schema."""
    sent: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.url.path)
        return httpx2.Response(200, json={"ok": True})

    fast = make_fast(
        tmp_path,
        ALL
        + """
        @id("own") forbid (principal, action == Action::"own", resource) when { context.input.number > 9 };
        @id("order") forbid (principal, action == Action::"shop_order", resource) when { context.input.number > 9 };
        @id("far") forbid (principal, action == Action::"far_add", resource) when { context.input.number > 9 };
        """,
    )

    @fast.server.tool
    async def own(number: int, context: Context) -> str:
        return f"{context.fastmcp.name} {number}"

    elsewhere: FastMCP[Any] = FastMCP("elsewhere")

    @elsewhere.tool
    async def add(number: int) -> int:
        return number + 1

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://shop.example") as http:
        fast.server.mount(FastMCP.from_openapi(SPEC, http), "shop")
        fast.server.mount(create_proxy(elsewhere), "far")
        fast.attach(unguarded="guard")

        async with in_memory(fast) as client:
            answers = {
                name: (await client.call_tool(name, {"number": 9}), await client.call_tool(name, {"number": 10}))
                for name in ("own", "shop_order", "far_add")
            }

    assert structured(answers["own"][0]) == f"{fast.server.name} 9"
    assert structured(answers["shop_order"][0]) == {"ok": True}
    assert structured(answers["far_add"][0]) == 10
    assert {meta(denied)["reason"] for _, denied in answers.values()} == {"denied"}
    assert sent == ["/orders/9"]


async def test_server_that_is_all_proxy_is_guarded_whole(tmp_path: Path) -> None:
    """What `create_proxy` gives is a FastMCP server too."""
    fast = make_fast(tmp_path, READS)
    elsewhere: FastMCP[Any] = FastMCP("elsewhere")

    @elsewhere.tool(annotations={"readOnlyHint": True})
    async def read() -> str:
        return "ran"

    @elsewhere.tool
    async def write() -> str:
        raise AssertionError

    proxy = create_proxy(elsewhere, name="proxy")
    fast.attach(unguarded="guard", server=proxy)

    async with in_memory(fast, server=proxy) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["read"]
        assert structured(await client.call_tool("read", {})) == "ran"
        assert meta(await client.call_tool("write", {}))["reason"] == "denied"


async def test_subscription_to_a_guarded_resource_is_judged_and_reads_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FastMCP serves none, and logs no failure of a resource that was not read."""
    fast = make_fast(tmp_path)

    @fast.server.resource("data://row/{number}")
    @fast.guard.resource
    async def row(number: int) -> str:
        raise AssertionError

    fast.attach()

    async with in_memory(fast, "2025-11-25") as client:
        with pytest.raises(MCPError, match="Method not found"):
            await client.session.send_request(
                SubscribeRequest(params=SubscribeRequestParams(uri="data://row/1")), EmptyResult
            )

    assert fast.reasons()[0] == ("resources/read/row", "permit")
    assert "Error reading" not in caplog.text


async def test_transformed_tool_without_a_decorator_is_guarded_too(tmp_path: Path) -> None:
    """The function that it was made of is swapped for a guarded one."""
    fast = make_fast(
        tmp_path,
        ALL
        + '@id("much") forbid (principal, action == Action::"renamed", resource) when { context.input.amount > 5 };',
    )

    async def naked(amount: int) -> str:
        return f"ran {amount}"

    tool = Tool.from_function(naked)
    fast.server.add_tool(Tool.from_tool(tool, name="renamed"))
    fast.attach(unguarded="guard")

    async with in_memory(fast) as client:
        assert structured(await client.call_tool("renamed", {"amount": 5})) == "ran 5"
        assert meta(await client.call_tool("renamed", {"amount": 6}))["reason"] == "denied"


async def test_tools_that_come_and_go_are_learned(tmp_path: Path) -> None:
    """On the server, in a provider of its own, and in what is mounted."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")
    local = LocalProvider()
    fast.server.add_provider(local)
    fast.server.mount(child, "shop")
    fast.attach()

    async with in_memory(fast) as client:
        for owner, name in ((fast.server, "first"), (local, "second"), (child, "third")):

            async def tool() -> str:
                return "ran"

            tool.__name__ = name
            owner.tool(fast.guard.tool(tool))

        for name in ("first", "second", "shop_third"):
            assert structured(await client.call_tool(name, {})) == "ran"
        fast.server.local_provider.remove_tool("first")
        assert meta(await client.call_tool("first", {}))["effect"] == "deny"


async def test_what_comes_at_a_proxied_server_shows_when_it_is_listed(tmp_path: Path) -> None:
    """Nothing tells a guard of it before."""
    fast = make_fast(tmp_path)
    elsewhere: FastMCP[Any] = FastMCP("elsewhere")
    proxy = create_proxy(elsewhere)
    proxy.providers[-1]._cache_ttl = 0.0  # type: ignore[attr-defined]
    fast.server.mount(proxy)
    fast.attach(unguarded="guard")

    @elsewhere.tool
    async def late() -> str:
        return "ran"

    async with in_memory(fast) as client:
        assert meta(await client.call_tool("late", {}))["reason"] == "denied"
        await client.list_tools()
        await client.list_tools()
        assert structured(await client.call_tool("late", {})) == "ran"


async def test_tools_behind_a_search_are_guarded(tmp_path: Path) -> None:
    """A transform that lists something else hides them from the list, and not from the guard."""

    class Hiding(Transform):
        async def list_tools(self, tools: Any) -> Any:
            return []

    fast = make_fast(tmp_path)

    @fast.server.tool
    @fast.guard.tool
    async def known() -> str:
        return "ran"

    fast.server.add_transform(Hiding())
    fast.attach()

    async with in_memory(fast) as client:
        assert structured(await client.call_tool("known", {})) == "ran"


async def test_tool_with_an_authorization_of_fastmcps_own_is_found(tmp_path: Path) -> None:
    """Whoever attaches a guard has no token; the callers' tokens are still checked."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")

    @child.tool(auth=require_scopes("write"))
    @fast.guard.tool
    async def known() -> str:
        return "ran"

    fast.server.mount(child)
    fast.attach()

    async with served(fast.server) as url:
        async with http_client(url, fast.token(scopes=["write"])) as client:
            assert structured(await client.call_tool("known", {})) == "ran"
        async with http_client(url, fast.token()) as client:
            assert (await client.call_tool("known", {})).is_error


async def test_server_whose_list_fails_keeps_what_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be learned has no rule, and what was learned stays."""
    fast = make_fast(tmp_path)

    @fast.server.tool
    @fast.guard.tool
    async def known() -> str:
        return "ran"

    fast.attach()

    failures = [RuntimeError("the password is 1234")]

    class Broken(Transform):
        async def list_tools(self, tools: Any) -> Any:
            if failures:
                raise failures.pop()
            return tools

    async with in_memory(fast) as client:
        fast.server.add_transform(Broken())
        assert structured(await client.call_tool("known", {})) == "ran"
    assert "does not say what it offers, RuntimeError" in caplog.text
    assert "1234" not in "".join(record.getMessage() for record in caplog.records if record.name == "agentguard")


def test_server_that_does_not_say_in_time_what_it_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused at start-up, and not half guarded."""
    monkeypatch.setattr(adapter, "_SECONDS", 0)
    fast = make_fast(tmp_path)

    class Slow(Provider):
        async def _list_tools(self) -> Any:
            await anyio.sleep_forever()

    fast.server.add_provider(Slow())

    with pytest.raises(ConfigurationError, match="did not say in 0 seconds what it offers"):
        fast.attach()


def test_policies_that_name_a_mounted_tool_fit_at_once(tmp_path: Path) -> None:
    """And those that name nothing are refused, as for any server."""
    fast = make_fast(tmp_path, '@id("one") permit (principal, action == Action::"shop_known", resource);')
    child: FastMCP[Any] = FastMCP("child")

    @child.tool
    @fast.guard.tool
    async def known() -> None: ...

    with pytest.raises(PolicyError):
        fast.attach()
    fast.server.mount(child, "shop")
    other = make_fast(tmp_path / "other")
    other.server.mount(child, "shop")
    fast.attach()


def test_one_function_under_two_names_is_refused(tmp_path: Path) -> None:
    """A mounted function has one name."""
    fast = make_fast(tmp_path)
    child: FastMCP[Any] = FastMCP("child")

    @child.tool
    @fast.guard.tool
    async def known() -> None: ...

    fast.server.mount(child, "a")
    fast.server.mount(child, "b")

    with pytest.raises(ConfigurationError, match="one guarded function is registered as `a_known` and as `b_known`"):
        fast.attach()


def test_decorators_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    """`@server.tool` below the guard's registers the bare function."""
    fast = make_fast(tmp_path)

    @fast.guard.tool
    @fast.server.tool
    async def known() -> None: ...

    with pytest.raises(ConfigurationError, match=r"tool `known` is not guarded: put @guard\.tool below"):
        fast.attach()


async def test_protected_resource_says_where_tokens_come_from(tmp_path: Path) -> None:
    """The metadata names the audience of tokens exactly, wherever the server is served."""
    fast = make_fast(tmp_path)
    fast.attach()

    async with served(fast.server) as url, httpx2.AsyncClient() as http:
        refused = await http.post(url, json={})
        metadata = (await http.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))).json()

    assert refused.status_code == 401
    assert (
        'resource_metadata="http://127.0.0.1/.well-known/oauth-protected-resource/mcp"'
        in (refused.headers["www-authenticate"])
    )
    assert metadata["resource"] == AUDIENCE
    assert metadata["authorization_servers"] == [ISSUER]


async def test_missing_scope_is_asked_for_over_http(tmp_path: Path) -> None:
    """A denial that a scope would lift is the challenge of the specification."""
    fast = make_fast(
        tmp_path,
        ALL
        + """@id("write") @scopes("write") forbid (principal, action == Action::"known", resource)
        unless { principal.scopes.contains("write") };""",
    )

    @fast.server.tool
    @fast.guard.tool
    async def known() -> None: ...

    fast.attach()
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "known", "arguments": {}},
    }
    headers = {"Authorization": f"Bearer {fast.token()}", "Accept": "application/json, text/event-stream"}

    async with served(fast.server, stateless_http=True) as url, httpx2.AsyncClient() as http:
        challenged = await http.post(url, json=message, headers=headers)

    assert challenged.status_code == 403
    assert 'scope="write"' in challenged.headers["www-authenticate"]


def test_auth_wants_fastmcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is nothing to return."""
    import sys

    fast = make_fast(tmp_path)
    monkeypatch.setitem(sys.modules, "agentguard.adapters.fastmcp_auth", None)

    with pytest.raises(ConfigurationError, match=r"auth\(\) is for FastMCP 4"):
        fast.guard.auth()


def test_auth_wants_an_audience(tmp_path: Path) -> None:
    """Like http_auth()."""
    guard = Guard(write_policies(tmp_path, ALL, types=None), issuer=ISSUER, state=UnsafeMemoryState())

    with pytest.raises(ConfigurationError, match="wants the audience"):
        guard.auth()


@pytest.mark.parametrize("loaded", [True, False])
def test_what_is_no_server_is_refused(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether anybody has imported FastMCP or not."""
    if not loaded:
        monkeypatch.delitem(sys.modules, "fastmcp")

    with pytest.raises(ConfigurationError, match="a low-level Server or a FastMCP, got `str`"):
        surface_of("server")


def test_resource_that_is_not_there_reads_as_fastmcp_says_it() -> None:
    """The words are FastMCP's own."""
    surface = surface_of(FastMCP("x"))

    assert "Resource not found" in str(surface.absent(Offer.RESOURCE, "data://x"))
    assert "Unknown prompt" in str(surface.absent(Offer.PROMPT, "x"))
