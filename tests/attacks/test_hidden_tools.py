"""Asking for what is not on the list, to find out whether it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp import Client
from mcp_types import CallToolResult

from agentguard.testing import acting_as
from tests.world import ERAS, TRANSPORTS, Era, Transport, World, connected, make_world, meta

# The organisation permits a reader more than this.
GRANT = 'permit (principal, action == Action::"read", resource);'
CALLS: tuple[tuple[str, dict[str, object]], ...] = (
    ("export", {}),
    ("export", {"max_rows": 7}),
    ("export", {"max_rows": "many", "stray": None}),
    ("bare", {}),
    ("absent", {}),
    ("absent", {"max_rows": 7}),
)


def wire(result: CallToolResult) -> str:
    """Return a result as it came, but for its decision's id."""
    return result.model_dump_json(by_alias=True).replace(meta(result)["id"], "")


async def answers(client: Client) -> list[str]:
    """Return what is answered to calls of what is hidden, not guarded, and not there."""
    return [wire(await client.call_tool(name, arguments)) for name, arguments in CALLS]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("era", ERAS)
async def test_hidden_tool_answers_like_one_that_does_not_exist(era: Era, transport: Transport, tmp_path: Path) -> None:
    """Byte for byte, whatever is passed, and the list does not have it."""

    def extend(world: World) -> None:
        world.server.add_tool(lambda: "bare", name="bare")

    world = make_world(tmp_path, extend=extend)

    # In memory alone this is who calls; elsewhere it is the token that counts.
    with acting_as("reader", grant=GRANT):
        async with connected(world, transport, era, grant=GRANT) as client:
            listed = await client.list_tools()
            told = await answers(client)

    assert [tool.name for tool in listed.tools] == ["read"]
    assert set(told) == {told[-1]}
    assert world.ran == []


async def test_reason_is_on_record_and_nowhere_else(tmp_path: Path) -> None:
    """Whoever reads the evidence can tell the cases apart."""
    world = make_world(tmp_path)

    with acting_as("reader", grant=GRANT):
        async with Client(world.server) as client:
            await answers(client)

    assert [record["agentguard.decision.reason"] for record in world.records()] == ["grant"] * 3 + ["unguarded"] * 3
