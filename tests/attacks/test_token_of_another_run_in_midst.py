"""The file that a server over stdio has its token from gets another run's, while a call is running.

Judged by each in turn, one request would act for two runs, and ask for credentials of the one
with the token of the other.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mcp import Client

from agentguard import AccessDenied, Issuer
from agentguard.identity.sources import TOKEN_FILE_VARIABLE, stdio_audience
from tests.adapters.origins import ALL
from tests.world import AUDIENCE, EVERYTHING, ISSUER, SERVER, World, make_world, text


@pytest.mark.parametrize(("run", "expected"), [("r1", "exported by its own"), ("r2", "denied by its own")])
async def test_request_keeps_the_run_that_it_came_with(run: str, expected: str, tmp_path: Path) -> None:
    """A renewed token of the same run goes on; the token of another one is for the next request."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    first, second = (
        issuer.mint(agent="reader", grant=EVERYTHING, run=one, audience=stdio_audience(SERVER)) for one in ("r1", run)
    )
    file = tmp_path / "token"

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def outer() -> str:
            """Call another tool, after the file has changed."""
            put(file, second)
            try:
                await world.server.call_tool("export", {})
                done = "exported"
            except AccessDenied:
                done = "denied"
            call = world.guard._call.get()
            assert call is not None
            kept = {first: "its own", second: "its own" if run == "r1" else "another's"}
            return f"{done} by {kept[call.token or '']}"

    put(file, first)
    os.environ[TOKEN_FILE_VARIABLE] = str(file)
    world = make_world(tmp_path / "world", policies=ALL, types=None, issuer=issuer, agent=None, extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("outer", {})
        after = await client.call_tool("export", {})

    assert text(result) == expected
    assert not after.is_error
    assert world.records()[-1]["agentguard.run.id"] == run


def put(file: Path, token: str) -> None:
    """Leave a token there, as the guardian of a run does: whole, and for this user alone."""
    fresh = file.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(token)
    fresh.replace(file)
