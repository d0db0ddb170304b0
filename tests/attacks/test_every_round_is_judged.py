"""A call of several rounds arrives several times: no decision is carried over from the one before."""

from __future__ import annotations

from pathlib import Path

from mcp import Client
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, InputRequiredResult

from tests.world import World, make_world, meta, text


async def test_second_round_is_judged_like_the_first(tmp_path: Path) -> None:
    """A run that is ended between the rounds does not get its answer, and each round left a decision."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def rounds(ctx: Context) -> str | InputRequiredResult:
            world.ran.append(f"round {ctx.request_state}")
            if ctx.request_state is None:
                if "ended" in endings:
                    world.state.store.revoke(issuer=world.issuer.issuer, run_id=runs[0])
                return InputRequiredResult(request_state="first")
            return "answer"

    endings: list[str] = []
    runs: list[str] = []
    world = make_world(tmp_path, policies='@id("all") permit (principal, action, resource);', extend=extend)

    async with Client(world.server, mode="2026-07-28") as client:
        whole = await client.call_tool("rounds", {})
        runs.append(world.records()[0]["agentguard.run.id"])
        endings.append("ended")
        cut = await client.call_tool("rounds", {})

    assert isinstance(whole, CallToolResult)
    assert text(whole) == "answer"
    assert meta(cut)["reason"] == "ended"
    assert world.ran == ["round None", "round first", "round None"]
    assert [record["agentguard.decision.effect"] for record in world.records()] == ["allow", "allow", "allow"]
    assert world.records("outcome")[-1]["agentguard.execution.outcome"] == "withheld"
