"""A denial for a missing scope is answered 403 with a challenge, on real HTTP servers in both protocol eras."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest
from fastmcp import FastMCP
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolRequestParams, Tool
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from agentguard import Guard, Issuer
from agentguard.steps.denial import META_KEY
from tests.challenges import ACCEPT, POLICIES, Caller, calling, challenge_of, extend, result_of
from tests.world import (
    AUDIENCE,
    ERAS,
    EVERYTHING,
    ISSUER,
    SERVER,
    Era,
    World,
    connected,
    make_guard,
    make_world,
    meta,
    serving,
    write_policies,
)

each_era = pytest.mark.parametrize("era", ERAS)
each_way = pytest.mark.parametrize(
    ("era", "stateless", "json_response"),
    [(era, stateless, json_response) for era in ERAS for stateless in (False, True) for json_response in (False, True)],
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world in which scopes matter."""
    return make_world(tmp_path, policies=POLICIES, extend=extend)


@each_way
async def test_denial_for_a_missing_scope_is_answered_403(
    world: World, era: Era, stateless: bool, json_response: bool
) -> None:
    """The challenge names every scope of the call; the record is that of an ordinary denial, with what was missing."""
    options: dict[str, Any] = {"stateless": stateless, "json_response": json_response}
    async with calling(world, era, scopes=("mail", "records:read"), **options) as caller:
        allowed = await caller.call("export", max_rows=5)
        denied = await caller.call("export", max_rows=50)
        assert denied.json()["id"] == caller.number
        hopeless = await caller.call("export", max_rows=501)
        forbidden = await caller.call("read", record_id="r9")
        before_arguments = await caller.call("wipe", nothing=["of", "this"])
        # A token with the scopes of the challenge, as another caller on the same server.
        stepped = Caller(caller.http, caller.url, world.token(scopes=("records:read", "records:write")), era)
        await stepped.begin()
        allowed_then = await stepped.call("export", max_rows=50)

    assert result_of(allowed)["content"][0]["text"] == "5 rows"
    challenge_of(denied, "records:read records:write")
    assert "At most 500 rows." in result_of(hopeless)["content"][0]["text"]
    challenge_of(forbidden, "secrets")
    challenge_of(before_arguments, "wipe")
    assert result_of(allowed_then)["content"][0]["text"] == "50 rows"
    assert [
        (record["agentguard.decision.reason"], record.get("agentguard.scopes.missing")) for record in world.records()
    ] == [
        ("permit", None),
        ("no_permit", ["records:write"]),
        ("policy", None),
        ("policy", ["secrets"]),
        ("no_permit", ["wipe"]),
        ("permit", None),
    ]
    assert world.records()[1]["agentguard.decision.id"] == denied.json()["error"]["data"][META_KEY]["id"]
    assert world.ran == ["export 5 csv", "export 50 csv"]


@each_era
async def test_resource_that_needs_a_scope_is_challenged(world: World, era: Era) -> None:
    """Other methods than a tool's call are answered the same."""
    async with calling(world, era) as caller:
        bare = await caller.post("resources/read", {"uri": "notes://all"})
        decorated = await caller.post("resources/read", {"uri": "vault://closed"})
        opened = await caller.post("resources/read", {"uri": "vault://open"})

    challenge_of(bare, "resources")
    challenge_of(decorated, "vault")
    assert result_of(opened)["contents"][0]["text"] == "open"
    assert world.ran == ["vault"]


@each_era
async def test_no_other_transport_steps_up(tmp_path: Path, era: Era) -> None:
    """Without HTTP there is no status to answer with; what was missing is evidence all the same."""
    policies = '@id("reads") @scopes("r") permit (principal, action, resource) when { principal.scopes.contains("r") };'
    world = make_world(tmp_path, policies=policies)
    async with connected(world, "memory", era) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "denied"
    assert [record["agentguard.scopes.missing"] for record in world.records()] == [["r"]]


async def test_call_on_several_records_is_challenged_if_the_scopes_open_them_all(tmp_path: Path) -> None:
    """What the call acts on besides is asked about before a person is sent for a scope."""

    def several(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{record_ids[*]}")
        async def nested(record_ids: list[str]) -> str:
            return "read"

    policies = """
    @id("r") @scopes("r") permit (principal, action, resource) when { principal.scopes.contains("r") };
    @id("first") permit (principal, action == Action::"nested", resource == Record::"r1");
    @id("never") forbid (principal, action, resource is Record) when { resource.sensitivity == "restricted" };
    """
    world = make_world(tmp_path, policies=policies, extend=several)
    async with calling(world, "2026-07-28", stateless=True) as caller:
        open_ = await caller.call("nested", record_ids=["r1", "r2", "r3"])
        closed = await caller.call("nested", record_ids=["r1", "r2", "r9"])
        missing = await caller.call("nested", record_ids=["r1", "r2", "nobody"])

    challenge_of(open_, "r")
    assert [result_of(reply)["isError"] for reply in (closed, missing)] == [True, True]


def low_level(guard: Guard) -> Any:
    """Return a guarded low-level server, with its application to be made."""

    @guard.tool
    async def wipe(all: bool = False) -> str:  # noqa: A002
        return "wiped"

    async def call_tool(_ctx: Any, params: CallToolRequestParams) -> Any:
        return await guard.call(params.name, params.arguments)

    server: Server[Any] = Server(SERVER, on_call_tool=call_tool)
    schema = {"type": "object", "properties": {"all": {"type": "boolean"}}}
    guard.attach(server, tools=[Tool(name="wipe", input_schema=schema)])
    return SimpleNamespace(
        streamable_http_app=lambda **options: server.streamable_http_app(**guard.http_auth(), **options)
    )


def fast(guard: Guard) -> Any:
    """Return a guarded FastMCP server, with its application to be made."""
    server = FastMCP(SERVER, auth=guard.auth())

    @server.tool
    @guard.tool
    async def wipe(all: bool = False) -> str:  # noqa: A002
        return "wiped"

    guard.attach(server)
    return SimpleNamespace(streamable_http_app=lambda **options: server.http_app(path="/mcp", **options))


@pytest.mark.parametrize("build", [low_level, fast])
@each_era
async def test_other_frameworks_answer_the_same(tmp_path: Path, era: Era, build: Callable[[Guard], Any]) -> None:
    """Each makes an application of its own, and each is wrapped."""
    policies = """
    @id("all") @scopes("wipe") permit (principal, action == Action::"wipe", resource)
    when { !context.input.all || principal.scopes.contains("wipe") };
    """
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, _ = make_guard(write_policies(tmp_path, policies, types=None), issuer)
    token = issuer.mint(agent="reader", grant=EVERYTHING)
    async with serving(build(guard), stateless=era == "2026-07-28") as url, httpx2.AsyncClient() as http:
        caller = Caller(http, url, token, era)
        await caller.begin()
        some = await caller.call("wipe")
        everything = await caller.call("wipe", all=True)

    assert result_of(some)["content"][0]["text"] == "wiped"
    challenge_of(everything, "wipe")


@each_era
async def test_nobody_is_asked_to_approve_what_a_scope_is_missing_for(tmp_path: Path, era: Era) -> None:
    """First the scope: a person's yes alone would change nothing."""
    approval = (
        '@id("asks") @obligation("approval") forbid (principal, action, resource) unless { context has approval };'
    )
    few = '@id("few") permit (principal, action == Action::"export", resource) when { context.input.max_rows <= 5 };'
    writes = """
    @id("writes") @scopes("records:write") permit (principal, action == Action::"export", resource)
    when { principal.scopes.contains("records:write") };
    """
    world = make_world(tmp_path, policies=f"{approval}{few}{writes}")
    async with calling(world, era) as caller:
        reply = await caller.call("export", max_rows=50)

    challenge_of(reply, "records:write")
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["no_permit"]


class Events(EventStore):
    """Keeps events so that a client may resume by them."""

    def __init__(self) -> None:
        self.stored: list[Any] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep one."""
        self.stored.append(message)
        return f"{stream_id}-{len(self.stored)}"

    async def replay_events_after(
        self, last_event_id: str, send_callback: Callable[[EventMessage], Awaitable[None]]
    ) -> str | None:
        """Replay none."""
        return None


async def test_event_that_begins_a_stream_does_not_defeat_it(world: World) -> None:
    """With an event store, the stream begins with an id before anything is judged."""
    store = Events()
    async with calling(world, "2025-11-25", event_store=store) as caller:
        allowed = await caller.call("export", max_rows=5)
        denied = await caller.call("export", max_rows=50)

    assert "data: \r\n" in allowed.text
    result_of(allowed)
    challenge_of(denied, "records:read records:write")
    assert store.stored.count(None) == 3


async def test_stream_of_the_session_opens_at_once(world: World) -> None:
    """A GET is never held back, though nothing is said on it for as long as it is open."""
    async with calling(world, "2025-11-25") as caller:
        assert caller.session is not None
        headers = {
            "Authorization": f"Bearer {caller.token}",
            "Accept": "text/event-stream",
            "mcp-session-id": caller.session,
        }
        with anyio.fail_after(20):
            async with caller.http.stream("GET", caller.url, headers=headers) as opened:
                assert opened.status_code == 200


async def test_headers_of_a_call_that_runs_for_long_come_at_once(tmp_path: Path) -> None:
    """They are held back until the call is allowed, and no longer."""
    entered, go_on = anyio.Event(), anyio.Event()

    def slow(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def nested() -> str:
            entered.set()
            await go_on.wait()
            return "done"

    world = make_world(tmp_path, policies='@id("all") permit (principal, action, resource);', extend=slow)
    async with calling(world, "2025-11-25") as caller:
        body = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "nested", "arguments": {}}}
        assert caller.session is not None
        headers = {
            "Authorization": f"Bearer {caller.token}",
            "Accept": ACCEPT,
            "MCP-Protocol-Version": caller.era,
            "mcp-session-id": caller.session,
        }
        with anyio.fail_after(20):
            async with caller.http.stream("POST", caller.url, json=body, headers=headers) as begun:
                await entered.wait()
                assert begun.status_code == 200
                go_on.set()
                assert "done" in (await begun.aread()).decode()


async def test_middleware_of_the_servers_owner_sees_the_challenge(world: World) -> None:
    """The application stays what it was, so CORS can be added to it as before."""
    open_ = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = world.server.streamable_http_app(stateless_http=True, transport_security=open_)
    assert isinstance(app, Starlette)
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"], expose_headers=["WWW-Authenticate"])
    async with world.server.session_manager.run():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            caller = Caller(http, "/mcp", world.token(), "2026-07-28")
            reply = await caller.post("tools/call", {"name": "wipe", "arguments": {}}, Origin="https://app.example")

    challenge_of(reply, "wipe")
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert reply.headers["access-control-expose-headers"] == "WWW-Authenticate"
