"""A method that the guard does not know is denied: nobody can say what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import MCPServer
from mcp_types import EmptyResult, PingRequest, Request, RequestParams

from tests.world import ERAS, Era, World, connected, http_client, make_world, serving

ALL = '@id("all") permit (principal, action, resource);'


class Params(RequestParams):
    """What such a request carries."""


class Asked(Request[Params, str]):
    """A request of a method that the protocol does not have."""

    method: str
    params: Params = Params()


def extend(world: World) -> None:
    """Serve methods that the protocol does not have, and one that it has and nobody serves."""

    async def run(*_: object) -> EmptyResult:
        world.ran.append("ran")
        return EmptyResult()

    world.server._lowlevel_server.add_request_handler("acme/wipe", Params, run)


async def told(client: Client, method: str) -> tuple[int, str, object]:
    """Return how a request of *method* is answered."""
    with pytest.raises(MCPError) as refused:
        await client.session.send_request(Asked(method=method), EmptyResult)
    return refused.value.code, refused.value.message, refused.value.data


@pytest.mark.parametrize("transport", ["memory", "http"])
@pytest.mark.parametrize("era", ERAS)
async def test_custom_method_reads_as_one_that_does_not_exist(era: Era, transport: Any, tmp_path: Path) -> None:
    """In the SDK's words; what it names is on record as unguarded."""
    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with connected(world, transport, era) as client:
        served, absent = await told(client, "acme/wipe"), await told(client, "acme/absent")

    assert served == (-32601, "Method not found", "acme/wipe")
    assert absent == (-32601, "Method not found", "acme/absent")
    assert world.ran == []
    assert [(one["agentguard.action.id"], one["agentguard.decision.reason"]) for one in world.records()] == [
        ("acme/wipe", "unguarded"),
        ("acme/absent", "unguarded"),
    ]


async def test_method_of_an_extension_is_denied(tmp_path: Path) -> None:
    """Whoever brought the handler."""
    ran: list[str] = []

    class Acme(Extension):
        identifier = "acme.example/wipe"

        def methods(self) -> Sequence[MethodBinding]:
            async def run(*_: object) -> EmptyResult:
                ran.append("ran")
                return EmptyResult()

            return [MethodBinding(method="acme/wipe", params_type=Params, handler=run)]

    world = make_world(tmp_path, policies=ALL, attach=False)
    server: MCPServer[Any] = MCPServer("acme", extensions=[Acme()], **world.guard.http_auth())
    world.guard.attach(server)

    async with serving(server) as url, http_client(url, world.token()) as client:
        assert (await told(client, "acme/wipe"))[0] == -32601

    assert ran == []


@pytest.mark.parametrize("era", ERAS)
async def test_methods_that_use_nothing_pass(era: Era, tmp_path: Path) -> None:
    """A client can connect and be answered, whoever it is."""
    world = make_world(tmp_path, policies='@id("n") permit (principal in Agent::"nobody", action, resource);')

    async with connected(world, "memory", era) as client:
        if era == "2025-11-25":
            await client.session.send_request(PingRequest(), EmptyResult)

    assert world.records() == []
