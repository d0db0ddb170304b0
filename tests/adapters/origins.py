"""A world with a tool that tells from where it was called; as a program, over stdio."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

from agentguard.identity.sources import stdio_audience
from tests.stdio_world import RemoteIssuer
from tests.world import AUDIENCE, EVERYTHING, ISSUER, SERVER, Era, World, make_world, text

INBOX = Implementation(name="inbox", version="1.2")
CALENDAR = Implementation(name="calendar", version="1.2")
ALL = '@id("all") ' + EVERYTHING


def mark(token: str) -> str:
    """Return what tells one token from another."""
    return hashlib.sha256(token.encode()).hexdigest()


def telling(world: World) -> None:
    """Add a tool that returns the origin of its call, as the guard knows it, and what tells which token it has.

    The token itself would be stopped on its way out.
    """

    @world.server.tool()
    @world.guard.tool
    async def where() -> str:
        call = world.guard._call.get()
        assert call is not None
        return json.dumps([call.origin, None if call.token is None else mark(call.token)])


def told_world(folder: Path, **options: Any) -> World:
    """Return a world with that tool."""
    return make_world(folder, policies=ALL, types=None, extend=telling, **options)


async def told(client: Client, meta: Any = None) -> tuple[str, str | None]:
    """Return from where a client's call comes, and the mark of the token that it was made by."""
    result = await client.call_tool("where", {}, meta=meta)
    assert not result.is_error, text(result)
    origin, marked = json.loads(text(result))
    return origin, marked


@asynccontextmanager
async def over_http(
    url: str, token: str, era: Era = "2026-07-28", *, named: Implementation | None = INBOX, source: str | None = None
) -> AsyncIterator[Client]:
    """Connect over HTTP under a name, from one of this host's own addresses."""
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx2.AsyncHTTPTransport(local_address=source)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, transport=transport, trust_env=False) as http,
        Client(
            streamable_http_client(url, http_client=http),
            mode="legacy" if era == "2025-11-25" else era,
            client_info=named,
        ) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(world: World, token: str, era: Era, *, named: Implementation) -> AsyncIterator[Client]:
    """Start the world's server as a process, and connect under a name."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tests.adapters.origins", str(world.folder)],
        env={**os.environ, "AGENTGUARD_TOKEN": token, "WORLD_JWKS": json.dumps(world.issuer.jwks())},
        cwd=Path(__file__).parents[2],
    )
    mode: Any = "legacy" if era == "2025-11-25" else era
    async with Client(parameters, mode=mode, client_info=named) as client:
        yield client


def stdio_token(world: World) -> str:
    """Return a token for the world's server over stdio."""
    return world.token(audience=stdio_audience(SERVER))


if __name__ == "__main__":
    told_world(Path(sys.argv[1]), issuer=RemoteIssuer(issuer=ISSUER, audience=AUDIENCE), agent=None).server.run("stdio")
