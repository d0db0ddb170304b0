"""From where real clients in processes of their own call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentguard.lifecycle.origin import together
from tests.adapters.origins import CALENDAR, INBOX, mark, over_http, over_stdio, stdio_token, told, told_world
from tests.clients.inspector import inspect, install
from tests.world import ERAS, Era, make_world, served


@pytest.mark.parametrize("era", ERAS)
async def test_clients_over_stdio_are_told_apart_by_name(era: Era, tmp_path: Path) -> None:
    """There is no address; a server that is started again has the same client."""
    world = make_world(tmp_path, attach=False)
    token = stdio_token(world)
    found = []

    for named in (INBOX, INBOX, CALENDAR):
        async with over_stdio(world, token, era, named=named) as client:
            place, verified = await told(client)
        assert verified == mark(token)
        found.append(place)

    assert found[0] == found[1] != found[2]
    assert found[0].startswith("stdio:")


async def test_client_of_the_typescript_sdk_is_told_apart_from_one_of_the_python_sdk(tmp_path: Path) -> None:
    """The MCP Inspector, twice, in each era: a process of its own each time, and the same client."""
    program = install()
    world = told_world(tmp_path)
    token = world.token()
    target = ["--transport", "http", "--header", f"Authorization: Bearer {token}", "--stored-auth-only"]
    found = set()

    async with served(world) as url:
        for era in ("legacy", "modern", "modern"):
            call = ["--method", "tools/call", "--tool-name", "where", "--protocol-era", era]
            answer = await inspect(program, tmp_path / "home", *call, *target, "--server-url", url)
            assert answer.exit_code == 0, answer.errors
            place, verified = json.loads(answer.result["content"][0]["text"])
            assert verified == mark(token)
            found.add(place)
        async with over_http(url, token) as client:
            elsewhere = (await told(client))[0]

    assert len(found) == 1
    assert together(found.pop(), elsewhere) is None
