"""Lists through a real client: each shows what the caller might use, and says that it is for the caller alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.caching import CacheHint
from mcp_types import CallToolResult, ListToolsResult, Tool

from agentguard import EntityUid
from agentguard.adapters.listing import is_kept, unshared, wire
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.facts import as_ancestor
from agentguard.policy.deciding.entities import Entity
from agentguard.testing import acting_as, unsafe_invocation
from tests.adapters.test_mcp import with_token
from tests.world import (
    ERAS,
    EVERYTHING,
    ISSUER,
    SERVER,
    Era,
    Transport,
    World,
    connected,
    http_client,
    make_world,
    served,
    write_policies,
)

POLICY = """
@id("read") permit (principal, action == Action::"read", resource);
@id("few") permit (principal, action == Action::"export", resource) when { context.input.max_rows < 5 };
@id("notes") permit (principal, action == Action::"resources/read/notes", resource);
@id("note") permit (principal, action == Action::"resources/read/note", resource)
when { context.input.note_id like "n*" };
@id("greet") permit (principal, action == Action::"prompts/get/greet", resource);
"""
PLAIN = """
@id("plain-resources") permit (principal, action == Action::"resources/read", resource);
@id("plain-prompts") permit (principal, action == Action::"prompts/get", resource);
"""
FORMER, LATTER = ERAS


def extend(world: World) -> None:
    """Offer what the caller may use and what it may not, and what nobody guards."""
    add_tools(world)
    add_resources(world)
    add_templates(world)
    add_prompts(world)


def add_tools(world: World) -> None:
    """Add tools to those of the world."""

    @world.server.tool()
    @world.guard.tool
    def purge() -> str:
        return "purged"

    @world.server.tool()
    def bare() -> str:
        return "bare"


def add_resources(world: World) -> None:
    """Add resources."""

    @world.server.resource("notes://all")
    @world.guard.resource
    def notes() -> str:
        return "notes"

    @world.server.resource("secrets://all")
    @world.guard.resource
    def secrets() -> str:
        return "secrets"

    @world.server.resource("open://all")
    def opened() -> str:
        return "open"


def add_templates(world: World) -> None:
    """Add templates, of which one would match the other's text, were that a URI."""

    @world.server.resource("note://{+secret_id}")
    @world.guard.resource
    def secret(secret_id: str) -> str:
        return secret_id

    @world.server.resource("note://{note_id}")
    @world.guard.resource
    def note(note_id: str) -> str:
        return note_id

    @world.server.resource("open://{page}/page")
    def page(page: str) -> str:
        return page


def add_prompts(world: World) -> None:
    """Add prompts."""

    @world.server.prompt()
    @world.guard.prompt
    def greet() -> str:
        return "hello"

    @world.server.prompt()
    @world.guard.prompt
    def scold() -> str:
        return "shame"

    @world.server.prompt()
    def plain() -> str:
        return "plain"


async def shown(client: Client) -> dict[str, set[str]]:
    """Return what a client is shown, by what it is."""
    return {
        "tools": {tool.name for tool in (await client.list_tools()).tools},
        "resources": {str(one.uri) for one in (await client.list_resources()).resources},
        "templates": {one.uri_template for one in (await client.list_resource_templates()).resource_templates},
        "prompts": {prompt.name for prompt in (await client.list_prompts()).prompts},
    }


@pytest.mark.parametrize("transport", ["memory", "http"])
@pytest.mark.parametrize("era", ERAS)
async def test_lists_show_what_some_argument_could_make_allowed(era: Era, transport: Transport, tmp_path: Path) -> None:
    """A condition on the arguments hides nothing; what no argument could help, and what nobody guards, is left out."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    async with connected(world, transport, era) as client:
        lists = await shown(client)

    assert lists == {
        "tools": {"read", "export"},
        "resources": {"notes://all"},
        "templates": {"note://{note_id}"},
        "prompts": {"greet"},
    }
    assert world.records() == []


async def test_what_nobody_guards_is_shown_where_its_method_might_be_allowed(tmp_path: Path) -> None:
    """Resources and prompts without a decorator are judged by the method; tools never are."""
    world = make_world(tmp_path, policies=POLICY + PLAIN, extend=extend)

    async with Client(world.server) as client:
        lists = await shown(client)

    assert lists == {
        "tools": {"read", "export"},
        "resources": {"notes://all", "open://all"},
        "templates": {"note://{note_id}", "open://{page}/page"},
        "prompts": {"greet", "plain"},
    }


async def test_each_caller_of_one_server_is_shown_its_own(tmp_path: Path) -> None:
    """What one was shown decides nothing for the next."""
    world = make_world(tmp_path)
    found = {}

    async with served(world) as url:
        for agent in ("reader", "stranger", "reader"):
            async with http_client(url, world.token(agent)) as client:
                found[agent] = {tool.name for tool in (await client.list_tools()).tools}

    assert found == {"reader": {"read", "export"}, "stranger": set()}


async def test_what_loaders_know_of_the_caller_counts(tmp_path: Path) -> None:
    """A user whom only a loader knows as suspended is shown nothing."""
    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "suspended"}, "attrs": {}, "parents": []}])

    def add(world: World) -> None:
        @world.guard.entity("User")
        async def user(user_id: str) -> Entity:
            return Entity({}, [EntityUid("Group", "suspended")] if user_id == "mallory" else [])

    world = make_world(
        tmp_path,
        policies='@id("all") permit (principal, action, resource);'
        '@id("no") forbid (principal, action, resource)'
        'when { principal has user && principal.user in Group::"suspended" };',
        extend=add,
    )
    found = {}

    async with Client(world.server) as client:
        for name in ("mallory", "alice"):
            with acting_as("reader", user=name):
                found[name] = len((await client.list_tools(cache_mode="bypass")).tools)

    assert found == {"mallory": 0, "alice": 2}


@pytest.mark.parametrize("era", ERAS)
async def test_list_for_nobody_or_a_run_that_is_over_is_refused_and_recorded(era: Era, tmp_path: Path) -> None:
    """In the words of any other denial, as an error, since a list has no result that could say it."""
    world = make_world(tmp_path, agent=None)
    nobody = make_world(tmp_path / "nobody", agent=None)
    told = []

    async with Client(nobody.server, mode=mode(era)) as client:
        told.append(await refused(client))
    with acting_as("reader") as invocation:
        world.guard.revoke(invocation.run_id)
        async with Client(world.server, mode=mode(era)) as client:
            told.append(await refused(client))

    assert [data["reason"] for data in told] == ["unauthenticated", "ended"]
    for one, reason, data in ((nobody, "unauthenticated", told[0]), (world, "revoked", told[1])):
        (record,) = one.records()
        assert record["agentguard.decision.id"] == data["id"]
        assert record["agentguard.decision.reason"] == reason
        assert record["agentguard.action.id"] == "tools/list"


def mode(era: Era) -> Any:
    """Return how a client is told which era to speak."""
    return "legacy" if era == FORMER else era


async def refused(client: Client) -> dict[str, str]:
    """Return what a program is told of a list that was refused."""
    with pytest.raises(MCPError) as caught:
        await client.list_tools()
    assert caught.value.error.data is not None
    told: dict[str, str] = caught.value.error.data["agentguard/decision"]
    assert caught.value.error.message.endswith(f"Decision {told['id']}.")
    return told


async def test_loader_that_fails_hides_everything_and_is_recorded(tmp_path: Path) -> None:
    """Whatever goes wrong, nothing is shown."""
    write_policies(tmp_path)

    def add(world: World) -> None:
        @world.guard.entity("User")
        async def user(_: str) -> Entity:
            raise LookupError

    world = make_world(tmp_path, extend=add)

    with acting_as("reader", user="alice"):
        async with Client(world.server) as client:
            told = await refused(client)

    assert world.records()[-1]["agentguard.decision.id"] == told["id"]


async def test_run_that_ends_while_it_lists_is_refused(tmp_path: Path) -> None:
    """What was being listed is not handed out."""
    world = make_world(tmp_path)
    handler = world.server._lowlevel_server.get_request_handler("tools/list")
    assert handler is not None

    async def slow(ctx: Any, params: Any) -> Any:
        world.guard.revoke(invocation.run_id)
        return await handler.handler(ctx, params)

    world.server._lowlevel_server.add_request_handler("tools/list", handler.params_type, slow)
    with acting_as("reader") as invocation:
        async with Client(world.server) as client:
            told = await refused(client)

    assert told["reason"] == "ended"


def hint(world: World, ttl: int) -> None:
    """Let the server's author wish for a cache that everybody shares."""
    shared = CacheHint(ttl_ms=ttl, scope="public")
    world.server._lowlevel_server.cache_hints.update(dict.fromkeys(("tools/list", "resources/read"), shared))


@pytest.mark.parametrize(
    ("ttl", "left", "expected"), [(0, 600, 0), (60_000, 600, 60_000), (3_600_000, 600, 630_000), (60_000, -29, 1_000)]
)
async def test_list_is_private_and_never_outlives_the_run(ttl: int, left: int, expected: int, tmp_path: Path) -> None:
    """Whatever the author wished: no cache may share it, nor show it after the token's end, leeway included."""
    now = 1_800_000_000.0
    world = make_world(tmp_path, clock=lambda: now)
    hint(world, ttl)

    with acting_as("reader", at=now, ends_at=now + left + 30):
        async with Client(world.server, mode=LATTER) as client:
            listed = await client.list_tools()

    assert (listed.cache_scope, listed.ttl_ms) == ("private", expected)


async def test_what_one_caller_read_is_not_shared_either(tmp_path: Path) -> None:
    """A cache that hands a resource to everybody would answer in place of the guard."""
    world = make_world(tmp_path, policies=POLICY, extend=extend)

    hint(world, 10**9)

    async with Client(world.server, mode=LATTER) as client:
        read = await client.read_resource("notes://all")

    assert read.cache_scope == "private"
    assert 0 < read.ttl_ms < 10**6


async def test_lists_before_2026_07_28_say_nothing_of_caches(tmp_path: Path) -> None:
    """That era has no words for it."""
    world = make_world(tmp_path)

    async with Client(world.server, mode="legacy") as client:
        listed = await client.list_tools()

    assert listed.model_fields_set <= {"tools", "next_cursor", "meta"}


async def test_message_that_names_no_run_where_it_should_is_shown_nothing(tmp_path: Path) -> None:
    """Clients list by themselves after a call, and an error then would take the place of the call's result."""
    world = make_world(tmp_path, identity="meta")
    token = world.token(audience=stdio_audience(SERVER))

    async with Client(world.server) as client:
        result = await client.call_tool("export", {}, meta=with_token(token))
        listed = await client.list_tools()
        mine = await client.list_tools(meta=with_token(token), cache_mode="bypass")
        with pytest.raises(MCPError):
            await client.list_tools(meta=with_token("x"), cache_mode="bypass")

    assert not result.is_error
    assert (listed.tools, listed.ttl_ms, listed.cache_scope) == ([], 0, "private")
    assert {tool.name for tool in mine.tools} == {"read", "export"}


STEPS = """
@id("read") permit (principal, action == Action::"read", resource);
@id("write") @scopes("records:write") permit (principal, action == Action::"export", resource)
when { principal.scopes.contains("records:write") };
"""


@pytest.mark.parametrize(("transport", "expected"), [("memory", {"read"}), ("http", {"read", "export"})])
async def test_what_a_token_with_more_scopes_could_use_is_shown_where_it_can_be_asked_for(
    transport: Transport, expected: set[str], tmp_path: Path
) -> None:
    """Over HTTP a call of it is answered with the scopes; elsewhere it is as if it did not exist."""
    world = make_world(tmp_path, policies=STEPS)

    async with connected(world, transport, LATTER) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}

    assert listed == expected


async def test_run_that_was_delegated_is_not_shown_what_more_scopes_would_allow(tmp_path: Path) -> None:
    """It cannot get more than its parent has."""
    world = make_world(tmp_path, policies=STEPS)
    parent = as_ancestor(unsafe_invocation("parent", issuer=ISSUER, grant=EVERYTHING))
    child = world.token("reader", ancestors=[parent])

    async with served(world) as url, http_client(url, child) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}

    assert listed == {"read"}


async def test_run_that_has_the_scopes_is_shown_what_they_allow(tmp_path: Path) -> None:
    """On any transport."""
    world = make_world(tmp_path, policies=STEPS)

    async with served(world) as url, http_client(url, world.token(scopes=["records:write"])) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}

    assert listed == {"read", "export"}


@pytest.mark.parametrize("tools", [[{"name": 7}, "read", {}], None])
async def test_entry_without_a_name_is_left_out(tools: object, tmp_path: Path) -> None:
    """Middleware of others may answer with anything."""
    world = make_world(tmp_path)

    async def odd(ctx: Any, call_next: Any) -> Any:
        return {"tools": tools, "resultType": "complete"} if ctx.method == "tools/list" else await call_next(ctx)

    world.server.middleware.append(odd)
    async with Client(world.server) as client:
        listed = await client.list_tools()

    assert listed.tools == []


def test_result_that_is_a_model_is_filtered_as_it_goes_out() -> None:
    """Middleware of others may answer with one."""
    result = ListToolsResult(tools=[Tool(name="a", input_schema={"type": "object"})])

    assert wire(result)["tools"] == [{"name": "a", "inputSchema": {"type": "object"}}]
    assert wire(None) == {}
    assert is_kept(result)
    assert unshared(result, 1.5)["cacheScope"] == "private"
    assert not is_kept(CallToolResult(content=[]))
