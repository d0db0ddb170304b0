"""What a caller could never use reads like what does not exist, whatever else the caller may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError

from tests.world import ERAS, Era, World, connected, make_world

PLAIN = """
@id("plain") permit (principal, action in [Action::"resources/read", Action::"prompts/get"], resource)
when { resource in Server::"records" };
@id("hide") @advice("This must not be told.")
forbid (principal, action, resource in Server::"records") when { resource is Resource || resource is Prompt };
"""
CLOSED = '@id("other") permit (principal in Agent::"other", action, resource);'


def extend(world: World) -> None:
    """Add what is hidden, and nothing under the names that begin with `no`."""

    @world.server.resource("xx-item://{name}")
    @world.guard.resource
    async def item(name: str) -> str:
        raise AssertionError(name)

    @world.server.resource("xx-static://x")
    @world.guard.resource
    async def static() -> str:
        raise AssertionError

    @world.server.prompt(name="xx-prompt")
    @world.guard.prompt
    async def prompt(topic: str) -> str:
        raise AssertionError(topic)


async def answer(client: Client, kind: str, name: str) -> tuple[object, ...]:
    """Return how a read or a get of *name* is answered, without what differs by nature."""
    ask = client.get_prompt(name, {"stray": "x"}) if kind == "prompt" else client.read_resource(name)
    with pytest.raises(MCPError) as refused:
        await ask
    data: Any = refused.value.data
    told = dict(data.get("agentguard/decision", {})) if isinstance(data, dict) else {}
    identity = told.pop("id", "…")
    text = f"{refused.value.message} {told or data}".replace(identity, "…").replace(name, "NAME")
    return refused.value.code, text


@pytest.mark.parametrize(("policies", "transport"), [(PLAIN, "memory"), (PLAIN, "http"), (CLOSED, "memory")])
@pytest.mark.parametrize("era", ERAS)
async def test_hidden_reads_as_absent(era: Era, transport: Any, policies: str, tmp_path: Path) -> None:
    """For who may read what nobody guards, and for who may not."""
    world = make_world(tmp_path, policies=policies, extend=extend)

    async with connected(world, transport, era) as client:
        for kind, hidden, absent in (
            ("template", "xx-item://x", "no-item://x"),
            ("static", "xx-static://x", "no-static://x"),
            ("prompt", "xx-prompt", "no-prompt"),
        ):
            told = await answer(client, kind, hidden)
            assert told == await answer(client, kind, absent)
            assert "must not be told" not in str(told)

    reasons = [
        one["agentguard.decision.reason"] for one in world.records() if one["agentguard.action.id"].count("/") > 1
    ]
    assert reasons == ["policy" if policies is PLAIN else "no_permit"] * 3


async def test_caller_whose_run_is_over_is_told_so(tmp_path: Path) -> None:
    """That is said before anything else, and says nothing of what there is."""
    world = make_world(tmp_path, policies=PLAIN, extend=extend)
    world.state.store.require_healthy = lambda: (_ for _ in ()).throw(RuntimeError)  # type: ignore[method-assign]

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="Cannot be decided right now"):
            await client.read_resource("xx-item://x")
