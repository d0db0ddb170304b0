"""Arguments that no honest caller sends are denied: no crash, no hang, no partial effect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client

from tests.world import World, connected, http_client, make_world, meta, served, text

ALL = '@id("all") permit (principal, action, resource);'


def deep(depth: int) -> Any:
    """Return lists, one in the other; past about 200 the client itself refuses to send them."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def extend(world: World) -> None:
    """Add tools that take what is sent."""

    @world.server.tool()
    @world.guard.tool
    async def take(number: int = 0, ratio: float = 0.5, words: str = "", pairs: dict[str, str] | None = None) -> str:
        world.ran.append("take")
        return "took"

    @world.server.tool()
    @world.guard.tool(exclude=["anything"])
    async def blind(anything: Any, number: int = 0) -> str:
        world.ran.append("blind")
        return "took"


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("take", {"pairs": {"__extn": "unknown"}}),
    ("take", {"pairs": {"__entity": "x"}}),
    ("take", {"pairs": {"__expr": "x"}}),
    ("take", {"words": "x" * 10_000_000}),
    ("take", {"words": "x" * 70_000}),
    ("take", {"pairs": {str(n): "x" * 100 for n in range(3_000)}}),
    ("take", {"ratio": float("nan")}),
    ("take", {"ratio": float("inf")}),
    ("take", {"ratio": 0.00001}),
    ("take", {"number": 2**63}),
    ("take", {"number": -(2**63) - 1}),
    ("take", {"number": 10**400}),
    ("take", {"words": "\ud800"}),
    ("blind", {"anything": deep(60)}),
    ("blind", {"anything": {"__extn": {"fn": "unknown", "arg": "x"}}}),
    ("blind", {"anything": [None] * 300_000}),
]


@pytest.mark.parametrize(("tool", "arguments"), HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_argument_is_denied(tool: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    """It is an invalid argument, it is recorded, and the server goes on."""
    world = make_world(tmp_path, policies=ALL, extend=extend)

    with anyio.fail_after(20):
        async with Client(world.server, mode="2026-07-28") as client:
            result = await client.call_tool(tool, arguments)
            after = await client.call_tool("take", {"number": 1})

    assert meta(result) | {"id": ""} == {"id": "", "effect": "deny", "reason": "invalid_argument", "retry": "change"}
    assert text(after) == "took"
    assert world.ran == ["take"]
    assert [r["agentguard.decision.reason"] for r in world.records()] == ["invalid_argument", "permit"]


@pytest.mark.parametrize(
    "raw",
    [
        '{"words": "%s"}' % ("x" * 10_000_000),
        '{"pairs": %s}' % ("[" * 10_000 + "]" * 10_000),
        '{"ratio": NaN}',
        '{"number": 1%s}' % ("0" * 5_000),
        '{"words": "\\ud800"}',
        '{"number": 1, "number": 2}',
    ],
    ids=["10 MB", "deep", "NaN", "5000 digits", "surrogate", "twice"],
)
async def test_hostile_body_over_http_is_no_crash(raw: str, tmp_path: Path) -> None:
    """What the transport itself refuses is a 4xx or an error; the rest is a denial; nothing is a 500."""
    world = make_world(tmp_path, policies=ALL, extend=extend)
    body = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "take", "arguments": %s}}' % raw  # noqa: UP031
    headers = {
        "Authorization": f"Bearer {world.token()}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2025-11-25",
    }

    with anyio.fail_after(20):
        async with served(world, stateless=True) as url, httpx2.AsyncClient(timeout=15) as http:
            reply = await http.post(url, content=body.encode(), headers=headers)
            async with http_client(url, world.token(), "2025-11-25") as client:
                after = await client.call_tool("take", {"number": 1})

    assert reply.status_code < 500
    if reply.status_code == 200 and "number" not in raw:
        data = next(line[6:] for line in reply.text.splitlines() if line.startswith("data: "))
        message = json.loads(data)
        assert "error" in message or message["result"]["isError"]
    assert text(after) == "took"


async def test_policy_folder_that_vanishes_changes_nothing(tmp_path: Path) -> None:
    """A running server judges by what it loaded."""
    world = make_world(tmp_path / "policies")

    async with connected(world, "memory", "2026-07-28") as client:
        shutil.rmtree(tmp_path / "policies")
        assert not (await client.call_tool("read", {"record_id": "r1"})).is_error
        assert (await client.call_tool("read", {"record_id": "r9"})).is_error
