"""From where a call comes, and by which token, over each transport and protocol era."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp import Client
from mcp_types import Implementation

from agentguard.adapters.origin import origin
from agentguard.guarding.guarded import direct_call
from agentguard.identity.sources import META_KEY
from agentguard.lifecycle.origin import together
from agentguard.steps.call import Call
from agentguard.testing import acting_as, unsafe_invocation
from tests.adapters.origins import ALL, CALENDAR, INBOX, mark, over_http, stdio_token, told, told_world
from tests.fast import make_fast
from tests.fast import served as fast_served
from tests.world import ERAS, Era, World, listening, make_world, served, text


async def test_client_is_where_it_was_in_every_era_and_session(tmp_path: Path) -> None:
    """A reconnect, a renewed token and another version of the protocol are the same client."""
    world = told_world(tmp_path)
    token, renewed = world.token(run="r"), world.token(run="r")

    async with served(world) as url:
        found = set()
        for era in ERAS:
            for bearer in (token, token, renewed):
                async with over_http(url, bearer, era) as client:
                    place, verified = await told(client)
                found.add(place)
                assert verified == mark(bearer)

    assert len(found) == 1
    assert re.fullmatch("http:[0-9a-f]{16}:[0-9a-f]{16}", found.pop())


@pytest.mark.parametrize("era", ERAS)
async def test_another_name_or_address_is_elsewhere(era: Era, tmp_path: Path) -> None:
    """Each of them is seen alone: a thief who says the same name still has another address."""
    world = told_world(tmp_path)
    token = world.token()

    async with served(world) as url:
        found = set()
        for named in (INBOX, CALENDAR, Implementation(name="inbox", version="1.3")):
            for source in ("127.0.0.1", "127.0.0.2"):
                async with over_http(url, token, era, named=named, source=source) as client:
                    found.add((await told(client))[0])

    assert len(found) == 6
    assert not any(together(one, other) for one in found for other in found - {one})


async def test_stateless_server_cannot_know_the_name_in_the_older_protocol(tmp_path: Path) -> None:
    """Each request stands alone there, so that client may be any at its address; the newer one says its name."""
    world = told_world(tmp_path)
    token = world.token()
    found = {}

    async with served(world, stateless=True) as url:
        for era in ERAS:
            for source in ("127.0.0.1", "127.0.0.2"):
                async with over_http(url, token, era, source=source) as client:
                    found[era, source] = (await told(client))[0]

    older, newer = found["2025-11-25", "127.0.0.1"], found["2026-07-28", "127.0.0.1"]
    assert older.endswith(":")
    assert together(older, newer) == newer
    assert together(older, found["2026-07-28", "127.0.0.2"]) is None
    assert together(older, found["2025-11-25", "127.0.0.2"]) is None


async def test_loopback_is_one_place_by_either_family(tmp_path: Path) -> None:
    """`localhost` is ::1 at one connection and 127.0.0.1 at the next."""
    world = told_world(tmp_path)
    token = world.token()
    found = set()

    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        bound = socket.socket(family)
        bound.bind((host, 0))
        port = bound.getsockname()[1]
        at = f"[{host}]" if ":" in host else host
        async with (
            listening(world.server.streamable_http_app(), bound),
            over_http(f"http://{at}:{port}/mcp", token) as client,
        ):
            found.add((await told(client))[0])

    assert len(found) == 1


@pytest.mark.parametrize("era", ERAS)
async def test_clients_without_http_are_told_apart_by_name(era: Era, tmp_path: Path) -> None:
    """There is no address."""
    world = told_world(tmp_path)
    mode: Any = "legacy" if era == "2025-11-25" else era
    found = []

    for named in (INBOX, INBOX, CALENDAR):
        async with Client(world.server, mode=mode, client_info=named) as client:
            found.append((await told(client))[0])

    assert found[0] == found[1] != found[2]


async def test_token_of_a_requests_meta_is_the_one_that_is_verified(tmp_path: Path) -> None:
    """Each request brings its own."""
    world = told_world(tmp_path, identity="meta")
    tokens = [stdio_token(world), stdio_token(world)]

    async with Client(world.server) as client:
        verified = [(await told(client, {META_KEY: token}))[1] for token in tokens]

    assert verified == [mark(token) for token in tokens]


async def test_whoever_acts_in_a_test_has_no_token(tmp_path: Path) -> None:
    """Through a client in memory it comes over stdio; a function that is called comes from nowhere."""
    world = told_world(tmp_path)

    with acting_as("reader"):
        async with Client(world.server, client_info=INBOX) as client:
            place, token = await told(client)
    direct = direct_call(unsafe_invocation("reader"))

    assert place.startswith("stdio:")
    assert token is None
    assert (direct.origin, direct.token) == ("", None)


async def test_token_is_neither_shown_nor_kept_past_the_request(tmp_path: Path) -> None:
    """It is a secret: no message that holds the request may tell it."""
    calls: list[Call] = []
    shown: list[bool] = []

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def look() -> None:
            call = world.guard._call.get()
            assert call is not None
            assert call.token is not None
            calls.append(call)
            shown.append(call.token in repr(call))

    world = make_world(tmp_path, policies=ALL, types=None, extend=extend)

    async with Client(world.server) as client:
        await client.call_tool("look", {})

    assert shown == [False]
    assert calls[0].token is None


@pytest.mark.parametrize("era", ERAS)
async def test_fastmcp_server_and_one_that_is_mounted_in_it_see_the_same(era: Era, tmp_path: Path) -> None:
    """Both guards judge the one request, and each knows from where it comes and by which token."""
    outer = make_fast(tmp_path / "outer")
    inner = make_fast(tmp_path / "inner", issuer=outer.issuer)
    seen: list[tuple[str, str | None]] = []

    @inner.server.tool
    @inner.guard.tool
    async def where() -> None:
        for one in (outer, inner):
            call = one.guard._call.get()
            assert call is not None
            seen.append((call.origin, call.token))

    inner.attach()
    outer.server.mount(inner.server)
    outer.attach("guard")
    token = outer.token()

    async with fast_served(outer.server) as url, over_http(url, token, era) as client:
        result = await client.call_tool("where", {})

    assert not result.is_error, text(result)
    assert seen[0] == seen[1]
    assert re.fullmatch("http:[0-9a-f]{16}:[0-9a-f]{16}", seen[0][0])
    assert seen[0][1] == token


@pytest.mark.parametrize("request_", [None, SimpleNamespace(client=None, headers={"mcp-session-id": "s"})])
def test_client_that_says_no_name_where_it_could_has_the_empty_one(request_: object) -> None:
    """Over stdio, in a session, and where each request says it, silence is an answer; on a Unix socket, no address."""
    session = SimpleNamespace(client_params=None)
    context = cast("Any", SimpleNamespace(request=request_, session=session, protocol_version="2025-11-25"))

    place = origin(context)

    assert not place.endswith(":")
    assert together(place, place.rpartition(":")[0] + ":other") is None
