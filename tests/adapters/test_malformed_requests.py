"""What the protocol does not know is answered as the SDK answers it, and is recorded all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND

from agentguard.steps.denial import META_KEY
from tests.world import ERAS, Era, make_world, served

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def send(url: str, token: str, era: Era, method: str, **params: Any) -> tuple[int, Any]:
    """Send what no client would, and return the status and the message that come back."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": era,
    }
    if era == "2026-07-28":
        headers |= {"Mcp-Method": method, "Mcp-Name": params.get("name", "")}
        params["_meta"] = ENVELOPE
    async with httpx2.AsyncClient() as http:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await http.post(url, json=message, headers=headers)
    body = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        body = next(line[6:] for line in body.splitlines() if line.startswith("data: "))
    return reply.status_code, json.loads(body)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("params", [{"arguments": "r1"}, {"arguments": {"record_id": "r1"}, "inputResponses": 1}])
async def test_malformed_call_is_a_protocol_error(era: Era, params: dict[str, Any], tmp_path: Path) -> None:
    """No result comes back that a client could take for the tool's; the evidence says what was wrong."""
    world = make_world(tmp_path)

    async with served(world, stateless=True) as url:
        _, message = await send(url, world.token(), era, "tools/call", name="read", **params)

    assert message["error"]["code"] == INVALID_PARAMS
    assert message["error"]["data"][META_KEY]["reason"] == "invalid_argument"
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["invalid_argument"]
    assert world.ran == []


async def test_stranger_learns_nothing_from_a_malformed_call(tmp_path: Path) -> None:
    """Who could never call the tool gets a result like that of a tool that does not exist, whatever was sent."""
    world = make_world(tmp_path)

    async with served(world, stateless=True) as url:
        token = world.token("stranger")
        _, there = await send(url, token, "2026-07-28", "tools/call", name="read", arguments="r1")
        _, absent = await send(url, token, "2026-07-28", "tools/call", name="absent", arguments="r1")

    ids = [one["result"]["_meta"][META_KEY].pop("id") for one in (there, absent)]
    words = [json.dumps(one["result"]).replace(id_, "") for one, id_ in zip((there, absent), ids, strict=True)]
    assert words[0] == words[1]


@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe", "tasks/get"])
async def test_method_of_another_version_is_not_found(method: str, tmp_path: Path) -> None:
    """A policy has no say in what this version of the protocol does not have."""
    world = make_world(tmp_path)

    async with served(world, stateless=True) as url:
        status, message = await send(url, world.token(), "2026-07-28", method)

    assert (status, message["error"]["code"]) == (404, METHOD_NOT_FOUND)
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["unguarded"]
