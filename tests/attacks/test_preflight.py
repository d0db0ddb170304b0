"""The SDK validates arguments before any decorator runs: a stranger must learn nothing from that."""

from pathlib import Path
from typing import Annotated

import pytest
from mcp import Client
from pydantic import AfterValidator, FilePath

from agentguard import Entity, EntityUid, Invocation, State
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as
from tests.world import World, make_world, meta, text, write_policies


def extend(world: World) -> None:
    """Add a tool whose validation has effects and a tool that tells whether a file exists."""

    def effect(value: str) -> str:
        world.ran.append("validator")
        return value

    @world.server.tool()
    @world.guard.tool
    async def noisy(value: Annotated[str, AfterValidator(effect)]) -> str:
        return value

    @world.server.tool()
    @world.guard.tool
    async def stat(path: FilePath, depth: int) -> str:
        return str(path)


async def test_validator_of_a_tool_that_is_never_allowed_does_not_run(tmp_path: Path) -> None:
    """The definite no comes before validation."""
    world = make_world(tmp_path, extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("noisy", {"value": "x"})

    assert world.ran == []
    assert meta(result)["reason"] == "denied"
    assert world.records()[-1]["agentguard.decision.reason"] == "no_permit"


async def test_tool_that_is_never_allowed_answers_like_one_that_does_not_exist(tmp_path: Path) -> None:
    """Whether a file, an argument or the tool itself exists cannot be told apart."""
    world = make_world(tmp_path, extend=extend)

    async with Client(world.server) as client:
        answers = [
            await client.call_tool("stat", {"path": "/etc/passwd", "depth": "x"}),
            await client.call_tool("stat", {"path": "/nowhere"}),
            await client.call_tool("nothing", {}),
        ]

    assert {text(answer).replace(meta(answer)["id"], "") for answer in answers} == {
        "Denied by policy. Do not repeat this call unchanged. Decision ."
    }


@pytest.mark.parametrize("path", ["/etc/passwd", "/nowhere"])
async def test_argument_error_of_an_allowed_tool_is_recorded_and_constant(path: str, tmp_path: Path) -> None:
    """An error in another argument tells neither the schema nor whether the file exists."""
    world = make_world(tmp_path, policies='@id("all") permit (principal, action, resource);', extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("stat", {"path": path, "depth": "deep"})

    assert text(result).startswith("The arguments cannot be judged safely (see the tool's schema). Change them.")
    assert world.records()[-1]["agentguard.decision.reason"] == "invalid_argument"


async def test_validator_does_not_run_for_a_user_whom_a_loader_knows_as_suspended(tmp_path: Path) -> None:
    """What loaders know of the principal is asked before the arguments are looked at."""
    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "suspended"}, "attrs": {}, "parents": []}])

    def add(world: World) -> None:
        extend(world)

        @world.guard.entity("User")
        async def user(_: str) -> Entity:
            return Entity({}, [EntityUid("Group", "suspended")])

    world = make_world(
        tmp_path,
        policies='@id("all") permit (principal, action, resource);'
        '@id("no") forbid (principal, action, resource)'
        'when { principal has user && principal.user in Group::"suspended" };',
        extend=add,
    )

    with acting_as("reader", user="mallory"):
        async with Client(world.server) as client:
            result = await client.call_tool("noisy", {"value": "x"})

    assert world.ran == []
    assert meta(result)["reason"] == "denied"


async def test_validator_does_not_run_for_a_run_that_is_over_or_cannot_be_looked_up(tmp_path: Path) -> None:
    """Neither for one that was ended, nor where nobody can tell."""

    class Down(MemoryStore):
        """A store that does not answer."""

        def ended(self, invocation: Invocation) -> bool:
            raise OSError

    for name, store in (("revoked", MemoryStore(clock=lambda: 0.0)), ("down", Down(clock=lambda: 0.0))):
        world = make_world(
            tmp_path / name,
            policies='@id("all") permit (principal, action, resource);',
            extend=extend,
            state=State(store=store, ledger=MemoryLedger(), key=bytes(32)),
        )
        with acting_as("reader") as invocation:
            store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)
            async with Client(world.server) as client:
                result = await client.call_tool("noisy", {"value": "x"})

        assert result.is_error
        assert world.ran == []
