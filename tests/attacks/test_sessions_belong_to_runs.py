"""The SDK binds sessions to client, issuer and subject: without the run in it, runs of one agent share them."""

import json
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import pytest
from mcp.client.context import ClientRequestContext
from mcp.server.mcpserver import Elicit, Resolve
from mcp_types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from tests.world import NESTED, World, make_world, served

ACCEPT = "application/json, text/event-stream"


class Answer(BaseModel):
    """What is asked."""

    sure: bool


def extend(world: World) -> None:
    """Add a tool that asks its caller."""

    async def ask() -> Elicit[Answer]:
        return Elicit("Sure?", Answer)

    @world.server.tool()
    @world.guard.tool
    async def nested(answer: Annotated[Answer, Resolve(ask)]) -> str:
        return f"sure: {answer.sure}"


async def post(http: httpx2.AsyncClient, url: str, token: str, session: str | None, body: dict[str, Any]) -> Any:
    """Send one message, as whoever holds *token*."""
    headers = {"Authorization": f"Bearer {token}", "Accept": ACCEPT, "MCP-Protocol-Version": "2025-11-25"}
    if session is not None:
        headers["mcp-session-id"] = session
    return await http.post(url, json={"jsonrpc": "2.0", **body}, headers=headers)


INITIALIZE: dict[str, Any] = {
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


async def test_second_run_of_an_agent_cannot_touch_the_first_ones_session(tmp_path: Path) -> None:
    """Use, stream and deletion of another run's session are all answered 404."""
    world = make_world(tmp_path)
    first, second = world.token(), world.token()

    async with served(world) as url, httpx2.AsyncClient(timeout=10) as http:
        opened = await post(http, url, first, None, INITIALIZE)
        session = opened.headers["mcp-session-id"]
        listing = {"id": 2, "method": "tools/list", "params": {}}
        own = await post(http, url, first, session, listing)
        used = await post(http, url, second, session, listing)
        headers = {"Authorization": f"Bearer {second}", "mcp-session-id": session, "Accept": "text/event-stream"}
        streamed = await http.get(url, headers=headers)
        deleted = await http.delete(url, headers=headers)
        still = await post(http, url, first, session, {**listing, "id": 3})

    assert own.status_code == still.status_code == 200
    assert [used.status_code, streamed.status_code, deleted.status_code] == [404, 404, 404]


async def test_second_run_cannot_answer_the_first_ones_elicitation(tmp_path: Path) -> None:
    """An answer that comes with another run's token does not reach the waiting tool."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)
    first, second = world.token(), world.token()
    asked = anyio.Event()
    refused: list[int] = []

    async with served(world) as url, httpx2.AsyncClient(timeout=10) as http:

        async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
            # Before the first run answers, the second one tries to, in its session.
            forged = {"id": context.request_id, "result": {"action": "accept", "content": {"sure": True}}}
            reply = await post(http, url, second, sessions[0], forged)
            refused.append(reply.status_code)
            asked.set()
            return ElicitResult(action="accept", content={"sure": False})

        sessions: list[str] = []

        async def keep(response: httpx2.Response) -> None:
            if "mcp-session-id" in response.headers and not sessions:
                sessions.append(response.headers["mcp-session-id"])

        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        async with (
            httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {first}"}, timeout=10, event_hooks={"response": [keep]}
            ) as own,
            Client(streamable_http_client(url, http_client=own), mode="legacy", elicitation_callback=answer) as client,
        ):
            result = await client.call_tool("nested", {})

    assert refused == [404]
    assert "sure: False" in json.dumps(result.model_dump(mode="json"))


async def test_request_state_of_one_run_is_refused_from_another(tmp_path: Path) -> None:
    """In the newer protocol the open question travels with the client, sealed for its run."""
    world = make_world(tmp_path, policies=NESTED, extend=extend)
    first, second = world.token(), world.token()
    asked: list[Any] = []

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params)
        return ElicitResult(action="accept", content={"sure": True})

    sent: list[dict[str, Any]] = []

    async def keep(request: httpx2.Request) -> None:
        if request.content:
            sent.append(json.loads(request.content))

    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with served(world) as url:
        async with (
            httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {first}"}, timeout=10, event_hooks={"request": [keep]}
            ) as own,
            Client(streamable_http_client(url, http_client=own), mode="2026-07-28", elicitation_callback=answer) as one,
        ):
            await one.call_tool("nested", {})
        retry = next(message for message in sent if "requestState" in message.get("params", {}))
        async with httpx2.AsyncClient(timeout=10) as http:
            headers = {
                "Authorization": f"Bearer {second}",
                "Accept": ACCEPT,
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/call",
                "Mcp-Name": "nested",
            }
            stolen = await http.post(url, json=retry, headers=headers)

    assert len(asked) == 1
    assert "sure: True" not in stolen.text
    assert "error" in stolen.text


@pytest.mark.parametrize("token", [None, "not a token"])
async def test_call_without_a_token_is_answered_401(token: str | None, tmp_path: Path) -> None:
    """A bad bearer is stopped before any message is read; a refused token leaves a record."""
    world = make_world(tmp_path)

    async with served(world) as url, httpx2.AsyncClient(timeout=10) as http:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        reply = await http.post(url, json={"jsonrpc": "2.0", **INITIALIZE}, headers={"Accept": ACCEPT, **headers})

    assert reply.status_code == 401
    assert len(world.records("refused_token")) == (0 if token is None else 1)
