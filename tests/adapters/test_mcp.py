"""What surrounds a guarded function in an `MCPServer`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, cast

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.mcpserver import Resolve
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    RequestParamsMeta,
    TextContent,
    ToolAnnotations,
)
from pydantic import BeforeValidator

from agentguard import ConfigurationError
from agentguard.adapters.mcp import Adapter
from agentguard.identity.sources import stdio_audience
from agentguard.testing import acting_as
from tests.world import (
    NESTED,
    SERVER,
    World,
    connected,
    http_client,
    make_world,
    meta,
    served,
    text,
)


def with_token(token: str) -> RequestParamsMeta:
    """Return a message's `_meta` with a token."""
    return cast("RequestParamsMeta", {"agentguard/invocation": token})


ALL = '@id("all") permit (principal, action, resource);'


@pytest.mark.parametrize(
    ("annotations", "groups"),
    [
        (None, {"destructive", "open-world"}),
        (ToolAnnotations(), {"destructive", "open-world"}),
        (ToolAnnotations(read_only_hint=True), {"read-only", "open-world"}),
        (ToolAnnotations(read_only_hint=True, open_world_hint=False), {"read-only"}),
        (ToolAnnotations(destructive_hint=False, idempotent_hint=True), {"open-world", "idempotent"}),
    ],
)
def test_absent_hint_has_the_specifications_default(
    annotations: ToolAnnotations | None, groups: set[str], tmp_path: Path
) -> None:
    """Nothing said means destructive and open-world; a tool that only reads destroys nothing."""

    def extend(world: World) -> None:
        @world.server.tool(annotations=annotations)
        @world.guard.tool
        async def hinted() -> None: ...

    world = make_world(tmp_path, policies=ALL, extend=extend)

    rule = world.guard._functions[-1].rule
    assert rule is not None
    assert rule.tool.groups == groups | {"tools/call"}


@pytest.mark.parametrize("identity", ["environment", "meta"])
async def test_token_is_taken_out_of_the_environment(identity: Literal["environment", "meta"], tmp_path: Path) -> None:
    """Tools, and what they start, cannot read the token from the environment."""
    os.environ["AGENTGUARD_TOKEN_FILE"] = str(tmp_path / "token")
    make_world(tmp_path, identity=identity)

    assert "AGENTGUARD_TOKEN" not in os.environ
    assert "AGENTGUARD_TOKEN_FILE" not in os.environ


async def test_identity_in_the_message_counts_only_where_it_was_declared(tmp_path: Path) -> None:
    """Sources are never mixed: `_meta` is read with identity="meta" alone, and the environment then is not."""
    declared = make_world(tmp_path / "a", identity="meta")
    other = make_world(tmp_path / "b", agent=None)
    arguments = {"record_id": "r1"}

    for world, expected in ((declared, "r1"), (other, None)):
        token = world.token(audience=stdio_audience(SERVER))
        async with Client(world.server) as client:
            without = await client.call_tool("read", arguments)
            given = await client.call_tool("read", arguments, meta=with_token(token))
        assert meta(without)["reason"] == "unauthenticated"
        assert given.is_error is (expected is None)


@pytest.mark.parametrize("where", ["meta", "environment"])
async def test_http_takes_the_bearer_and_nothing_else(where: Literal["environment", "meta"], tmp_path: Path) -> None:
    """Over HTTP neither `_meta` nor the environment counts, whoever they name."""
    world = make_world(tmp_path, identity=where)
    theirs = world.token(audience=stdio_audience(SERVER))

    async with served(world) as url, http_client(url, world.token("stranger")) as client:
        result = await client.call_tool("read", {"record_id": "r1"}, meta=with_token(theirs))

    assert result.is_error
    assert world.records()[-1]["agentguard.agent.id"] == "stranger"


async def test_server_without_http_auth_denies_every_call(tmp_path: Path) -> None:
    """Forgetting the bearer check does not fall back to another source."""
    world = make_world(tmp_path)
    world.server.settings.auth = None
    world.server._token_verifier = None

    async with served(world) as url, http_client(url, world.token()) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unauthenticated"
    assert world.ran == []


async def test_stdio_token_is_refused_over_http(tmp_path: Path) -> None:
    """A token is for one audience: that of a local process does not open the network's door."""
    world = make_world(tmp_path)

    async with served(world) as url, httpx2.AsyncClient() as http:
        reply = await http.post(
            url,
            json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
            headers={"Authorization": f"Bearer {world.token(audience=stdio_audience(SERVER))}"},
        )

    assert reply.status_code == 401


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("resources/read", lambda client: client.read_resource("data://x")),
        ("prompts/get", lambda client: client.get_prompt("greet")),
    ],
)
async def test_other_methods_need_a_permit_of_their_own(method: str, call: Any, tmp_path: Path) -> None:
    """Reading resources and prompts is denied, in constant words, unless a policy permits the method."""

    def extend(world: World) -> None:
        @world.server.resource("data://x")
        def data() -> str:
            world.ran.append("resource")
            return "x"

        @world.server.prompt()
        def greet() -> str:
            world.ran.append("prompt")
            return "hello"

    closed = make_world(tmp_path / "a", extend=extend)
    opened = make_world(
        tmp_path / "b",
        policies=f'@id("m") permit (principal, action == Action::"{method}", resource == Server::"records");',
        extend=extend,
    )

    async with Client(closed.server) as client:
        with pytest.raises(MCPError, match="Denied by policy") as denied:
            await call(client)
    assert closed.ran == []
    assert denied.value.data["agentguard/decision"]["effect"] == "deny"
    async with Client(opened.server) as client:
        await call(client)
    assert len(opened.ran) == 1


async def test_nested_denial_that_a_tool_leaves_alone_answers_the_call(tmp_path: Path) -> None:
    """The agent is told of the denial inside, and not of a crash."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            result = await world.server.call_tool("read", {"record_id": "r9"})
            assert isinstance(result, CallToolResult)
            return text(result)

    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("nested", {})

    assert "This record is restricted." in text(result)
    assert world.ran == []


async def test_tools_own_error_is_the_tools(tmp_path: Path) -> None:
    """A tool that fails fails as it would unguarded, and the outcome is recorded."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            raise MCPError(code=-32000, message="mine")

    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="mine"):
            await client.call_tool("nested", {})

    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "failed"


@pytest.mark.parametrize(
    "error", [ValueError("secret"), MCPError(code=-32000, message="secret"), RuntimeError("secret")]
)
async def test_validator_that_raises_is_a_refused_argument(error: Exception, tmp_path: Path) -> None:
    """Whatever validation does, the caller learns nothing of it."""

    def fail(_: object) -> object:
        raise error

    def extend(world: World) -> None:
        async def nested(value: str) -> str:
            return value

        nested.__annotations__["value"] = Annotated[str, BeforeValidator(fail)]
        world.server.add_tool(world.guard.tool(nested))

    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("nested", {"value": "x"})

    assert meta(result)["reason"] == "invalid_argument"
    assert "secret" not in text(result)


async def test_answer_that_no_guarded_function_gave_is_not_handed_out(tmp_path: Path) -> None:
    """An extension that answers in a tool's place would answer without a decision."""
    world = make_world(tmp_path)

    async def answer(_: Any, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="from a cache")])

    world.server._lowlevel_server.add_request_handler("tools/call", CallToolRequestParams, answer)
    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert result.is_error
    assert "cache" not in text(result)


async def test_call_without_a_name_is_refused_by_the_protocol(tmp_path: Path) -> None:
    """A message that names no tool reaches none."""
    world = make_world(tmp_path)
    async with served(world) as url, httpx2.AsyncClient() as http:
        reply = await http.post(
            url,
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}},
            headers={
                "Authorization": f"Bearer {world.token()}",
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2025-11-25",
            },
        )

    assert reply.status_code >= 400 or "error" in reply.text
    assert world.ran == []


async def test_identity_that_ends_during_validation_is_what_the_caller_is_told(tmp_path: Path) -> None:
    """An argument error of a caller who cannot be known by then is not told as one."""
    world = make_world(tmp_path)
    adapter = next(one for one in world.server.middleware if isinstance(one, Adapter))

    class Leaving:
        """A source that has a token once."""

        tokens = [world.token(audience=stdio_audience(SERVER))]  # noqa: RUF012

        def token(self, now: float) -> str:
            return self.tokens.pop()

    adapter._environment = Leaving()  # type: ignore[assignment]
    async with Client(world.server) as client:
        result = await client.call_tool("export", {"max_rows": "many"})

    assert meta(result)["reason"] == "unavailable"
    assert world.records()[-1]["agentguard.decision.reason"] == "internal_error"


async def test_request_that_is_cancelled_leaves_its_outcome(tmp_path: Path) -> None:
    """A client that gives up stops the tool, and the record says that it was cancelled."""
    entered = anyio.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            entered.set()
            await anyio.sleep_forever()
            raise AssertionError

    world = make_world(tmp_path, policies=NESTED, extend=extend)

    async with connected(world, "memory", "2026-07-28") as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "nested", {})
            await entered.wait()
            tasks.cancel_scope.cancel()
        await client.call_tool("read", {"record_id": "r1"})

    assert [r["agentguard.execution.outcome"] for r in world.records("outcome")] == ["cancelled", "completed"]


def test_tool_that_asks_in_two_ways_is_refused(tmp_path: Path) -> None:
    """Resolvers and InputRequiredResult share one channel; the SDK's own check would not see it."""

    def ask() -> str:
        return "x"

    def extend(world: World) -> None:
        async def both(value: str) -> str | InputRequiredResult:
            return value

        both.__annotations__["value"] = Annotated[str, Resolve(ask)]
        world.guard.tool(both)

    with pytest.raises(ConfigurationError, match="one call can ask its caller in one way"):
        make_world(tmp_path, extend=extend)


def message(method: str, **params: object) -> Any:
    """Return what the SDK's middleware is given for a message that came without a request."""
    return SimpleNamespace(
        request_id=1,
        method=method,
        params=params,
        request=None,
        meta={"traceparent": 7},
        protocol_version="2026-07-28",
        session=SimpleNamespace(
            client_capabilities=None,
            client_params=None,
            **dict.fromkeys(("send_notification", "send_log_message", "report_progress", "send_request")),
        ),
    )


@pytest.mark.parametrize("name", [None, 7, ["read"], {"read": 1}])
async def test_name_that_is_no_text_names_nothing(name: object, tmp_path: Path) -> None:
    """Whatever stands there is denied like a tool that does not exist, and not kept."""
    world = make_world(tmp_path)
    adapter = next(one for one in world.server.middleware if isinstance(one, Adapter))

    async def next_one(_: Any) -> Any:
        raise AssertionError

    result = await adapter(message("tools/call", name=name), next_one)

    assert isinstance(result, CallToolResult)
    assert meta(result)["reason"] == "denied"
    (record,) = world.records()
    assert record["agentguard.decision.reason"] == "unguarded"
    assert "gen_ai.tool.name" not in record
    assert world.guard._call.get() is None


async def test_name_of_a_prompt_is_not_kept_as_that_of_a_tool(tmp_path: Path) -> None:
    """A record of `prompts/get` has no tool in it."""
    world = make_world(tmp_path, policies=ALL)

    async with Client(world.server) as client:
        with pytest.raises(MCPError):
            await client.get_prompt("absent")

    assert world.records()[0]["agentguard.action.id"] == "prompts/get"
    assert "gen_ai.tool.name" not in world.records()[0]


@pytest.mark.parametrize(("transport", "allowed"), [("http", "http"), ("memory", "stdio")])
async def test_policy_sees_how_the_call_arrived(transport: Any, allowed: str, tmp_path: Path) -> None:
    """`context.transport` is `http` for what came over HTTP, and `stdio` for all else."""
    for value in ("http", "stdio"):
        world = make_world(
            tmp_path / value,
            policies=f'@id("t") permit (principal, action, resource) when {{ context.transport == "{value}" }};',
        )
        async with connected(world, transport, "2026-07-28") as client:
            result = await client.call_tool("export", {})

        assert result.is_error is (value != allowed)


async def test_acting_as_does_not_hold_over_http(tmp_path: Path) -> None:
    """A server that a test serves in its own process believes the bearer, whoever the test acts as."""
    policies = ALL + '@id("no") forbid (principal in Agent::"stranger", action == Action::"read", resource);'
    world = make_world(tmp_path, policies=policies)

    with acting_as("reader"):
        async with served(world) as url, http_client(url, world.token("stranger")) as client:
            denied = await client.call_tool("read", {"record_id": "r1"})
            allowed = await client.call_tool("export", {})

    assert meta(denied)["reason"] == "denied"
    assert not allowed.is_error
    assert [record["agentguard.agent.id"] for record in world.records()] == ["stranger", "stranger"]


async def test_sdk_is_told_of_one_run_and_of_nothing_more(tmp_path: Path) -> None:
    """Its subject names issuer, subject and run so that no two of them can be read as another two."""
    world = make_world(tmp_path)
    verifier = world.guard.http_auth()["token_verifier"]
    token = world.token(user="alice smith", scopes=["b", "a"])
    invocation = await world.guard._verifier.verify(token)

    told = await verifier.verify_token(token)

    assert told is not None
    assert told.subject is not None
    assert json.loads(told.subject) == [invocation.issuer, invocation.subject, invocation.run_id]
    assert told.client_id == invocation.client_id
    assert told.scopes == ["a", "b"]
    assert told.expires_at == int(invocation.ends_at)
    assert told.resource == world.guard._verifier.audience


async def test_notification_that_looks_like_a_call_runs_nothing(tmp_path: Path) -> None:
    """It has no id to answer, so nobody judges it: it must reach no tool, guarded or not."""

    def extend(world: World) -> None:
        @world.server.tool()
        async def naked() -> None:
            world.ran.append("naked")

    world = make_world(tmp_path, policies=ALL, extend=extend)
    headers = {
        "Authorization": f"Bearer {world.token()}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    async with served(world, stateless=True) as url, httpx2.AsyncClient() as http:
        for name in ("naked", "export"):
            call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": name, "arguments": {}}}
            await http.post(url, json=call, headers=headers)
        async with http_client(url, world.token(), "2025-11-25") as client:
            await client.call_tool("read", {"record_id": "r1"})

    assert world.ran == ["read r1"]


async def test_guarded_function_that_ran_before_validation_is_not_the_tool(tmp_path: Path) -> None:
    """What else was guarded on the way does not make the tool's argument error the tool's own."""
    world = make_world(tmp_path)
    read = world.server._tool_manager.list_tools()[0].fn

    async def read_first(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        if ctx.method == "tools/call":
            await read(record_id="r1")
        return await call_next(ctx)

    world.server.middleware.append(read_first)
    async with Client(world.server) as client:
        result = await client.call_tool("export", {"max_rows": "secret"})

    assert meta(result)["reason"] == "invalid_argument"
    assert "secret" not in text(result)
    assert world.ran == ["read r1"]
