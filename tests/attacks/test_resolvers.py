"""`Resolve` parameters run before a plain decorator: ours run after the decision, or not at all."""

from pathlib import Path
from typing import Annotated

import pytest
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp_types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from tests.world import ERAS, Era, World, _mode, make_world, text


class Answer(BaseModel):
    """What is asked."""

    sure: bool


def extend(world: World) -> None:
    """Add tools with a plain resolver and with one that asks the caller."""

    async def account(record_id: str) -> str:
        world.ran.append(f"resolver {record_id}")
        return "account"

    async def ask(ctx: Context) -> Elicit[Answer]:
        world.ran.append("asked")
        return Elicit("Sure?", Answer)

    @world.server.tool(name="resolving")
    @world.guard.tool(resource="Record::{record_id}")
    async def resolving(record_id: str, found: Annotated[str, Resolve(account)]) -> str:
        return f"{record_id} {found}"

    @world.server.tool(name="asking")
    @world.guard.tool
    async def asking(number: int, answer: Annotated[Answer, Resolve(ask)], ctx: Context) -> str:
        return f"{number} {answer.sure} {ctx.protocol_version}"


POLICIES = """
@id("all") permit (principal, action, resource);
@id("one") forbid (principal, action == Action::"resolving", resource) when { resource.sensitivity == "restricted" };
@id("two") forbid (principal, action == Action::"asking", resource) when { context.input.number == 9 };
"""


async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Say yes."""
    return ElicitResult(action="accept", content={"sure": True})


@pytest.mark.parametrize("era", ERAS)
async def test_resolver_of_a_denied_call_does_not_run(era: Era, tmp_path: Path) -> None:
    """A denied call has run nothing of the tool; an allowed one gets its resolved values."""
    world = make_world(tmp_path, policies=POLICIES, extend=extend)

    async with Client(world.server, mode=_mode(era), elicitation_callback=answer) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        denied = await client.call_tool("resolving", {"record_id": "r9"})
        unasked = await client.call_tool("asking", {"number": 9})
        assert world.ran == []
        allowed = await client.call_tool("resolving", {"record_id": "r1"})
        asked = await client.call_tool("asking", {"number": 1})

    assert denied.is_error
    assert unasked.is_error
    assert text(allowed) == "r1 account"
    assert text(asked) == f"1 True {era}"
    assert set(tools["resolving"].input_schema["properties"]) == {"record_id"}
    assert set(tools["asking"].input_schema["properties"]) == {"number"}
    judged = {guarded.rule.tool.name: guarded.arguments for guarded in world.guard._functions if guarded.rule}
    assert judged["resolving"] == ("record_id",)
    assert judged["asking"] == ("number",)
