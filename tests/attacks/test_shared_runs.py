"""A stolen token, or one that two flows use: the run is known to be shared, and a policy can stop it for both."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, Implementation

from agentguard import Issuer, State, UnsafeMemoryState
from agentguard.identity.sources import META_KEY, stdio_audience
from tests.adapters.origins import CALENDAR, INBOX, over_http
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, SERVER, Era, World, make_guard, make_world, served

ALL = '@id("all") ' + EVERYTHING
UNSHARED = ALL + '@id("shared") forbid (principal, action, resource) when { context.run.shared };'
SHARED = "agentguard.run_state.shared"


async def export(client: Client, **options: Any) -> CallToolResult:
    """Call a tool that the policies allow to whoever does not share its run."""
    return await client.call_tool("export", {}, **options)


async def allowed(client: Client) -> bool:
    """Return whether that call was allowed."""
    return not (await export(client)).is_error


def shared(world: World) -> list[Any]:
    """Return what each decision was told of the run, oldest first."""
    return [record[SHARED] for record in world.records()]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("named", "source"), [(CALENDAR, "127.0.0.1"), (INBOX, "127.0.0.2")])
async def test_run_that_is_used_from_elsewhere_is_shared_for_both(
    era: Era, named: Implementation, source: str, tmp_path: Path
) -> None:
    """The thief's first call is stopped, and so is each later one of whoever had the run first. One record says so."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token(run="r")

    async with (
        served(world) as url,
        over_http(url, token, era) as owner,
        over_http(url, token, era, named=named, source=source) as thief,
    ):
        found = [await allowed(one) for one in (owner, owner, thief, owner, thief)]

    assert found == [True, True, False, False, False]
    assert shared(world) == [False, False, True, True, True]
    assert [record["agentguard.policy.id"] for record in world.records()[2:]] == ["shared"] * 3
    (record,) = world.records("shared_run")
    assert record["agentguard.run.id"] == "r"
    assert "127.0.0" not in str(record)
    assert token not in str(record)


async def test_run_is_shared_where_no_policy_asks(tmp_path: Path) -> None:
    """The calls are allowed, and the record is written all the same."""
    world = make_world(tmp_path, policies=ALL, types=None)
    token = world.token()

    async with (
        served(world) as url,
        over_http(url, token) as one,
        over_http(url, token, named=CALENDAR) as other,
    ):
        assert [await allowed(client) for client in (one, other, one)] == [True] * 3

    assert shared(world) == [False, True, True]
    assert len(world.records("shared_run")) == 1


async def test_thief_who_comes_first_stops_the_run(tmp_path: Path) -> None:
    """Which of two is the thief nobody knows. A call that is denied binds the run as well."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token()

    async with (
        served(world) as url,
        over_http(url, token, source="127.0.0.2") as thief,
        over_http(url, token) as owner,
    ):
        unknown = await thief.call_tool("no_such_tool", {})
        found = [await allowed(one) for one in (owner, thief)]

    assert unknown.is_error
    assert found == [False, False]
    assert len(world.records("shared_run")) == 1


async def test_refused_token_shares_nothing(tmp_path: Path) -> None:
    """Whoever merely knows the run's name cannot stop it: there has to be a token of it that holds."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token(run="r")
    forged = Issuer(issuer=ISSUER, audience=AUDIENCE).mint(agent="reader", grant=EVERYTHING, run="r")

    async with served(world) as url, over_http(url, token) as owner:
        before = await allowed(owner)
        with pytest.raises(Exception):  # noqa: B017, PT011  the client's own, for a 401
            async with over_http(url, forged, source="127.0.0.2") as thief:
                await allowed(thief)
        after = await allowed(owner)

    assert (before, after) == (True, True)
    assert world.records("shared_run") == []


@pytest.mark.parametrize("stateless", [False, True])
async def test_client_that_renews_reconnects_and_negotiates_again_shares_nothing(
    stateless: bool, tmp_path: Path
) -> None:
    """Another token of the run, another connection, another version of the protocol: in any order."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    found = []

    async with served(world, stateless=stateless) as url:
        for era in (*ERAS, *reversed(ERAS)):
            async with over_http(url, world.token(run="r"), era) as client:
                await client.list_tools()
                found += [await allowed(client), await allowed(client)]

    assert found == [True] * 8
    assert shared(world) == [False] * 8
    assert world.records("shared_run") == []


async def test_two_connections_at_once_share_nothing(tmp_path: Path) -> None:
    """One client may have several."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token()

    async with served(world) as url, over_http(url, token) as one, over_http(url, token) as other:
        assert [await allowed(client) for client in (one, other, one)] == [True] * 3


async def test_run_that_changes_its_transport_is_shared(tmp_path: Path) -> None:
    """A run over HTTP that turns up over stdio is used by somebody else."""
    world = make_world(tmp_path, policies=UNSHARED, types=None, identity="meta")
    local = world.token(run="r", audience=stdio_audience(SERVER))

    async with served(world) as url, over_http(url, world.token(run="r")) as remote:
        first = await allowed(remote)
    async with Client(world.server, client_info=INBOX) as client:
        second = await export(client, meta={META_KEY: local})

    assert first
    assert second.is_error
    assert shared(world) == [False, True]


def another(world: World, folder: Path, name: str) -> World:
    """Return a second server of the same issuer, on the same store."""
    state = State(store=world.state.store, ledger=UnsafeMemoryState().ledger, key=world.state.key)
    guard, exporter = make_guard(folder, world.issuer, state=state)
    server = MCPServer(name, **guard.http_auth())

    @server.tool()
    @guard.tool
    async def export() -> str:
        return "all rows"

    guard.attach(server, identity="meta")
    return World(guard, server, state, exporter, world.issuer, folder)


async def test_two_servers_on_one_store_do_not_share_a_run_by_being_two(tmp_path: Path) -> None:
    """Each sees the client under an address of its own, and is bound for itself; a run that is shared is so at both."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token()

    async with AsyncExitStack() as stack:
        second = another(world, tmp_path, "mail")
        urls = [await stack.enter_async_context(served(one)) for one in (world, second)]
        here = await stack.enter_async_context(over_http(urls[0], token))
        there = await stack.enter_async_context(over_http(urls[1], token, source="127.0.0.2"))
        before = [await allowed(one) for one in (here, there, here, there)]
        thief = await stack.enter_async_context(over_http(urls[1], token, named=CALENDAR))
        after = [await allowed(one) for one in (thief, here, there)]

    assert before == [True] * 4
    assert after == [False] * 3
    assert [len(one.records("shared_run")) for one in (world, second)] == [0, 1]


async def test_replicas_of_one_server_know_of_each_other(tmp_path: Path) -> None:
    """The owner may come to either; a thief is not hidden by coming to the other one."""
    world = make_world(tmp_path, policies=UNSHARED, types=None)
    token = world.token()

    async with AsyncExitStack() as stack:
        replica = another(world, tmp_path, SERVER)
        urls = [await stack.enter_async_context(served(one)) for one in (world, replica)]
        owner = [await stack.enter_async_context(over_http(url, token)) for url in urls]
        before = [await allowed(one) for one in owner]
        thief = await stack.enter_async_context(over_http(urls[1], token, source="127.0.0.2"))
        after = [await allowed(one) for one in (thief, *owner)]

    assert before == [True] * 2
    assert after == [False] * 3
    assert [len(one.records("shared_run")) for one in (world, replica)] == [0, 1]


async def test_child_run_has_a_place_of_its_own(tmp_path: Path) -> None:
    """An agent that another delegates to runs elsewhere, and shares neither; one that is stolen is shared alone."""
    state = UnsafeMemoryState()
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=state.store)
    world = make_world(tmp_path, policies=UNSHARED, types=None, issuer=issuer, state=state, agent=None)

    async with (
        served(world) as url,
        issuer.run(agent="reader", grant=EVERYTHING) as parent,
        parent.delegate(agent="helper", grant=EVERYTHING) as child,
        over_http(url, parent.token()) as above,
        over_http(url, child.token(), named=CALENDAR, source="127.0.0.2") as below,
        over_http(url, child.token(), source="127.0.0.3") as thief,
    ):
        before = [await allowed(one) for one in (above, below, above, below)]
        after = [await allowed(one) for one in (thief, below, above)]

    assert before == [True] * 4
    assert after == [False, False, True]
    assert len(world.records("shared_run")) == 1
